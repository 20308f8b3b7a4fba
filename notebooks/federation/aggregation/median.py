"""Coordinate-wise median: what most sites say, entry by entry.

References:
    Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates, ICML 2018, arXiv 1803.01498, definition 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import stored
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.updates import ordered


@dataclass(frozen=True)
class Median(Algorithm):
    """Each entry is the median of the sites' entries, the mean of the middle two if they are even.

    While fewer than half of the contributing sites are poisoned, every entry stays between the
    smallest and the largest of the honest ones. Every site counts alike, whatever its number of
    examples: a poisoned site could claim any. Unequal local steps only reorder the entries.
    """

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights)
        weights = {}
        for name, array in state.weights.items():
            entries = np.stack([update.weights[name].astype(np.float64) for update in given])
            weights[name] = stored(np.median(entries, axis=0), array.dtype)
        return State(weights, state.memory), measure(state.weights, weights, given)
