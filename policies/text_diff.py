"""Two texts side by side, line by line, for a reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from policies.text_lines import lines_of

MAXIMUM_LINES = 3000
"""Longer texts are not matched: it would take minutes, and nobody approves them."""


class Change(StrEnum):
    """What became of a line."""

    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One row of a side-by-side view; the missing side of an added or removed line is None.

    Attributes:
        change: What became of the line.
        old_line: Its number in the old text, from 1.
        old: Its old text.
        new_line: Its number in the new text, from 1.
        new: Its new text.
    """

    change: Change
    old_line: int | None
    old: str | None
    new_line: int | None
    new: str | None


def diff_rows(old: str, new: str) -> list[DiffRow]:
    """Every line of both texts, matched as well as possible."""
    return list(_rows(lines_of(old), lines_of(new)))


def likeness(old: str, new: str) -> float:
    """How much two texts have in common, from 0 to 1, by their lines."""
    a, b = lines_of(old), lines_of(new)
    if max(len(a), len(b)) > MAXIMUM_LINES:
        return float(old == new)
    return SequenceMatcher(None, a, b).ratio()


def _rows(old: list[str], new: list[str]) -> Iterator[DiffRow]:
    if max(len(old), len(new)) > MAXIMUM_LINES:
        operations = [("delete", 0, len(old), 0, 0), ("insert", 0, 0, 0, len(new))]
    else:
        operations = list(SequenceMatcher(None, old, new).get_opcodes())
    for tag, a, b, c, d in operations:
        for k in range(max(b - a, d - c)):
            i, j = a + k, c + k
            has_old, has_new = i < b, j < d
            change = Change.SAME if tag == "equal" else Change.CHANGED
            if not has_old:
                change = Change.ADDED
            elif not has_new:
                change = Change.REMOVED
            yield DiffRow(
                change,
                i + 1 if has_old else None,
                old[i] if has_old else None,
                j + 1 if has_new else None,
                new[j] if has_new else None,
            )
