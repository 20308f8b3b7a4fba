"""Each rule on a request is kept up to its threshold and refused past it, in so many words."""

from __future__ import annotations

import math
from typing import Any

import pytest

import factories
from policies.contract import ArrayContract, Bound
from policies.findings import Severity, refusals, verdict
from policies.request_rules import check_arguments, check_request

RULES = [
    "dataset.allowed", "access.allowed", "runs.maximum", "expiry.maximum", "arguments.range",
    "contract.declared", "update.size", "examples.minimum", "job.form", "job.imports",
    "job.calls", "job.output", "privacy.mode",
]  # fmt: skip


def check(examples: int | None = 120, text: str = factories.DOUBLE_JOB, **terms: Any) -> Any:
    return check_request(text, factories.terms(**terms), factories.policy(), examples)


def megabytes(size: int) -> dict[str, ArrayContract]:
    """An array of so many bytes; the policy of the factories lets 1 MB leave."""
    return {"w": ArrayContract(shape=(size // 2,), dtype="float16")}


def test_request_within_the_policy_is_not_refused() -> None:
    found = check()
    assert [f.rule for f in found] == RULES
    assert verdict(found) == "ok, 1 to read"


def test_plain_updates_are_for_a_person_to_decide() -> None:
    (found,) = (f for f in check() if f.severity is Severity.READ)
    assert found.sentence == (
        "privacy.mode: none: updates leave as computed; allowed: none. "
        "To do: decide whether plain updates of this size may leave."
    )


@pytest.mark.parametrize(
    ("rule", "terms"),
    [
        ("dataset.allowed", {"dataset": "chest-xray"}),
        ("runs.maximum", {"runs": 1}),
        ("runs.maximum", {"runs": 100}),
        ("expiry.maximum", {"expires_in_days": 90}),
        ("update.size", {"contract": factories.contract(weights=megabytes(1_000_000))}),
        ("examples.minimum", {"examples": 10}),
        ("arguments.range", {"arguments": {}}),
        ("arguments.range", {"arguments": {"rate": Bound(low=0.0, high=1.0)}}),
        ("arguments.range", {"arguments": {"rate": Bound(value=1.0)}}),
        ("arguments.range", {"arguments": {"rate": Bound(choices=(0, 0.5, 1))}}),
    ],
)
def test_rule_is_kept_up_to_its_threshold(rule: str, terms: dict[str, Any]) -> None:
    found = check(**terms)
    assert refusals(found) == []
    assert Severity.PASS in {f.severity for f in found if f.rule == rule}


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        (
            {"dataset": "mammograms"},
            "dataset.allowed: dataset `mammograms`; allowed: chest-xray. "
            "To do: ask for one of these.",
        ),
        (
            {"runs": 101},
            "runs.maximum: 101 runs asked for; allowed: at most 100. "
            "To do: resubmit with runs=100 or fewer.",
        ),
        (
            {"expires_in_days": 91},
            "expiry.maximum: 91 days asked for; allowed: at most 90. "
            "To do: resubmit with expires_in_days=90 or fewer.",
        ),
        (
            {"contract": None},
            "contract.declared: no contract; allowed: a contract of everything that leaves. "
            "To do: declare it.",
        ),
        (
            {"contract": factories.contract(weights=megabytes(1_000_002))},
            "update.size: 1.00 MB per run; allowed: at most 1 MB. To do: use a smaller model.",
        ),
        (
            {"contract": factories.contract(counts={
                "t": ArrayContract(shape=(130_000,), dtype="int64")})},
            "update.size: 1.04 MB per run; allowed: at most 1 MB. To do: use a smaller model.",
        ),
        (
            {"examples": 9},
            "examples.minimum: 9 training images; allowed: at least 10. "
            "To do: ask for a larger dataset.",
        ),
        (
            {"examples": None},
            "examples.minimum: too few training images; allowed: at least 10. "
            "To do: ask for a larger dataset.",
        ),
        (
            {"arguments": {"speed": Bound(value=1)}},
            "arguments.range: argument `speed`; allowed: rate. To do: use only these arguments.",
        ),
        (
            {"arguments": {"rate": Bound(low=0.0, high=1.0000001)}},
            "arguments.range: `rate` 0.0 to 1.0000001; allowed: 0.0 to 1.0. "
            "To do: narrow the range.",
        ),
        (
            {"arguments": {"rate": Bound(low=-0.0000001, high=1.0)}},
            "arguments.range: `rate` -1e-07 to 1.0; allowed: 0.0 to 1.0. To do: narrow the range.",
        ),
        (
            {"arguments": {"rate": Bound(value="fast")}},
            "arguments.range: `rate` exactly fast; allowed: 0.0 to 1.0. To do: narrow the range.",
        ),
        (
            {"arguments": {"rate": Bound(choices=(0.5, True))}},
            "arguments.range: `rate` one of 0.5, True; allowed: 0.0 to 1.0. "
            "To do: narrow the range.",
        ),
        (
            {"text": "import os\n" + factories.DOUBLE_JOB, "entry": "train"},
            None,
        ),
    ],
)  # fmt: skip
def test_rule_is_refused_past_its_threshold(terms: dict[str, Any], sentence: str | None) -> None:
    refused = refusals(check(**terms))
    if sentence is None:  # the rules on the text are part of the verdict
        assert {f.rule for f in refused} == {"job.form", "job.imports"}
    else:
        assert [f.sentence for f in refused] == [sentence]


def test_every_argument_out_of_range_is_told() -> None:
    refused = refusals(check(arguments={"rate": Bound(value=2), "speed": Bound(value=1)}))
    assert {f.seen for f in refused} == {"`rate` exactly 2", "argument `speed`"}


def test_all_broken_rules_are_told_at_once() -> None:
    refused = refusals(
        check(examples=1, text="", dataset="other", runs=101, expires_in_days=91, contract=None)
    )
    assert {f.rule for f in refused} == {
        "dataset.allowed", "runs.maximum", "expiry.maximum", "contract.declared",
        "examples.minimum", "job.form",
    }  # fmt: skip


TERMS = factories.terms(
    arguments={
        "rate": Bound(low=0.0, high=1.0),
        "epochs": Bound(low=1, high=5),
        "split": Bound(choices=("train", "test")),
        "seed": Bound(value=7),
    }
)
GOOD: dict[str, Any] = {"rate": 0.5, "epochs": 2, "split": "test", "seed": 7}


def test_arguments_within_the_terms_are_not_refused() -> None:
    assert check_arguments(GOOD, TERMS) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate", 0), ("rate", 1.0), ("epochs", 1), ("epochs", 5), ("split", "train"), ("seed", 7)],
)
def test_argument_at_the_end_of_its_range_is_not_refused(name: str, value: object) -> None:
    assert check_arguments({**GOOD, name: value}, TERMS) == []


@pytest.mark.parametrize(
    ("name", "value", "seen", "allowed"),
    [
        ("rate", 1.0000001, "`rate` = 1.0000001", "0.0 to 1.0"),
        ("rate", -1e-9, "`rate` = -1e-09", "0.0 to 1.0"),
        ("rate", math.nan, "`rate` = nan", "0.0 to 1.0"),
        ("rate", math.inf, "`rate` = inf", "0.0 to 1.0"),
        ("rate", True, "`rate` = True", "0.0 to 1.0"),
        ("rate", "0.5", "`rate` = 0.5", "0.0 to 1.0"),
        ("rate", None, "`rate` = None", "0.0 to 1.0"),
        ("epochs", 0, "`epochs` = 0", "1 to 5 (whole numbers)"),
        ("epochs", 6, "`epochs` = 6", "1 to 5 (whole numbers)"),
        ("epochs", 2.0, "`epochs` = 2.0", "1 to 5 (whole numbers)"),
        ("epochs", [2], "`epochs` = [2]", "1 to 5 (whole numbers)"),
        ("split", "val", "`split` = val", "one of train, test"),
        ("split", "x" * 1000, "`split` = " + "x" * 60, "one of train, test"),
        ("seed", 8, "`seed` = 8", "exactly 7"),
        ("seed", "7", "`seed` = 7", "exactly 7"),
        ("other", 1, "argument `other`", "epochs, rate, seed, split"),
        ("x" * 1000, 1, f"argument `{'x' * 60}`", "epochs, rate, seed, split"),
    ],
)
def test_argument_outside_the_terms_is_refused(
    name: str, value: object, seen: str, allowed: str
) -> None:
    (finding,) = check_arguments({**GOOD, name: value}, TERMS)
    assert (finding.rule, finding.severity) == ("arguments.range", Severity.REFUSE)
    assert (finding.seen, finding.allowed) == (seen, allowed)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_missing_argument_is_refused(name: str) -> None:
    (finding,) = check_arguments({k: v for k, v in GOOD.items() if k != name}, TERMS)
    assert finding.sentence == (
        f"arguments.range: `{name}` is missing; allowed: {TERMS.arguments[name].in_words()}. "
        "To do: send every approved argument."
    )


def test_every_wrong_argument_is_told_at_once() -> None:
    found = check_arguments({"rate": 2, "b": 1, "a": 1, "epochs": 1, "split": "test"}, TERMS)
    assert [f.seen for f in found] == [
        "argument `a`", "argument `b`", "`rate` = 2", "`seed` is missing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("demanded", "listed", "refused"),
    [
        ((), (), False),
        (("113100",), ("113100",), False),
        (("113100", "113107"), ("113100", "113103", "113107"), False),
        (("113100",), (), True),
        (("113100", "113107"), ("113100", "113103"), True),
    ],
)
def test_methods_that_a_policy_demands_stand_in_the_certificate(demanded, listed, refused):
    policy = factories.policy(publishing={"options": demanded})
    found = check_request(factories.DOUBLE_JOB, factories.terms(), policy, 120, listed)
    assert ("publishing.options" in [f.rule for f in refusals(found)]) is refused
    assert ("publishing.options" in [f.rule for f in found]) is bool(demanded)
