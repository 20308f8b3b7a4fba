"""What changes between two policies: what becomes allowed, what refused, in words and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from policies.contract import Bound
from policies.document import Policy
from policies.explain_review import condition_in_words, needs_in_words
from policies.field_order import FIELDS, TIER, Effect, Field, instead, named_or_all
from policies.review_rule import RiskTier


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        field: Where it stands in the document.
        effect: What it does.
        words: What changes, with the old and the new value.
    """

    field: str
    effect: Effect
    words: str

    def as_dict(self) -> dict[str, Any]:
        """The change as JSON types."""
        return {**asdict(self), "effect": self.effect.value}


def policy_changes(old: Policy, new: Policy) -> list[Change]:
    """Every difference between two policies, in the order of `Effect`.

    A range that moves is told twice, for what it allows and for what it refuses from now on.
    """
    changes = [
        *_fields("", "", FIELDS, old, new),
        *_versions(old, new),
        *_arguments(old.arguments, new.arguments),
        *_tiers(old, new),
    ]
    order = list(Effect)
    return sorted(changes, key=lambda change: order.index(change.effect))


def _fields(
    path: str, about: str, fields: Mapping[str, Field], old: Any, new: Any
) -> Iterator[Change]:
    for name, field in fields.items():
        before, after = attrgetter(name)(old), attrgetter(name)(new)
        if before != after:
            for effect, words in field.compare(before, after):
                yield Change(f"{path}{name}", effect, f"{about}{field.phrase}: {words}")


def _versions(old: Policy, new: Policy) -> Iterator[Change]:
    for dataset in sorted(set(old.versions) | set(new.versions)):
        before, after = old.versions.get(dataset, ()), new.versions.get(dataset, ())
        if before != after:
            for effect, words in named_or_all(before, after):
                about = f"versions of {dataset} that may be asked for: {words}"
                yield Change(f"versions.{dataset}", effect, about)


def _arguments(old: Mapping[str, Bound], new: Mapping[str, Bound]) -> Iterator[Change]:
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        field, about = f"arguments.{name}", f"argument {name}"
        if before is None and after is not None:
            yield Change(field, Effect.ALLOWED, f"{about}: {after.in_words()}, new")
        elif before is not None and after is None:
            yield Change(field, Effect.REFUSED, f"{about}: no longer, was {before.in_words()}")
        elif before is not None and after is not None:
            words = f"{about}: {instead(before.in_words(), after.in_words())}"
            wider, narrower = after.contains(before), before.contains(after)
            if wider and narrower:
                yield Change(field, Effect.OTHER, words)
                continue
            if not narrower:
                yield Change(field, Effect.ALLOWED, words)
            if not wider:
                yield Change(field, Effect.REFUSED, words)


def _tiers(old: Policy, new: Policy) -> Iterator[Change]:
    before, after = ({tier.name: tier for tier in p.review.tiers} for p in (old, new))
    for name in sorted(set(before) | set(after)):
        field, about = f"review.tiers.{name}", f"requests of the kind {name}"
        if name not in before:
            tier = after[name]
            when, needs = condition_in_words(tier.when), needs_in_words(tier)
            yield Change(field, Effect.REFUSED, f"{about}, when {when}: need {needs}")
        elif name not in after:
            yield Change(field, Effect.ALLOWED, f"{about}: no longer need more than other requests")
        else:
            yield from _tier(field, about, before[name], after[name])
    if before == after and old.review.tiers != new.review.tiers:
        yield Change("review.tiers", Effect.OTHER, "kinds of requests: the same in another order")


def _tier(field: str, about: str, old: RiskTier, new: RiskTier) -> Iterator[Change]:
    return _fields(f"{field}.", f"{about}: ", TIER, old, new)
