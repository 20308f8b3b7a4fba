"""What FedAdam, FedYogi and FedAdagrad share: a server step divided by its usual size.

References:
    Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan: Adaptive Federated
    Optimization, ICLR 2021, arXiv 2003.00295, algorithm 2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import (
    Floats,
    advanced,
    mean_step,
    remembered,
    trained,
    zeros,
)
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_above, check_share
from federation.aggregation.updates import ordered, shares
from policies.arrays import Arrays


@dataclass(frozen=True)
class Adaptive(Algorithm):
    """The weights move by `rate` * momentum / (square root of the second moment + `tau`).

    Entry by entry, momentum = `beta_1` * momentum + (1 - `beta_1`) * mean change.
    The mean change is that of the sites that contributed, weighted by examples. The second moment
    starts at `tau` squared, the least that the paper allows, and nothing corrects for the start, as
    in the paper. Running statistics and whole numbers are averaged.

    Attributes:
        rate: Learning rate of the server. The first steps are about `rate` in every entry.
        beta_1: Part of the momentum that is kept from round to round.
        tau: How cautious: changes far below it are not amplified. 0.001 does well in the paper.
    """

    rate: float = 0.01
    beta_1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        check_above(type(self).__name__, "rate", self.rate, 0)
        check_share(type(self).__name__, "beta_1", self.beta_1)
        check_above(type(self).__name__, "tau", self.tau, 0)

    @abstractmethod
    def second_moment(self, moment: Floats, square: Floats) -> Floats:
        """The second moment after a round, from the one before and the squared mean change."""

    def init(self, weights: Arrays) -> State:
        """The state before the first round: no momentum, second moments of `tau` squared."""
        names = trained(weights)
        memory = {
            "momentum": zeros(weights, names),
            "second moment": zeros(weights, names, self.tau**2),
        }
        return State(dict(weights), memory)

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights)
        parts = shares(given)
        momentum, moments, steps = {}, {}, {}
        for name, step in mean_step(given, parts, state.weights).items():
            kept = state.memory["momentum"][name].astype(np.float64)
            seen = state.memory["second moment"][name].astype(np.float64)
            momentum[name] = self.beta_1 * kept + (1 - self.beta_1) * step
            moments[name] = self.second_moment(seen, np.square(step))
            steps[name] = self.rate * momentum[name] / (np.sqrt(moments[name]) + self.tau)
        weights = advanced(state.weights, steps, given, parts)
        memory = {
            "momentum": remembered(momentum, state.weights),
            "second moment": remembered(moments, state.weights),
        }
        return State(weights, memory), measure(state.weights, weights, given)
