"""The updates of a round, checked against the model and put in the order of their sites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from federation.aggregation.algorithm import SiteUpdate
from policies.arrays import Arrays
from policies.strict import some


def ordered(updates: Sequence[SiteUpdate], weights: Arrays, at_least: int = 1) -> list[SiteUpdate]:
    """The updates by name of their site.

    Args:
        updates: What sites contributed, in any order.
        weights: The global weights; the names, shapes and dtypes of every update.
        at_least: How many updates the algorithm needs.

    Raises:
        ValueError: There are fewer, none has an example, a site is there twice, or an update does
            not fit the weights.
    """
    if not updates or sum(update.examples for update in updates) <= 0:
        raise ValueError(
            "there is no update to average: no site contributed an example; run the round again"
        )
    if len(updates) < at_least:
        raise ValueError(
            f"the round has {len(updates)} updates, and the algorithm needs at least {at_least}; "
            "wait for more sites, or take an algorithm that needs fewer"
        )
    by_site = {update.site: update for update in updates}
    if len(by_site) < len(updates):
        raise ValueError("a site has two updates in one round; give one of them")
    for update in updates:
        if reason := misfit(update, weights):
            raise ValueError(f"the update of {update.site} cannot be used: {reason}")
    return [by_site[site] for site in sorted(by_site)]


def misfit(update: SiteUpdate, weights: Arrays) -> str:
    """Why an update cannot be averaged into these weights; empty when it can.

    A hospital lets only a fitting update leave; this holds against a site that was taken over.
    """
    if update.examples < 0:
        return "its number of examples is negative"
    if others := set(update.weights) ^ set(weights):
        return f"it has other arrays than the model ({some(others)})"
    for name, array in update.weights.items():
        expected = weights[name]
        if array.shape != expected.shape or array.dtype != expected.dtype:
            return (
                f"`{name}` is {array.dtype.name} {array.shape}, and the model's is "
                f"{expected.dtype.name} {expected.shape}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"`{name}` has numbers that are not finite"
    return ""


def shares(updates: Sequence[SiteUpdate]) -> list[float]:
    """How much each update counts: its part of the examples of the round."""
    total = sum(update.examples for update in updates)
    return [update.examples / total for update in updates]
