"""Coordinate-wise trimmed mean: the mean without the extremes, entry by entry.

References:
    Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates, ICML 2018, arXiv 1803.01498, definition 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import stored
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_count
from federation.aggregation.updates import ordered


@dataclass(frozen=True)
class TrimmedMean(Algorithm):
    """Each entry is the mean of the sites' entries without the `faulty` smallest and largest.

    With at most `faulty` poisoned sites every entry stays between the smallest and the largest of
    the honest ones. Every site counts alike, whatever its number of examples: a poisoned site could
    claim any. The number that is trimmed stays the same when sites are missing.

    Attributes:
        faulty: How many sites may be poisoned; a round needs more than twice as many.
    """

    faulty: int = 1

    def __post_init__(self) -> None:
        check_count("TrimmedMean", "faulty", self.faulty, 0)

    @property
    def least_updates(self) -> int:
        """So many that one is left between the extremes."""
        return 2 * self.faulty + 1

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights, self.least_updates)
        weights = {}
        for name, array in state.weights.items():
            entries = np.stack([update.weights[name].astype(np.float64) for update in given])
            entries.sort(axis=0)
            middle = entries[self.faulty : len(given) - self.faulty]
            weights[name] = stored(middle.sum(axis=0) / len(middle), array.dtype)
        return State(weights, state.memory), measure(state.weights, weights, given)
