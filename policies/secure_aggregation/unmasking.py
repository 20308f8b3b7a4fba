"""Takes the masks off a sum: what the researcher does with what sites revealed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from policies.secure_aggregation.fixed_point import Words
from policies.secure_aggregation.masks import add_mask, pair_key, public_of, sign_of
from policies.secure_aggregation.messages import Advert, Revealed
from policies.secure_aggregation.shamir import combine
from policies.secure_aggregation.terms import SecureAggregation


class UnmaskingError(ValueError):
    """The sum cannot be read; the message says whose shares are wrong or missing."""


def unmask(
    terms: SecureAggregation,
    adverts: Mapping[str, Advert],
    masked: Mapping[str, Words],
    revealed: Sequence[Revealed],
) -> Words:
    """The sum of the survivors' words, (n,) uint64.

    Args:
        terms: The approved terms.
        adverts: Site -> its keys, of all that share masks, also of those that dropped out.
        masked: Survivor -> its masked words, (n,) uint64 each.
        revealed: What at least `terms.threshold` sites gave out.

    Raises:
        UnmaskingError: Shares are missing, or do not give the secret that was promised.
    """
    total: Words = np.zeros(next(iter(masked.values())).size, np.uint64)
    for words in masked.values():
        total += words
    session = next(iter(adverts.values())).session.sha256
    for site in masked:
        own = _secret(terms, site, {r.site: r.own_masks.get(site) for r in revealed})
        if hashlib.sha256(own).hexdigest() != adverts[site].own_mask_sha256:
            raise _wrong(site)
        add_mask(total, own, -1)
    for gone in sorted(set(adverts) - set(masked)):
        secret = _secret(terms, gone, {r.site: r.mask_keys.get(gone) for r in revealed})
        if public_of(secret) != adverts[gone].mask_key:
            raise _wrong(gone)
        for site in masked:
            key = pair_key(secret, adverts[site].mask_key, session, gone, site)
            add_mask(total, key, -sign_of(site, gone))
    return total


def _secret(terms: SecureAggregation, whose: str, shares: Mapping[str, str | None]) -> bytes:
    given = {terms.point(site): int(share, 16) for site, share in shares.items() if share}
    if len(given) < terms.threshold:
        raise UnmaskingError(
            f"{len(given)} sites gave a share of a secret of {whose}, and it takes "
            f"{terms.threshold}; run the round again as another attempt"
        )
    try:
        return combine(given)
    except ValueError as error:
        raise _wrong(whose) from error


def _wrong(whose: str) -> UnmaskingError:
    return UnmaskingError(
        f"the shares of a secret of {whose} do not belong together: a site gave a wrong one. Run "
        "the round again as another attempt, and tell the hospitals"
    )
