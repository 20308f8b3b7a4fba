"""Federated averaging: the mean of the returned weights, weighted by the number of examples.

References:
    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
    AISTATS 2017, arXiv 1602.05629, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.arrays import Arrays


@dataclass(frozen=True, slots=True)
class SiteUpdate:
    """What one site contributed to a round."""

    site: str
    weights: Arrays
    examples: int


def fed_avg(updates: Sequence[SiteUpdate]) -> Arrays:
    """The weighted mean of the updates, array by array, in the dtype that was returned.

    Sums run in float64 in the order of the sites' names, so that the same updates give the same
    bits whichever site answered first.

    Raises:
        ValueError: There is no update, or no example.
    """
    ordered = sorted(updates, key=lambda update: update.site)
    total = sum(update.examples for update in ordered)
    if not ordered or total <= 0:
        raise ValueError("there is no update to average")
    mean: Arrays = {}
    for name, first in ordered[0].weights.items():
        summed = np.zeros(first.shape, np.float64)
        for update in ordered:
            summed += update.weights[name].astype(np.float64) * (update.examples / total)
        if first.dtype.kind in "iu":
            summed = np.rint(summed)
        mean[name] = summed.astype(first.dtype)
    return mean
