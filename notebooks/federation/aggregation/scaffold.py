"""SCAFFOLD: control variates take out of each local step what is special to its site.

References:
    Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for
    Federated Learning, ICML 2020, arXiv 1910.06378, algorithm 1, option II.

The sites keep nothing between rounds, so the server keeps each site's control variate. What
travels, and what a job has to do:

    sent       the weights under their own names, and for each trained array NAME another one,
               `correction.NAME`: the global control variate less the site's, in its dtype
    at a site  each local step is plain SGD with the one `learning_rate`, on the gradient of NAME
               plus `correction.NAME`; no momentum, no weight decay that the loss does not have
    returned   the weights under their own names, without the corrections, and the metric `steps`

so that no more leaves a hospital than with federated averaging. In the contract, `inputs` are the
arrays that are sent and `weights` those that are returned (`training_terms(..., sent=)`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from federation.aggregation.algorithm import Algorithm, Memory, SiteUpdate, State
from federation.aggregation.arithmetic import (
    advanced,
    change,
    mean_step,
    remembered,
    stored,
    trained,
    zeros,
)
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_above, check_count
from federation.aggregation.local_steps import counted_with, local_steps
from federation.aggregation.updates import ordered
from policies.arrays import Arrays

PREFIX = "correction."
"""Stands before the name of an array that corrects the gradient of another."""


@dataclass(frozen=True)
class Scaffold(Algorithm):
    """The weights move by `rate` times the mean change of the sites that contributed.

    A site's new control variate = its own - the global one + (sent - returned weights) / (local
    steps * learning rate). The global one is the mean over all sites of the study, those that were
    missing with what they had before, 0 at the start.

    Local steps may be unequal. Only trained arrays have a control variate; running statistics and
    whole numbers are averaged.

    Attributes:
        learning_rate: The job's argument `learning_rate`.
        sites: Site -> how much it counts, for every site of the study. The paper's form is
            `dict.fromkeys(study.sites, 1)`; with the numbers of images, the goal is that of FedAvg.
        rate: Learning rate of the server; 1 in the paper's experiments.
        batch_size: The job's, for jobs that do not return the metric `steps`.
        epochs: The job's, likewise.
    """

    learning_rate: float
    sites: Mapping[str, float]
    rate: float = 1.0
    batch_size: int | None = None
    epochs: int = 1

    def __post_init__(self) -> None:
        check_above("Scaffold", "learning_rate", self.learning_rate, 0)
        check_above("Scaffold", "rate", self.rate, 0)
        if not self.sites:
            raise ValueError("Scaffold needs `sites`: every site of the study, and how it counts")
        for site, number in self.sites.items():
            check_above("Scaffold", f"sites[{site}]", number, 0)
        if self.batch_size is not None:
            check_count("Scaffold", "batch_size", self.batch_size, 1)
        check_count("Scaffold", "epochs", self.epochs, 1)

    @property
    def arguments(self) -> Mapping[str, float]:
        """Plain SGD at this learning rate."""
        steps = counted_with(self.batch_size, self.epochs)
        return {"learning_rate": self.learning_rate, "momentum": 0, **steps}

    def init(self, weights: Arrays) -> State:
        """The state before the first round: no site is corrected."""
        return State(dict(weights), {"control": zeros(weights, trained(weights))})

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights)
        self._check_known([update.site for update in given])
        present = sum(self.sites[update.site] for update in given)
        parts = [self.sites[update.site] / present for update in given]
        steps = {u.site: local_steps(u, self.batch_size, self.epochs) for u in given}
        everyone = sum(self.sites[site] for site in sorted(self.sites))
        control = {name: a.astype(np.float64) for name, a in state.memory["control"].items()}
        moved = {name: array.copy() for name, array in control.items()}
        memory: Memory = dict(state.memory)
        for update in given:
            own = self._own(state, update.site)
            length, part = steps[update.site] * self.learning_rate, self.sites[update.site]
            new = {}
            for name in control:
                followed = -change(update, state.weights, name) / length
                new[name] = own[name].astype(np.float64) - control[name] + followed
            memory[_key(update.site)] = remembered(new, state.weights)
            for name, array in moved.items():
                array += (memory[_key(update.site)][name] - own[name].astype(np.float64)) * (
                    part / everyone
                )
        memory["control"] = remembered(moved, state.weights)
        step = mean_step(given, parts, state.weights)
        along = {name: self.rate * array for name, array in step.items()}
        weights = advanced(state.weights, along, given, parts)
        return State(weights, memory), measure(state.weights, weights, given, steps=steps)

    def to_send(self, state: State, site: str) -> Arrays:
        """The global weights, and the correction of each trained array at this site."""
        self._check_known([site])
        own = self._own(state, site)
        corrections = {
            PREFIX + name: stored(
                control.astype(np.float64) - own[name].astype(np.float64), state.weights[name].dtype
            )
            for name, control in state.memory["control"].items()
        }
        return {**state.weights, **corrections}

    def _own(self, state: State, site: str) -> Arrays:
        kept = state.memory.get(_key(site))
        return zeros(state.weights, state.memory["control"]) if kept is None else kept

    def _check_known(self, sites: Sequence[str]) -> None:
        if unknown := [site for site in sites if site not in self.sites]:
            raise ValueError(
                f"Scaffold was not told of {', '.join(unknown)}; name every site of the study in "
                f"`sites` (now {', '.join(self.sites)})"
            )


def _key(site: str) -> str:
    return f"control of {site}"
