"""What is done to data before it leaves, in the form in which it is charged and accounted for."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from policies.strict import Strict


class Mechanism(Strict):
    """A Gaussian mechanism, made `steps` times on Poisson samples of the patients.

    The guarantee is for two datasets of which one has one patient more (Dwork and Roth 2014,
    appendix A; Mironov, Talwar and Zhang 2019 for the sampled one). With a sampling rate of 1 it
    holds as well for any two datasets whose results lie within the sensitivity of each other.
    """

    noise_multiplier: float = Field(gt=0, le=1e6)
    """Standard deviation of the noise, in units of the L2 sensitivity."""
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    """Probability with which each patient is in a step's sample, independently of all others."""
    steps: int = Field(default=1, ge=1, le=10_000_000)
    """How often it is made; what each step sees may depend on what came out before."""

    def in_words(self) -> str:
        """`20 steps of noise 1.13, each on 5% of the patients`."""
        made = f"{self.steps:,} steps of noise" if self.steps > 1 else "noise"
        part = f", each on {self.sampling_rate:.3g} of the patients"
        return f"{made} {self.noise_multiplier:.4g}" + (part if self.sampling_rate < 1 else "")


Spent = Counter[Mechanism]
"""How often each mechanism was made."""
