"""Two texts side by side: changed lines with the changed words marked, the rest folded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

from datasites.page.wording import cut, visible

CONTEXT = 3
"""Equal lines that are shown before and after a change."""
LONGEST_MARKED = 400
"""Characters of a line up to which changed words are looked for."""
LONGEST_SHOWN = 2000
"""Characters of a line that are shown; the code has all of it."""


@dataclass(frozen=True, slots=True)
class Side:
    """One half of a row; the number is None where this side has no line."""

    number: int | None
    html: Markup


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the view.

    Attributes:
        change: `same`, `changed`, `added`, `removed`.
        old: Left.
        new: Right.
        folded: Equal lines that are left out in its place; 0 for a row with text.
    """

    change: str
    old: Side
    new: Side
    folded: int = 0


_EMPTY = Side(None, Markup())


def side_by_side(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows that a reader needs: changes, what is around them, and how much is left out."""
    kept = _near_changes(rows)
    shown: list[Row] = []
    for is_kept, group in groupby(enumerate(rows), key=lambda pair: pair[0] in kept):
        if is_kept:
            shown.extend(_row(row) for _, row in group)
        else:
            shown.append(Row("same", _EMPTY, _EMPTY, len(list(group))))
    return shown


def changed_lines(rows: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """Numbers of the new text's lines that the old one does not have."""
    return frozenset(
        row["new_line"] for row in rows if row["change"] != "same" and row["new_line"] is not None
    )


def _near_changes(rows: Sequence[Mapping[str, Any]]) -> set[int]:
    changes = [k for k, row in enumerate(rows) if row["change"] != "same"]
    near = {j for k in changes for j in range(k - CONTEXT, k + CONTEXT + 1)}
    return near & set(range(len(rows)))


def _row(row: Mapping[str, Any]) -> Row:
    old, new = row["old"] or "", row["new"] or ""
    left, right = _plain(old), _plain(new)
    if row["change"] == "changed" and max(len(old), len(new)) <= LONGEST_MARKED:
        left, right = _marked(old, new)
    return Row(row["change"], Side(row["old_line"], left), Side(row["new_line"], right))


def _plain(text: str) -> Markup:
    return escape(visible(cut(text, LONGEST_SHOWN)))


def _marked(old: str, new: str) -> tuple[Markup, Markup]:
    """Both lines, with the words that only one of them has marked."""
    a, b = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (old, new))
    operations = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    left = _pieces((tag, a[i:j]) for tag, i, j, _, _ in operations)
    right = _pieces((tag, b[i:j]) for tag, _, _, i, j in operations)
    return left, right


def _pieces(operations: Iterator[tuple[str, list[str]]]) -> Markup:
    html = Markup()
    for tag, words in operations:
        text = visible("".join(words))
        same = tag == "equal" or not text
        html += escape(text) if same else Markup("<mark>{}</mark>").format(text)
    return html
