"""What sites tell each other in a round. The researcher passes it on; shares are sealed.

1. `Advert`: the keys of a site for one session, signed.
2. `Sealed`: a site's shares for another, which only that one can open.
3. the masked update, in the place of the update of a run.
4. `Agreement`: whose masked updates came, as a site was told, signed.
5. `Revealed`: the shares that a site gives out in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from policies.secure_aggregation.terms import MOST_SITES, PublicKey, RosterName, SecureAggregation
from policies.site_signature import is_signed
from policies.strict import Strict, canonical_json

KEYS, SURVIVORS = "secure aggregation keys", "secure aggregation survivors"
"""Purposes of signatures."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Share = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{131}$")]
"""A share of 521 bits, hex."""


class Session(Strict):
    """One try of one round of one study; keys, shares and signatures are for one session only."""

    study: Digest
    """Digest of the job's text, of what leaves, and of the terms of secure aggregation."""
    round: int = Field(ge=0)
    """The round."""
    attempt: int = Field(ge=1)
    """1 for the first try."""

    @property
    def sha256(self) -> str:
        """Digest by which keys are bound to the session."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


def study_sha256(text_sha256: str, contract: Strict | None, terms: SecureAggregation) -> str:
    """What a study is to its sites: the same text, the same arrays, the same roster.

    Args:
        text_sha256: Digest of the job's text.
        contract: What leaves.
        terms: The terms of secure aggregation.
    """
    whole = {
        "text_sha256": text_sha256,
        "contract": contract.model_dump(mode="json") if contract else None,
        "secure_aggregation": terms.model_dump(mode="json"),
    }
    return hashlib.sha256(canonical_json(whole)).hexdigest()


class Advert(Strict):
    """A site's keys for one session."""

    session: Session
    """Which."""
    site: RosterName
    """Whose."""
    share_key: PublicKey
    """X25519 key by which others seal shares for it."""
    mask_key: PublicKey
    """X25519 key of the masks between it and each of the others."""
    own_mask_sha256: Digest
    """Digest of the key of the mask that it adds for itself."""
    signature: Signature
    """The site's signature over all else."""

    @property
    def signed(self) -> bytes:
        """What is signed."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"}))

    def is_of(self, public_hex: str) -> bool:
        """Whether the site with this key signed it."""
        return is_signed(public_hex, KEYS, self.signed, self.signature)


def adverts_sha256(adverts: Mapping[str, Advert], sites: Iterable[str]) -> str:
    """Digest of the keys of some sites."""
    return hashlib.sha256(
        canonical_json([adverts[site].model_dump(mode="json") for site in sorted(sites)])
    ).hexdigest()


class Sealed(Strict):
    """Two shares of one site for another, encrypted."""

    sender: RosterName
    """Whose secrets."""
    receiver: RosterName
    """Who can open it."""
    box: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,2000}$")]
    """ChaCha20-Poly1305, hex."""


class Agreement(Strict):
    """Whose masked updates came, as one site was told; it signs one such set in a session."""

    session: Session
    """Which."""
    site: RosterName
    """Who signs."""
    sharers_sha256: Digest
    """Digest of the keys of everyone with whom it shares a mask."""
    survivors: tuple[RosterName, ...] = Field(min_length=1, max_length=MOST_SITES)
    """The sites whose masked updates came, sorted."""
    signature: Signature
    """The site's signature over all else."""

    @property
    def signed(self) -> bytes:
        """What is signed."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"}))

    @property
    def about(self) -> tuple[Session, str, tuple[str, ...]]:
        """What has to be the same for all who sign."""
        return self.session, self.sharers_sha256, self.survivors

    def is_of(self, public_hex: str) -> bool:
        """Whether the site with this key signed it."""
        return is_signed(public_hex, SURVIVORS, self.signed, self.signature)


class Revealed(Strict):
    """The shares that one site gives out: one kind for each site, never both."""

    site: RosterName
    """Who gives them."""
    own_masks: dict[RosterName, Share] = Field(max_length=MOST_SITES)
    """Site that contributed -> share of the key of the mask that it added for itself."""
    mask_keys: dict[RosterName, Share] = Field(max_length=MOST_SITES)
    """Site that dropped out -> share of the secret key of its masks with others."""
