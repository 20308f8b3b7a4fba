"""What leaves is what was declared, and a refusal tells nothing that a run could have chosen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from policies.arrays import Arrays
from policies.contract import ArrayContract, Contract
from policies.document import Policy
from policies.findings import Finding, Severity
from policies.update_rules import Update, check_update, check_weights

CONTRACT = factories.contract(
    weights={
        "w": ArrayContract(shape=(4,), dtype="float32"),
        "b": ArrayContract(shape=(), dtype="float64"),
        "n": ArrayContract(shape=(2,), dtype="int64"),
    },
    counts={"t": ArrayContract(shape=(2, 2), dtype="int64")},
    metrics=("loss", "accuracy"),
)
POLICY = factories.policy()


def sent() -> Arrays:
    return {
        "w": np.zeros(4, np.float32),
        "b": np.zeros((), np.float64),
        "n": np.zeros(2, np.int64),
    }


def update(**changes: Any) -> Update:
    """An update that may leave; nested changes are merged in, None takes one out."""
    plain: dict[str, Any] = {
        "weights": sent(),
        "counts": {"t": np.array([[0, 5], [6, 7]], np.int64)},
        "metrics": {"loss": 0.5, "accuracy": 1.0},
        "examples": 10,
    }
    for key, value in changes.items():
        if isinstance(value, dict):
            merged = {**plain[key], **value}
            plain[key] = {name: v for name, v in merged.items() if v is not None}
        else:
            plain[key] = value
    return Update(**plain)


def check(
    made: Update, policy: Policy = POLICY, start: Arrays | None = None, by: Contract = CONTRACT
) -> list[Finding]:
    return check_update(made, sent() if start is None else start, by, policy)


def test_update_as_declared_may_leave() -> None:
    assert check(update()) == []


def f4(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        # names
        (
            {"weights": {"w": None}},
            "update.names: declared and not returned: w; allowed: all arrays of the contract. "
            "To do: return every declared array.",
        ),
        (
            {"counts": {"t": None}},
            "counts.names: declared and not returned: t; allowed: all arrays of the contract. "
            "To do: return every declared array.",
        ),
        # shapes and types
        *(
            (
                {"weights": {"w": array}},
                "update.shape: `w` has another shape or dtype; allowed: float32 (4,). "
                "To do: return the declared shapes.",
            )
            for array in (
                f4(1, 2, 3),
                f4(1, 2, 3, 4, 5),
                f4(1, 2, 3, 4).reshape(2, 2),
                f4(1, 2, 3, 4).astype(np.float64),
                f4(1, 2, 3, 4).astype(np.int32),
            )
        ),
        (
            {"weights": {"b": np.zeros(1)}},
            "update.shape: `b` has another shape or dtype; allowed: float64 (). "
            "To do: return the declared shapes.",
        ),
        (
            {"counts": {"t": np.zeros((2, 2), np.int32)}},
            "counts.shape: `t` has another shape or dtype; allowed: int64 (2, 2). "
            "To do: return the declared shapes.",
        ),
        # numbers that are not finite
        *(
            (
                {"weights": {"w": f4(0, 0, 0, number)}},
                "update.finite: `w` has numbers that are not finite; allowed: finite numbers. "
                "To do: lower the learning rate.",
            )
            for number in (math.nan, math.inf, -math.inf)
        ),
        *(
            (
                {"metrics": {"loss": number}},
                "metrics.finite: loss not finite; allowed: finite numbers. "
                "To do: lower the learning rate.",
            )
            for number in (math.nan, math.inf, -math.inf)
        ),
        # metrics
        *(
            (
                {"metrics": metrics},
                "metrics.names: other metrics returned than declared; allowed: accuracy, loss. "
                "To do: return the declared metrics.",
            )
            for metrics in ({"extra": 1.0}, {"loss": None}, {"loss": None, "Loss": 1.0})
        ),
        # images
        (
            {"examples": 9},
            "examples.minimum: too few images used; allowed: at least 10. "
            "To do: use more of the dataset.",
        ),
        (
            {"examples": 0},
            "examples.minimum: too few images used; allowed: at least 10. "
            "To do: use more of the dataset.",
        ),
        # cells
        *(
            (
                {"counts": {"t": np.array([[0, cell], [6, 7]], np.int64)}},
                "counts.minimum: table `t` has cells that are too small; allowed: 0 or at least 5 "
                "in every cell. To do: merge neighbouring cells.",
            )
            for cell in (1, 4, -1, -5, -(2**63))
        ),
    ],
)
def test_update_that_breaks_a_rule_is_refused(changes: dict[str, Any], sentence: str) -> None:
    found = check(update(**changes))
    assert [f.sentence for f in found] == [sentence]
    assert {f.severity for f in found} == {Severity.REFUSE}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"weights": {"extra": f4(1)}}, "update.names"),
        ({"counts": {"extra": np.zeros(1, np.int64)}}, "counts.names"),
        ({"weights": {"t": np.zeros((2, 2), np.int64)}}, "update.names"),  # a table's name
    ],
)
def test_array_that_was_not_declared_is_refused(changes: dict[str, Any], rule: str) -> None:
    (finding,) = check(update(**changes))
    assert (finding.rule, finding.severity) == (rule, Severity.REFUSE)
    assert finding.sentence.endswith(
        "arrays returned and not declared; allowed: the arrays of the contract. "
        "To do: declare them, and ask again."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"examples": 10},
        {"examples": 2**53},
        *({"counts": {"t": np.array([[0, n], [6, 7]], np.int64)}} for n in (0, 5, 2**63 - 1)),
        {"weights": {"w": f4(-0.0, 1e-45, 1, -1)}},
        {"metrics": {"loss": -1e308}},
    ],
)
def test_update_at_the_threshold_may_leave(changes: dict[str, Any]) -> None:
    assert check(update(**changes)) == []


def test_cells_of_the_smaller_type_are_checked_too() -> None:
    by = factories.contract(
        weights={}, counts={"t": ArrayContract(shape=(1,), dtype="int32")}, metrics=()
    )
    for cell, rules in ((0, []), (1, ["counts.minimum"]), (4, ["counts.minimum"]), (5, [])):
        made = Update({}, {}, 10, {"t": np.array([cell], np.int32)})
        assert [f.rule for f in check(made, start={}, by=by)] == rules


# ------------------------------------------------------------------------------- size and norm


@pytest.mark.parametrize(("elements", "rules"), [(250_000, []), (250_001, ["update.size"])])
def test_size_is_limited(elements: int, rules: list[str]) -> None:
    by = factories.contract(
        weights={"w": ArrayContract(shape=(elements,), dtype="float32")}, metrics=()
    )
    zeros = {"w": np.zeros(elements, np.float32)}
    found = check(Update(zeros, {}, 10), start=zeros, by=by)
    assert [f.rule for f in found] == rules
    for finding in found:
        assert finding.sentence == (
            "update.size: 1.00 MB; allowed: at most 1 MB. To do: use a smaller model."
        )


ONE = factories.contract(metrics=())


@pytest.mark.parametrize(
    ("start", "returned", "times"),
    [
        ([0, 0, 0, 0], [1000, 0, 0, 0], None),
        ([0, 0, 0, 0], [600, 800, 0, 0], None),
        ([0, 0, 0, 0], [-500, 500, -500, 500], None),
        ([9000, 0, 0, 0], [10_000, 0, 0, 0], None),  # the change counts, not the weights
        ([9000, 0, 0, 0], [9000, 0, 0, 0], None),
        ([0, 0, 0, 0], [1000.0001, 0, 0, 0], 2),
        ([9000, 0, 0, 0], [10_000.001, 0, 0, 0], 2),
        ([0, 0, 0, 0], [2000, 0, 0, 0], 2),
        ([0, 0, 0, 0], [2000.001, 0, 0, 0], 4),
        ([1000, 0, 0, 0], [-1000, 0, 0, 0], 2),
        ([0, 0, 0, 0], [1e6, 0, 0, 0], 1024),
    ],
)
def test_norm_of_the_change_is_limited(
    start: list[float], returned: list[float], times: int | None
) -> None:
    found = check(Update({"w": f4(*returned)}, {}, 10), start={"w": f4(*start)}, by=ONE)
    expected = [] if times is None else [
        f"update.norm: the change has up to {times} times the L2 norm that may leave; allowed: at "
        "most 1000. To do: lower the learning rate or the local epochs."
    ]  # fmt: skip
    assert [f.sentence for f in found] == expected


def test_norm_is_over_all_arrays_together() -> None:
    by = factories.contract(
        weights={name: ArrayContract(shape=(1,), dtype="float32") for name in "ab"}, metrics=()
    )
    start = {name: f4(0) for name in "ab"}
    assert check(Update({"a": f4(600), "b": f4(800)}, {}, 10), start=start, by=by) == []
    found = check(Update({"a": f4(600), "b": f4(801)}, {}, 10), start=start, by=by)
    assert [f.rule for f in found] == ["update.norm"]


@pytest.mark.parametrize(
    "start", [{}, {"w": f4(1, 2)}, {"v": f4(1000, 0, 0, 0)}], ids=["nothing", "shape", "name"]
)
def test_array_that_was_not_sent_counts_as_change_from_zero(start: Arrays) -> None:
    by = factories.contract(
        metrics=(),
        inputs={k: ArrayContract(shape=v.shape, dtype="float32") for k, v in start.items()},
    )
    assert check(Update({"w": f4(1000, 0, 0, 0)}, {}, 10), start=start, by=by) == []
    found = check(Update({"w": f4(1000, 1, 0, 0)}, {}, 10), start=start, by=by)
    assert [f.rule for f in found] == ["update.norm"]


@pytest.mark.parametrize("size", [1e154, 1e200, 1.7e308])
@pytest.mark.parametrize("start", [0.0, -1.7e308])
def test_change_too_large_for_a_float_is_refused_and_not_a_crash(size: float, start: float) -> None:
    by = factories.contract(weights={"w": ArrayContract(shape=(2,), dtype="float64")}, metrics=())
    made = Update({"w": np.full(2, size)}, {}, 10)
    found = check(made, start={"w": np.full(2, start)}, by=by)
    assert [f.rule for f in found] == ["update.norm"]


# ------------------------------------------------------------------- nothing of the run is told

MARK = "zqpatient4711"
NUMBER = 7919
texts = st.sampled_from(
    [MARK, f"w{MARK}", f"{MARK}\n", f"../{MARK}", f"\x1b[2J{MARK}", f"weights/{MARK}", f"`{MARK}`"]
)
odd_arrays = st.sampled_from(
    [
        np.full((NUMBER,), 1, np.float32),
        np.full((1, NUMBER), NUMBER, np.float64),
        np.full((2, 2), NUMBER, np.int8),
        np.full((4,), NUMBER, np.float32),
        np.array([1, 2, 3, math.nan], np.float32),
        np.full((2, 2), NUMBER % 1000, np.int64),
        np.full((2, 2), -NUMBER, np.int64),
        np.array(math.inf),
        np.array(float(NUMBER)),
        np.zeros((NUMBER, 0), np.uint8),
    ]
)
odd_names = st.one_of(texts, st.sampled_from(["w", "b", "n", "t", "loss", "accuracy"]))
odd_numbers = st.sampled_from([NUMBER, -NUMBER, NUMBER + 0.5, math.nan, math.inf, 1e300])
hostile = st.builds(
    Update,
    weights=st.dictionaries(odd_names, odd_arrays, max_size=4),
    metrics=st.dictionaries(odd_names, odd_numbers, max_size=4),
    examples=st.sampled_from([0, 1, NUMBER, 2**53]),
    counts=st.dictionaries(odd_names, odd_arrays, max_size=3),
)
nearly_honest = st.builds(
    update,
    weights=st.dictionaries(odd_names, st.none() | odd_arrays, max_size=2),
    metrics=st.dictionaries(odd_names, st.none() | odd_numbers, max_size=2),
    examples=st.sampled_from([10, NUMBER]),
    counts=st.dictionaries(odd_names, st.none() | odd_arrays, max_size=2),
)
TIGHT = factories.policy(
    examples={"minimum": 10_000},
    counts={"minimum": 1000},
    update={"maximum_mb": 1, "maximum_change_norm": 3},
)


@settings(max_examples=400)
@given(hostile | nearly_honest)
def test_refusal_holds_no_name_shape_or_value_of_the_update(made: Update) -> None:
    for finding in check(made, TIGHT):
        for told in (finding.sentence, str(finding.as_dict())):
            assert MARK not in told
            assert str(NUMBER) not in told
            assert str(NUMBER % 1000) not in told
            assert "int8" not in told


@given(hostile)
def test_hostile_update_is_refused(made: Update) -> None:
    """None of them is as declared, so the property above looks at refusals."""
    assert check(made, TIGHT) != []


@pytest.mark.parametrize("group", ["weights", "counts"])
def test_refusal_does_not_tell_how_many_arrays_were_not_declared(group: str) -> None:
    """A run could count patients in them."""
    told = [
        [f.sentence for f in check(update(**{group: {f"x{k}": f4(1) for k in range(count)}}))]
        for count in (1, 2, 4711)
    ]
    assert told[0] == told[1] == told[2]


# ------------------------------------------------------------------------------ what goes in


def test_weights_as_declared_may_go_in() -> None:
    assert check_weights(sent(), CONTRACT) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"x": f4(1)},
            "weights.names: sent and not declared: x; allowed: the arrays of the contract. "
            "To do: send the approved model.",
        ),
        (
            {f"x{k}": f4(1) for k in range(6)},
            "weights.names: sent and not declared: x0, x1, x2, x3 and 2 more; allowed: the arrays "
            "of the contract. To do: send the approved model.",
        ),
        (
            {"w": None},
            "weights.names: declared and not sent: w; allowed: all arrays of the contract. "
            "To do: send every declared array.",
        ),
        (
            {"w": f4(1, 2)},
            "weights.shape: `w` is float32 (2,); allowed: float32 (4,). "
            "To do: send the approved model, or ask for approval of this one.",
        ),
        (
            {"w": np.zeros(4)},
            "weights.shape: `w` is float64 (4,); allowed: float32 (4,). "
            "To do: send the approved model, or ask for approval of this one.",
        ),
        (
            {"b": np.array(math.nan)},
            "weights.finite: `b` has numbers that are not finite; allowed: finite numbers. "
            "To do: send other weights.",
        ),
    ],
)
def test_weights_that_are_not_as_declared_are_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    weights = {k: v for k, v in {**sent(), **changes}.items() if v is not None}
    assert [f.sentence for f in check_weights(weights, CONTRACT)] == [sentence]


def test_weights_are_checked_against_the_inputs_where_there_are_some() -> None:
    by = factories.contract(weights={}, inputs={"w": ArrayContract(shape=(4,), dtype="float32")})
    assert check_weights(factories.weights(), by) == []
    assert [f.rule for f in check_weights({}, by)] == ["weights.names"]
