"""One site in one session: its keys, the shares it holds, and what it has agreed to.

    share     everyone's keys in, sealed shares out
    receive   sealed shares in; who shares masks is fixed from now on
    mask      an update in, words that look random out
    agree     whose masked updates came, once
    reveal    one kind of share for each site, when `threshold` sites agreed to the same

Each step has one input: the same again has the same answer, another is refused. So a coordinator
that lies can stop a round, and cannot make a site say two things. Secrets are in memory only: a
site that is started again has none of them, and can reveal nothing of sessions before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence

from policies.secure_aggregation.fixed_point import Words
from policies.secure_aggregation.masks import add_mask, pair_key, public_of, sign_of
from policies.secure_aggregation.messages import (
    KEYS,
    SURVIVORS,
    Advert,
    Agreement,
    Revealed,
    Sealed,
    Session,
    adverts_sha256,
)
from policies.secure_aggregation.sealing import Shares, open_sealed, seal, shares_of
from policies.secure_aggregation.shamir import split
from policies.secure_aggregation.step_refused import StepRefused, second, too_early
from policies.secure_aggregation.terms import SecureAggregation
from policies.strict import some

Sign = Callable[[str, bytes], str]
"""Signs bytes for a purpose with the site's Ed25519 key; hex."""


class Participant:
    """A site's part of one session. Its steps are taken one at a time; `mask` may run beside."""

    def __init__(self, terms: SecureAggregation, session: Session, site: str, sign: Sign) -> None:
        self.terms, self.session, self.site, self._sign = terms, session, site, sign
        self._share_secret, self._mask_secret, self._own_mask = (os.urandom(32) for _ in range(3))
        self._adverts: dict[str, Advert] = {}
        self._shared: list[Sealed] = []
        self._own_shares = Shares("", "")
        self._held: dict[str, Shares] = {}
        """Site -> its shares that this one holds, its own too; empty before `receive`."""
        self._masked = ""
        self._agreement: Agreement | None = None
        self._revealed: Revealed | None = None
        self.advert = self._make_advert()
        """Its keys."""

    @property
    def has_shared(self) -> bool:
        """Whether it has given out shares, so that the session cannot begin anew."""
        return bool(self._shared)

    @property
    def sharers(self) -> tuple[str, ...]:
        """The sites that share masks with it, and itself; empty before `receive`."""
        return tuple(sorted(self._held))

    @property
    def survivors(self) -> tuple[str, ...]:
        """The sites that it agreed to; empty before."""
        return self._agreement.survivors if self._agreement else ()

    def share(self, adverts: Sequence[Advert]) -> list[Sealed]:
        """Shares of its two secrets, sealed for each of the other sites.

        Raises:
            StepRefused: Keys are missing, of another session, not signed by the roster's sites, or
                others than before.
        """
        given = {advert.site: advert for advert in adverts}
        if len(given) < len(adverts):
            raise StepRefused("keys", "keys of one site twice", "keys of each site once")
        self._check_keys(given)
        if self._shared:
            if given != self._adverts:
                raise second("keys", "keys")
            return self._shared
        points = {site: self.terms.point(site) for site in given}
        own = split(self._own_mask, self.terms.threshold, points.values())
        key = split(self._mask_secret, self.terms.threshold, points.values())
        shares = {site: shares_of(own[p], key[p]) for site, p in points.items()}
        sealed = [
            seal(self._share_secret, self.session, self.site, advert, shares[site])
            for site, advert in sorted(given.items())
            if site != self.site
        ]
        self._adverts, self._own_shares, self._shared = given, shares[self.site], sealed
        return sealed

    def receive(self, sealed: Sequence[Sealed]) -> None:
        """Take the shares of the others; with these sites it shares masks from now on.

        Raises:
            StepRefused: Too few, for another site, not of their senders or not of this session; or
                others than before.
        """
        if not self._shared:
            raise too_early("shares of others", "shares after the keys")
        held = {message.sender: self._opened(message) for message in sealed}
        if len(held) < len(sealed) or self.site in held:
            raise StepRefused(
                "shares", "two messages of one site, or one of its own", "one of each other site"
            )
        held[self.site] = self._own_shares
        self._check_enough(held, "shares")
        if self._held and held != self._held:
            raise second("shares", "shares")
        self._held = held

    def mask(self, words: Words) -> Words:
        """Words of an update with all masks of this site, (n,) uint64.

        Raises:
            StepRefused: No masks are agreed, or another update was masked already.
        """
        if not self._held:
            raise too_early("an update", "updates after the shares")
        digest = hashlib.sha256(words.data).hexdigest()
        if self._masked not in ("", digest):
            raise second("an update", "update")
        self._masked = digest
        masked = words.copy()
        add_mask(masked, self._own_mask, 1)
        for other in self.sharers:
            if other != self.site:
                public, session = self._adverts[other].mask_key, self.session.sha256
                key = pair_key(self._mask_secret, public, session, self.site, other)
                add_mask(masked, key, sign_of(self.site, other))
        return masked

    def agree(self, survivors: Sequence[str], minimum_sites: int) -> Agreement:
        """Its signature under the names of the sites whose masked updates came.

        Args:
            survivors: The names.
            minimum_sites: Fewest sites whose sum may be read, by the site's policy.

        Raises:
            StepRefused: They are too few, share no mask with it, or are others than before; or its
                own update is not there.
        """
        given = tuple(sorted(set(survivors)))
        if not self._masked:
            raise too_early("survivors", "survivors after the masked update")
        if len(given) < len(survivors) or not set(given) <= set(self._held):
            raise StepRefused(
                "survivors", "names that come twice, or share no mask", some(self.sharers, 8)
            )
        if self.site not in given:
            raise StepRefused(
                "survivors", "survivors without this site", "sites whose updates came, this one too"
            )
        self._check_enough(given, "updates", minimum_sites)
        if self._agreement is not None:
            if given != self._agreement.survivors:
                raise second("survivors", "survivors")
            return self._agreement
        unsigned = Agreement(
            session=self.session, site=self.site, survivors=given, signature="0" * 128,
            sharers_sha256=adverts_sha256(self._adverts, self.sharers),
        )  # fmt: skip
        signature = self._sign(SURVIVORS, unsigned.signed)
        self._agreement = unsigned.model_copy(update={"signature": signature})
        return self._agreement

    def reveal(self, agreements: Sequence[Agreement]) -> Revealed:
        """The shares that take the masks off the sum of the survivors that all agreed to.

        Of a site that contributed it gives the share of that one's own mask, of one that dropped
        out the share of the key of its masks with others: never both.

        Raises:
            StepRefused: Fewer than `threshold` sites signed the same as this one.
        """
        mine = self._agreement
        if mine is None:
            raise too_early("signatures", "signatures after this site's own")
        signers = set()
        for agreement in agreements:
            known = agreement.site in mine.survivors
            if not known or not agreement.is_of(self.terms.roster[agreement.site]):
                raise StepRefused(
                    "agreement", "a signature that is not of a survivor", "the roster's signatures"
                )
            if agreement.about != mine.about:
                raise StepRefused(
                    "agreement", "a signature under something else",
                    "the same session, keys and survivors for all",
                )  # fmt: skip
            signers.add(agreement.site)
        self._check_enough(signers, "signatures")
        if self._revealed is None:
            came = set(mine.survivors)
            self._revealed = Revealed(
                site=self.site,
                own_masks={s: held.own_mask for s, held in self._held.items() if s in came},
                mask_keys={s: held.mask_key for s, held in self._held.items() if s not in came},
            )
        return self._revealed

    def _make_advert(self) -> Advert:
        unsigned = Advert(
            session=self.session, site=self.site,
            share_key=public_of(self._share_secret), mask_key=public_of(self._mask_secret),
            own_mask_sha256=hashlib.sha256(self._own_mask).hexdigest(), signature="0" * 128,
        )  # fmt: skip
        return unsigned.model_copy(update={"signature": self._sign(KEYS, unsigned.signed)})

    def _check_keys(self, given: dict[str, Advert]) -> None:
        if given.get(self.site) != self.advert:
            raise StepRefused(
                "keys", "keys without this site's own, or with others", "keys as this site gave"
            )
        for site, advert in given.items():
            if advert.session != self.session:
                raise StepRefused(
                    "keys", f"keys of `{site}` for another round or study", "keys for this one"
                )
            if site not in self.terms.roster or not advert.is_of(self.terms.roster[site]):
                raise StepRefused(
                    "keys", f"keys that `{site}` did not sign", "keys that the roster's sites sign",
                    "tell the hospitals: somebody changed what they sent",
                )  # fmt: skip
        public = [key for a in given.values() for key in (a.share_key, a.mask_key)]
        if len(set(public)) < len(public):
            raise StepRefused("keys", "one key in two places", "keys that differ")
        self._check_enough(given, "keys")

    def _check_enough(self, sites: Collection[str], what: str, minimum: int = 0) -> None:
        least = max(self.terms.threshold, minimum)
        if len(sites) < least:
            raise StepRefused(
                "threshold", f"{what} of {len(sites)} sites", f"of at least {least}",
                "wait for more sites",
            )  # fmt: skip

    def _opened(self, message: Sealed) -> Shares:
        sender = self._adverts.get(message.sender)
        shares = sender and open_sealed(
            self._share_secret, self.session, self.site, sender, message
        )
        if not shares:
            raise StepRefused(
                "shares", "shares that were not sealed for this site, by their sender, in this "
                "session", "messages as they were sent",
            )  # fmt: skip
        return shares
