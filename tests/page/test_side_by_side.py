"""The side-by-side view keeps every change, marks what changed, and folds the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.page.side_by_side import CONTEXT, changed_lines, side_by_side
from tests.page.sheets import comparison

LINES = [f"x{k} = {k}" for k in range(30)]


def rows(old: str, new: str):
    return comparison(old, new)["rows"]


def test_equal_lines_far_from_a_change_are_folded() -> None:
    old, new = "\n".join(LINES), "\n".join([*LINES[:14], "x14 = 99", *LINES[15:]])
    view = side_by_side(rows(old, new))
    assert [row.folded for row in view if row.folded] == [14 - CONTEXT, 30 - 15 - CONTEXT]
    assert [row.new.number for row in view if not row.folded] == list(
        range(15 - CONTEXT, 16 + CONTEXT)
    )


def test_changed_words_are_marked_on_both_sides() -> None:
    view = side_by_side(rows("loss = mean(a)", "loss = sum(a)"))
    (row,) = view
    assert str(row.old.html) == "loss = <mark>mean</mark>(a)"
    assert str(row.new.html) == "loss = <mark>sum</mark>(a)"


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a\u202eb", "x" * 5000])
def test_lines_are_text_with_nothing_hidden(text) -> None:
    for old, new in (("", text), (text, ""), ("other", text)):
        for row in side_by_side(rows(old, new)):
            shown = f"{row.old.html}{row.new.html}"
            assert "<script" not in shown
            assert "\u202e" not in shown
            assert len(shown) < 4100


def test_numbers_of_changed_lines_are_those_of_the_new_text() -> None:
    assert changed_lines(rows("a\nb\nc", "a\nB\nc\nd")) == {2, 4}


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_no_line_is_lost(old, new) -> None:
    view = side_by_side(rows("\n".join(old), "\n".join(new)))
    shown = sum(row.new.number is not None for row in view)
    folded = sum(row.folded for row in view)
    assert shown + folded == len("\n".join(new).splitlines())
