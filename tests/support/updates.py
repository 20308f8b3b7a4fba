"""Updates of sites, made in one line, and Hypothesis' way to draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from federation.aggregation import Algorithm, SiteUpdate, State
from policies.arrays import Arrays
from slow_aggregation import Slow

SIZE = 3
numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
"""Few digits, so that there are ties and equal entries too."""
model = st.lists(numbers, min_size=SIZE, max_size=SIZE)
one_update = st.builds(Slow, model, st.integers(1, 1000), st.integers(1, 30))


def some_updates(least: int = 1, most: int = 6) -> st.SearchStrategy[list[Slow]]:
    """A round: site number k is `s{k}`."""
    return st.lists(one_update, min_size=least, max_size=most)


def update(
    site: str, examples: int, *entries: float, dtype: str = "float64", **metrics: float
) -> SiteUpdate:
    """An update of one array `w`."""
    return SiteUpdate(site, {"w": np.array(entries, dtype)}, examples, metrics)


def start(*entries: float, dtype: str = "float64") -> Arrays:
    """Weights of one array `w`."""
    return {"w": np.array(entries, dtype)}


def real_ones(slow: Sequence[Slow]) -> list[SiteUpdate]:
    """The same updates for the real algorithm."""
    return [update(f"s{k}", u.n, *u.y, steps=u.steps) for k, u in enumerate(slow)]


def after(algorithm: Algorithm, x: Sequence[float], *rounds: Sequence[SiteUpdate]) -> State:
    """The state after some rounds that start from `x`."""
    state = algorithm.init(start(*x))
    for updates in rounds:
        state, _ = algorithm.apply(state, updates)
    return state
