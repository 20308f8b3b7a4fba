"""Arguments of a run stay within the terms that were approved."""

from __future__ import annotations

import math
from typing import Any

import pytest

import factories
from policies.argument_rules import check_arguments
from policies.contract import Bound
from policies.findings import Severity

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
    assert check_arguments(GOOD, TERMS.arguments) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate", 0), ("rate", 1.0), ("epochs", 1), ("epochs", 5), ("split", "train"), ("seed", 7)],
)
def test_argument_at_the_end_of_its_range_is_not_refused(name: str, value: object) -> None:
    assert check_arguments({**GOOD, name: value}, TERMS.arguments) == []


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
    (finding,) = check_arguments({**GOOD, name: value}, TERMS.arguments)
    assert (finding.rule, finding.severity) == ("arguments.range", Severity.REFUSE)
    assert (finding.seen, finding.allowed) == (seen, allowed)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_missing_argument_is_refused(name: str) -> None:
    (finding,) = check_arguments({k: v for k, v in GOOD.items() if k != name}, TERMS.arguments)
    assert finding.sentence == (
        f"arguments.range: `{name}` is missing; allowed: {TERMS.arguments[name].in_words()}. "
        "To do: send every approved argument."
    )


def test_every_wrong_argument_is_told_at_once() -> None:
    found = check_arguments(
        {"rate": 2, "b": 1, "a": 1, "epochs": 1, "split": "test"}, TERMS.arguments
    )
    assert [f.seen for f in found] == [
        "argument `a`", "argument `b`", "`rate` = 2", "`seed` is missing",
    ]  # fmt: skip
