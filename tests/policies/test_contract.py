"""Bounds allow what they say and nothing else; contracts and terms have limits and words."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import factories
from policies.contract import ArrayContract, Bound, Contract, Terms

RANGE = Bound(low=0.5, high=2.0)
WHOLE = Bound(low=1, high=20)
MIXED = Bound(low=0, high=1.5)


@pytest.mark.parametrize(
    ("bound", "value", "allowed"),
    [
        # a range of numbers, both ends and just outside
        (RANGE, 0.5, True),
        (RANGE, math.nextafter(0.5, 0), False),
        (RANGE, 2.0, True),
        (RANGE, math.nextafter(2.0, 3), False),
        (RANGE, 1, True),  # a whole number is a number
        (RANGE, 2, True),
        (RANGE, 3, False),
        (RANGE, math.nan, False),
        (RANGE, math.inf, False),
        (RANGE, -math.inf, False),
        (RANGE, True, False),  # True is not 1
        (RANGE, "1", False),
        (RANGE, None, False),
        (RANGE, [1], False),
        (RANGE, 1 + 0j, False),
        (RANGE, 10**400, False),  # larger than any float
        # a range of whole numbers
        (WHOLE, 1, True),
        (WHOLE, 0, False),
        (WHOLE, 20, True),
        (WHOLE, 21, False),
        (WHOLE, 5.0, False),  # a float, even a round one
        (WHOLE, 5.5, False),
        (WHOLE, True, False),
        (WHOLE, "5", False),
        # one whole end does not make a whole range
        (MIXED, 0, True),
        (MIXED, 0.25, True),
        (MIXED, 1.5, True),
        (MIXED, 1.75, False),
        # a range of one number
        (Bound(low=3, high=3), 3, True),
        (Bound(low=3, high=3), 4, False),
        # one fixed value
        (Bound(value=32), 32, True),
        (Bound(value=32), 33, False),
        (Bound(value=1), True, False),
        (Bound(value=True), 1, False),
        (Bound(value=True), True, True),
        (Bound(value=False), 0, False),
        (Bound(value=False), False, True),
        (Bound(value=0), False, False),
        (Bound(value=0.5), 0.5, True),
        (Bound(value=0.5), math.nan, False),
        (Bound(value="a"), "a", True),
        (Bound(value="a"), "A", False),
        (Bound(value="1"), 1, False),
        (Bound(value=1), "1", False),
        (Bound(value=1), None, False),
        (Bound(value=1), [1], False),
        # choices
        (Bound(choices=("train", "test")), "test", True),
        (Bound(choices=("train", "test")), "val", False),
        (Bound(choices=(8, 16)), 16, True),
        (Bound(choices=(8, 16)), 12, False),
        (Bound(choices=(0, 1)), True, False),
        (Bound(choices=(False,)), 0, False),
        (Bound(choices=(1, "1", True)), True, True),
        (Bound(choices=(1, 2)), math.nan, False),
    ],
)
def test_bound_allows_what_is_within_it_only(bound: Bound, value: object, allowed: bool) -> None:
    assert bound.allows(value) is allowed


@pytest.mark.parametrize(
    ("outer", "inner", "contained"),
    [
        # ranges within ranges, both sides of both ends
        (RANGE, RANGE, True),
        (RANGE, Bound(low=0.5, high=1.0), True),
        (RANGE, Bound(low=0.4, high=1.0), False),
        (RANGE, Bound(low=1.0, high=2.1), False),
        (RANGE, Bound(low=1, high=2), True),  # whole numbers are numbers
        (WHOLE, Bound(low=1, high=20), True),
        (WHOLE, Bound(low=0, high=20), False),
        (WHOLE, Bound(low=1, high=21), False),
        (WHOLE, Bound(low=2.0, high=3.0), False),  # would let 2.5 through
        (WHOLE, Bound(low=2, high=3.0), False),
        # values and choices within ranges
        (WHOLE, Bound(value=20), True),
        (WHOLE, Bound(value=21), False),
        (WHOLE, Bound(value=20.0), False),
        (WHOLE, Bound(value=True), False),
        (RANGE, Bound(choices=(0.5, 1, 2.0)), True),
        (RANGE, Bound(choices=(0.5, 2.5)), False),  # one outside is enough
        (RANGE, Bound(value="1"), False),
        # within choices
        (Bound(choices=("a", "b", "c")), Bound(choices=("c", "a")), True),
        (Bound(choices=("a", "b")), Bound(choices=("a", "d")), False),
        (Bound(choices=("a", "b")), Bound(value="b"), True),
        (Bound(choices=(1, 2, 3)), Bound(low=1, high=3), False),
        # within one value
        (Bound(value=3), Bound(value=3), True),
        (Bound(value=3), Bound(value=4), False),
        (Bound(value=1), Bound(value=True), False),
        (Bound(value=3), Bound(low=3, high=4), False),
        (Bound(value=3), Bound(choices=(3,)), True),
        (Bound(value=3), Bound(choices=(3, 4)), False),
    ],
)
def test_bound_contains_narrower_bounds_only(outer: Bound, inner: Bound, contained: bool) -> None:
    assert outer.contains(inner) is contained


values = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.floats(-5, 5, allow_nan=False),
    st.sampled_from(["", "1", "a"]),
)
ends = st.one_of(st.integers(-5, 5), st.floats(-5, 5))
bounds = st.one_of(
    values.map(lambda v: Bound(value=v)),
    st.lists(values, min_size=1, max_size=4).map(lambda c: Bound(choices=tuple(c))),
    st.tuples(ends, ends).map(lambda e: Bound(low=min(e), high=max(e))),
)


@given(bounds, bounds, values)
def test_contained_bound_never_allows_more(outer: Bound, inner: Bound, value: object) -> None:
    if outer.contains(inner) and inner.allows(value):
        assert outer.allows(value)


@given(bounds)
def test_bound_survives_json(bound: Bound) -> None:
    again = Bound.model_validate_json(bound.model_dump_json())
    assert again == bound
    assert again.whole == bound.whole
    assert [type(c) for c in again.choices or ()] == [type(c) for c in bound.choices or ()]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "give exactly one of `value`, `low` with `high`, `choices`"),
        ({"value": None}, "give exactly one of `value`, `low` with `high`, `choices`"),
        ({"value": 1, "choices": [1]}, "give exactly one of"),
        ({"value": 1, "low": 0, "high": 2}, "give exactly one of"),
        ({"low": 0, "high": 2, "choices": [1]}, "give exactly one of"),
        ({"value": 1, "low": 0}, "give exactly one of"),
        ({"low": 1}, "a range needs both `low` and `high`"),
        ({"high": 1}, "a range needs both `low` and `high`"),
        ({"low": 2, "high": 1}, "`low` is above `high`"),
        ({"choices": []}, "at least 1 item"),
        ({"choices": list(range(51))}, "at most 50 items"),
        ({"value": "x" * 201}, "at most 200 characters"),
        ({"value": math.nan}, "finite number"),
        ({"low": 0, "high": math.inf}, "finite number"),
        ({"values": 1}, "Extra inputs are not permitted"),
    ],
)
def test_bound_that_is_not_one_of_three_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Bound.model_validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"value": 0},
        {"value": False},
        {"value": ""},
        {"value": "x" * 200},
        {"low": 0, "high": 0},
        {"choices": [0]},
        {"choices": list(range(50))},
    ],
)
def test_bound_that_is_one_of_three_is_accepted(fields: dict[str, Any]) -> None:
    Bound.model_validate(fields)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Bound(low=0.001, high=0.1), "0.001 to 0.1"),
        (Bound(low=1, high=20), "1 to 20 (whole numbers)"),
        (Bound(low=1, high=20.0), "1 to 20.0"),
        (Bound(value=32), "exactly 32"),
        (Bound(value=False), "exactly False"),
        (Bound(choices=("a", "b", "c")), "one of a, b, c"),
        (Bound(choices=("", "sex")), "one of '', sex"),
    ],
)
def test_bound_is_told_in_words(bound: Bound, words: str) -> None:
    assert bound.in_words() == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "1 weight array of 4 numbers (16 bytes), 1 metric (loss), the number of images used"),
        (
            {"weights": {"a": ArrayContract(shape=(1000, 250), dtype="float64")}, "metrics": ()},
            "1 weight array of 250,000 numbers (2.00 MB), the number of images used",
        ),
        (
            {
                "weights": {
                    "a": ArrayContract(shape=(), dtype="float32"),
                    "b": ArrayContract(shape=(2498,), dtype="float32"),
                },
                "metrics": (),
            },
            "2 weight arrays of 2,499 numbers (9996 bytes), the number of images used",
        ),
        (
            {"weights": {"a": ArrayContract(shape=(2500,), dtype="float32")}, "metrics": ()},
            "1 weight array of 2,500 numbers (0.01 MB), the number of images used",
        ),
        (
            {
                "weights": {},
                "counts": {"scores": ArrayContract(shape=(2, 600), dtype="int64")},
                "metrics": ("loss", "auc"),
            },
            "table `scores` of 1,200 counts, 2 metrics (loss, auc), the number of images used",
        ),
        ({"weights": {}, "metrics": ()}, "the number of images used"),
    ],
)
def test_contract_is_told_in_words(fields: dict[str, Any], words: str) -> None:
    assert factories.contract(**fields).in_words() == words


@pytest.mark.parametrize(
    ("shape", "dtype", "elements", "size_bytes"),
    [
        ((), "float32", 1, 4),
        ((0, 7), "float64", 0, 0),
        ((3, 5), "float16", 15, 30),
        ((3, 5), "int64", 15, 120),
        ((2**31,) * 8, "int32", 2**248, 2**250),  # sizes are exact, however large
    ],
)
def test_size_of_an_array_is_its_shape_times_its_type(
    shape: tuple[int, ...], dtype: Any, elements: int, size_bytes: int
) -> None:
    declared = ArrayContract(shape=shape, dtype=dtype)
    assert declared.elements == elements
    assert declared.size_bytes == size_bytes


def test_size_of_a_contract_is_of_what_leaves_and_not_of_what_is_sent() -> None:
    made = factories.contract(
        inputs={"w": ArrayContract(shape=(1000,), dtype="float64")},
        counts={"t": ArrayContract(shape=(2, 3), dtype="int32")},
    )
    assert made.size_bytes == 4 * 4 + 6 * 4
    assert made.weight_elements == 4


def test_without_inputs_the_weights_that_leave_are_those_that_are_sent() -> None:
    made = factories.contract()
    assert made.sent == made.weights
    nothing = factories.contract(inputs={})
    assert nothing.sent == {}


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_table_of_whole_numbers_may_be_declared(dtype: Any) -> None:
    factories.contract(counts={"t": ArrayContract(shape=(2,), dtype=dtype)})


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_table_of_other_numbers_is_refused(dtype: Any) -> None:
    with pytest.raises(ValidationError, match="counts `t` must have dtype int64 or int32"):
        factories.contract(counts={"t": ArrayContract(shape=(2,), dtype=dtype)})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"shape": (-1,), "dtype": "float32"}, "greater than or equal to 0"),
        ({"shape": (2**31 + 1,), "dtype": "float32"}, "less than or equal to"),
        ({"shape": (1,) * 9, "dtype": "float32"}, "at most 8 items"),
        ({"shape": (1,), "dtype": "object"}, "Input should be 'float32'"),
        ({"shape": (1,), "dtype": "uint8"}, "Input should be 'float32'"),  # a pixel's type
        ({"shape": (1,), "dtype": "<f4"}, "Input should be 'float32'"),
        ({"shape": (1,)}, "Field required"),
    ],
)
def test_array_that_cannot_be_declared_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ArrayContract.model_validate(fields)


def arrays_named(*names: str) -> dict[str, ArrayContract]:
    return {name: ArrayContract(shape=(), dtype="int64") for name in names}


@pytest.mark.parametrize(
    ("field", "most", "make"),
    [
        ("weights", 5000, lambda n: arrays_named(*(f"a{k}" for k in range(n)))),
        ("inputs", 5000, lambda n: arrays_named(*(f"a{k}" for k in range(n)))),
        ("counts", 50, lambda n: arrays_named(*(f"a{k}" for k in range(n)))),
        ("metrics", 20, lambda n: tuple(f"m{k}" for k in range(n))),
    ],
)
def test_contract_declares_at_most_so_many(field: str, most: int, make: Any) -> None:
    factories.contract(**{field: make(most)})
    with pytest.raises(ValidationError, match=f"at most {most} items"):
        factories.contract(**{field: make(most + 1)})


@pytest.mark.parametrize("name", ["0.weight", "conv_1.bias", "a", "A-b", "_x", "a" * 120])
def test_ordinary_name_is_accepted(name: str) -> None:
    factories.contract(weights=arrays_named(name))
    factories.contract(metrics=(name,))


@pytest.mark.parametrize(
    "name",
    ["", "a" * 121, "a b", "a/b", "../x", ".x", "-x", "a\n", "a\x1b[2J", "é", "a`", "\u202ea"],
)
def test_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        factories.contract(weights=arrays_named(name))
    with pytest.raises(ValidationError, match="String should match pattern"):
        factories.contract(metrics=(name,))
    with pytest.raises(ValidationError, match="String should match pattern"):
        factories.terms(arguments={name: Bound(value=1)})


def test_number_of_images_always_leaves() -> None:
    with pytest.raises(ValidationError, match="Input should be True"):
        factories.contract(examples=False)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("title", ["t", "Größe: 5 µm", "x" * 200], ["", "x" * 201, "a\nb", "a\x1b[2J", "a\x7f"]),
        ("purpose", ["t", "x" * 200], ["", "x" * 201, "a\r", "a\x00", "a\n"]),
        ("entry", ["train", "_t1", "a" * 60], ["", "Train", "a" * 61, "a b", "1a", "a\n", "a.b"]),
        ("dataset", ["chest-xray", "a" * 120], ["", "a/b", "..", "a" * 121, "a\n"]),
        ("version", ["0" * 64, "abcdef" + "0" * 58], ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64]),
        ("access", ["arrays"], ["files", "", None]),
        ("runs", [1, 10_000], [0, -1, 10_001, 1.5, math.inf]),
        ("expires_in_days", [1, 730], [0, 731, 1.5, math.nan]),
    ],
)
def test_terms_keep_within_their_limits(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(factories.terms(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ValidationError) as refused:
            factories.terms(**{field: value})
        assert {problem["loc"] for problem in refused.value.errors()} == {(field,)}


@pytest.mark.parametrize(
    "hidden",
    [
        "a\u202eb",  # turns the rest of the line around
        "a\u2066b",
        "a\x9b2Jb",  # the one-character form of ESC [
        "a\u2028b",  # ends the line in some viewers
        "a\u200bb",  # cannot be seen
    ],
)
def test_title_that_does_not_show_as_it_is_is_refused(hidden: str) -> None:
    """The reviewer decides on what the terminal shows."""
    with pytest.raises(ValidationError):
        factories.terms(title=hidden)


def test_terms_have_at_most_fifty_arguments() -> None:
    factories.terms(arguments={f"a{k}": Bound(value=1) for k in range(50)})
    with pytest.raises(ValidationError, match="at most 50 items"):
        factories.terms(arguments={f"a{k}": Bound(value=1) for k in range(51)})


def test_unknown_term_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        factories.terms(network=True)


@pytest.mark.parametrize("contract", [None, factories.contract(inputs={})])
def test_terms_survive_json(contract: Contract | None) -> None:
    terms = factories.terms(contract=contract)
    assert Terms.model_validate(json.loads(terms.model_dump_json())) == terms
