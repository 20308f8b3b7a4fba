"""SCAFFOLD: by hand, against plain loops, and with sites that follow the protocol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_aggregation as slow
from federation.aggregation import FedAvg, Scaffold, SiteUpdate
from policies.arrays import Arrays
from slow_aggregation import Slow
from updates import after, model, one_update, start, update

PAIR = {"a": 1, "b": 1}


def test_two_rounds_by_hand() -> None:
    algorithm = Scaffold(learning_rate=0.5, sites=PAIR)
    state = algorithm.init(start(10))
    assert algorithm.to_send(state, "a")["correction.w"].tolist() == [0.0]
    # a: 4 steps of 0.5 took it down by 4, so its gradient was about 4 / (4 * 0.5) = 2.
    # b: 2 steps took it up by 6, so its gradient was about -6.
    state, seen = algorithm.apply(state, [update("a", 1, 6, steps=4), update("b", 9, 16, steps=2)])
    assert state.weights["w"].tolist() == [11.0]  # 10 + (-4 + 6) / 2: sites count alike
    assert state.memory["control of a"]["w"].tolist() == [2.0]
    assert state.memory["control of b"]["w"].tolist() == [-6.0]
    assert state.memory["control"]["w"].tolist() == [-2.0]
    assert seen.steps == {"a": 4.0, "b": 2.0}
    # What is added to the gradients: c - c_i.
    assert algorithm.to_send(state, "a")["correction.w"].tolist() == [-4.0]
    assert algorithm.to_send(state, "b")["correction.w"].tolist() == [4.0]
    # Only b is there: c_b = -6 - (-2) + (11 - 12) / (1 * 0.5) = -6; c = -2 + (-6 + 6) / 2.
    state, _ = algorithm.apply(state, [update("b", 9, 12, steps=1)])
    assert state.weights["w"].tolist() == [12.0]
    assert state.memory["control of a"]["w"].tolist() == [2.0]
    assert state.memory["control of b"]["w"].tolist() == [-6.0]
    assert state.memory["control"]["w"].tolist() == [-2.0]


def test_what_travels_is_the_weights_and_a_correction_of_each_trained_array() -> None:
    weights: Arrays = {
        "conv.weight": np.zeros((2, 3), np.float16),
        "norm.running_var": np.ones(3, np.float32),
        "norm.num_batches_tracked": np.array(3),
    }
    algorithm = Scaffold(learning_rate=0.1, sites=PAIR)
    sent = algorithm.to_send(algorithm.init(weights), "b")
    assert {name: (a.shape, a.dtype.name) for name, a in sent.items()} == {
        "conv.weight": ((2, 3), "float16"),
        "norm.running_var": ((3,), "float32"),
        "norm.num_batches_tracked": ((), "int64"),
        "correction.conv.weight": ((2, 3), "float16"),
    }
    assert algorithm.init(weights).memory["control"]["conv.weight"].dtype == np.float32


counts = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([1.0, 2.5, 40.0]), min_size=4, max_size=4
)
some_sites = st.dictionaries(st.sampled_from("abcd"), one_update, min_size=1)


@given(model, st.lists(some_sites, min_size=1, max_size=4), counts, st.sampled_from([0.3, 1.0]))
def test_it_is_as_in_plain_loops(
    x: list[float], rounds: list[dict[str, Slow]], sites: dict[str, float], rate: float
) -> None:
    """Some sites are missing in some rounds, steps are unequal, sites count differently."""
    algorithm = Scaffold(learning_rate=0.25, sites=sites, rate=rate)
    real = [
        [update(site, u.n, *u.y, steps=u.steps) for site, u in drawn.items()] for drawn in rounds
    ]
    state = after(algorithm, x, *real)
    weights, control, own = slow.scaffold(x, rounds, sites, 0.25, rate)
    np.testing.assert_allclose(state.weights["w"], weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(state.memory["control"]["w"], control, rtol=1e-8, atol=1e-8)
    for site in set().union(*rounds):
        kept = state.memory[f"control of {site}"]["w"]
        np.testing.assert_allclose(kept, own[site], rtol=1e-8, atol=1e-8)
    # The global control variate is the mean of the sites', whoever was missing.
    np.testing.assert_allclose(
        sum(sites[s] * np.array(own[s]) for s in sites) / sum(sites.values()),
        state.memory["control"]["w"], rtol=1e-8, atol=1e-8,
    )  # fmt: skip


TARGETS = {"a": (1.0, 0.0, 40), "b": (4.0, 10.0, 10)}
"""Site -> curvature, target, local steps: f(x) = curvature / 2 * (x - target) squared."""


def trained_at(site: str, sent: Arrays, rate: float) -> SiteUpdate:
    """What a job that follows the protocol does, with an exact gradient."""
    curvature, target, steps = TARGETS[site]
    w = sent["w"].copy()
    for _ in range(steps):
        w = w - rate * (curvature * (w - target) + sent.get("correction.w", 0.0))
    return SiteUpdate(site, {"w": w}, 100, {"steps": steps})


@pytest.mark.parametrize("everyone", [True, False])
def test_sites_that_differ_reach_the_best_common_model_and_with_plain_averaging_do_not(
    everyone: bool,
) -> None:
    """The best is where the gradients cancel: (1 * 0 + 4 * 10) / 5 = 8."""
    algorithm = Scaffold(learning_rate=0.02, sites=PAIR)
    state, plain = algorithm.init(start(0)), FedAvg().init(start(0))
    for number in range(400):
        there = ["a", "b"] if everyone else [["a"], ["b"], ["a", "b"]][number % 3]
        state, _ = algorithm.apply(
            state, [trained_at(site, algorithm.to_send(state, site), 0.02) for site in there]
        )
        plain, _ = FedAvg().apply(plain, [trained_at(s, plain.weights, 0.02) for s in there])
    assert state.weights["w"][0] == pytest.approx(8.0, abs=1e-6)
    assert abs(plain.weights["w"][0] - 8.0) > 1.0


def test_steps_are_counted_when_the_job_does_not_say_them() -> None:
    """101 examples in batches of 50 are 3 steps, twice."""
    algorithm = Scaffold(learning_rate=0.5, sites=PAIR, batch_size=50, epochs=2)
    state, seen = algorithm.apply(algorithm.init(start(0)), [update("a", 101, 6)])
    assert seen.steps == {"a": 6.0}
    assert state.memory["control of a"]["w"].tolist() == [-2.0]  # -6 / (6 * 0.5)


def test_a_site_that_it_was_not_told_of_is_refused() -> None:
    algorithm = Scaffold(learning_rate=0.5, sites=PAIR)
    state = algorithm.init(start(0))
    with pytest.raises(ValueError, match="Scaffold was not told of c; name every site"):
        algorithm.apply(state, [update("c", 1, 1, steps=1)])
    with pytest.raises(ValueError, match="Scaffold was not told of c; name every site"):
        algorithm.to_send(state, "c")
