"""From stored pixel values to grey in [0, 1]: the grayscale pipeline of DICOM as one table.

Modality LUT or rescale, then VOI LUT or window, then the photometric interpretation, in the order
of PS3.4 Annex N.2. A stored value has at most 16 bits, so the whole pipeline is worked out once for
every possible value, and an image is one look-up.

References:
    DICOM PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.11.2 (VOI LUT),
    C.7.5.1.1.2 (padding).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lut:
    """A look-up table: values before `first` get the first entry, values after it the last."""

    first: int
    entries: tuple[int, ...]
    bits: int

    def __call__(self, values: Floats) -> Floats:
        """The entries for values, unscaled."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        entries: Floats = np.asarray(self.entries, dtype=np.float64)[index]
        return entries


@dataclass(frozen=True, slots=True)
class Rescale:
    """Output = slope x stored + intercept, in modality units (PS3.3 C.11.1)."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, values: Floats) -> Floats:
        """Modality values of stored values."""
        return values * self.slope + self.intercept


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3): LINEAR, LINEAR_EXACT or SIGMOID."""

    centre: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: Floats) -> Floats:
        """Grey in [0, 1] of modality values."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -700, 700)
            return 1 / (1 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":
            grey = (values - self.centre) / self.width + 0.5
        elif self.width > 1:
            grey = (values - (self.centre - 0.5)) / (self.width - 1) + 0.5
        else:
            grey = (values > self.centre - 0.5).astype(np.float64)
        return np.clip(grey, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Range:
    """Grey in [0, 1] between two modality values: percentiles, or the lowest and the highest."""

    low: float
    high: float

    def __call__(self, values: Floats) -> Floats:
        """Grey in [0, 1] of modality values."""
        return np.clip((values - self.low) / max(self.high - self.low, 1e-12), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Stored:
    """How values are stored (PS3.3 C.7.6.3.1, PS3.5 8.1.1).

    Attributes:
        allocated: 8 or 16 bits.
        bits: Bits that hold the value; the others are ignored, whatever an old overlay left there.
        signed: Two's complement.
        padding: Lowest and highest stored value that is padding, not image (C.7.5.1.1.2).
        inverted: MONOCHROME1: the lowest value is white.
    """

    allocated: int
    bits: int
    signed: bool
    padding: tuple[int, int] | None
    inverted: bool

    def values(self) -> Floats:
        """The stored value for each bit pattern, (2**allocated,)."""
        patterns = np.arange(2**self.allocated, dtype=np.int64)
        values = patterns & (2**self.bits - 1)
        if self.signed:
            values -= (values >= 2 ** (self.bits - 1)) * 2**self.bits
        stored: Floats = values.astype(np.float64)
        return stored

    def is_padding(self) -> NDArray[np.bool_]:
        """Whether each bit pattern is padding, (2**allocated,)."""
        values = self.values()
        if self.padding is None:
            return np.zeros(len(values), dtype=np.bool_)
        return (values >= self.padding[0]) & (values <= self.padding[1])


Modality = Rescale | Lut
Voi = Window | Range | Lut


def modality_values(stored: Stored, modality: Modality) -> Floats:
    """The modality value for each bit pattern; NaN for padding."""
    values = modality(stored.values())
    values[stored.is_padding()] = np.nan
    return values


@functools.lru_cache(maxsize=16)
def grey_table(stored: Stored, modality: Modality, voi: Voi) -> NDArray[np.float32]:
    """Grey in [0, 1] for each bit pattern, (2**allocated,); padding is black."""
    values = modality(stored.values())
    grey = voi(values)
    if isinstance(voi, Lut):
        grey = grey / (2**voi.bits - 1)
    if stored.inverted:
        grey = 1 - grey
    grey[stored.is_padding()] = 0
    return grey.astype(np.float32)


def look_up(table: NDArray[Any], pixels: NDArray[Any]) -> NDArray[Any]:
    """The table's entry for each pixel; pixels are (…) integers of the table's bits."""
    if pixels.dtype.itemsize == 1:
        return np.asarray(table[pixels.view(np.uint8)])
    return np.asarray(table[pixels.view(np.uint16)])
