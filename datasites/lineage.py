"""What a site remembers of a version beside the arrays: whose image each row is, by keyed hash.

It stays outside the version's directory, so that approved code does not see it. It lets a patient
be withdrawn, and keeps patients in their split from version to version. One JSON line per image;
in a file of their own, the de-identified headers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from datasites.catalogue import last_published, read_card, versions_on_disk
from datasites.errors import DatasetError
from datasites.files import write_private


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a version.

    Attributes:
        split: Its split.
        row: Its row in the split's arrays.
        patient: Key of the patient.
        instance: Key of the SOP instance.
        frame: Frame of the instance.
        label: Its class.
    """

    split: str
    row: int
    patient: str
    instance: str
    frame: int
    label: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """The images of a version, and the version before it."""

    members: tuple[Member, ...]
    parent: str | None

    @property
    def split_of_patient(self) -> dict[str, str]:
        """Patient -> split."""
        return {member.patient: member.split for member in self.members}


Headers = Iterable[tuple[str, int, str]]
"""Split, row and de-identified header (DICOM JSON Model, PS3.18 Annex F) of each image."""


def write_lineage(lineages: Path, version: str, lineage: Lineage, headers: Headers) -> None:
    """Keep the lineage of a version and its headers; what is there stays as it is."""
    lineages.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = lineages / f"{version}.jsonl"
    if path.exists():
        return
    draft = lineages / f".{version}.headers"
    with draft.open("w", encoding="utf-8") as file:
        draft.chmod(0o600)
        for split, row, header in headers:
            file.write(f'["{split}",{row},{header}]\n')
        file.flush()
        os.fsync(file.fileno())
    draft.rename(lineages / f"{version}.headers.jsonl")
    lines = [json.dumps({"parent": lineage.parent, "images": len(lineage.members)})]
    lines += [json.dumps(asdict(member), separators=(",", ":")) for member in lineage.members]
    write_private(path, ("\n".join(lines) + "\n").encode())


def read_headers(lineages: Path, version: str) -> Iterator[tuple[str, int, str]]:
    """Split, row and header of each image, as they were written."""
    with (lineages / f"{version}.headers.jsonl").open(encoding="utf-8") as file:
        for line in file:
            split, row, header = json.loads(line)
            yield split, row, json.dumps(header, separators=(",", ":"))


def read_lineage(lineages: Path, version: str) -> Lineage | None:
    """The lineage of a version, None for one that was published as arrays.

    Raises:
        DatasetError: It is broken.
    """
    try:
        first, *lines = (lineages / f"{version}.jsonl").read_text().splitlines()
        members = tuple(Member(**json.loads(line)) for line in lines)
        about = json.loads(first)
        if len(members) != about["images"]:
            raise ValueError("lines are missing")
        return Lineage(members, about["parent"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"what the site remembers of version {version[:12]} is broken; restore state/lineages"
        ) from error


def withdrawn_patients(lineages: Path, name: str) -> frozenset[str]:
    """Keys of the patients that were withdrawn from a dataset; they do not come back."""
    path = lineages / "withdrawn.json"
    plain = json.loads(path.read_text()) if path.exists() else {}
    return frozenset(plain.get(name, ()))


def remember_withdrawn(lineages: Path, name: str, patients: Collection[str]) -> None:
    """Remember that patients were withdrawn from a dataset."""
    lineages.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = lineages / "withdrawn.json"
    plain: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
    plain[name] = sorted({*plain.get(name, ()), *patients})
    write_private(path, json.dumps(plain).encode())


def retire(lineages: Path, version: str, reason: str) -> None:
    """Let nothing run on a version any more; it stays on disk as evidence."""
    lineages.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(lineages / f"{version}.retired", reason.encode())


def retired_versions(lineages: Path) -> frozenset[str]:
    """The versions that nothing may run on any more."""
    return frozenset(path.stem for path in lineages.glob("*.retired"))


def retired_because(lineages: Path, version: str) -> str | None:
    """Why nothing may run on a version any more; None when it may."""
    path = lineages / f"{version}.retired"
    return path.read_text() if path.exists() else None


def latest_version(datasets: Path, lineages: Path, name: str) -> str | None:
    """The version of a dataset that was published last and is not retired."""
    mine = [v for v in versions_on_disk(datasets) if read_card(datasets, v).name == name]
    live = [v for v in mine if retired_because(lineages, v) is None]
    return max(live, key=lambda v: last_published(datasets, v), default=None)
