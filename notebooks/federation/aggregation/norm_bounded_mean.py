"""Norm-bounded mean: no site moves the weights further than a bound.

References:
    Sun, Kairouz, Suresh, McMahan: Can You Really Backdoor Federated Learning?, 2019,
    arXiv 1911.07963, section 3 (norm thresholding of updates).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import change, real, stored
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_above
from federation.aggregation.updates import ordered, shares
from policies.arrays import Arrays, global_norm


@dataclass(frozen=True)
class NormBoundedMean(Algorithm):
    """The mean change, weighted by examples, after longer ones were shortened to the bound.

    The weights never move further than the bound, and one site moves them by at most its part of
    the examples times the bound, so refuse sites that claim too many. The norm is that of all
    arrays together, running statistics too; shortened, these stay between what was sent and what
    came back. Whole numbers are in no norm: they become the median of the sites'. A site with more
    local steps is shortened more.

    Attributes:
        bound: The longest change, as L2 norm; None for the median of the round's own norms, which
            holds while fewer than half of the sites are poisoned.
    """

    bound: float | None = None

    def __post_init__(self) -> None:
        if self.bound is not None:
            check_above("NormBoundedMean", "bound", self.bound, 0)

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round; the diagnostics say who was shortened."""
        given = ordered(updates, state.weights)
        names = real(state.weights)
        norms = [
            global_norm({name: change(update, state.weights, name) for name in names})
            for update in given
        ]
        bound = float(np.median(norms)) if self.bound is None else self.bound
        factors = [1.0 if norm <= bound else bound / norm for norm in norms]
        parts = [part * f for part, f in zip(shares(given), factors, strict=True)]
        weights: Arrays = {}
        for name, array in state.weights.items():
            if name in names:
                moved = array.astype(np.float64)
                for update, part in zip(given, parts, strict=True):
                    if part > 0:  # infinitely long: 0 times infinity is no number
                        moved = moved + change(update, state.weights, name) * part
            else:
                moved = np.median(
                    np.stack([u.weights[name].astype(np.float64) for u in given]), axis=0
                )
            weights[name] = stored(moved, array.dtype)
        clipped = {u.site: f for u, f in zip(given, factors, strict=True) if f < 1}
        return State(weights, state.memory), measure(state.weights, weights, given, clipped=clipped)
