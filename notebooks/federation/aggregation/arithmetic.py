"""Arithmetic on named arrays, in float64 and in the order of the updates.

Arrays are of three kinds. *Trained* ones follow a gradient: a server optimiser may step along
their change. The *running statistics* of batch normalisation are measured; a step with momentum
could make a variance negative, so they are averaged. *Whole numbers* count batches; they are
averaged and rounded, and no norm or distance includes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from federation.aggregation.algorithm import SiteUpdate
from policies.arrays import Arrays

Floats = NDArray[np.float64]
Steps = dict[str, Floats]
"""Layer name -> change of its array, in float64."""

MEASURED = ("running_mean", "running_var")
"""How PyTorch's layers call their running statistics, after the last dot."""


def trained(weights: Arrays) -> list[str]:
    """Names of the arrays that follow a gradient, sorted."""
    return [name for name in real(weights) if name.rpartition(".")[2] not in MEASURED]


def real(weights: Arrays) -> list[str]:
    """Names of the arrays that do not hold whole numbers.

    They are sorted: a file may give arrays back in another order, and a norm is a sum.
    """
    return sorted(name for name, array in weights.items() if array.dtype.kind == "f")


def mean(
    updates: Sequence[SiteUpdate], shares: Sequence[float], names: Iterable[str] | None = None
) -> Arrays:
    """The weighted mean of some arrays, or of all, in their own dtype."""
    averaged: Arrays = {}
    for name in updates[0].weights if names is None else names:
        first = updates[0].weights[name]
        summed = np.zeros(first.shape, np.float64)
        for update, share in zip(updates, shares, strict=True):
            summed += update.weights[name].astype(np.float64) * share
        averaged[name] = stored(summed, first.dtype)
    return averaged


def change(update: SiteUpdate, weights: Arrays, name: str) -> Floats:
    """What a site changed in one array."""
    with np.errstate(over="ignore"):
        return update.weights[name].astype(np.float64) - weights[name].astype(np.float64)


def mean_step(updates: Sequence[SiteUpdate], shares: Sequence[float], weights: Arrays) -> Steps:
    """The weighted mean of the sites' changes of the trained arrays."""
    steps: Steps = {}
    for name in trained(weights):
        step = np.zeros(weights[name].shape, np.float64)
        for update, share in zip(updates, shares, strict=True):
            step += change(update, weights, name) * share
        steps[name] = step
    return steps


def advanced(
    weights: Arrays, steps: Mapping[str, Floats], updates: Sequence[SiteUpdate],
    shares: Sequence[float],
) -> Arrays:  # fmt: skip
    """The weights, moved along the steps; arrays without a step become the mean of the updates."""
    averaged = mean(updates, shares, [name for name in weights if name not in steps])
    return {
        name: stored(array.astype(np.float64) + steps[name], array.dtype)
        if name in steps
        else averaged[name]
        for name, array in weights.items()
    }


def stored(numbers: Floats, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Float64 numbers in a model's dtype; whole numbers are rounded, and kept in their range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.name)
        highest = np.floor(np.nextafter(float(limits.max) + 1, 0))
        numbers = np.clip(np.rint(numbers), float(limits.min), highest)
    with np.errstate(over="ignore"):  # a step too far for the dtype is infinite, and sites say so
        return np.asarray(numbers, dtype)


def zeros(weights: Arrays, names: Iterable[str], fill: float = 0.0) -> Arrays:
    """Arrays to remember something in for each of the names: float32, or wider as the model is."""
    return {name: np.full(weights[name].shape, fill, _kept_in(weights[name])) for name in names}


def remembered(numbers: Mapping[str, Floats], weights: Arrays) -> Arrays:
    """Float64 numbers in the dtype in which they are remembered."""
    return {name: np.asarray(array, _kept_in(weights[name])) for name, array in numbers.items()}


def _kept_in(array: NDArray[np.generic]) -> np.dtype[np.generic]:
    return np.result_type(array.dtype, np.float32)
