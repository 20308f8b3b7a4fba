"""Rounds of secure aggregation in one process: sites' parts, and a coordinator that is honest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datasites.keys import SiteKey
from policies.arrays import Arrays
from policies.secure_aggregation.fixed_point import Words, encode
from policies.secure_aggregation.messages import Advert, Agreement, Revealed, Sealed, Session
from policies.secure_aggregation.participant import Participant
from policies.secure_aggregation.terms import SecureAggregation, least_threshold
from policies.secure_aggregation.unmasking import unmask

STUDY = "5eed" * 16


def site_key(number: int) -> SiteKey:
    """The key of a site."""
    return SiteKey(bytes([number % 256, number // 256]) * 16)


def names(sites: int) -> list[str]:
    """Names of sites; their order is not that of their numbers."""
    return [f"site-{(7 * k) % 101:03d}" for k in range(sites)]


def terms(sites: int = 4, **changes: Any) -> SecureAggregation:
    """Terms for so many sites."""
    plain: dict[str, Any] = {
        "roster": {name: site_key(k).public_hex for k, name in enumerate(names(sites), 1)},
        "threshold": least_threshold(sites),
        "clip": 1.0,
        "largest_examples": 1000,
    }
    return SecureAggregation(**{**plain, **changes})


def participants(
    asked: SecureAggregation, round_number: int = 1, attempt: int = 1, study: str = STUDY
) -> dict[str, Participant]:
    """Every site's part of a session."""
    session = Session(study=study, round=round_number, attempt=attempt)
    by_key = {site_key(k).public_hex: site_key(k) for k in range(1, 70)}
    return {
        name: Participant(asked, session, name, by_key[key].sign)
        for name, key in asked.roster.items()
    }


@dataclass
class Round:
    """A round as far as it went, and what passed through the coordinator's hands."""

    sites: dict[str, Participant]
    adverts: dict[str, Advert] = field(default_factory=dict)
    sealed: dict[str, list[Sealed]] = field(default_factory=dict)
    masked: dict[str, Words] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)
    revealed: list[Revealed] = field(default_factory=list)

    def keys(self, gone: Collection[str] = ()) -> Round:
        """Collect keys."""
        self.adverts = {n: p.advert for n, p in self.sites.items() if n not in gone}
        return self

    def shares(self, gone: Collection[str] = ()) -> Round:
        """Hand out keys, collect sealed shares."""
        keys = list(self.adverts.values())
        self.sealed = {n: self.sites[n].share(keys) for n in self.adverts if n not in gone}
        return self

    def inbox(self, name: str) -> list[Sealed]:
        """What is sealed for a site."""
        return [m for sent in self.sealed.values() for m in sent if m.receiver == name]

    def updates(self, words: Mapping[str, Words], gone: Collection[str] = ()) -> Round:
        """Hand out shares, collect masked updates."""
        for name in self.sealed:
            if name not in gone:
                self.sites[name].receive(self.inbox(name))
                self.masked[name] = self.sites[name].mask(words[name])
        return self

    def signatures(self, gone: Collection[str] = (), minimum: int = 3) -> Round:
        """Tell whose updates came, collect signatures."""
        self.agreements = [
            self.sites[n].agree(sorted(self.masked), minimum) for n in self.masked if n not in gone
        ]
        return self

    def secrets(self, gone: Collection[str] = ()) -> Round:
        """Hand out signatures, collect shares."""
        signers = [a.site for a in self.agreements]
        self.revealed = [self.sites[n].reveal(self.agreements) for n in signers if n not in gone]
        return self

    def total(self) -> Words:
        """The sum of the survivors."""
        asked = next(iter(self.sites.values())).terms
        shared = {name: self.adverts[name] for name in self.sealed}
        return unmask(asked, shared, self.masked, self.revealed)


def random_update(rng: np.random.Generator, size: int = 50) -> tuple[Arrays, Arrays]:
    """Weights before and after a run."""
    sent: Arrays = {"w": rng.normal(0, 1, (size, 2)).astype(np.float32),
                    "b": rng.normal(0, 1, 3).astype(np.float32),
                    "steps": np.array(5, np.int64)}  # fmt: skip
    after: Arrays = {
        "w": (sent["w"] + rng.normal(0, 0.2, (size, 2))).astype(np.float32),
        "b": (sent["b"] + rng.normal(0, 0.2, 3)).astype(np.float32),
        "steps": np.array(6, np.int64),
    }
    return sent, after


def random_words(asked: SecureAggregation, seed: int = 0, size: int = 50) -> dict[str, Words]:
    """An update of every site as words."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in asked.roster:
        sent, after = random_update(rng, size)
        found[name] = encode(after, sent, int(rng.integers(1, asked.largest_examples + 1)), asked)
    return found
