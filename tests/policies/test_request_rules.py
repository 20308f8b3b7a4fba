"""Each rule on a request is kept up to its threshold and refused past it, in so many words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import factories
from policies.contract import ArrayContract, Bound
from policies.findings import Finding, Severity, refusals, verdict
from policies.request_rules import RULES, DatasetFacts, Requester, check_request

FACTS = DatasetFacts(120, (60, 60), 0.02, True, ("113100", "113107"))


def check(policy: dict[str, Any] | None = None, **changes: Any) -> list[Finding]:
    """What a policy, by default that of the factories, says about a changed request."""
    return check_request(factories.ask(**changes), factories.policy(**(policy or {})))


def asked_by(account: str, institution: str = "") -> dict[str, Any]:
    return {"requester": Requester(account, institution)}


def facts(**changes: Any) -> dict[str, Any]:
    return {"facts": replace(FACTS, **changes)}


def leaving(**contract: Any) -> dict[str, Any]:
    return {"contract": factories.contract(**contract)}


def array(*shape: int, dtype: str = "float32") -> ArrayContract:
    return ArrayContract(shape=shape, dtype=dtype)


def test_request_within_the_policy_is_not_refused() -> None:
    found = check()
    rules = list(dict.fromkeys(f.rule for f in found if not f.rule.startswith("job.")))
    assert rules == [
        "requester.account", "purpose.allowed", "dataset.allowed", "access.allowed",
        "runs.maximum", "expiry.maximum", "arguments.range", "contract.declared", "contract.form",
        "update.size", "update.total", "examples.minimum", "examples.classes",
        "examples.per_class", "dominance.share", "privacy.mode",
    ]  # fmt: skip
    assert verdict(found) == "ok, 1 to read"


def test_plain_updates_are_for_a_person_to_decide() -> None:
    (found,) = (f for f in check() if f.severity is Severity.READ)
    assert found.sentence == (
        "privacy.mode: none: updates leave as computed; allowed: none. "
        "To do: decide whether plain updates of this size may leave."
    )


RITA = {"requesters": {"accounts": ["rita@uni.example"]}}
UNI = {"requesters": {"accounts": ["*@uni.example"]}}
MEMBERS = {"requesters": {"institutions": ["Example University", "Other University"]}}
PINNED = {"versions": {"chest-xray": ["00000000"]}}
WIDE = {"arguments": {"rate": {"low": 0, "high": 3}, "split": {"choices": ["train", "test"]}}}
PRESENT = {"publishing": {"options": ["113100", "113107"]}}

KEPT = [
    # who asks
    ("requester.account", {}, asked_by("anyone@where.example")),
    ("requester.account", RITA, asked_by("rita@uni.example")),
    ("requester.account", RITA, asked_by("Rita@Uni.Example")),  # addresses have no case
    ("requester.account", UNI, asked_by("rita@uni.example")),
    ("requester.institution", MEMBERS, asked_by("rita@uni.example", "Other University")),
    # for what
    ("purpose.allowed", {}, {"use": "research"}),
    ("purpose.allowed", {"purposes": ["teaching", "research"]}, {"use": "teaching"}),
    # on what
    ("dataset.allowed", {}, {"dataset": "chest-xray"}),
    ("dataset.version", PINNED, {"version": "0" * 64}),
    ("dataset.version", {"versions": {"chest-xray": ["0" * 64, "1" * 8]}}, {"version": "1" * 64}),
    ("access.allowed", {"access": ["trainer", "arrays"]}, {"access": "arrays"}),
    # how much
    ("runs.maximum", {}, {"runs": 1}),
    ("runs.maximum", {}, {"runs": 100}),
    ("expiry.maximum", {}, {"expires_in_days": 90}),
    ("arguments.range", {}, {"arguments": {}}),
    ("arguments.range", {}, {"arguments": {"rate": Bound(low=0.0, high=1.0)}}),
    ("arguments.range", {}, {"arguments": {"rate": Bound(value=1.0)}}),
    ("arguments.range", {}, {"arguments": {"rate": Bound(choices=(0, 0.5, 1))}}),
    ("arguments.range", WIDE, {"arguments": {"rate": Bound(low=0, high=3)}}),
    ("arguments.range", WIDE, {"arguments": {"split": Bound(choices=("test", "train"))}}),
    # what leaves
    ("contract.declared", {}, leaving()),
    ("contract.form", {"contract": {"maximum_arrays": 1}}, leaving()),
    ("contract.form", {"contract": {"maximum_metrics": 1}}, leaving()),
    ("contract.form", {"contract": {"dtypes": ["float32"]}}, leaving()),
    ("contract.form", {"contract": {"maximum_tables": 1}},
        leaving(counts={"t": array(4, dtype="int64")})),
    ("contract.form", {"contract": {"maximum_cells": 4}},
        leaving(counts={"t": array(2, 2, dtype="int64")})),
    ("update.size", {}, leaving(weights={"w": array(250_000)})),
    ("update.total", {"update": {"maximum_mb": 2, "maximum_change_norm": 1,
        "maximum_total_mb": 10}}, {"runs": 10, **leaving(weights={"w": array(250_000)})}),
    # what is known of the dataset
    ("examples.minimum", {}, facts(examples=10)),
    ("examples.classes", {}, facts(classes=(60, 60))),
    ("examples.classes", {"examples": {"minimum": 10, "minimum_classes": 3}},
        facts(classes=(40, 40, 40))),
    ("examples.per_class", {}, facts(classes=(110, 10))),
    ("dominance.share", {}, facts(largest_share=0.1)),
    ("dominance.share", {"dominance": {"maximum_share": 1}}, facts(largest_share=1.0)),
    ("dominance.share", {"dominance": {"unknown_patients": "refuse"}},
        facts(largest_share=None)),  # the hospital knows the share, the researcher does not
    ("publishing.options", PRESENT, facts(methods=("113100", "113107"))),
    ("publishing.options", PRESENT, facts(methods=("113100", "113103", "113107"))),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "policy", "changes"), KEPT)
def test_rule_is_kept_up_to_its_threshold(
    rule: str, policy: dict[str, Any], changes: dict[str, Any]
) -> None:
    found = check(policy, **changes)
    assert refusals(found) == []
    assert {f.severity for f in found if f.rule == rule} == {Severity.PASS}


REFUSED = [
    # who asks
    (RITA, asked_by("mallory@uni.example"),
        "requester.account: account `mallory@uni.example`; allowed: rita@uni.example. "
        "To do: ask the hospital to add the account to its policy."),
    (UNI, asked_by("rita@uni.example.org"),
        "requester.account: account `rita@uni.example.org`; allowed: *@uni.example. "
        "To do: ask the hospital to add the account to its policy."),
    (UNI, asked_by("rita@my-uni.example"),
        "requester.account: account `rita@my-uni.example`; allowed: *@uni.example. "
        "To do: ask the hospital to add the account to its policy."),
    # only a `*` before the `@` stands for others: `?` and `[` are letters of an address
    ({"requesters": {"accounts": ["r?ta@uni.example"]}}, asked_by("rita@uni.example"),
        "requester.account: account `rita@uni.example`; allowed: r?ta@uni.example. "
        "To do: ask the hospital to add the account to its policy."),
    (MEMBERS, asked_by("rita@uni.example", "Third University"),
        "requester.institution: institution `Third University`; "
        "allowed: Example University, Other University. "
        "To do: ask the hospital which institution your account stands for."),
    (MEMBERS, asked_by("rita@uni.example"),
        "requester.institution: no institution on record; "
        "allowed: Example University, Other University. "
        "To do: ask the hospital which institution your account stands for."),
    # for what
    ({}, {"use": "product development"},
        "purpose.allowed: use `product development`; allowed: research. "
        "To do: ask for a use that this hospital supports."),
    # on what
    ({}, {"dataset": "mammograms"},
        "dataset.allowed: dataset `mammograms`; allowed: chest-xray. "
        "To do: ask for one of these."),
    (PINNED, {"version": "00000001" + "0" * 56},
        "dataset.version: version 000000010000; allowed: 00000000. "
        "To do: ask for one of these versions."),
    ({"access": ["trainer"]}, {"access": "arrays"},
        "access.allowed: access `arrays`; allowed: none, as `trainer` needs mode dp_sgd. "
        "To do: ask for this kind of access."),
    ({}, {"access": "trainer"},
        "access.allowed: access `trainer`; allowed: arrays. "
        "To do: ask for this kind of access."),
    # how much
    ({}, {"runs": 101},
        "runs.maximum: 101 runs asked for; allowed: at most 100. "
        "To do: resubmit with runs=100 or fewer."),
    ({}, {"expires_in_days": 91},
        "expiry.maximum: 91 days asked for; allowed: at most 90. "
        "To do: resubmit with expires_in_days=90 or fewer."),
    ({}, {"arguments": {"speed": Bound(value=1)}},
        "arguments.range: argument `speed`; allowed: rate. To do: use only these arguments."),
    ({"arguments": {}}, {},
        "arguments.range: argument `rate`; allowed: no argument. "
        "To do: use only these arguments."),
    ({}, {"arguments": {"rate": Bound(low=0.0, high=1.0000001)}},
        "arguments.range: `rate` 0.0 to 1.0000001; allowed: 0.0 to 1.0. "
        "To do: narrow the range."),
    ({}, {"arguments": {"rate": Bound(low=-0.0000001, high=1.0)}},
        "arguments.range: `rate` -1e-07 to 1.0; allowed: 0.0 to 1.0. To do: narrow the range."),
    ({}, {"arguments": {"rate": Bound(value="fast")}},
        "arguments.range: `rate` exactly fast; allowed: 0.0 to 1.0. To do: narrow the range."),
    ({}, {"arguments": {"rate": Bound(choices=(0.5, True))}},
        "arguments.range: `rate` one of 0.5, True; allowed: 0.0 to 1.0. "
        "To do: narrow the range."),
    (WIDE, {"arguments": {"rate": Bound(low=0.0, high=3.0)}},  # whole numbers only
        "arguments.range: `rate` 0.0 to 3.0; allowed: 0 to 3 (whole numbers). "
        "To do: narrow the range."),
    (WIDE, {"arguments": {"split": Bound(choices=("test", "val"))}},
        "arguments.range: `split` one of test, val; allowed: one of train, test. "
        "To do: narrow the range."),
    # what leaves
    ({}, {"contract": None},
        "contract.declared: no contract; allowed: a contract of everything that leaves. "
        "To do: declare it."),
    ({"contract": {"maximum_arrays": 1}}, leaving(weights={"a": array(1), "b": array(1)}),
        "contract.form: 2 weight arrays; allowed: at most 1. To do: declare fewer."),
    ({"contract": {"maximum_tables": 0}}, leaving(counts={"t": array(1, dtype="int64")}),
        "contract.form: 1 tables of counts; allowed: at most 0. To do: declare fewer."),
    ({"contract": {"maximum_cells": 4}}, leaving(counts={"t": array(5, dtype="int64")}),
        "contract.form: 5 cells of counts; allowed: at most 4. To do: declare fewer."),
    ({"contract": {"maximum_cells": 4}},  # of all tables together
        leaving(counts={n: array(3, dtype="int64") for n in "ab"}),
        "contract.form: 6 cells of counts; allowed: at most 4. To do: declare fewer."),
    ({"contract": {"maximum_metrics": 0}}, leaving(),
        "contract.form: 1 metrics; allowed: at most 0. To do: declare fewer."),
    ({"contract": {"dtypes": ["float32", "int64"]}}, leaving(weights={"w": array(1,
        dtype="float64")}),
        "contract.form: arrays of float64; allowed: float32, int64. "
        "To do: return arrays of these types."),
    ({}, leaving(weights={"w": array(250_001)}),
        "update.size: 1.000004 MB per run; allowed: at most 1 MB. To do: use a smaller model."),
    ({}, leaving(counts={"t": array(10_000, dtype="int64")}, weights={"w": array(240_000)}),
        "update.size: 1.04 MB per run; allowed: at most 1 MB. To do: use a smaller model."),
    ({"update": {"maximum_mb": 2, "maximum_change_norm": 1, "maximum_total_mb": 10}},
        {"runs": 11, **leaving(weights={"w": array(250_000)})},
        "update.total: 11 MB over all runs; allowed: at most 10 MB. "
        "To do: ask for fewer runs, or use a smaller model."),
    # what is known of the dataset
    ({}, facts(examples=9),
        "examples.minimum: 9 training images; allowed: at least 10. "
        "To do: ask for a larger dataset."),
    ({}, facts(examples=None),  # the card hides small numbers
        "examples.minimum: too few training images; allowed: at least 10. "
        "To do: ask for a larger dataset."),
    ({}, facts(classes=(120,)),
        "examples.classes: 1 class; allowed: at least 2. "
        "To do: ask for a dataset with more classes."),
    ({"examples": {"minimum": 10, "minimum_classes": 3}}, {},
        "examples.classes: 2 classes; allowed: at least 3. "
        "To do: ask for a dataset with more classes."),
    ({}, facts(classes=(111, 9)),
        "examples.per_class: 1 of 2 classes with fewer training images; "
        "allowed: at least 10 training images of each class. To do: ask for a larger dataset."),
    ({}, facts(classes=(111, None)),
        "examples.per_class: 1 of 2 classes with fewer training images; "
        "allowed: at least 10 training images of each class. To do: ask for a larger dataset."),
    ({}, facts(largest_share=0.1001),
        "dominance.share: 10.01% of the training images come from one patient; "
        "allowed: at most 10% from one patient. To do: ask for a dataset with more patients."),
    ({"dominance": {"unknown_patients": "refuse"}},
        facts(largest_share=None, patients_known=False),
        "dominance.share: nobody knows which image is whose; "
        "allowed: at most 10% from one patient. "
        "To do: ask for a dataset that was published with its patients."),
    (PRESENT, facts(methods=("113100", "113103")),
        "publishing.options: certificate lists 113100, 113103; allowed: 113100, 113107. "
        "To do: ask the hospital to publish a version with these methods."),
    (PRESENT, facts(methods=()),
        "publishing.options: certificate lists no method; allowed: 113100, 113107. "
        "To do: ask the hospital to publish a version with these methods."),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "changes", "sentence"), REFUSED)
def test_rule_is_refused_past_its_threshold(
    policy: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    assert [f.sentence for f in refusals(check(policy, **changes))] == [sentence]


def test_text_of_the_job_is_part_of_the_verdict() -> None:
    refused = refusals(check(text="import os\n" + factories.DOUBLE_JOB))
    assert {f.rule for f in refused} >= {"job.form", "job.imports"}


def test_unknown_patients_are_for_a_person_to_read_where_the_policy_says_so() -> None:
    found = check(**facts(largest_share=None, patients_known=False))
    assert refusals(found) == []
    (finding,) = (f for f in found if f.rule == "dominance.share")
    assert (finding.severity, finding.sentence) == (
        Severity.READ,
        "dominance.share: nobody knows which image is whose; allowed: at most 10% from one "
        "patient. To do: decide whether one patient could stand for much of the dataset.",
    )


def test_every_argument_out_of_range_is_told() -> None:
    refused = refusals(check(arguments={"rate": Bound(value=2), "speed": Bound(value=1)}))
    assert {f.seen for f in refused} == {"`rate` exactly 2", "argument `speed`"}


def test_all_broken_rules_are_told_at_once() -> None:
    policy = {
        **RITA, **MEMBERS, "requesters": {**RITA["requesters"], **MEMBERS["requesters"]},
        "publishing": {"options": ["113105"]},
    }  # fmt: skip
    refused = refusals(
        check(
            policy, text="", use="teaching", dataset="other", access="trainer", runs=101,
            expires_in_days=91, contract=None, arguments={"speed": Bound(value=1)},
            facts=DatasetFacts(1, (1,), 1.0, True), **asked_by("mallory@uni.example"),
        )
    )  # fmt: skip
    assert {f.rule for f in refused if not f.rule.startswith("job.")} == {
        "requester.account", "requester.institution", "purpose.allowed", "dataset.allowed",
        "access.allowed", "runs.maximum", "expiry.maximum", "arguments.range",
        "contract.declared", "examples.minimum", "examples.classes", "examples.per_class",
        "dominance.share", "publishing.options",
    }  # fmt: skip
    assert any(f.rule.startswith("job.") for f in refused)


def test_every_rule_of_the_table_says_something() -> None:
    """A rule that stays silent on a plain request has nothing to demand of it."""
    policy = factories.policy()
    silent = [name for name, rule in RULES.items() if not list(rule(factories.ask(), policy))]
    assert silent == ["publishing"]  # this policy demands no method
