"""Dataset versions on disk: written once, named by the hash of their content, then read-only.

One directory per version: `{split}_images.npy`, `{split}_labels.npy`, `{split}_patients.npy` and,
where there are subgroups, `{split}_group_{name}.npy` (memory-mapped by runs), `card.json`, and
`deidentification.json`, the certificate. Publishing in syft is registering a handle to it and a
mock; no pixel enters syft.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, ValidationError

from datasites.errors import DatasetError
from datasites.files import sync_directory
from datasites.imaging.standardise import Standardisation
from datasites.imaging.subgroups import Subgroups, check_members, shown_counts
from policies.contract import Name
from policies.strict import Strict, canonical_json, some

CERTIFICATE = "deidentification.json"
ROWS_AT_A_TIME = 256


class Rows(Protocol):
    """Images, (N, H, W) or (N, H, W, C), of which slices are read: an array, or rows of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and the shape of one image."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]: ...


SplitArrays = tuple[Rows, NDArray[np.int64]]
"""Images, and labels (N,)."""


class Card(Strict):
    """What a researcher may know of a dataset version."""

    name: Name
    """The dataset's name."""
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    """What it is, in the data owner's words."""
    source: Annotated[str, StringConstraints(max_length=200)]
    """Where the images come from."""
    licence: Annotated[str, StringConstraints(max_length=200)]
    """Under which conditions they may be used."""
    shape: tuple[int, ...] = Field(min_length=2, max_length=3)
    """Shape of one image: (H, W) or (H, W, C)."""
    dtype: str = "uint8"
    """Type of a pixel."""
    classes: tuple[Annotated[str, StringConstraints(min_length=1, max_length=80)], ...] = Field(
        min_length=2, max_length=1000
    )
    """Class names; a label is an index into them."""
    counts: dict[str, dict[str, int | None]]
    """Split -> class -> number of images; null where it is below `minimum_count`, zero included."""
    minimum_count: int = Field(ge=2)
    """Numbers below this are not shown."""
    patients: dict[str, int | None] = Field(default={})
    """Split -> number of patients, suppressed as counts are; empty when nobody knows."""
    standardisation: Standardisation | None = None
    """How files became arrays; None when the source held arrays already."""
    modalities: tuple[str, ...] = ()
    """DICOM modalities, PNG or JPEG."""
    deidentification: tuple[str, ...] = ()
    """Codes of the methods that the certificate lists (CID 7050, as in (0012,0064))."""
    recognisable: bool = False
    """Whether CT or MR of heads may show faces (113102 is not applied)."""
    made_with: dict[str, str] = Field(default={})
    """Libraries that decode and resize -> version: the same ones give the same bits."""
    parent: str | None = None
    """The version before this one."""
    added: int | None = None
    """Images that the parent does not have, suppressed as counts are."""
    withdrawn: int | None = None
    """Images of the parent that are not here, suppressed as counts are."""
    groups: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=lambda groups: not groups)
    """Attribute, such as `sex` -> its values; an image's place is an index into them, -1 for none.

    This field and the next are left out where they are empty: cards without them keep their hash.
    """
    group_counts: dict[str, dict[str, dict[str, int | None]]] = Field(
        default={}, exclude_if=lambda counts: not counts
    )
    """Split -> attribute -> value -> number of images; null where it is small or would tell one."""

    def images(self, split: str) -> int | None:
        """Images in a split, None when a class is suppressed."""
        numbers = self.counts.get(split, {}).values()
        return None if None in numbers else sum(n for n in numbers if n is not None)


Certify = Callable[[Card, dict[str, str]], bytes]
"""Makes the certificate of a version from its card and the SHA-256 of each array file."""


def write_version(
    datasets: Path,
    splits: Mapping[str, SplitArrays],
    *,
    name: str,
    classes: tuple[str, ...],
    source: str,
    licence: str,
    description: str,
    minimum_count: int,
    patients: Mapping[str, NDArray[np.int32]] | None = None,
    subgroups: Subgroups | None = None,
    certify: Certify | None = None,
    remember: Callable[[str], None] = lambda _: None,
    retired: Collection[str] = (),
    **about: Any,
) -> tuple[str, Card]:
    """Write a dataset version and give its hash and card; the same content is the same version.

    Args:
        datasets: The store.
        splits: Split -> images and labels.
        name: The dataset's name.
        classes: Class names.
        source: Where the images come from.
        licence: Under which conditions they may be used.
        description: What it is.
        minimum_count: Numbers below this are suppressed in the card.
        patients: Split -> the patient of each image, (N,), numbered from 0.
        subgroups: To which value of each attribute each image belongs.
        certify: Makes the certificate; without it the version has none.
        remember: Called with the version before it gets its name, to write what belongs to it.
        retired: Versions that are not taken for this one, whatever their content: nothing runs on
            them any more, or they were certified otherwise.
        about: More fields of the card.

    Raises:
        DatasetError: A label has no class name, the training split is empty, or subgroups do not
            fit the images.
    """
    _check_labels(splits, classes)
    counts = {
        split: {
            title: _shown(int((labels == k).sum()), minimum_count)
            for k, title in enumerate(classes)
        }
        for split, (_, labels) in splits.items()
    }
    images = splits["train"][0]
    if patients is not None:
        about["patients"] = {
            split: _shown(len(np.unique(numbers)), minimum_count)
            for split, numbers in patients.items()
        }
    subgroups = subgroups or Subgroups({}, {})
    if subgroups.values:
        check_members(subgroups, {split: len(labels) for split, (_, labels) in splits.items()})
        about["groups"] = dict(subgroups.values)
        about["group_counts"] = {
            split: {
                name: shown_counts(subgroups.members[split][name], values, minimum_count)
                for name, values in subgroups.values.items()
            }
            for split in splits
        }
    for change in ("added", "withdrawn"):
        if about.get(change) is not None:
            about[change] = _shown(about[change], minimum_count)
    try:
        card = Card(
            name=name,
            description=description,
            source=source,
            licence=licence,
            shape=tuple(int(n) for n in images.shape[1:]),
            dtype=images.dtype.name,
            classes=classes,
            counts=counts,
            minimum_count=minimum_count,
            **about,
        )
    except ValidationError as error:
        raise DatasetError(f"the card does not fit: {error.errors()[0]['msg']}") from error

    datasets.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_dead_drafts(datasets)
    draft = datasets / f".draft-{os.getpid()}"
    draft.mkdir(mode=0o700)
    try:
        for split, (rows, labels) in splits.items():
            _save(draft / f"{split}_images.npy", rows)
            np.save(draft / f"{split}_labels.npy", labels)
            if patients is not None:
                np.save(draft / f"{split}_patients.npy", patients[split].astype(np.int32))
            for name in subgroups.values:
                places = subgroups.members[split][name].astype(np.int8)
                np.save(draft / f"{split}_group_{name}.npy", places)
        files = _files_sha256(draft)
        if (same := _same_content(datasets, card, files, retired)) is not None:
            os.utime(datasets / same / "card.json")  # it is the latest again
            return same, read_card(datasets, same)
        (draft / "card.json").write_bytes(canonical_json(card.model_dump(mode="json")))
        if certify is not None:
            (draft / CERTIFICATE).write_bytes(certify(card, files))
        version = _content_sha256(draft)
        if not (datasets / version).exists():
            remember(version)
            _seal(draft)
            draft.rename(datasets / version)
            sync_directory(datasets)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    return version, card


def _check_labels(splits: Mapping[str, SplitArrays], classes: tuple[str, ...]) -> None:
    highest = max((int(labels.max()) for _, labels in splits.values() if len(labels)), default=-1)
    if highest >= len(classes):
        raise DatasetError(
            f"there is a label {highest}, and {len(classes)} class names "
            f"({some(classes, 10)}); name {highest + 1} classes with --classes"
        )
    lowest = min((int(labels.min()) for _, labels in splits.values() if len(labels)), default=0)
    if lowest < 0:
        raise DatasetError(f"there is a label {lowest}; labels are counted from 0")
    if len(set(classes)) < len(classes):
        raise DatasetError("two classes have the same name; name each class differently")
    if "train" not in splits or not len(splits["train"][0]):
        raise DatasetError("the training split is empty; there is nothing to publish")


def _save(path: Path, rows: Rows) -> None:
    """Write images as `.npy`, a few at a time: they need not fit into memory."""
    with path.open("wb") as file:
        header = {"descr": rows.dtype.str, "fortran_order": False, "shape": tuple(rows.shape)}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            file.write(np.ascontiguousarray(rows[start : start + ROWS_AT_A_TIME]).tobytes())


def _same_content(
    datasets: Path, card: Card, files: dict[str, str], retired: Collection[str]
) -> str | None:
    """A version with the same arrays and card, whoever certified it and whatever came before."""
    lineage = {"parent": None, "added": None, "withdrawn": None}
    wanted = card.model_copy(update=lineage)
    for version in set(versions_on_disk(datasets)) - set(retired):
        if read_card(datasets, version).model_copy(update=lineage) == wanted:
            theirs = _files_sha256(datasets / version)
            if {name: theirs.get(name) for name in files} == files:
                return version
    return None


def read_card(datasets: Path, version: str) -> Card:
    """The card of a version.

    Raises:
        DatasetError: There is no such version, or its card is broken.
    """
    try:
        return Card.model_validate_json((datasets / version / "card.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise DatasetError(f"there is no dataset version {version[:12]} here") from error


def last_published(datasets: Path, version: str) -> int:
    """When a version was published last, in nanoseconds; the same content may be published again.

    Raises:
        DatasetError: There is no such version.
    """
    try:
        return (datasets / version / "card.json").stat().st_mtime_ns
    except OSError as error:
        raise DatasetError(f"there is no dataset version {version[:12]} here") from error


def is_intact(datasets: Path, version: str) -> bool:
    """Whether a version's content still has the hash that names it."""
    try:
        return _content_sha256(datasets / version) == version
    except OSError:
        return False


def versions_on_disk(datasets: Path) -> list[str]:
    """The versions in the store."""
    if not datasets.is_dir():
        return []
    return sorted(p.name for p in datasets.iterdir() if len(p.name) == 64 and p.is_dir())


def _remove_dead_drafts(datasets: Path) -> None:
    """Remove what processes left that were killed while they wrote; it holds images."""
    for draft in datasets.glob(".draft-*"):
        pid = draft.name.removeprefix(".draft-")
        if pid == str(os.getpid()) or not Path("/proc", pid).exists():
            shutil.rmtree(draft)


def _shown(count: int, minimum: int) -> int | None:
    return count if count >= minimum else None


def _files_sha256(directory: Path) -> dict[str, str]:
    files = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            files[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return files


def _content_sha256(directory: Path) -> str:
    return hashlib.sha256(canonical_json(_files_sha256(directory))).hexdigest()


def _seal(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(0o400)
    sync_directory(directory)
    directory.chmod(0o500)


def handle(name: str, version: str) -> dict[str, str]:
    """What syft stores instead of images."""
    return {"dataset": name, "version": f"sha256:{version}"}
