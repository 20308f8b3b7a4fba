"""A look at a source before anything is published: what is in it, and what is wrong with it.

Reads headers only and changes nothing. Values that could identify someone are not collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from datasites.imaging.burned_in import suspicion
from datasites.imaging.deidentify import identify_patient
from datasites.imaging.dicom_file import (
    check_image,
    frame_count,
    parse_dicom,
    text,
    transfer_syntax,
)
from datasites.imaging.preparing import picture_kind, read_item
from datasites.imaging.problems import Quarantined, Reason
from datasites.imaging.recognisable import shows_head
from datasites.imaging.sources.source import Item


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Images that are alike."""

    modality: str
    syntax: str
    photometric: str
    bits: int
    size: str


@dataclass(slots=True)
class Scan:
    """What was found."""

    files: int = 0
    series: int = 0
    images: Counter[Kind] = field(default_factory=Counter)
    """Kind -> frames."""
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Reason and detail -> files that would go to quarantine."""
    heads: Counter[str] = field(default_factory=Counter)
    """CT and MR files that show a head: `yes` or `possibly`."""

    def as_dict(self) -> dict[str, Any]:
        """The scan as JSON types."""
        return {
            "files": self.files,
            "series": self.series,
            "images": [asdict(kind) | {"images": n} for kind, n in self.images.items()],
            "problems": [
                {"reason": reason, "detail": detail, "files": n}
                for (reason, detail), n in self.problems.items()
            ],
            "heads": dict(self.heads),
        }


@dataclass(frozen=True, slots=True)
class Looked:
    """What one item is."""

    kind: Kind | None
    frames: int
    problem: tuple[str, str] | None
    head: str


def look(items: list[Item], suspects: tuple[str, ...]) -> list[Looked]:
    """What each of some items is, from its header."""
    return [_look(item, suspects) for item in items]


def _look(item: Item, suspects: tuple[str, ...]) -> Looked:
    try:
        content = read_item(item)
        if picture := picture_kind(content):
            return Looked(Kind(picture, picture, "", 8, ""), 1, None, "no")
        dataset = parse_dicom(content)
        check_image(dataset)
    except Quarantined as problem:
        return Looked(None, 0, (problem.reason.value, problem.detail), "no")
    syntax = transfer_syntax(dataset)
    kind = Kind(
        text(dataset, "Modality"),
        syntax.name if syntax.is_transfer_syntax else "unknown",
        text(dataset, "PhotometricInterpretation"),
        int(text(dataset, "BitsStored")),
        f"{text(dataset, 'Columns')} x {text(dataset, 'Rows')}",
    )
    suspected = suspicion(dataset, suspects)
    if suspected is None and not identify_patient(dataset):
        suspected = Quarantined(Reason.NO_PATIENT, "PatientID (0010,0020) is empty")
    why = (suspected.reason.value, suspected.detail) if suspected else None
    return Looked(kind, frame_count(dataset), why, shows_head(dataset))


def add_up(scan: Scan, looked: Iterable[Looked | None]) -> None:
    """Count the items of a unit; None is one that ended the process that looked at it."""
    scan.series += 1
    for found in looked:
        scan.files += 1
        if found is None:
            scan.problems["broken file", "the decoder crashes on it"] += 1
            continue
        if found.kind is not None:
            scan.images[found.kind] += found.frames
        if found.problem is not None:
            scan.problems[found.problem] += 1
        if found.head != "no":
            scan.heads[found.head] += 1
