"""What mechanisms cost, beside two libraries that were asked directly."""

from __future__ import annotations

import math
from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp as opacus_rdp

from policies.privacy.accounting import ORDERS, Accountant, epsilon, noise_multiplier
from policies.privacy.mechanisms import Mechanism, Spent

SETTINGS = [
    (noise, rate, steps, delta)
    for noise, rate, steps in (
        (0.8, 0.01, 100), (0.8, 0.05, 40), (1.0, 1.0, 1), (1.0, 1.0, 20), (1.0, 0.1, 200),
        (1.1, 0.25, 4), (1.13, 0.12, 167), (1.5, 0.02, 5000), (2.0, 1.0, 10), (2.0, 0.5, 60),
        (3.0, 0.1, 1000), (5.0, 1.0, 100), (5.0, 0.1, 2000), (8.0, 0.3, 500), (20.0, 1.0, 50),
    )
    for delta in (1e-5, 1e-7)
]  # fmt: skip
MIXED = [
    [(1.0, 1.0, 1), (2.0, 1.0, 10)],
    [(1.1, 0.1, 200), (4.0, 1.0, 5)],
    [(1.1, 0.1, 200), (1.5, 0.05, 400), (10.0, 1.0, 20)],
    [(0.9, 0.02, 500), (3.0, 1.0, 3), (3.0, 0.2, 30)],
]


def mechanism(noise: float, rate: float, steps: int) -> Mechanism:
    return Mechanism(noise_multiplier=noise, sampling_rate=rate, steps=steps)


def event(noise: float, rate: float, steps: int) -> dp_accounting.DpEvent:
    one = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    return dp_accounting.SelfComposedDpEvent(one, steps)


def test_there_are_as_many_settings_as_are_promised() -> None:
    assert len(SETTINGS) >= 30


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), SETTINGS)
def test_epsilon_is_that_of_opacus_and_of_dp_accounting(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    found = epsilon(Spent([mechanism(noise, rate, steps)]), delta)
    divergence = opacus_rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=ORDERS)
    by_opacus, _ = opacus_rdp.get_privacy_spent(orders=ORDERS, rdp=divergence, delta=delta)
    directly = RdpAccountant()
    directly.compose(event(noise, rate, steps))
    assert found == pytest.approx(by_opacus, rel=0.01)
    assert found == pytest.approx(directly.get_epsilon(delta), rel=0.01)


@pytest.mark.parametrize("parts", MIXED)
def test_different_mechanisms_compose_as_in_dp_accounting(
    parts: list[tuple[float, float, int]],
) -> None:
    spent = Spent(mechanism(*part) for part in parts)
    ways: list[tuple[Accountant, Any]] = [("rdp", RdpAccountant()), ("pld", PLDAccountant())]
    for accountant, directly in ways:
        for part in parts:
            directly.compose(event(*part))
        found = epsilon(spent, 1e-5, accountant)
        assert found == pytest.approx(directly.get_epsilon(1e-5), rel=0.01)


def test_one_gaussian_costs_what_its_exact_curve_says() -> None:
    """Balle and Wang 2018, equation 6: noise of 4.2 for epsilon 0.9 at delta 1e-5, about."""

    def exact_delta(epsilon: float, noise: float) -> float:
        def phi(x: float) -> float:
            return 0.5 * math.erfc(-x / math.sqrt(2))

        a = 1 / (2 * noise) - epsilon * noise
        b = -1 / (2 * noise) - epsilon * noise
        return phi(a) - math.exp(epsilon) * phi(b)

    for noise in (1.0, 2.0, 5.0):
        once = Spent([mechanism(noise, 1.0, 1)])
        by_pld, by_rdp = epsilon(once, 1e-5, "pld"), epsilon(once, 1e-5)
        assert exact_delta(by_pld, noise) == pytest.approx(1e-5, rel=0.02)
        assert by_pld < by_rdp < 1.15 * by_pld


def test_nothing_costs_nothing_and_no_noise_is_no_mechanism() -> None:
    assert epsilon(Spent(), 1e-5) == 0
    with pytest.raises(ValueError, match="greater than 0"):
        Mechanism(noise_multiplier=0)


FOUND = [
    (wanted, rate, steps, "rdp")
    for rate, steps in ((1.0, 1), (1.0, 30), (0.1, 100))
    for wanted in (0.5, 3.0, 8.0)
]


@pytest.mark.parametrize(("wanted", "rate", "steps", "accountant"), [*FOUND, (3.0, 1.0, 5, "pld")])
def test_the_noise_that_is_found_costs_what_was_wanted_and_not_more(
    wanted: float, rate: float, steps: int, accountant: Accountant
) -> None:
    noise = noise_multiplier(wanted, 1e-5, sampling_rate=rate, steps=steps, accountant=accountant)
    spent = Spent([mechanism(noise, rate, steps)])
    found = epsilon(spent, 1e-5, accountant)
    assert 0.99 * wanted < found <= wanted


def test_more_than_noise_can_give_is_said_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="ask for more epsilon, or fewer steps"):
        noise_multiplier(1e-4, 1e-9, steps=1_000_000)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.5, 50), st.sampled_from([1.0, 0.3, 0.05]), st.integers(1, 300), st.integers(1, 9)
)
def test_how_runs_are_counted_makes_no_difference(
    noise: float, rate: float, steps: int, runs: int
) -> None:
    together = epsilon(Spent({mechanism(noise, rate, steps): runs}), 1e-5)
    apart = epsilon(Spent({mechanism(noise, rate, 1): runs * steps}), 1e-5)
    more = epsilon(Spent({mechanism(noise, rate, steps): runs + 1}), 1e-5)
    assert together == pytest.approx(apart, rel=1e-9)
    assert more >= together
