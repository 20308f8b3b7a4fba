"""What changes between two policies, told with its direction and both values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document import Policy
from policies.field_order import FIELDS, TIER, Effect
from policies.policy_diff import Change, policy_changes
from policy_fields import FULL, LOOSER, NEUTRAL, PRIVATE, WITH_DP, changed, leaves

BASE = Policy.model_validate(FULL)


def test_every_field_of_the_model_knows_which_of_two_values_allows_more() -> None:
    tiers = {f"review.tiers.0.{name}" for name in TIER} | {"review.tiers.0.name"}
    assert set(FIELDS) | tiers | {"versions", "arguments"} == set(leaves())


def test_equal_policies_have_no_difference() -> None:
    assert policy_changes(BASE, Policy.model_validate(FULL)) == []


@pytest.mark.parametrize("path", LOOSER)
def test_looser_value_becomes_allowed_and_back_again_refused(path: str) -> None:
    looser = changed(path, LOOSER[path])
    field = path.replace("tiers.0", "tiers.large")
    assert [(c.field, c.effect) for c in policy_changes(BASE, looser)] == [(field, Effect.ALLOWED)]
    assert [(c.field, c.effect) for c in policy_changes(looser, BASE)] == [(field, Effect.REFUSED)]


@pytest.mark.parametrize("path", NEUTRAL)
def test_other_changes_are_told_as_such(path: str) -> None:
    (found,) = policy_changes(BASE, changed(path, NEUTRAL[path]))
    assert (found.field, found.effect) == (path, Effect.OTHER)


@pytest.mark.parametrize("field", PRIVATE)
def test_changed_protection_is_told_with_its_direction(field: str) -> None:
    value, effect = PRIVATE[field]
    private, other = changed("privacy", WITH_DP), changed("privacy", {**WITH_DP, field: value})
    (found,) = policy_changes(private, other)
    assert (found.field, found.effect) == (f"privacy.{field}", effect)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("runs.maximum", 12, [("becomes refused", "runs of one approval: 12 instead of 30")]),
        ("runs.maximum", 1000, [("becomes allowed", "runs of one approval: 1,000 instead of 30")]),
        ("purposes", ["teaching"], [
            ("becomes allowed", "uses of results: now also teaching"),
            ("becomes refused", "uses of results: no longer research"),
        ]),
        ("datasets", ["head-mr", "chest-xray"], [
            ("changes otherwise", "datasets that may be asked for: the same in another order"),
        ]),
        ("requesters.accounts", [], [
            ("becomes allowed", "accounts that may ask: all instead of *@uni.example"),
        ]),
        ("requesters.accounts", ["*@uni.example", "a@b.example"], [
            ("becomes allowed", "accounts that may ask: now also a@b.example"),
        ]),
        ("versions", {}, [
            ("becomes allowed", "versions of chest-xray that may be asked for: all instead of "
                "5eed0a11"),
        ]),
        ("versions", {"chest-xray": ["0b5e55ed"], "head-mr": ["5eed0a11"]}, [
            ("becomes allowed", "versions of chest-xray that may be asked for: now also 0b5e55ed"),
            ("becomes refused", "versions of chest-xray that may be asked for: no longer 5eed0a11"),
            ("becomes refused", "versions of head-mr that may be asked for: 5eed0a11 instead of "
                "all"),
        ]),
        # a range that moves allows more at one end and less at the other
        ("arguments.rate", {"low": 0.5, "high": 2.0}, [
            ("becomes allowed", "argument rate: 0.5 to 2.0 instead of 0.0 to 1.0"),
            ("becomes refused", "argument rate: 0.5 to 2.0 instead of 0.0 to 1.0"),
        ]),
        ("arguments.rate", {"low": 0.5, "high": 1.0}, [
            ("becomes refused", "argument rate: 0.5 to 1.0 instead of 0.0 to 1.0"),
        ]),
        ("arguments.split", {"choices": ["test", "train"]}, [
            ("changes otherwise", "argument split: one of test, train instead of one of train, "
                "test"),
        ]),
        ("arguments", {"split": FULL["arguments"]["split"], "speed": {"value": 1}}, [
            ("becomes allowed", "argument speed: exactly 1, new"),
            ("becomes refused", "argument rate: no longer, was 0.0 to 1.0"),
        ]),
        ("job.forbidden_calls", ["open", "eval"], [
            ("becomes refused", "names that a job may not use: now also eval"),
        ]),
        ("review.roles", ["owner", "owner"], [
            ("becomes refused", "roles that have to be among them: now also owner"),
        ]),
        ("review.four_eyes", False, [
            ("becomes allowed", "an owner and a second person: no instead of yes"),
        ]),
        ("review.tiers", [], [
            ("becomes allowed", "requests of the kind large: no longer need more than other "
                "requests"),
        ]),
        ("review.tiers", [FULL["review"]["tiers"][0], {"name": "odd", "approvers": 2,
            "when": {"warnings_above": 0}}], [
            ("becomes refused", "requests of the kind odd, when its text has a warning: need "
                "2 people, among them a data owner"),
        ]),
        ("review.tiers.0.when.runs_above", None, [
            ("becomes allowed", "requests of the kind large: applies above so many runs: none "
                "instead of 10"),
        ]),
        ("privacy", WITH_DP, [
            ("becomes allowed", "days in which runs count against the cap: 700 instead of none"),
            ("becomes refused", "protection of updates: update_noise instead of none"),
            ("becomes refused", "epsilon per patient: 3 instead of none"),
            ("becomes refused", "delta of that guarantee: 0.00001 instead of none"),
        ]),
        ("dominance.maximum_share", 1e-7, [
            ("becomes refused", "largest share of one patient: 1e-07 instead of 0.02"),
        ]),
    ],
)  # fmt: skip
def test_difference_is_told_in_words(path: str, value: Any, told: list[tuple[str, str]]) -> None:
    found = policy_changes(BASE, changed(path, value))
    assert [(c.effect.value, c.words) for c in found] == told


def test_tiers_in_another_order_mean_the_same() -> None:
    odd = {"name": "odd", "approvers": 2, "when": {"warnings_above": 0}}
    tiers = [*FULL["review"]["tiers"], odd]
    one, two = changed("review.tiers", tiers), changed("review.tiers", tiers[::-1])
    assert policy_changes(one, two) == [
        Change("review.tiers", Effect.OTHER, "kinds of requests: the same in another order")
    ]


@given(st.lists(st.sampled_from(sorted(LOOSER)), unique=True, max_size=1), st.data())
def test_policies_with_different_digests_have_a_difference(paths: list[str], data: Any) -> None:
    other = changed(paths[0], LOOSER[paths[0]]) if paths else BASE
    assert bool(policy_changes(BASE, other)) is (BASE.sha256 != other.sha256)


def test_change_travels_as_json_types() -> None:
    (found,) = policy_changes(BASE, changed("runs.maximum", 12))
    assert found.as_dict() == {
        "field": "runs.maximum",
        "effect": "becomes refused",
        "words": "runs of one approval: 12 instead of 30",
    }
