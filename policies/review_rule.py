"""Who has to agree before a request is approved, and how risk raises that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, Self

from pydantic import Field, model_validator

from policies.contract import Name, Terms
from policies.findings import Finding, Severity
from policies.strict import Strict

ApproverRole = Literal["owner", "second approver"]
"""Who may agree: a data owner, or someone who looks at it after them. An owner may also take the
place of a second approver, for another owner's request; never the other way round."""


class Requirement(Strict):
    """What it takes to approve."""

    approvers: int = Field(default=1, ge=1, le=5)
    """How many different people have to agree."""
    roles: tuple[ApproverRole, ...] = Field(default=("owner",), max_length=5)
    """Roles that have to be among them, each filled by another person."""
    four_eyes: bool = False
    """Two people at least: an owner and a second approver."""
    waiting_hours: float = Field(default=0, ge=0, le=720)
    """Hours between submission and the last agreement."""


class Risk(Strict):
    """When a tier applies: any one of these is enough."""

    runs_above: int | None = Field(default=None, ge=0, le=10_000)
    """More runs asked for than this."""
    total_mb_above: float | None = Field(default=None, ge=0, le=1e6)
    """More megabytes leave over all runs than this."""
    warnings_above: int | None = Field(default=None, ge=0, le=1000)
    """More warnings about the text than this."""
    new_text: bool = False
    """The text was never approved here before."""
    new_requester: bool = False
    """Nothing of this account was ever approved here before."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == Risk.model_construct(**{n: f.default for n, f in Risk.model_fields.items()}):
            raise ValueError("a tier needs a condition, such as `runs_above: 20`")
        return self


class RiskTier(Requirement):
    """A kind of request that needs more than others."""

    name: Name
    """Short name, shown on the review sheet."""
    when: Risk
    """When it applies."""


class RehearsalRule(Strict):
    """The trial run on the mock that precedes every approval."""

    images: int = Field(default=16, ge=0, le=64)
    """How many mock images are changed, one at a time, to see what each moves in the result."""
    time_s: int = Field(default=60, ge=1, le=3600)
    """Wall time of the whole rehearsal, in seconds."""
    must_succeed: bool = False
    """Whether a job that fails on the mock cannot be approved."""


class ReviewRule(Requirement):
    """Who decides about requests."""

    rehearsal: RehearsalRule = RehearsalRule()
    """The trial run on the mock."""
    tiers: tuple[RiskTier, ...] = Field(default=(), max_length=20)
    """Kinds of requests that need more."""

    @model_validator(mode="after")
    def _tiers_have_names_of_their_own(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two tiers are called `{min(twice)}`; name each differently")
        return self

    @property
    def longest_wait_hours(self) -> float:
        """Hours that the slowest kind of request has to wait."""
        return max(r.waiting_hours for r in (self, *self.tiers))


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """What was approved here before.

    Attributes:
        text_approved: Whether this very text was.
        account_approved: How many requests of this account were.
    """

    text_approved: bool
    account_approved: int


@dataclass(frozen=True, slots=True)
class ReviewNeeded:
    """What one request needs to be approved.

    Attributes:
        approvers: How many different people.
        roles: Roles that have to be among them, each another person.
        waiting_hours: Hours after submission before the last of them may agree.
        tiers: Names of the tiers that raised it.
    """

    approvers: int
    roles: tuple[ApproverRole, ...]
    waiting_hours: float
    tiers: tuple[str, ...] = ()

    def in_words(self) -> str:
        """`2 people (owner, second approver), 24 h after submission; because of: large`."""
        people = f"{self.approvers} " + ("person" if self.approvers == 1 else "people")
        words = f"{people} ({', '.join(self.roles) or 'any role that decides'})"
        if self.waiting_hours:
            words += f", {self.waiting_hours:g} h after submission"
        if self.tiers:
            words += f"; because of: {', '.join(self.tiers)}"
        return words

    def missing(self, consents: Sequence[tuple[str, str]]) -> str:
        """What is still missing, given who agreed: (person, role) each; empty when nothing is."""
        people = dict(consents)
        if len(people) < self.approvers:
            return f"{len(people)} of {self.approvers} people agreed"
        for wanted in permutations(people.values(), len(self.roles)):
            if all(_fills(has, role) for has, role in zip(wanted, self.roles, strict=True)):
                return ""
        return f"one more has to agree as {_unfilled(self.roles, list(people.values()))}"


def review_needed(
    terms: Terms, findings: Sequence[Finding], record: TrackRecord, rule: ReviewRule
) -> ReviewNeeded:
    """What a request needs: the rule's own requirement, raised by every tier that applies."""
    applying = [t for t in rule.tiers if _applies(t.when, terms, findings, record)]
    wanted: list[Requirement] = [rule, *applying]
    roles: list[ApproverRole] = []
    for requirement in wanted:
        asked: tuple[ApproverRole, ...] = requirement.roles
        if requirement.four_eyes:
            asked = (*asked, "owner", "second approver")
        for role in asked:
            if roles.count(role) < max(requirement.roles.count(role), 1):
                roles.append(role)
    return ReviewNeeded(
        approvers=max(len(roles), *(r.approvers for r in wanted)),
        roles=tuple(roles),
        waiting_hours=max(r.waiting_hours for r in wanted),
        tiers=tuple(t.name for t in applying),
    )


def _applies(when: Risk, terms: Terms, findings: Sequence[Finding], record: TrackRecord) -> bool:
    warnings = sum(f.severity is Severity.WARN for f in findings)
    return (
        (when.runs_above is not None and terms.runs > when.runs_above)
        or (when.total_mb_above is not None and terms.total_mb > when.total_mb_above)
        or (when.warnings_above is not None and warnings > when.warnings_above)
        or (when.new_text and not record.text_approved)
        or (when.new_requester and not record.account_approved)
    )


def _fills(has: str, role: ApproverRole) -> bool:
    return has == role or (has == "owner" and role == "second approver")


def _unfilled(roles: Sequence[ApproverRole], present: list[str]) -> str:
    left = list(present)
    for role in roles:
        if role in left:
            left.remove(role)
        elif role == "owner" or "owner" not in left:
            return role
        else:
            left.remove("owner")
    return roles[-1]
