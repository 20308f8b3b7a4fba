"""Krum: the one update that is nearest to most of the others.

References:
    Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant
    Gradient Descent, NeurIPS 2017, arXiv 1703.02757, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import Floats, mean, real
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_count
from federation.aggregation.updates import ordered


@dataclass(frozen=True)
class Krum(Algorithm):
    """The new weights are those of the site with the lowest score, of equal ones the first by name.

    A site's score is the sum of its squared distances to the n - `faulty` - 2 nearest others, of
    the n sites that contributed.

    With at most `faulty` poisoned sites the result is never further from some honest update than
    sqrt(n - `faulty` - 2) times the largest distance between two honest ones: an honest site's
    score is at most the square of that, and a poisoned site with no higher one has an honest site
    among its nearest. Every site counts alike, whatever its number of examples. One hospital's
    weights are taken whole, so on skewed data it learns slower than `MultiKrum`. A site with more
    local steps is further from the others, and chosen less often. Whole numbers are in no distance.

    Attributes:
        faulty: How many sites may be poisoned; a round needs 2 * `faulty` + 3 updates.
    """

    faulty: int = 1

    def __post_init__(self) -> None:
        check_count(type(self).__name__, "faulty", self.faulty, 0)

    @property
    def least_updates(self) -> int:
        """So many that the poisoned are few among any site's nearest."""
        return 2 * self.faulty + 3

    @property
    def chosen(self) -> int:
        """How many updates are used."""
        return 1

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round; the diagnostics name the sites that were left out."""
        given = ordered(updates, state.weights, self.least_updates)
        best = np.argsort(krum_scores(given, self.faulty), kind="stable")[: self.chosen]
        used = [given[k] for k in sorted(best)]
        weights = mean(used, [1 / len(used)] * len(used))
        left_out = [update.site for k, update in enumerate(given) if k not in best]
        seen = measure(state.weights, weights, given, left_out=left_out)
        return State(weights, state.memory), seen


def krum_scores(updates: Sequence[SiteUpdate], faulty: int) -> Floats:
    """Each update's sum of squared distances to its nearest others."""
    count = len(updates)
    squares = np.zeros((count, count))
    with np.errstate(over="ignore"):  # too far for a float is infinitely far
        for name in real(updates[0].weights):
            arrays = [update.weights[name].astype(np.float64) for update in updates]
            for i in range(count):
                for j in range(i):
                    squares[i, j] += np.sum(np.square(arrays[i] - arrays[j]))
        squares += squares.T
        np.fill_diagonal(squares, np.inf)  # a site is not a neighbour of its own
        nearest = np.sort(squares, axis=1)[:, : count - faulty - 2]
        scores: Floats = nearest.sum(axis=1)
    return scores
