"""The de-identification certificate of a dataset version: what was done to it, signed by the site.

It stands in the version as `deidentification.json`, so that the version's hash covers it. It counts
and names no one. References: DICOM PS3.15 Annex E; the codes are those of CID 7050 (PS3.16), as in
De-identification Method Code Sequence (0012,0064).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from datasites.catalogue import CERTIFICATE
from datasites.errors import DatasetError
from datasites.keys import SiteKey, is_signed
from policies.strict import Strict, canonical_json

PURPOSE = "deidentification certificate"
NOT_APPLIED = (
    "113101 Clean Pixel Data: pixels are not altered",
    "113102 Clean Recognizable Visual Features: faces are not removed from CT and MR of heads",
)


class Method(Strict):
    """One code of De-identification Method Code Sequence (0012,0064)."""

    code: str
    """Code value, scheme DCM."""
    meaning: str
    """Code meaning."""


class Action(Strict):
    """What was done with one attribute."""

    attribute: str
    """Tag and keyword; never a value."""
    action: str
    """`removed`, `emptied`, `replaced`, `remapped`, `shifted`, `cut to the year`, `kept`."""
    count: int
    """In how many files."""


class TextSearch(Strict):
    """What optical character recognition did."""

    tool: str | None
    """Tesseract and its version; None when the search was not made."""
    searched: int
    """Images that were searched."""
    found: int
    """Images in which words were read; they are in quarantine."""


class Certificate(Strict):
    """The certificate of one version."""

    dataset: str
    """Name of the dataset."""
    site: str
    """Name of the site."""
    source: str
    """Kind of the source."""
    published_at: str
    """UTC."""
    published_by: str
    """Who published, as they named themselves."""
    methods: tuple[Method, ...]
    """Profile and options that were applied; empty where there was no header to de-identify."""
    recipe_sha256: str | None
    """Of the exact recipe text."""
    not_applied: tuple[str, ...] = NOT_APPLIED
    """What was not done, in words."""
    actions: tuple[Action, ...]
    """The action taken per attribute, with counts."""
    text_search: TextSearch
    """Optical character recognition."""
    images: int
    """Images of the version."""
    patients: int | None
    """Patients of the version; None when nobody knows."""
    smallest_group: int
    """Images of the smallest class in any split."""
    quarantined: dict[str, int]
    """Reason -> files or images that were left out."""
    recognisable: dict[str, int]
    """CT and MR files that show a head: `yes` by their header, or `possibly`."""
    look_alikes: int
    """Images with the perceptual hash of another patient's; kept in one split."""
    seed: int | None
    """Of the splits; None when the source brought its own."""
    arrays: dict[str, str]
    """Array file -> SHA-256."""
    standardisation_sha256: str | None
    """Digest of the description."""
    tools: dict[str, str]
    """Libraries and programs -> version."""
    parent: str | None = None
    """The version before this one."""
    withdrawn_patients: int = Field(default=0, ge=0)
    """Patients of the parent that were withdrawn."""


def sign_certificate(certificate: Certificate, key: SiteKey) -> bytes:
    """The certificate's file: the document, the site's public key and its signature."""
    document = certificate.model_dump(mode="json")
    return canonical_json(
        {
            "certificate": document,
            "public_key": key.public_hex,
            "signature": key.sign(PURPOSE, canonical_json(document)),
        }
    )


def find_certificate(
    datasets: Path, version: str, public_key: str | None = None
) -> Certificate | None:
    """The certificate of a version, None when there is none that this site signed."""
    try:
        return read_certificate(datasets, version, public_key)
    except DatasetError:
        return None


def read_certificate(datasets: Path, version: str, public_key: str | None = None) -> Certificate:
    """The certificate of a version, its signature verified.

    Args:
        datasets: The store.
        version: The version.
        public_key: The key that must have signed it; None for the one that it names.

    Raises:
        DatasetError: There is none, it is broken, or its signature is not the site's.
    """
    try:
        plain: dict[str, Any] = json.loads((datasets / version / CERTIFICATE).read_bytes())
        document = canonical_json(plain["certificate"])
        certificate = Certificate.model_validate(plain["certificate"])
        named, signature = plain["public_key"], plain["signature"]
    except FileNotFoundError as error:
        raise DatasetError(f"version {version[:12]} has no certificate") from error
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DatasetError(f"the certificate of version {version[:12]} is broken") from error
    if (public_key or named) != named or not is_signed(named, PURPOSE, document, signature):
        raise DatasetError(f"the certificate of version {version[:12]} is not signed by this site")
    return certificate
