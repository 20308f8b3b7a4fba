"""Tables as a notebook shows them: plain HTML that says the same without its colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

GOOD, WAITING, BAD, QUIET = "#1d6b3a", "#8a5a00", "#9c2f1f", "#5d6670"

SHORT = 16
"""Characters up to which the words of a cell stay on one line."""
_FRAME = "border-collapse: collapse; margin: 4px 0 8px 0"
_CELL = "padding: 4px 18px 4px 0; vertical-align: top; white-space: normal; max-width: 34em"
_SEVERITY = {"refused": ("✕", BAD), "warning": ("!", BAD), "to read": ("○", WAITING)}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with a colour, and smaller words below it.

    Attributes:
        text: What it says.
        colour: Of the text; black if empty.
        below: What stands below it, small.
    """

    text: str
    colour: str = ""
    below: str = ""


Row = Sequence[str | int | Cell]


def html_table(head: Sequence[str], rows: Sequence[Row]) -> str:
    """A table; whole numbers stand at the right of their column.

    Args:
        head: The columns; none for a table without a head.
        rows: A value per column in each.
    """
    align = [
        "right" if all(isinstance(row[k], int) for row in rows) else "left"
        for k in range(len(rows[0]) if rows else len(head))
    ]
    titles = "".join(
        f'<th style="{_CELL}; text-align: {side}; color: {QUIET}; font-weight: normal">'
        f"{escape(title)}</th>"
        for title, side in zip(head, align, strict=False)
    )
    above = f"<thead><tr>{titles}</tr></thead>" if head else ""
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL}; text-align: {side}">{_shown(value)}</td>'
            for value, side in zip(row, align, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<table style="{_FRAME}">{above}<tbody>{body}</tbody></table>'


class Datasets(pd.DataFrame):
    """One row per dataset version; a notebook shows it without row numbers."""

    def _repr_html_(self) -> str:
        rows = [
            ["suppressed" if pd.isna(v) else _number(v) for v in row]
            for row in self.itertuples(index=False)
        ]
        return html_table([str(c) for c in self.columns], rows) if rows else "<p>no dataset</p>"


class Findings(pd.DataFrame):
    """One row per site and rule; a notebook shows what is not simply passed, and counts the rest.

    What is selected from it is an ordinary frame, which shows every row.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        places: dict[tuple[str, ...], list[str]] = {}
        for f in self[self["verdict"] != "pass"].to_dict("records"):
            said = (f["verdict"], f["rule"], f["do"], f["seen"], f["allowed"])
            places.setdefault(said, []).append(f["site"])
        order = sorted(places, key=lambda said: list(_SEVERITY).index(said[0]))
        rows: list[Row] = [
            [
                Cell(f"{_SEVERITY[verdict][0]} {verdict}", _SEVERITY[verdict][1]),
                Cell(rule, below=do),
                seen,
                allowed,
                ", ".join(places[verdict, rule, do, seen, allowed]),
            ]
            for verdict, rule, do, seen, allowed in order
        ]
        table = html_table(["verdict", "rule", "asked", "allowed", "at"], rows) if rows else ""
        short = "".join(
            f"<p>{_in_short(str(site), part['verdict'])}</p>"
            for site, part in self.groupby("site", sort=False)
        )
        return short + table


def _in_short(site: str, verdicts: pd.Series[str]) -> str:
    """`St Mary's: could approve; 24 rules pass, 1 to read`."""
    counts = verdicts.value_counts()
    refused = "refused" in counts
    colour, word = (BAD, "✕ cannot be approved") if refused else (GOOD, "● could be approved")
    told = [f"{counts.get('pass', 0)} rules pass"]
    told += [f"{counts[word]} {word}" for word in _SEVERITY if word in counts]
    return (
        f'<b>{escape(site)}</b>: <span style="color: {colour}">{word}</span>; '
        f"{escape(', '.join(told))}"
    )


def _shown(value: str | int | Cell) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        short = len(value) <= SHORT
        return (
            f'<span style="white-space: nowrap">{escape(value)}</span>' if short else escape(value)
        )
    colour = f"; color: {value.colour}; white-space: nowrap" if value.colour else ""
    small = (
        f'<br><span style="color: {QUIET}; font-size: 90%">{escape(value.below)}</span>'
        if value.below
        else ""
    )
    return f'<span style="font-weight: 500{colour}">{escape(value.text)}</span>{small}'


def _number(value: object) -> str | int:
    """A count, which pandas holds as a float where another one is missing; else a text."""
    return int(value) if isinstance(value, int | float) else str(value)
