"""Dataset versions on disk: written once, named by the hash of their content, then read-only.

One directory per version: `{split}_images.npy` and `{split}_labels.npy` (memory-mapped by runs) and
`card.json`. Publishing in syft is registering a handle to it and a mock; no pixel enters syft.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, ValidationError

from datasites.errors import DatasetError
from datasites.files import sync_directory
from policies.contract import Name
from policies.strict import Strict, canonical_json, some

SplitArrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


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

    def images(self, split: str) -> int | None:
        """Images in a split, None when a class is suppressed."""
        numbers = self.counts.get(split, {}).values()
        return None if None in numbers else sum(n for n in numbers if n is not None)


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
) -> tuple[str, Card]:
    """Write a dataset version and give its hash and card; the same content is the same version.

    Raises:
        DatasetError: A label has no class name, or the training split is empty.
    """
    shape = tuple(int(n) for n in splits["train"][0].shape[1:])
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
    if not len(splits["train"][0]):
        raise DatasetError("the training split is empty; there is nothing to publish")
    counts = {
        split: {
            title: _shown(int((labels == k).sum()), minimum_count)
            for k, title in enumerate(classes)
        }
        for split, (_, labels) in splits.items()
    }
    try:
        card = Card(name=name, description=description, source=source, licence=licence, shape=shape,
                    classes=classes, counts=counts, minimum_count=minimum_count)  # fmt: skip
    except ValidationError as error:
        raise DatasetError(f"the card does not fit: {error.errors()[0]['msg']}") from error

    datasets.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_dead_drafts(datasets)
    draft = datasets / f".draft-{os.getpid()}"
    draft.mkdir(mode=0o700)
    try:
        for split, (images, labels) in splits.items():
            np.save(draft / f"{split}_images.npy", images)
            np.save(draft / f"{split}_labels.npy", labels)
        (draft / "card.json").write_bytes(canonical_json(card.model_dump(mode="json")))
        version = _content_sha256(draft)
        if not (datasets / version).exists():
            _seal(draft)
            draft.rename(datasets / version)
            sync_directory(datasets)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    return version, card


def read_card(datasets: Path, version: str) -> Card:
    """The card of a version.

    Raises:
        DatasetError: There is no such version, or its card is broken.
    """
    try:
        return Card.model_validate_json((datasets / version / "card.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise DatasetError(f"there is no dataset version {version[:12]} here") from error


def training_images(datasets: Path, version: str) -> int:
    """The exact number of training images of a version; for the site's own rules only."""
    return len(np.load(datasets / version / "train_labels.npy", mmap_mode="r"))


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


def _content_sha256(directory: Path) -> str:
    files = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            files[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(canonical_json(files)).hexdigest()


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
