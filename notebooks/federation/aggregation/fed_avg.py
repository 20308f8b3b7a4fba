"""Federated averaging: the mean of the returned weights, weighted by the number of examples.

References:
    McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-Efficient Learning of Deep
    Networks from Decentralized Data, AISTATS 2017, arXiv 1602.05629, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import mean
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.updates import ordered, shares


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """The new weights are the sum, over sites, of a site's weights times its part of the examples.

    With some sites missing, the parts are those among the sites that contributed. Local steps need
    not be equal; a site with more of them pulls further (`FedNova` corrects that).
    """

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights)
        weights = mean(given, shares(given))
        return State(weights, state.memory), measure(state.weights, weights, given)
