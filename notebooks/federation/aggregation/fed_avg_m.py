"""FedAvgM: federated averaging with momentum at the server.

References:
    Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification, 2019, arXiv 1909.06335, section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import advanced, mean_step, remembered, trained, zeros
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_above, check_share
from federation.aggregation.updates import ordered, shares
from policies.arrays import Arrays


@dataclass(frozen=True)
class FedAvgM(Algorithm):
    """Velocity = `momentum` * velocity + mean change; the weights move by `rate` * velocity.

    The mean change is that of the sites that contributed, weighted by examples. With `momentum` 0
    and `rate` 1 it is `FedAvg`. Running statistics and whole numbers are averaged.

    Attributes:
        rate: Learning rate of the server; 1 in the paper.
        momentum: Part of the velocity that is kept from round to round; 0 to 0.997 in the paper.
    """

    rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_above("FedAvgM", "rate", self.rate, 0)
        check_share("FedAvgM", "momentum", self.momentum)

    def init(self, weights: Arrays) -> State:
        """The state before the first round: no velocity."""
        return State(dict(weights), {"velocity": zeros(weights, trained(weights))})

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights)
        parts = shares(given)
        velocity = {
            name: self.momentum * state.memory["velocity"][name].astype(np.float64) + step
            for name, step in mean_step(given, parts, state.weights).items()
        }
        steps = {name: self.rate * array for name, array in velocity.items()}
        weights = advanced(state.weights, steps, given, parts)
        memory = {"velocity": remembered(velocity, state.weights)}
        return State(weights, memory), measure(state.weights, weights, given)
