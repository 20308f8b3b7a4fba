"""The hospitals' images: phantoms as DICOM files, or a MedMNIST file divided among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from datasites.catalogue import SplitArrays
from datasites.imaging.dicom_phantoms import (
    MAKERS,
    Maker,
    write_chest_phantoms,
    write_head_phantoms,
)
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.sources.medmnist import read_medmnist

DIVISION_SEED = 7
ALPHA = 1.0
TEST_SHARE = 2 / 7
DRAWN_SIZE = 112
HEADS = 24
SMALLEST_SHARE, FEWEST = 0.15, 60


@dataclass(frozen=True, slots=True)
class DicomFolders:
    """What one hospital's archive holds: chest radiographs, heads, and tables of their classes."""

    maker: Maker
    chest: Path
    chest_labels: Path
    head: Path
    head_labels: Path
    test_share: float


def draw_phantoms(count: int, seed: int) -> dict[str, SplitArrays]:
    """Chest phantoms of all hospitals together, 112 x 112."""
    test = round(count * TEST_SHARE)
    sizes = {"train": count - test, "test": test}
    return {
        split: draw_chest_phantoms(size, seed=1000 * seed + k, size=DRAWN_SIZE)
        for k, (split, size) in enumerate(sizes.items())
    }


def load_images(file: Path) -> dict[str, SplitArrays]:
    """The images of a MedMNIST file."""
    return dict(read_medmnist(file))


def write_dicom(
    folder: Path, parts: list[dict[str, SplitArrays]], classes: tuple[str, ...], seed: int
) -> list[DicomFolders]:
    """Write each hospital's phantoms as DICOM files, as its own maker's devices would.

    The first image of each hospital has its patient's name burned into it, as some devices do.
    """
    written = []
    for k, part in enumerate(parts):
        maker = list(MAKERS.values())[k % len(MAKERS)]
        images = np.concatenate([images[:] for images, _ in part.values()])
        labels = np.concatenate([labels for _, labels in part.values()])
        images[0] = _with_a_name(images[0])
        chest, head = folder / f"{k}" / "chest", folder / f"{k}" / "head-mr"
        chest_labels = write_chest_phantoms(
            chest / "files", images, labels, maker=maker, seed=1000 * seed + k, classes=classes
        )
        head_labels = write_head_phantoms(
            head / "files", patients=HEADS, seed=1000 * seed + k, maker=maker, slices=4
        )
        share = len(part["test"][1]) / len(labels)
        written.append(
            DicomFolders(maker, chest / "files", chest_labels, head / "files", head_labels, share)
        )
    return written


def _with_a_name(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text((3, 3), "DOE, JANE 1961", fill=255, font_size=13)
    return np.asarray(picture)


Rows = dict[str, NDArray[np.int64]]
"""Split -> which of its images."""


def divide(splits: Mapping[str, SplitArrays], hospitals: int) -> list[dict[str, SplitArrays]]:
    """Each hospital's images and labels, by `divide_rows`."""
    return [part_of(splits, rows) for rows in divide_rows(splits, hospitals)]


def part_of(splits: Mapping[str, SplitArrays], rows: Rows) -> dict[str, SplitArrays]:
    """Some of the images, and their labels."""
    return {split: (splits[split][0][:][k], splits[split][1][k]) for split, k in rows.items()}


def divide_rows(splits: Mapping[str, SplitArrays], hospitals: int) -> list[Rows]:
    """Which images are each hospital's.

    Training images are divided by a fixed Dirichlet draw, so that the mixes of classes differ;
    images to evaluate on in equal parts, so that every hospital has enough of each class to count.
    """
    rng = np.random.default_rng(DIVISION_SEED)
    parts: list[Rows] = [{} for _ in range(hospitals)]
    for split, (_, labels) in splits.items():
        rows = (
            _by_dirichlet(labels, hospitals, rng)
            if split == "train"
            else _evenly(labels, hospitals, rng)
        )
        for part, index in zip(parts, rows, strict=True):
            part[split] = index
    return parts


def _by_dirichlet(
    labels: NDArray[np.int64], hospitals: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """For each class, Dirichlet shares; drawn again until each hospital has a fair number."""
    smallest = max(SMALLEST_SHARE * len(labels) / hospitals, FEWEST)
    for _ in range(10_000):
        rows: list[list[NDArray[np.int64]]] = [[] for _ in range(hospitals)]
        for k in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == k))
            shares = rng.dirichlet([ALPHA] * hospitals)
            cuts = (np.cumsum(shares)[:-1] * len(members)).astype(int)
            for row, chunk in zip(rows, np.split(members, cuts), strict=True):
                row.append(chunk)
        joined = [np.sort(np.concatenate(row)) for row in rows]
        if min(map(len, joined)) >= smallest:
            return joined
    raise ValueError(
        f"{len(labels)} training images cannot be divided among {hospitals} hospitals with at "
        f"least {FEWEST} for each; ask for more with --images, or for fewer hospitals"
    )


def _evenly(
    labels: NDArray[np.int64], hospitals: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    rows: list[list[NDArray[np.int64]]] = [[] for _ in range(hospitals)]
    for k in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == k))
        for row, chunk in zip(rows, np.array_split(members, hospitals), strict=True):
            row.append(chunk)
    return [np.sort(np.concatenate(row)) for row in rows]
