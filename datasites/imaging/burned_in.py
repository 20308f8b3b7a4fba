"""Header checks for text in pixels: what a file, a modality or a device says before OCR looks.

The list of devices is `deid`'s own (`deid.dicom`, criteria collected by RSNA's CTP and others).
Only those of its rules are used that say where on the image the device writes, and its lists of
reports; its catch-alls would refuse every derived CT and all images of common scanners.

References: DICOM PS3.3 C.7.6.1.1 (Burned In Annotation), C.8.6.1 (Conversion Type).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from deid.config import DeidRecipe
from pydicom import Dataset

from datasites.imaging.problems import Quarantined, Reason
from datasites.imaging.recipe import without_chatter
from policies.sections import PublishingRule

SUSPECT_MODALITIES = PublishingRule().suspect_modalities
"""Modalities whose images mostly carry text unless they are marked as free of it."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CONVERTED = frozenset({"DF", "DI", "DRW", "DV", "SD", "SI", "WSD"})
_MISSPELT = {"Manfacturer": "Manufacturer", "Manufacture": "Manufacturer"}
_CATCH_ALL = re.compile(r"DERIVED|Secondary", re.IGNORECASE)
_DEVICE = frozenset({"Manufacturer", "ManufacturerModelName", "ImplementationVersionName"})
_SAVED_SCREEN = re.compile(r"SCREEN.?SAVE|REPORT|DEMOGRAPHIC|DOSE.?INFO|PROTOCOL", re.IGNORECASE)
_MARK_IT = "look at the images, and set BurnedInAnnotation (0028,0301) to NO where there is no text"


def suspicion(
    dataset: Dataset, suspect_modalities: Collection[str] = SUSPECT_MODALITIES
) -> Quarantined | None:
    """Why an image may hold text by its header, or nothing; never raises for its content.

    An image marked BurnedInAnnotation NO is not suspect for its modality or for being a secondary
    capture, but stays so as a saved screen or report, and for a device that is known to write on
    images of that size. The device
    rules of a modality that is suspect by default, and not by `suspect_modalities`, are not used.
    """
    header = _Header(dataset)
    marked = header.read("BurnedInAnnotation").upper()
    if marked == "YES":
        return Quarantined(
            Reason.MARKED_BURNED_IN,
            "BurnedInAnnotation (0028,0301) is YES; export the images without annotations",
        )
    modality = header.read("Modality").upper()
    trusted = modality in SUSPECT_MODALITIES and modality not in suspect_modalities
    if not trusted and any(rule.fits(header) for rule in _rules_for(modality)):
        return Quarantined(
            Reason.SUSPECT_DEVICE,
            "devices of this model write text into images of this kind or size; "
            "export the images without annotations",
        )
    if _SAVED_SCREEN.search(header.read("ImageType")):
        return Quarantined(
            Reason.SUSPECT_DEVICE,
            "a saved screen or a report by its ImageType (0008,0008); leave it out of the export",
        )
    if marked == "NO":
        return None
    if modality in suspect_modalities:
        return Quarantined(
            Reason.SUSPECT_DEVICE,
            f"modality {modality} is known for text in its images; {_MARK_IT}",
        )
    is_capture = header.read("SOPClassUID").startswith(_SECONDARY_CAPTURE)
    if not trusted and (is_capture or header.read("ConversionType").upper() in _CONVERTED):
        return Quarantined(
            Reason.SUSPECT_DEVICE,
            f"a secondary capture (a screen, a film or a scanned page) may hold text; {_MARK_IT}",
        )
    return None


class _Header:
    """Texts of a dataset by keyword, each read at most once; several values are joined."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._texts = dataset, dict[str, str]()

    def read(self, keyword: str) -> str:
        if keyword not in self._texts:
            self._texts[keyword] = ""
            with suppress(Exception):  # an unreadable value says nothing
                source = self._dataset
                if keyword == "ImplementationVersionName":
                    source = getattr(source, "file_meta", source)
                value = source.get(keyword, "")
                values = (
                    [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
                )
                self._texts[keyword] = "\\".join(str(each).strip() for each in values)
        return self._texts[keyword]


@dataclass(frozen=True, slots=True)
class _Rule:
    """All of its criteria hold, each of which holds if one of its alternatives does."""

    modality: re.Pattern[str] | None
    criteria: tuple[tuple[tuple[str, re.Pattern[str]], ...], ...]

    def fits(self, header: _Header) -> bool:
        return all(
            any(pattern.search(header.read(keyword)) for keyword, pattern in alternatives)
            for alternatives in self.criteria
        )


@cache
def _rules_for(modality: str) -> tuple[_Rule, ...]:
    return tuple(
        rule for rule in _rules() if rule.modality is None or rule.modality.search(modality)
    )


@cache
def _rules() -> tuple[_Rule, ...]:
    with without_chatter():
        filters = DeidRecipe("dicom").get_filters()
    entries = [
        (name, entry) for name in ("graylist", "blacklist") for entry in filters.get(name, [])
    ]
    return tuple(rule for name, entry in entries if (rule := _read_rule(name, entry)))


def _read_rule(name: str, entry: Mapping[str, Any]) -> _Rule | None:
    """A rule of `deid`, or nothing for one that would refuse ordinary images."""
    criteria, fields, modality = [], set[str](), None
    for group in entry["filters"]:
        if not set(group["action"]) <= {"contains", "equals"}:
            return None
        alternatives = []
        for action, field, value in zip(
            group["action"], group["field"], group["value"], strict=True
        ):
            keyword = _MISSPELT.get(field, field)
            pattern = re.compile(f"^({value})$" if action == "equals" else value, re.IGNORECASE)
            alternatives.append((keyword, pattern))
            fields.add(keyword)
        criteria.append(tuple(alternatives))
        if len(alternatives) == 1 and alternatives[0][0] == "Modality":
            modality = alternatives[0][1]
    values = [value for group in entry["filters"] for value in group["value"]]
    if name == "graylist" and not (entry["coordinates"] and fields & _DEVICE):
        return None
    if name == "blacklist" and any(_CATCH_ALL.search(value) for value in values):
        return None
    return _Rule(modality, tuple(criteria))
