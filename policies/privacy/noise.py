"""Gaussian noise from a cryptographic source, on a grid, so that its last digits tell nothing.

Noise of floating-point numbers added to floating-point numbers tells, in the digits that can and
cannot occur, what was under it (Mironov 2012). Here a value is first rounded to a whole number of
steps of a grid, and a whole number is added. For a whole number x and a real Gaussian G,
x + round(G) = round(x + G): the result is the rounding of the exact Gaussian mechanism on x, so it
has that mechanism's guarantee. What remains is how G is drawn: by the inverse of its distribution
function from 53 random bits, which never gives more than 8.3 standard deviations. The mass that is
missing beyond is below 1e-15 per number.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from scipy.special import ndtri

AT_A_TIME = 1 << 18
GRID = 2.0**-20
"""A step of the grid, in standard deviations of the noise."""


def random_words(number: int) -> NDArray[np.uint64]:
    """Unpredictable words (number,) uint64: AES-256 in counter mode under a fresh random key."""
    stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(8 * number)), np.uint64)


def gaussian_steps(number: int, deviation: float) -> NDArray[np.int64]:
    """Rounded Gaussian noise (number,) int64 of a standard deviation in steps of the grid."""
    found = np.empty(number, np.int64)
    for first in range(0, number, AT_A_TIME):
        part = found[first : first + AT_A_TIME]
        uniform = ((random_words(len(part)) >> np.uint64(11)) + 0.5) * 2.0**-53
        np.rint(deviation * ndtri(uniform), out=uniform)
        part[:] = uniform
    return found


def noised(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Values with Gaussian noise of a standard deviation; both are rounded to the grid first.

    Values are rounded towards zero, so that no norm grows.
    """
    step = deviation * GRID
    steps = np.trunc(values / step).astype(np.int64)
    flat = gaussian_steps(values.size, 1 / GRID).reshape(values.shape)
    found: NDArray[np.float64] = (steps + flat) * step
    return found
