"""The hospitals' images of the demonstration: phantoms, or a MedMNIST file divided among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.catalogue import SplitArrays
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.sources.medmnist import read_medmnist

DIVISION_SEED = 7
ALPHA = 1.0
PHANTOMS = {"train": 1800, "test": 720}
SMALLEST_SHARE = 0.15


def load_images(file: Path | None, seed: int) -> dict[str, SplitArrays]:
    """The images of all hospitals together: those of a MedMNIST file, or freshly drawn phantoms."""
    if file is not None:
        return read_medmnist(file)
    return {
        split: draw_chest_phantoms(count, seed=1000 * seed + k)
        for k, (split, count) in enumerate(PHANTOMS.items())
    }


def divide(splits: Mapping[str, SplitArrays], hospitals: int) -> list[dict[str, SplitArrays]]:
    """Each hospital's images.

    Training images are divided by a fixed Dirichlet draw, so that the mixes of classes differ;
    images to evaluate on in equal parts, so that every hospital has enough of each class to count.
    """
    rng = np.random.default_rng(DIVISION_SEED)
    parts: list[dict[str, SplitArrays]] = [{} for _ in range(hospitals)]
    for split, (images, labels) in splits.items():
        rows = (
            _by_dirichlet(labels, hospitals, rng)
            if split == "train"
            else _evenly(labels, hospitals, rng)
        )
        for part, index in zip(parts, rows, strict=True):
            part[split] = (images[index], labels[index])
    return parts


def _by_dirichlet(
    labels: NDArray[np.int64], hospitals: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """For each class, Dirichlet shares; drawn again until each hospital has a fair number."""
    smallest = SMALLEST_SHARE * len(labels) / hospitals
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
    raise ValueError(f"{len(labels)} images cannot be divided among {hospitals} hospitals")


def _evenly(
    labels: NDArray[np.int64], hospitals: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    rows: list[list[NDArray[np.int64]]] = [[] for _ in range(hospitals)]
    for k in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == k))
        for row, chunk in zip(rows, np.array_split(members, hospitals), strict=True):
            row.append(chunk)
    return [np.sort(np.concatenate(row)) for row in rows]
