"""Mock images, made from the schema alone: no pixel, count or label of a patient goes in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

MOCK_IMAGES = 64
MOCK_BYTES = 20_000_000


def draw_mock(
    shape: tuple[int, ...],
    classes: int,
    *,
    dtype: str = "uint8",
    seed: int = 0,
    count: int | None = None,
    groups: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Smooth random images with the shape, dtype and classes of a dataset.

    Args:
        shape: Shape of one image, (H, W) or (H, W, C).
        classes: Number of classes; every class occurs where there is room for it.
        dtype: `uint8` for 0 to 255, a float for 0 to 1.
        seed: Seed of the generator.
        count: Number of images; by default enough for every class, within `MOCK_BYTES`.
        groups: Attribute -> its values.

    Returns:
        `images`: (count, *shape) of `dtype`; `labels`: (count,) int64 in [0, classes);
        `group_{attribute}`: (count,) int8 places of values, drawn at random, -1 for none.
    """
    if count is None:
        count = min(
            max(MOCK_IMAGES, classes),
            max(1, MOCK_BYTES // (math.prod(shape) * np.dtype(dtype).itemsize)),
        )
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 4, 4, *shape[2:]))
    rows = np.linspace(0, 3, shape[0]).round().astype(int)
    columns = np.linspace(0, 3, shape[1]).round().astype(int)
    images = coarse[:, rows][:, :, columns] + rng.normal(0, 12, (count, *shape))
    images = images.clip(0, 255) if dtype == "uint8" else (images / 255).clip(0, 1)
    labels = np.arange(count) % classes
    mock: dict[str, NDArray[np.generic]] = {
        "images": images.astype(dtype),
        "labels": rng.permutation(labels).astype(np.int64),
    }
    for name, values in sorted((groups or {}).items()):
        mock[f"group_{name}"] = rng.integers(-1, len(values), count, dtype=np.int8)
    return mock
