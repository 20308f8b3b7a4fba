"""Names of the de-identification methods that a policy can demand.

References: DICOM PS3.16, CID 7050 De-identification Method; PS3.15, Annex E.
"""

from __future__ import annotations

METHODS = {
    "113100": "basic profile",
    "113101": "clean pixel data",
    "113102": "clean recognizable visual features",
    "113103": "clean graphics",
    "113104": "clean structured content",
    "113105": "clean descriptors",
    "113106": "retain full dates",
    "113107": "retain modified dates",
    "113108": "retain patient characteristics",
    "113109": "retain device identity",
    "113110": "retain UIDs",
    "113111": "retain safe private attributes",
    "113112": "retain institution identity",
}


def method_in_words(code: str) -> str:
    """`113100 (basic profile)`; a code that this version does not know stands alone."""
    return f"{code} ({METHODS[code]})" if code in METHODS else code
