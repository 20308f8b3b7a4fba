"""Named arrays as bytes: the safetensors format, which holds no code and is cheap to check.

Updates and weights cross every boundary in this form (researcher to site, site to sandbox and
back), so that one digest names the same weights everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

type_names = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""The dtypes that may cross a boundary."""

PART = 1 << 16
"""Entries that are looked at together."""

Arrays = dict[str, NDArray[np.generic]]
"""Layer or table name -> array on the CPU."""


class MalformedArraysError(ValueError):
    """Bytes that are not named arrays."""


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The arrays as safetensors bytes; the same arrays give the same bytes."""
    return bytes(save({name: np.asarray(a, order="C") for name, a in arrays.items()}))


def unpack(payload: bytes) -> Arrays:
    """The arrays in `payload`.

    Raises:
        MalformedArraysError: The bytes are not safetensors, or hold a dtype outside `type_names`.
    """
    try:
        arrays: Arrays = load(payload)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise MalformedArraysError("the bytes are not named arrays (safetensors)") from error
    if any(a.dtype.name not in type_names for a in arrays.values()):
        raise MalformedArraysError(f"arrays may only have the dtypes {', '.join(type_names)}")
    return arrays


def arrays_sha256(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Hex SHA-256 of the packed arrays: names, dtypes, shapes and every bit of the values."""
    return hashlib.sha256(pack(arrays)).hexdigest()


def global_norm(arrays: Mapping[str, NDArray[np.generic]]) -> float:
    """L2 norm over all entries of all arrays, in float64."""
    with np.errstate(over="ignore"):  # a norm too large for a float is infinite
        squares = [float(np.sum(np.square(a.astype(np.float64)))) for a in arrays.values()]
    return float(np.sqrt(sum(squares)))


def change_norm(
    after: Mapping[str, NDArray[np.generic]], before: Mapping[str, NDArray[np.generic]]
) -> float:
    """L2 norm of `after - before` over all entries, in float64.

    An array that has none of its shape before counts as a whole. It is computed a part at a time:
    whole differences would take twice the memory of the update, and most of the time.
    """
    total = 0.0
    with np.errstate(over="ignore"):
        for name, array in after.items():
            earlier, old = before.get(name), None
            if earlier is not None and earlier.shape == array.shape:
                old = earlier.reshape(-1)
            flat = array.reshape(-1)
            for start in range(0, len(flat), PART):
                part = flat[start : start + PART].astype(np.float64)
                if old is not None:
                    part -= old[start : start + PART].astype(np.float64)
                total += float(np.sum(np.square(part, out=part)))
    return float(np.sqrt(total))


def difference(
    a: Mapping[str, NDArray[np.generic]], b: Mapping[str, NDArray[np.generic]]
) -> Arrays:
    """`a - b`, array by array, in float64; both have the same names and shapes."""
    with np.errstate(over="ignore"):
        return {name: a[name].astype(np.float64) - b[name].astype(np.float64) for name in a}
