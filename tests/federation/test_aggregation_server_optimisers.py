"""FedAvgM, FedAdam, FedYogi and FedAdagrad, by hand and against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_aggregation as slow
from federation.aggregation import (
    Algorithm,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    SiteUpdate,
)
from slow_aggregation import Slow
from updates import after, model, real_ones, some_updates, start, update


def test_momentum_by_hand() -> None:
    """The sites' mean is 3 above the weights in round 1, and where the weights are in round 2."""
    algorithm = FedAvgM(rate=1.0, momentum=0.5)
    state, _ = algorithm.apply(
        algorithm.init(start(1)), [update("a", 1, 1), update("b", 3, 5)]
    )  # velocity (0 + 3 * 4) / 4 = 3
    assert state.weights["w"].tolist() == [4.0]
    state, _ = algorithm.apply(state, [update("a", 1, 4)])  # velocity 0.5 * 3 + 0
    assert state.weights["w"].tolist() == [5.5]
    assert state.memory["velocity"]["w"].tolist() == [1.5]


def test_the_rate_scales_the_step_of_momentum_and_not_the_velocity() -> None:
    state = after(FedAvgM(rate=0.1, momentum=0.9), [0], [update("a", 1, 10)])
    assert state.weights["w"].tolist() == [1.0]
    assert state.memory["velocity"]["w"].tolist() == [10.0]


# A change of 4 in the first round; tau 1, so that the second moment starts at 1; rate 2; beta 0.5.
BY_HAND = [
    # momentum 0.5 * 4; second moment 0.75 * 1 + 0.25 * 16 = 4.75
    (FedAdam(rate=2, beta_1=0.5, beta_2=0.75, tau=1), 4.75, 2 * 2 / (math.sqrt(4.75) + 1)),
    # second moment 1 + 0.25 * 16 = 5: it was below the square
    (FedYogi(rate=2, beta_1=0.5, beta_2=0.75, tau=1), 5.0, 2 * 2 / (math.sqrt(5) + 1)),
    # second moment 1 + 16; without momentum the whole change counts
    (FedAdagrad(rate=2, tau=1), 17.0, 2 * 4 / (math.sqrt(17) + 1)),
]


@pytest.mark.parametrize(("algorithm", "moment", "weight"), BY_HAND, ids=lambda v: str(v)[:8])
def test_the_first_adaptive_step_by_hand(
    algorithm: Algorithm, moment: float, weight: float
) -> None:
    state = after(algorithm, [10], [update("a", 1, 12), update("b", 1, 16)])
    assert state.memory["second moment"]["w"].tolist() == [moment]
    assert state.weights["w"].tolist() == [pytest.approx(10 + weight, rel=1e-15)]


def test_yogi_moves_the_second_moment_down_by_a_part_of_the_square() -> None:
    state = after(FedYogi(beta_2=0.75, tau=10), [0], [update("a", 1, 2)])
    assert state.memory["second moment"]["w"].tolist() == [99.0]  # 100 - 0.25 * 4


rounds = st.lists(some_updates(), min_size=1, max_size=4)
shares = st.sampled_from([0.0, 0.5, 0.9, 0.99])
rates = st.sampled_from([0.001, 0.1, 1.0, 3.0])


@given(model, rounds, rates, shares)
def test_momentum_is_as_in_plain_loops(
    x: list[float], drawn: list[list[Slow]], rate: float, beta: float
) -> None:
    """Rounds of different sites: partial participation."""
    found = after(FedAvgM(rate, beta), x, *map(real_ones, drawn)).weights["w"]
    np.testing.assert_allclose(found, slow.fed_avg_m(x, drawn, rate, beta), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
@given(x=model, drawn=rounds, rate=rates, b1=shares, b2=shares)
def test_adaptive_steps_are_as_in_plain_loops(
    kind: Callable[..., Algorithm],
    x: list[float],
    drawn: list[list[Slow]],
    rate: float,
    b1: float,
    b2: float,
) -> None:
    algorithm = kind(rate=rate, beta_1=b1, beta_2=b2, tau=0.01)
    found = after(algorithm, x, *map(real_ones, drawn)).weights["w"]
    expected = slow.adaptive(type(algorithm).__name__, x, drawn, rate, b1, b2, 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@given(x=model, drawn=rounds, rate=rates, b1=shares)
def test_adagrad_is_as_in_plain_loops(
    x: list[float], drawn: list[list[Slow]], rate: float, b1: float
) -> None:
    found = after(FedAdagrad(rate, b1, 0.01), x, *map(real_ones, drawn)).weights["w"]
    expected = slow.adaptive("FedAdagrad", x, drawn, rate, b1, 0, 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@given(model, some_updates())
def test_without_momentum_and_at_rate_one_it_is_the_mean(x: list[float], drawn: list[Slow]) -> None:
    plain = after(FedAvg(), x, real_ones(drawn)).weights["w"]
    found = after(FedAvgM(1.0, 0.0), x, real_ones(drawn)).weights["w"]
    np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-12)


ALL = [FedAvgM(), FedAdam(), FedYogi(), FedAdagrad()]


@pytest.mark.parametrize("algorithm", ALL, ids=lambda a: type(a).__name__)
def test_running_statistics_and_counters_are_averaged(algorithm: Algorithm) -> None:
    """A step with momentum could make a variance negative; one along Adam's sign would too."""
    names = ("1.running_mean", "1.running_var", "running_var", "1.num_batches_tracked")

    def made(number: float, counter: int) -> dict[str, np.ndarray]:
        arrays = {name: np.full(2, number, np.float32) for name in names[:3]}
        return {**arrays, names[3]: np.array(counter), "1.weight": np.full(2, number, np.float32)}

    state = algorithm.init(made(1.0, 7))
    for _ in range(5):
        state, _ = algorithm.apply(
            state,
            [SiteUpdate("a", made(0.25, 10), 1), SiteUpdate("b", made(0.5, 21), 3)],
        )
    for name in names[:3]:
        np.testing.assert_array_equal(state.weights[name], np.float32(0.4375))
    assert state.weights[names[3]].tolist() == 18  # (10 + 3 * 21) / 4 = 18.25
    assert state.weights[names[3]].dtype == np.int64
    assert all(set(arrays) == {"1.weight"} for arrays in state.memory.values())
