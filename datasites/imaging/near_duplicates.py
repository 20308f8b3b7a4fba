"""Near-duplicates: images that look the same, whoever they are filed under.

References:
    Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1
    (DCT based hash).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

SIDE = 32
LOW = 8
FAINTEST = 8.0
"""Largest low frequency (grey levels x SIDE / 2) below which there is no structure."""


def perceptual_hash(image: NDArray[np.uint8]) -> str:
    """16 hex digits for an image (H, W): the signs of its lowest frequencies around their median.

    Equal hashes mean that the images look alike: scaled, recompressed or slightly brighter copies.
    Empty for an image without structure, which looks like nothing.
    """
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)
    frequencies = dctn(np.asarray(small, dtype=np.float64), norm="ortho")[1 : LOW + 1, 1 : LOW + 1]
    if np.abs(frequencies).max() < FAINTEST:
        return ""
    bits = (frequencies > np.median(frequencies)).ravel()
    return np.packbits(bits).tobytes().hex()
