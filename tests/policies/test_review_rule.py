"""Who has to agree, and how risk raises it: both sides of every condition."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import factories
from policies.contract import ArrayContract
from policies.findings import Finding, Severity, refuse
from policies.review_rule import (
    ReviewNeeded,
    ReviewRule,
    Risk,
    RiskTier,
    TrackRecord,
    review_needed,
)

KNOWN = TrackRecord(text_approved=True, account_approved=1)
WARNING = Finding("job.values", Severity.WARN, "seen", "allowed")
READ = Finding("privacy.mode", Severity.READ, "seen", "allowed")
ANNA, BERT, CARA = ("anna", "owner"), ("bert", "second approver"), ("cara", "owner")
DORA = ("dora", "second approver")


def needed(
    rule: dict[str, Any],
    findings: list[Finding] | None = None,
    record: TrackRecord = KNOWN,
    **terms: Any,
) -> ReviewNeeded:
    parsed = ReviewRule.model_validate(rule)
    return review_needed(factories.terms(**terms), findings or [], record, parsed)


def tier(when: dict[str, Any], name: str = "risky", **more: Any) -> dict[str, Any]:
    """A rule with one tier."""
    return {"tiers": [{"name": name, "when": when, "approvers": 3, **more}]}


@pytest.mark.parametrize(
    ("rule", "approvers", "roles", "hours"),
    [
        ({}, 1, ("owner",), 0),
        ({"approvers": 2}, 2, ("owner",), 0),
        ({"roles": []}, 1, (), 0),
        ({"roles": ["second approver"]}, 1, ("second approver",), 0),
        # as many people as roles, each another one
        ({"roles": ["owner", "owner"]}, 2, ("owner", "owner"), 0),
        ({"four_eyes": True}, 2, ("owner", "second approver"), 0),
        ({"four_eyes": True, "roles": []}, 2, ("owner", "second approver"), 0),
        ({"four_eyes": True, "roles": ["owner", "second approver"]},
            2, ("owner", "second approver"), 0),
        ({"four_eyes": True, "approvers": 3}, 3, ("owner", "second approver"), 0),
        ({"waiting_hours": 24}, 1, ("owner",), 24),
    ],
)  # fmt: skip
def test_rule_alone_says_who_and_when(
    rule: dict[str, Any], approvers: int, roles: tuple[str, ...], hours: float
) -> None:
    assert needed(rule) == ReviewNeeded(approvers, roles, hours)


MB_10 = factories.contract(weights={"w": ArrayContract(shape=(250_000,), dtype="float32")})


@pytest.mark.parametrize(
    ("when", "request_", "applies"),
    [
        ({"runs_above": 20}, {"runs": 20}, False),
        ({"runs_above": 20}, {"runs": 21}, True),
        ({"runs_above": 0}, {"runs": 1}, True),
        ({"total_mb_above": 10}, {"contract": MB_10, "runs": 10}, False),
        ({"total_mb_above": 10}, {"contract": MB_10, "runs": 11}, True),
        ({"total_mb_above": 0}, {"contract": None}, False),  # nothing declared: refused elsewhere
        ({"warnings_above": 0}, {"findings": [READ, refuse("x", "", "", "")]}, False),
        ({"warnings_above": 0}, {"findings": [READ, WARNING]}, True),
        ({"warnings_above": 1}, {"findings": [WARNING]}, False),
        ({"warnings_above": 1}, {"findings": [WARNING, WARNING]}, True),
        ({"new_text": True}, {"record": TrackRecord(True, 0)}, False),
        ({"new_text": True}, {"record": TrackRecord(False, 5)}, True),
        ({"new_requester": True}, {"record": TrackRecord(False, 1)}, False),
        ({"new_requester": True}, {"record": TrackRecord(True, 0)}, True),
        # any one condition is enough
        ({"runs_above": 20, "new_text": True}, {"runs": 21}, True),
        ({"runs_above": 20, "new_text": True}, {"record": TrackRecord(False, 1)}, True),
        ({"runs_above": 20, "new_text": True}, {"runs": 20}, False),
    ],
)
def test_tier_applies_past_its_condition(
    when: dict[str, Any], request_: dict[str, Any], applies: bool
) -> None:
    found = needed(tier(when), **request_)
    assert found.tiers == (("risky",) if applies else ())
    assert found.approvers == (3 if applies else 1)


def test_tiers_raise_and_never_lower() -> None:
    rule = {
        "approvers": 2, "four_eyes": True, "waiting_hours": 10,
        "tiers": [
            {"name": "small", "when": {"runs_above": 1}, "roles": []},
            {"name": "slow", "when": {"runs_above": 5}, "waiting_hours": 48},
            {"name": "big", "when": {"runs_above": 9}, "roles": ["owner", "owner"]},
            {"name": "huge", "when": {"runs_above": 10}, "approvers": 5},
        ],
    }  # fmt: skip
    assert needed(rule, runs=10) == ReviewNeeded(
        3, ("owner", "second approver", "owner"), 48, ("small", "slow", "big")
    )


@given(runs=st.integers(1, 100), above=st.integers(0, 100), tier_approvers=st.integers(1, 5))
def test_no_tier_makes_it_easier(runs: int, above: int, tier_approvers: int) -> None:
    rule: dict[str, Any] = {"approvers": 2, "waiting_hours": 5}
    plain = needed(rule, runs=runs)
    more = {**tier({"runs_above": above}, approvers=tier_approvers), **rule}
    found = needed(more, runs=runs)
    assert found.approvers >= plain.approvers
    assert found.waiting_hours >= plain.waiting_hours
    assert set(found.roles) >= set(plain.roles)


@pytest.mark.parametrize(
    ("approvers", "roles", "consents", "missing"),
    [
        (1, ("owner",), [], "0 of 1 people agreed"),
        (1, ("owner",), [ANNA], ""),
        (1, ("owner",), [BERT], "one more has to agree as owner"),
        (1, (), [BERT], ""),
        # an owner may stand in for a second approver, never the other way round
        (1, ("second approver",), [ANNA], ""),
        (2, ("owner", "second approver"), [ANNA], "1 of 2 people agreed"),
        (2, ("owner", "second approver"), [ANNA, ANNA], "1 of 2 people agreed"),
        (2, ("owner", "second approver"), [ANNA, BERT], ""),
        (2, ("owner", "second approver"), [BERT, ANNA], ""),
        (2, ("owner", "second approver"), [ANNA, CARA], ""),
        (2, ("owner", "second approver"), [BERT, DORA], "one more has to agree as owner"),
        (2, ("second approver", "owner"), [ANNA, BERT], ""),
        (2, ("owner", "owner"), [ANNA, BERT], "one more has to agree as owner"),
        (2, ("owner", "owner"), [ANNA, CARA], ""),
        (3, ("owner",), [ANNA, BERT], "2 of 3 people agreed"),
        (3, ("owner",), [BERT, DORA, ANNA], ""),
        # more people than needed do no harm
        (1, ("owner",), [BERT, DORA, ANNA], ""),
    ],
)
def test_what_is_missing_is_told(
    approvers: int, roles: Any, consents: list[tuple[str, str]], missing: str
) -> None:
    assert ReviewNeeded(approvers, roles, 0).missing(consents) == missing


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ReviewNeeded(1, ("owner",), 0), "1 person (owner)"),
        (ReviewNeeded(1, (), 0), "1 person (any role that decides)"),
        (
            ReviewNeeded(2, ("owner", "second approver"), 24, ("large",)),
            "2 people (owner, second approver), 24 h after submission; because of: large",
        ),
        (ReviewNeeded(2, ("owner",), 0.5), "2 people (owner), 0.5 h after submission"),
    ],
)
def test_requirement_is_said_in_words(found: ReviewNeeded, words: str) -> None:
    assert found.in_words() == words


@pytest.mark.parametrize("when", [{}, {"new_text": False}, {"runs_above": None}])
def test_tier_without_a_condition_is_refused(when: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a tier needs a condition, such as `runs_above: 20`"):
        Risk.model_validate(when)


def test_two_tiers_of_one_name_are_refused() -> None:
    one = RiskTier(name="large", when=Risk(runs_above=1))
    with pytest.raises(
        ValidationError, match="two tiers are called `large`; name each differently"
    ):
        ReviewRule(tiers=(one, one))


def test_longest_wait_is_that_of_the_slowest_tier() -> None:
    assert ReviewRule(waiting_hours=3).longest_wait_hours == 3
    slow = RiskTier(name="large", when=Risk(runs_above=1), waiting_hours=24)
    assert ReviewRule(waiting_hours=3, tiers=(slow,)).longest_wait_hours == 24
