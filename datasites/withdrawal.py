"""Withdrawing a patient: a new version without them, nothing more runs on the old one.

The patient is matched by the original identifier, which is hashed with the site's secret and kept
nowhere. What was trained on the old version cannot be undone, so it is listed.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from datasites.catalogue import (
    Card,
    SplitArrays,
    read_card,
    versions_on_disk,
    write_version,
)
from datasites.certificate import Certificate, read_certificate, sign_certificate
from datasites.config import Site
from datasites.errors import DatasetError
from datasites.imaging.labels import key_of
from datasites.imaging.subgroups import Subgroups
from datasites.keys import load_pseudonyms, load_site_key
from datasites.lineage import (
    Lineage,
    Member,
    latest_version,
    read_headers,
    read_lineage,
    remember_withdrawn,
    retire,
    retired_versions,
    write_lineage,
)
from datasites.minimums import check_minimums, smallest_group
from datasites.records import ApprovalRow, Records, RequestRow, RunRow
from policies.contract import Terms


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was approved for a version, and what left on it."""

    request: int
    researcher: str
    title: str
    state: str
    released: int
    """Updates that left the hospital."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a withdrawal did."""

    old: str
    new: str
    card: Card
    images: int
    seen: tuple[Seen, ...]

    def as_dict(self) -> dict[str, Any]:
        """The withdrawal as JSON types."""
        return {
            "old": self.old,
            "new": self.new,
            "images": self.images,
            "seen": [asdict(row) for row in self.seen],
        }


def withdraw_patient(site: Site, name: str, patient_id: str, person: str) -> Withdrawal:
    """Make the latest version of a dataset anew without one patient; retire the old one.

    Raises:
        DatasetError: There is no such dataset or patient, or too little would be left.
    """
    old = latest_version(site.datasets, site.lineages, name)
    if old is None:
        raise DatasetError(f"there is no dataset `{name}` here; see `sitegate dataset list`")
    lineage = read_lineage(site.lineages, old)
    if lineage is None:
        raise DatasetError(
            f"`{name}` was published as arrays, without patients; publish it again without them"
        )
    pseudonyms = load_pseudonyms(site.keys)
    wanted = {key_of(pseudonyms, "patient", patient_id.strip())}
    holding = _versions_with(site, name, wanted)
    if not holding:
        raise DatasetError(f"`{name}` has no image of this patient in any version")
    gone = [member for member in lineage.members if member.patient in wanted]
    shutil.rmtree(site.state / "imports", ignore_errors=True)  # what was read and not published
    remember_withdrawn(site.lineages, name, wanted)
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    if not gone:
        for version in holding:
            retire(site.lineages, version, f"a patient was withdrawn on {when}")
        card = read_card(site.datasets, old)
        return Withdrawal(old, old, card, 0, tuple(_seen(site, holding)))
    left = [member for member in lineage.members if member.patient not in wanted]
    card = read_card(site.datasets, old)
    splits, patients = _rows_left(site, old, card, left)
    _check_left(site, card, splits, len({member.patient for member in left}))

    places = dict.fromkeys(splits, 0)
    members = []
    moved: dict[tuple[str, int], int] = {}
    for member in left:
        moved[member.split, member.row] = places[member.split]
        members.append(replace(member, row=places[member.split]))
        places[member.split] += 1
    headers = (
        (split, moved[split, row], header)
        for split, row, header in read_headers(site.lineages, old)
        if (split, row) in moved
    )

    def remember(version: str) -> None:
        write_lineage(site.lineages, version, Lineage(tuple(members), old), headers)

    def certify(made: Card, files: dict[str, str]) -> bytes:
        before = read_certificate(site.datasets, old)
        return sign_certificate(
            _certificate(before, made, files, old, person, splits, left), load_site_key(site.keys)
        )

    about = card.model_dump(
        include={"standardisation", "modalities", "deidentification", "recognisable", "made_with"}
    )
    new, made = write_version(
        site.datasets,
        splits,
        name=name,
        classes=card.classes,
        source=card.source,
        licence=card.licence,
        description=card.description,
        minimum_count=card.minimum_count,
        patients=patients,
        subgroups=_subgroups_left(site, old, card, left, splits),
        certify=certify,
        remember=remember,
        retired=retired_versions(site.lineages),
        **about,
        parent=old,
        added=0,
        withdrawn=len(gone),
    )
    for version in holding:
        retire(site.lineages, version, f"a patient was withdrawn on {when}")
    return Withdrawal(old, new, made, len(gone), tuple(_seen(site, holding)))


def _versions_with(site: Site, name: str, patients: Collection[str]) -> list[str]:
    """Every version of a dataset, retired ones too, that has an image of one of the patients."""
    found = []
    for version in versions_on_disk(site.datasets):
        lineage = read_lineage(site.lineages, version)
        if lineage is None or read_card(site.datasets, version).name != name:
            continue
        if any(member.patient in patients for member in lineage.members):
            found.append(version)
    return found


def _rows_left(
    site: Site, old: str, card: Card, left: list[Member]
) -> tuple[dict[str, SplitArrays], dict[str, NDArray[np.int32]]]:
    numbers = {p: n for n, p in enumerate(dict.fromkeys(m.patient for m in left))}
    splits: dict[str, SplitArrays] = {}
    patients: dict[str, NDArray[np.int32]] = {}
    for split in card.counts:
        mine = [member for member in left if member.split == split]
        if not mine:
            continue
        images = np.load(site.datasets / old / f"{split}_images.npy", mmap_mode="r")
        rows = np.array([member.row for member in mine])
        splits[split] = (_Chosen(images, rows), np.array([m.label for m in mine], np.int64))
        patients[split] = np.array([numbers[m.patient] for m in mine], np.int32)
    return splits, patients


def _subgroups_left(
    site: Site, old: str, card: Card, left: list[Member], splits: Collection[str]
) -> Subgroups:
    members = {
        split: {
            name: np.load(site.datasets / old / f"{split}_group_{name}.npy") for name in card.groups
        }
        for split in splits
    }
    rows = {split: np.array([m.row for m in left if m.split == split]) for split in splits}
    return Subgroups(card.groups, members).chosen(rows)


class _Chosen:
    """Rows of a memory-mapped array, read when they are looked at."""

    def __init__(self, images: NDArray[Any], rows: NDArray[np.intp]) -> None:
        self._images, self._rows = images, rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        return np.asarray(self._images[self._rows[wanted]])


def _check_left(site: Site, card: Card, splits: dict[str, SplitArrays], patients: int) -> None:
    policy = site.policy()
    try:
        check_minimums(policy, splits, card.classes, patients)
    except DatasetError as error:
        raise DatasetError(
            f"without this patient too little is left of `{card.name}` for policy {policy.title} "
            "(its minimums of images and patients). Retire the whole dataset with "
            "`sitegate dataset retire`"
        ) from error


def _certificate(
    before: Certificate,
    card: Card,
    files: dict[str, str],
    old: str,
    person: str,
    splits: dict[str, SplitArrays],
    left: list[Member],
) -> Certificate:
    """The parent's certificate, with what is different now."""
    return before.model_copy(
        update={
            "published_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "published_by": person,
            "images": len(left),
            "patients": len({member.patient for member in left}),
            "smallest_group": smallest_group(splits, len(card.classes)),
            "arrays": files,
            "parent": old,
            "withdrawn_patients": 1,
        }
    )


def _seen(site: Site, versions: Collection[str]) -> Iterator[Seen]:
    """Who was approved for some versions, and how many updates left on them."""
    records = Records(site.database_url)
    try:
        with records.read() as session:
            for approval in session.scalars(select(ApprovalRow)):
                request = session.get_one(RequestRow, approval.request)
                terms = Terms.model_validate_json(request.terms)
                if terms.version not in versions:
                    continue
                runs = session.scalars(select(RunRow).where(RunRow.approval == approval.id)).all()
                released = sum(run.state == "released" for run in runs)
                yield Seen(request.id, request.account, terms.title, request.state, released)
    finally:
        records.close()


def retire_dataset(site: Site, name: str, reason: str) -> tuple[str, tuple[Seen, ...]]:
    """Let nothing run on a dataset any more; its latest version, and who saw it.

    Raises:
        DatasetError: There is no such dataset.
    """
    version = latest_version(site.datasets, site.lineages, name)
    if version is None:
        raise DatasetError(f"there is no dataset `{name}` here; see `sitegate dataset list`")
    retire(site.lineages, version, " ".join(reason.split()))
    return version, tuple(_seen(site, [version]))
