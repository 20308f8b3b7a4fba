"""What a request says about secure aggregation; part of what a hospital approves and signs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from policies.strict import Strict

LEAST_SITES, MOST_SITES = 3, 64
"""Of the sum of two, each of both could read the other."""
WORD = 2**63 - 1
"""Largest number that a sum modulo 2^64 can hold, with its sign."""
FINEST = 2**40
"""Most steps from 0 to the clip; more would be finer than the floats that are rounded."""

RosterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,119}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A site's Ed25519 key, 64 hex digits, as `sitegate status` and the site's description give it."""


def least_threshold(sites: int) -> int:
    """The smallest threshold for a roster of so many sites: more than two thirds.

    With t > 2n/3, a coordinator that lies and fewer than n/3 sites that are with it cannot collect
    t answers for one set of survivors and t for another: two sets of t share a site that is honest,
    and it answers once (Bonawitz et al. 2017, section 6.2: 2t > n + corrupted).
    """
    return 2 * sites // 3 + 1


class SecureAggregation(Strict):
    """The sites whose updates are summed, and how numbers become whole numbers."""

    roster: dict[RosterName, PublicKey] = Field(min_length=LEAST_SITES, max_length=MOST_SITES)
    """Site -> its public key. Keys of a round count only if they are signed with it."""
    threshold: int = Field(ge=LEAST_SITES, le=MOST_SITES)
    """How many sites have to be there to the end of a round; more than two thirds of the roster."""
    clip: float = Field(gt=0, le=1e6)
    """Largest change of one number of the model; a larger one is cut to it."""
    largest_examples: int = Field(ge=1, le=10**9)
    """Most images that one site's update may rest on; they are its weight in the mean."""

    @model_validator(mode="after")
    def _sites_are_different_and_enough(self) -> Self:
        if len(set(self.roster.values())) < len(self.roster):
            raise ValueError("two sites of the roster have the same key")
        least, most = least_threshold(len(self.roster)), len(self.roster)
        if not least <= self.threshold <= most:
            raise ValueError(
                f"a threshold of {self.threshold} cannot be with {most} sites; give {least} to "
                f"{most}"
            )
        return self

    @property
    def levels(self) -> int:
        """Q: a change of `clip` becomes the whole number Q.

        Every number of a sum is at most n * W * Q in size, for n sites of weight W at most. Q is
        chosen so that n * W * Q <= 2^63 - 1: no sum can wrap.
        """
        return min(FINEST, WORD // (len(self.roster) * self.largest_examples))

    @property
    def step(self) -> float:
        """The change that becomes 1."""
        return self.clip / self.levels

    def name_of(self, public_hex: str) -> str | None:
        """The site's name on the roster, None if its key is not there."""
        return next((name for name, key in self.roster.items() if key == public_hex), None)

    def point(self, site: str) -> int:
        """The place at which a site holds shares: its number in the order of names, from 1."""
        return sorted(self.roster).index(site) + 1
