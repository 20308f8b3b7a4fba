"""How the page writes numbers, times and the text of strangers."""

from __future__ import annotations

import datetime as dt
from typing import Any

from markupsafe import Markup

CUT = 90
"""Characters of a stranger's text that stand in a list."""


def named(character: str) -> str:
    """`⟨U+202E⟩`."""
    return f"⟨U+{ord(character):04X}⟩"


def visible(text: str) -> str:
    """The text with every hidden character but line feed and tab written out.

    Hidden is what is not seen as itself: controls, formats, private and unassigned characters,
    every separator but the space.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else named(c) for c in text)


def shown(value: Any) -> Any:
    """What a template prints: markup of the page's own as it is, all else with nothing hidden."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else visible(str(value))


def cut(value: Any, most: int = CUT) -> str:
    """The beginning of a text, with a sign where the rest is missing."""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def size(number: int | None) -> str:
    """`1.68 MB`, `420 kB`, `16 bytes`."""
    if number is None:
        return "not declared"
    if number >= 1_000_000:
        return f"{number / 1e6:,.2f} MB"
    return f"{number / 1e3:,.1f} kB" if number >= 10_000 else f"{number:,} bytes"


def moment(iso: str) -> str:
    """`2026-11-22 09:14 UTC`; what is no time is written as it is."""
    try:
        return f"{dt.datetime.fromisoformat(iso).astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return iso


def day(iso: str) -> str:
    """`2026-11-22`."""
    return moment(iso)[:10]


def age(iso: str, now: dt.datetime) -> str:
    """`3 min`, `2 h`, `4 d`, since a time."""
    try:
        seconds = (now - dt.datetime.fromisoformat(iso)).total_seconds()
    except (ValueError, TypeError):
        return "unknown"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "just now"
