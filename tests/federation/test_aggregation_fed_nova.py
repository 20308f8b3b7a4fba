"""FedNova: by hand, against plain loops, and on sites that take unequal numbers of steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_aggregation as slow
from federation.aggregation import FedAvg, FedNova, SiteUpdate
from slow_aggregation import Slow
from updates import after, model, real_ones, some_updates, start, update


def test_one_round_by_hand() -> None:
    """Mean length (3 * 2 + 1 * 10) / 4 = 4; mean of change / length 3/4 * 1 + 1/4 * 2 = 1.25."""
    algorithm = FedNova()
    state, seen = algorithm.apply(
        algorithm.init(start(100)), [update("a", 3, 102, steps=2), update("b", 1, 120, steps=10)]
    )
    assert state.weights["w"].tolist() == [105.0]
    assert seen.steps == {"a": 2.0, "b": 10.0}


def test_the_length_with_momentum_by_hand() -> None:
    """Three steps with momentum 0.5: the gradients count 1.75, 1.5 and 1."""
    assert FedNova(momentum=0.5).length(3) == pytest.approx(4.25, rel=1e-15)
    assert FedNova().length(3) == 3.0


@given(model, some_updates(), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.5, 1.0]))
def test_it_is_as_in_plain_loops(
    x: list[float], drawn: list[Slow], momentum: float, rate: float
) -> None:
    found = after(FedNova(momentum, rate), x, real_ones(drawn)).weights["w"]
    expected = slow.fed_nova(x, drawn, momentum, rate)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@given(model, some_updates(), st.integers(1, 50))
def test_with_equal_steps_it_is_the_mean(x: list[float], drawn: list[Slow], steps: int) -> None:
    real = [SiteUpdate(u.site, u.weights, u.examples, {"steps": steps}) for u in real_ones(drawn)]
    plain = after(FedAvg(), x, real).weights["w"]
    np.testing.assert_allclose(
        after(FedNova(0.9), x, real).weights["w"], plain, rtol=1e-9, atol=1e-9
    )


def test_a_site_with_more_steps_does_not_pull_further() -> None:
    """Equal curvature, targets 0 and 10, 50 steps against 5: the best common model is 5."""
    rate, steps, target = 0.001, {"a": 50, "b": 5}, {"a": 0.0, "b": 10.0}

    def trained(site: str, w: np.ndarray) -> SiteUpdate:
        for _ in range(steps[site]):
            w = w - rate * (w - target[site])
        return SiteUpdate(site, {"w": w}, 1, {"steps": steps[site]})

    nova, plain = FedNova().init(start(0)), FedAvg().init(start(0))
    for _ in range(500):
        nova, _ = FedNova().apply(nova, [trained(s, nova.weights["w"]) for s in "ab"])
        plain, _ = FedAvg().apply(plain, [trained(s, plain.weights["w"]) for s in "ab"])
    assert nova.weights["w"][0] == pytest.approx(5.0, abs=0.15)
    assert plain.weights["w"][0] < 1.0


def test_steps_are_counted_from_examples_when_the_job_does_not_say_them() -> None:
    algorithm = FedNova(batch_size=32, epochs=2)
    _, seen = algorithm.apply(
        algorithm.init(start(0)), [update("a", 64, 1), update("b", 65, 1), update("c", 1, 1)]
    )
    assert seen.steps == {"a": 4.0, "b": 6.0, "c": 2.0}
    assert dict(algorithm.arguments) == {"momentum": 0.0, "batch_size": 32, "epochs": 2}
    assert dict(FedNova(momentum=0.9).arguments) == {"momentum": 0.9}


def test_without_a_number_of_steps_the_round_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not say how many local steps.*`batch_size`"):
        after(FedNova(), [0], [update("a", 1, 1)])


@pytest.mark.parametrize("steps", [0.0, 0.5, -3.0, float("nan"), float("inf")])
def test_a_number_of_steps_that_cannot_be_is_refused(steps: float) -> None:
    with pytest.raises(ValueError, match=r"the update of a says it took .* local steps"):
        after(FedNova(), [0], [update("a", 1, 1, steps=steps)])
