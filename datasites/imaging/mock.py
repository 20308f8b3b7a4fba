"""Mock images, made from the schema alone: no pixel, count or label of a patient goes in."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MOCK_IMAGES = 64
MOCK_BYTES = 20_000_000


def draw_mock(
    shape: tuple[int, ...], classes: int, *, seed: int = 0, count: int | None = None
) -> dict[str, NDArray[np.generic]]:
    """Smooth random images with the shape, dtype and classes of a dataset.

    Args:
        shape: Shape of one image, (H, W) or (H, W, C).
        classes: Number of classes; every class occurs where there is room for it.
        seed: Seed of the generator.
        count: Number of images; by default enough for every class, within `MOCK_BYTES`.

    Returns:
        `images`: (count, *shape) uint8; `labels`: (count,) int64 in [0, classes).
    """
    if count is None:
        count = min(max(MOCK_IMAGES, classes), max(1, MOCK_BYTES // math.prod(shape)))
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 4, 4, *shape[2:]))
    rows = np.linspace(0, 3, shape[0]).round().astype(int)
    columns = np.linspace(0, 3, shape[1]).round().astype(int)
    images = coarse[:, rows][:, :, columns] + rng.normal(0, 12, (count, *shape))
    labels = np.arange(count) % classes
    return {
        "images": images.clip(0, 255).astype(np.uint8),
        "labels": rng.permutation(labels).astype(np.int64),
    }
