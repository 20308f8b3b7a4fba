"""Stained tissue drawn by code: ten classes of small colour images of nobody.

An image is a patch of a haematoxylin and eosin slide as one sees it in the microscope: a pink
ground with the texture of its class, cells with dark nuclei, and what else the class has (fat
vacuoles, glands, a vessel). The classes are those of a colorectal slide (Kather et al., PLOS
Medicine 2019, doi 10.1371/journal.pmed.1002730), and vessels. Stain, light and magnification
differ from image to image, so that no single colour tells a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasites.imaging.phantoms import check_in_range

Field = NDArray[np.float32]

CLASSES = (
    "adipose", "background", "debris", "lymphocytes", "mucus",
    "muscle", "mucosa", "stroma", "tumour", "vessel",
)  # fmt: skip
MIN_SIZE, MAX_SIZE = 28, 224
_WHITE, _PINK, _PURPLE = (0.95, 0.93, 0.95), (0.86, 0.58, 0.70), (0.36, 0.22, 0.50)
_RED = (0.75, 0.25, 0.30)


@dataclass(frozen=True, slots=True)
class _Tissue:
    """How a class looks: lengths in shares of the image's width.

    Attributes:
        stain: How pink the ground is, 0 white to 1.
        nuclei: About how many there are.
        radius: Of a nucleus.
        long: How much longer than wide nuclei are.
        fibres: Contrast of parallel fibres.
        waves: How many fibres lie side by side.
        holes: About how many round white spaces there are (fat, lumina).
        hole: Their radius.
        rim: Whether nuclei stand around the spaces, as in a gland.
        blood: Whether the spaces are filled with blood.
    """

    stain: float
    nuclei: int = 0
    radius: float = 0.02
    long: float = 1.0
    fibres: float = 0.0
    waves: int = 8
    holes: int = 0
    hole: float = 0.1
    rim: bool = False
    blood: bool = False


_TISSUES = {
    "adipose": _Tissue(0.55, nuclei=4, radius=0.012, holes=12, hole=0.16),
    "background": _Tissue(0.04),
    "debris": _Tissue(0.60, nuclei=60, radius=0.008),
    "lymphocytes": _Tissue(0.45, nuclei=110, radius=0.022),
    "mucus": _Tissue(0.25, nuclei=6, radius=0.015, fibres=0.10, waves=3),
    "muscle": _Tissue(1.00, nuclei=14, radius=0.016, long=4.0, fibres=0.16, waves=7),
    "mucosa": _Tissue(0.70, nuclei=25, radius=0.018, holes=4, hole=0.09, rim=True),
    "stroma": _Tissue(0.80, nuclei=22, radius=0.012, long=3.0, fibres=0.22, waves=16),
    "tumour": _Tissue(0.65, nuclei=55, radius=0.034),
    "vessel": _Tissue(0.75, nuclei=16, radius=0.014, holes=1, hole=0.24, rim=True, blood=True),
}


def draw_tissue_phantoms(
    count: int, *, seed: int, size: int = 224
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw patches of stained tissue, as many of each class as of any other, give or take one.

    Args:
        count: Number of patches N, at least 1.
        seed: Not negative; the same seed gives the same bytes.
        size: Height and width in pixels, 28 to 224.

    Returns:
        images: (N, size, size, 3) uint8, RGB.
        labels: (N,) int64, an index into `CLASSES`, in random order.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_in_range("count", count, 1, None, "draw_tissue_phantoms")
    check_in_range("seed", seed, 0, None, "draw_tissue_phantoms")
    check_in_range("size", size, MIN_SIZE, MAX_SIZE, "draw_tissue_phantoms")
    order, *patches = np.random.SeedSequence(seed).spawn(count + 1)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    np.random.default_rng(order).shuffle(labels)
    images = np.empty((count, size, size, 3), np.uint8)
    for k, patch in enumerate(patches):
        images[k] = _draw(np.random.default_rng(patch), _TISSUES[CLASSES[labels[k]]], size)
    return images, labels


def _draw(rng: np.random.Generator, tissue: _Tissue, size: int) -> NDArray[np.uint8]:
    across = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(across, across)
    zoom = rng.uniform(0.8, 1.25)
    stain = tissue.stain * rng.uniform(0.75, 1.15)
    ground = np.clip(stain + _texture(rng, tissue, x, y), 0, 1)
    holes = _scatter(rng, tissue.holes, tissue.hole * zoom)
    spaces = _discs(x, y, holes, edge=0.015)
    nuclei = _nuclei(rng, tissue, zoom, holes, x, y)
    ground, nuclei = ground * (1 - spaces), nuclei * (1 - spaces)
    image = _mixed(np.asarray(_WHITE, np.float32), _PINK, ground)
    if tissue.blood:
        image = _mixed(image, _RED, spaces * (0.75 + 0.2 * _smooth(rng, size, 24)))
    image = _mixed(image, _PURPLE, nuclei * rng.uniform(0.75, 1.0))
    light = rng.uniform(0.85, 1.05, 3).astype(np.float32) * rng.uniform(0.9, 1.08)
    noise = rng.normal(0, 0.02, image.shape).astype(np.float32)
    return (np.clip(image * light + noise, 0, 1) * 255).astype(np.uint8)


def _texture(rng: np.random.Generator, tissue: _Tissue, x: Field, y: Field) -> Field:
    """Fibres in one direction, bent a little, and uneven staining."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    bent = 0.25 * _smooth(rng, len(x), 4)
    along = x * np.cos(angle) + y * np.sin(angle) + bent
    uneven = 0.10 * tissue.stain * _smooth(rng, len(x), 6)
    fibres = tissue.fibres * np.sin(2 * np.pi * tissue.waves * along + phase)
    return np.asarray(fibres + uneven, np.float32)


def _nuclei(
    rng: np.random.Generator, tissue: _Tissue, zoom: float, holes: Field, x: Field, y: Field
) -> Field:
    """Where nuclei are, 0 to 1: anywhere, or in a ring around each space."""
    count = round(tissue.nuclei * rng.uniform(0.7, 1.3) / zoom**2) if tissue.nuclei else 0
    at = _scatter(rng, count, tissue.radius * zoom)
    if tissue.rim:
        for cx, cy, radius in holes:
            turn = np.linspace(0, 2 * np.pi, max(8, round(radius * 130)), endpoint=False)
            reach = radius + 1.2 * tissue.radius
            ring = [cx + reach * np.cos(turn), cy + reach * np.sin(turn)]
            sizes = np.full(len(turn), tissue.radius * zoom)
            at = np.concatenate([at, np.stack([*ring, sizes], 1).astype(np.float32)])
    return _discs(x, y, at, edge=0.006, long=tissue.long, turn=rng.uniform(0, np.pi))


def _scatter(rng: np.random.Generator, count: int, radius: float) -> Field:
    """(count, 3) x, y and radius of discs."""
    places = rng.uniform(-0.05, 1.05, (count, 2))
    return np.column_stack([places, radius * rng.uniform(0.7, 1.3, count)]).astype(np.float32)


def _discs(
    x: Field, y: Field, discs: Field, *, edge: float, long: float = 1.0, turn: float = 0.0
) -> Field:
    """Soft-edged discs, 0 outside to 1 inside, drawn where they are only."""
    drawn = np.zeros_like(x)
    size = len(x)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    for cx, cy, radius in discs:
        reach = radius * long + edge
        rows, columns = (
            slice(max(0, int((c - reach) * size)), max(0, int((c + reach) * size) + 2))
            for c in (cy, cx)
        )
        dx, dy = x[rows, columns] - cx, y[rows, columns] - cy
        distance = np.hypot((dx * cos + dy * sin) / np.float32(long), dy * cos - dx * sin)
        part = np.clip((radius - distance) / edge + 0.5, 0, 1)
        np.maximum(drawn[rows, columns], part, out=drawn[rows, columns])
    return drawn


def _smooth(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Noise from -1 to 1 that changes over a `cells`-th of the image."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells, size, endpoint=False, dtype=np.float32)
    low, part = at.astype(int), at % 1
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    return np.asarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part, np.float32)


def _mixed(image: Field, colour: tuple[float, float, float], share: Field) -> Field:
    """The image with a colour laid over it."""
    share = share[..., None]
    return np.asarray(image * (1 - share) + np.asarray(colour, np.float32) * share, np.float32)
