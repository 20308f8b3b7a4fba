"""What a request asks for of a privacy budget, and the mechanism that follows from it."""

from __future__ import annotations

from pydantic import Field

from policies.privacy.accounting import noise_multiplier
from policies.privacy.mechanisms import Mechanism
from policies.privacy.rule import PrivacyRule
from policies.strict import Strict


class PrivacyAsked(Strict):
    """What all runs of a request together may cost, and how one run spends its part.

    Noise is not asked for: the hospital derives it from these numbers and its policy.
    """

    epsilon: float = Field(gt=0, le=100)
    """Epsilon per patient of all runs together."""
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    """Part of the patients that is drawn for one step of training; 1 where nothing is drawn."""
    steps: int = Field(default=1, ge=1, le=1_000_000)
    """Steps of one run."""

    def mechanism(self, runs: int, rule: PrivacyRule) -> Mechanism:
        """What one of `runs` runs does to the data, with just enough noise for all of them.

        Raises:
            ValueError: No noise is enough.
        """
        noise = noise_multiplier(
            self.epsilon,
            rule.guaranteed_delta,
            sampling_rate=self.sampling_rate,
            steps=self.steps * runs,
            accountant=rule.accountant,
        )
        return Mechanism(noise_multiplier=noise, sampling_rate=self.sampling_rate, steps=self.steps)
