"""Subgroups: which columns become one, and that no hidden number follows from what is shown."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.errors import DatasetError
from datasites.imaging.subgroups import (
    Subgroups,
    check_attribute,
    check_members,
    find_values,
    shown_counts,
)


def shown(counts: tuple[int, ...], without: int, minimum: int) -> tuple[int | None, ...]:
    """What a card shows of an attribute with so many images of each value."""
    places = np.repeat(np.arange(-1, len(counts)), (without, *counts)).astype(np.int8)
    return tuple(shown_counts(places, [f"v{k}" for k in range(len(counts))], minimum).values())


@pytest.mark.parametrize(
    ("counts", "without", "expected"),
    [
        ((5, 5), 0, (5, 5)),  # all reach the minimum
        ((4, 5), 0, (None, None)),  # the other one would tell
        ((4, 5, 10), 0, (None, None, 10)),  # the next smallest goes along
        ((4, 5, 9), 0, (None, None, None)),  # 9 is no larger than what is hidden
        ((4, 4, 5), 0, (None, None, None)),  # or else only 4 and 4 would fit
        ((0, 9, 30), 0, (None, None, 30)),  # zero is a small number
        ((0, 0, 9, 30), 0, (None, None, None, 30)),  # two zeros would be known from their sum
        ((2, 3, 9), 0, (None, None, 9)),  # two that make the minimum hide each other
        ((2, 2, 9), 0, (None, None, None)),
        ((9, 8, 22), 4, (None, None, 22)),  # the images without a value are few
        ((9, 8, 21), 4, (None, None, None)),
        ((9, 8, 21), 5, (9, 8, 21)),
        ((9, 8, 30), 0, (9, 8, 30)),
        ((7,), 3, (None,)),
        ((7,), 0, (7,)),
    ],
)
def test_counts_around_the_minimum(
    counts: tuple[int, ...], without: int, expected: tuple[int | None, ...]
) -> None:
    assert shown(counts, without, 5) == expected


@cache
def possible(values: int, total: int, minimum: int, without: bool) -> dict[object, list[object]]:
    """What is shown -> all numbers of images that lead to it."""
    found: dict[object, list[object]] = {}
    for counts in itertools.product(range(total + 1), repeat=values):
        rest = total - sum(counts)
        if rest == 0 or (without and rest > 0):
            found.setdefault(shown(counts, rest, minimum), []).append((*counts, rest))
    return found


@pytest.mark.parametrize("minimum", [2, 3, 4])
@pytest.mark.parametrize("values", [2, 3])
@pytest.mark.parametrize("without", [False, True], ids=["each has a value", "some have none"])
def test_no_small_number_follows_from_the_total(values: int, minimum: int, without: bool) -> None:
    """Whoever knows the total and this rule finds, for each hidden number, at least two fit."""
    for total in range(minimum, 15):
        for told, numbers in possible(values, total, minimum, without).items():
            assert isinstance(told, tuple)
            columns = [set(column) for column in zip(*numbers, strict=True)]  # type: ignore[call-overload]
            for number, fits in zip(told, columns, strict=False):
                assert (len(fits) > 1) == (number is None), (told, total, numbers)
            rest = columns[-1]
            assert len(rest) > 1 or rest == {0} or min(rest) >= minimum, (told, total, numbers)


# ------------------------------------------------------------------------- what may be a subgroup


@pytest.mark.parametrize("name", ["s", "sex", "age_band", "a" * 20, "x9"])
def test_names_that_an_argument_may_have(name: str) -> None:
    check_attribute(name)


@pytest.mark.parametrize("name", ["", "Sex", "9x", "_x", "age band", "a" * 21, "x\n", "../x", "ä"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="the name of a subgroup is a small letter and up to 19"):
        check_attribute(name)


@pytest.mark.parametrize(
    ("found", "values"),
    [
        (["M", "F", "", "M"], ("F", "M")),
        ([str(k) for k in range(8)], tuple("01234567")),
        (["x" * 40], ("x" * 40,)),
    ],
)
def test_values_are_sorted_and_few(found: list[str], values: tuple[str, ...]) -> None:
    assert find_values("sex", found) == values


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([], "--group sex: it has no different values; 1 to 8 make subgroups"),
        (["", ""], "--group sex: it has no different values; 1 to 8 make subgroups"),
        ([str(k) for k in range(9)], "--group sex: it has 9 different values; 1 to 8 make"),
        (["x" * 41], "--group sex: a value has 41 characters; at most 40 are shown"),
    ],
)
def test_columns_of_other_things_are_refused(found: list[str], sentence: str) -> None:
    with pytest.raises(DatasetError) as refused:
        find_values("sex", found)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ([0, 1, -1], None),
        ([0, 1], "--group sex: train has 3 images; give each one its place"),
        ([0, 1, 2], "--group sex: a place of train is 0 or 2; -1 to 1 are allowed"),
        ([0, 1, -2], "--group sex: a place of train is -2 or 1; -1 to 1 are allowed"),
    ],
)
def test_every_image_has_a_place(places: list[int], sentence: str | None) -> None:
    made = Subgroups({"sex": ("F", "M")}, {"train": {"sex": np.array(places, np.int8)}})
    if sentence is None:
        check_members(made, {"train": 3})
        return
    with pytest.raises(DatasetError) as refused:
        check_members(made, {"train": 3})
    assert str(refused.value) == sentence


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(0, 30), st.integers(2, 12))
def test_hidden_numbers_fit_another_way_too(counts: list[int], without: int, minimum: int) -> None:
    """With the sum of what is hidden any one of the hidden values could have it all."""
    told = shown(tuple(counts), without, minimum)
    hidden = [k for k, number in enumerate(told) if number is None]
    assert all(n is None or (n == c and n >= minimum) for n, c in zip(told, counts, strict=True))
    few = without if without < minimum else 0
    assert bool(hidden) == (min(counts) < minimum or few > 0)
    together = sum(counts[k] for k in hidden)
    if len(counts) == 1 or together < minimum:
        return  # all is hidden, and so is the sum of fewer images than may be shown
    for heir in hidden:
        other = [0 if k in hidden else n for k, n in enumerate(counts)]
        other[heir] = together
        assert shown(tuple(other), without, minimum) == told
