"""What mechanisms cost together: epsilon at a delta, by the accountants of `dp-accounting`.

Two ways of composing different mechanisms, both upper bounds:

rdp   Renyi differential privacy (Mironov 2017; sampled Gaussian: Mironov, Talwar and Zhang 2019;
      conversion: Canonne, Kamath and Steinke 2020), optimised over the orders `ORDERS`.
pld   Privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022), tighter, slower.
"""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from policies.privacy.mechanisms import Mechanism, Spent

if TYPE_CHECKING:
    from dp_accounting import DpEvent  # its import takes a second: only where something is counted

Accountant = Literal["rdp", "pld"]
ORDERS = (
    *(1 + k / 10 for k in range(1, 100)), *range(11, 65), *(80, 96, 128, 160, 192, 256, 384, 512),
    *(768, 1024),
)  # fmt: skip
"""Orders alpha of the Renyi divergence at which mechanisms are composed."""
PRECISION = 1e-3
"""To which part a noise multiplier is found, from above."""
MOST_NOISE = 1e5

logging.getLogger("absl").addFilter(  # an order left out makes epsilon larger, never smaller
    lambda record: "failed to converge" not in record.getMessage()
)


def epsilon(spent: Spent, delta: float, accountant: Accountant = "rdp") -> float:
    """The epsilon of everything in `spent` together, per patient, at `delta`.

    Args:
        spent: Mechanism -> how often it was made.
        delta: The delta of the guarantee, above 0.
        accountant: How mechanisms are composed.

    Returns:
        Epsilon, 0 for nothing, infinity where the accountant finds no bound.
    """
    made = frozenset((one, number) for one, number in spent.items() if number > 0)
    if not made:
        return 0.0
    return _by_rdp(made, delta) if accountant == "rdp" else _by_pld(made, delta)


def noise_multiplier(
    wanted: float,
    delta: float,
    *,
    sampling_rate: float = 1.0,
    steps: int = 1,
    accountant: Accountant = "rdp",
) -> float:
    """The least noise with which `steps` steps cost at most `wanted`, to a thousandth, from above.

    Args:
        wanted: Epsilon of all steps together, above 0.
        delta: Delta of the guarantee.
        sampling_rate: Probability that a patient is in a step.
        steps: Steps over all runs.
        accountant: How steps are composed.

    Raises:
        ValueError: No noise up to `MOST_NOISE` is enough.
    """
    return _noise_multiplier(wanted, delta, sampling_rate, steps, accountant)


@functools.lru_cache(maxsize=512)
def _noise_multiplier(
    wanted: float, delta: float, sampling_rate: float, steps: int, accountant: Accountant
) -> float:
    def cost(noise: float) -> float:
        one = Mechanism(noise_multiplier=noise, sampling_rate=sampling_rate)
        return epsilon(Spent({one: steps}), delta, accountant)

    low, high = 0.0, 1.0
    while cost(high) > wanted:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise ValueError(
                f"epsilon {wanted:g} at delta {delta:g} for {steps:,} steps needs more noise than "
                f"{MOST_NOISE:,.0f} times the sensitivity; ask for more epsilon, or fewer steps"
            )
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= wanted else (middle, high)
    return high


def _by_rdp(made: frozenset[tuple[Mechanism, int]], delta: float) -> float:
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    divergence = sum(number * _rdp(one) for one, number in made)
    found, _ = compute_epsilon(np.array(ORDERS), divergence, delta)
    return float(found)


@functools.lru_cache(maxsize=4096)
def _rdp(one: Mechanism) -> NDArray[np.float64]:
    """Renyi divergence at each of `ORDERS`."""
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

    accountant = RdpAccountant(ORDERS)
    accountant.compose(_event(one, 1))
    return np.array(accountant._rdp)


@functools.lru_cache(maxsize=256)
def _by_pld(made: frozenset[tuple[Mechanism, int]], delta: float) -> float:
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

    accountant = PLDAccountant()
    for one, number in sorted(made, key=lambda pair: pair[0].noise_multiplier):
        accountant.compose(_event(one, number))
    found = float(accountant.get_epsilon(delta))
    return found if math.isfinite(found) else math.inf


def _event(one: Mechanism, number: int) -> DpEvent:
    import dp_accounting

    event: DpEvent = dp_accounting.GaussianDpEvent(one.noise_multiplier)
    if one.sampling_rate < 1:
        event = dp_accounting.PoissonSampledDpEvent(one.sampling_rate, event)
    return dp_accounting.SelfComposedDpEvent(event, one.steps * number)
