"""For every field of a policy: what it is in words, and which of two values allows more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from policies.plain_words import in_digits, listed


class Effect(StrEnum):
    """What a changed value does; the value is the word that people read."""

    ALLOWED = "becomes allowed"
    REFUSED = "becomes refused"
    OTHER = "changes otherwise"


Steps = Iterator[tuple[Effect, str]]
Compare = Callable[[Any, Any], Steps]


@dataclass(frozen=True, slots=True)
class Field:
    """What a field is, in words that a value follows, and how its values compare."""

    phrase: str
    compare: Compare


def instead(old: object, new: object) -> str:
    """`12 instead of 60`."""
    return f"{_shown(new)} instead of {_shown(old)}"


def most(old: float | None, new: float | None) -> Steps:
    """A higher number allows more, and no number at all allows most."""
    below = old is not None and (new is None or new > old)
    yield Effect.ALLOWED if below else Effect.REFUSED, instead(old, new)


def least(old: float, new: float) -> Steps:
    """A lower number allows more."""
    yield Effect.ALLOWED if new < old else Effect.REFUSED, instead(old, new)


def ranked(*strict_first: object) -> Compare:
    """Values from the one that allows least to the one that allows most."""

    def compare(old: object, new: object) -> Steps:
        looser = strict_first.index(new) > strict_first.index(old)
        yield Effect.ALLOWED if looser else Effect.REFUSED, instead(old, new)

    return compare


def named(old: Iterable[str], new: Iterable[str]) -> Steps:
    """Each name allows something."""
    yield from _members(old, new, Effect.ALLOWED, Effect.REFUSED)


def named_or_all(old: Iterable[str], new: Iterable[str]) -> Steps:
    """Each name allows something, and no name at all allows everything."""
    if old and new:
        yield from named(old, new)
    else:
        yield Effect.REFUSED if new else Effect.ALLOWED, instead(old or "all", new or "all")


def demanded(old: Iterable[str], new: Iterable[str]) -> Steps:
    """Each name demands or forbids something."""
    yield from _members(old, new, Effect.REFUSED, Effect.ALLOWED)


def proof(old: int, new: int) -> Steps:
    """More days demand less, and 0 demands nothing."""
    stricter = new != 0 and (old == 0 or new < old)
    yield Effect.REFUSED if stricter else Effect.ALLOWED, instead(old, new)


def shorter(old: int | None, new: int | None) -> Steps:
    """A shorter time allows more, and no end of it allows least."""
    yield (
        Effect.ALLOWED if (new or math.inf) < (old or math.inf) else Effect.REFUSED,
        instead(old, new),
    )


def neutral(old: object, new: object) -> Steps:
    """Neither value allows more."""
    yield Effect.OTHER, instead(old, new)


def _members(old: Iterable[str], new: Iterable[str], added: Effect, gone: Effect) -> Steps:
    more, fewer = Counter(new) - Counter(old), Counter(old) - Counter(new)
    if more:
        yield added, f"now also {listed(more.elements())}"
    if fewer:
        yield gone, f"no longer {listed(fewer.elements())}"
    if not more and not fewer:
        yield Effect.OTHER, "the same in another order"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return in_digits(value) if isinstance(value, int) or value >= 1e-6 else f"{value:g}"
    if isinstance(value, tuple):
        return listed(value)
    return "none" if value is None else str(value)


REQUIREMENT = {
    "approvers": Field("people who have to agree", least),
    "roles": Field("roles that have to be among them", demanded),
    "four_eyes": Field("an owner and a second person", ranked(True, False)),
    "waiting_hours": Field("hours before the last of them may agree", least),
}
RISK = {
    "when.runs_above": Field("applies above so many runs", most),
    "when.total_mb_above": Field("applies above so many MB over all runs", most),
    "when.warnings_above": Field("applies above so many warnings", most),
    "when.new_text": Field("applies to new texts", ranked(True, False)),
    "when.new_requester": Field("applies to new requesters", ranked(True, False)),
}
TIER = {**REQUIREMENT, **RISK}
"""Fields of one tier of the review."""

FIELDS = {
    "name": Field("the policy's name", neutral),
    "version": Field("the policy's version", neutral),
    "about": Field("what it is for", neutral),
    "datasets": Field("datasets that may be asked for", named),
    "requesters.accounts": Field("accounts that may ask", named_or_all),
    "requesters.institutions": Field("institutions that may ask", named_or_all),
    "purposes": Field("uses of results", named),
    "access": Field("kinds of access to images", named),
    "runs.maximum": Field("runs of one approval", most),
    "runs.per_day": Field("runs of one approval within 24 hours", most),
    "expiry.maximum_days": Field("days that an approval holds", most),
    "expiry.undecided_days": Field("days that a request can wait for a decision", most),
    "job.imports": Field("modules that a job may import", named),
    "job.forbidden_calls": Field("names that a job may not use", demanded),
    "job.maximum_lines": Field("lines of a job", most),
    "contract.dtypes": Field("types of numbers that may leave", named),
    "contract.maximum_arrays": Field("weight arrays", most),
    "contract.maximum_tables": Field("tables of counts", most),
    "contract.maximum_cells": Field("cells of all tables", most),
    "contract.maximum_metrics": Field("metrics", most),
    "examples.minimum": Field("images that a result has to rest on", least),
    "examples.minimum_classes": Field("classes that a dataset has to have", least),
    "examples.minimum_per_class": Field("training images that each class has to have", least),
    "dominance.maximum_share": Field("largest share of one patient", most),
    "dominance.unknown_patients": Field("where patients are unknown", ranked("refuse", "read")),
    "counts.minimum": Field("smallest number in a cell of a table", least),
    "update.maximum_mb": Field("MB per run", most),
    "update.maximum_total_mb": Field("MB over all runs", most),
    "update.maximum_change_norm": Field("L2 norm of the change of the weights", most),
    "sandbox.memory_mb": Field("MiB of memory of a run", most),
    "sandbox.time_s": Field("seconds of a run", most),
    "sandbox.processes": Field("processes and threads of a run", most),
    "sandbox.proof_days": Field("days that a proof of the sandbox holds, 0 for none", proof),
    "publishing.minimum_per_class": Field("images of each class to publish a dataset", least),
    "publishing.minimum_patients": Field("patients to publish a dataset", least),
    "publishing.options": Field("methods of de-identification that are demanded", demanded),
    "publishing.text_search": Field(
        "search for text in pixels", ranked("required", "if installed", "off")
    ),
    "publishing.suspect_modalities": Field("modalities suspected of text in pixels", demanded),
    "publishing.recognisable_heads": Field(
        "images that may show a face", ranked("refuse", "allow")
    ),
    "privacy.mode": Field("protection of updates", ranked("dp_sgd", "update_noise", "none")),
    "privacy.maximum_epsilon": Field("epsilon per patient", most),
    "privacy.delta": Field("delta of that guarantee", most),
    "privacy.period_days": Field("days in which runs count against the cap", shorter),
    "privacy.accountant": Field("how runs are added up", neutral),
    "privacy.clip_norm": Field("L2 norm to which changes are clipped before noise", neutral),
    "privacy.images_per_patient": Field("images of one patient that are used at most", neutral),
    "privacy.examples": Field("number of images that leaves", neutral),
    "privacy.release_after_s": Field("seconds after which updates are given out", neutral),
    "release.required": Field("a leakage test before release", ranked(True, False)),
    "release.maximum_tpr_at_0_1_percent": Field(
        "members found at a false positive rate of 0.1%", most
    ),
    "release.maximum_tpr_at_1_percent": Field("members found at a false positive rate of 1%", most),
    "release.maximum_parameters_per_patient": Field("parameters of a model per patient", most),
    **{f"review.{name}": field for name, field in REQUIREMENT.items()},
    "review.rehearsal.images": Field("invented images that a rehearsal changes", neutral),
    "review.rehearsal.time_s": Field("seconds of a rehearsal", neutral),
    "review.rehearsal.must_succeed": Field("the rehearsal has to succeed", ranked(True, False)),
}
"""Every field of a policy but those that are lists of named parts: versions, arguments, tiers."""
