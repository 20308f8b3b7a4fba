"""Values as they stand in a sentence."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    *most, end = list(names) or ["nothing"]
    return f"{', '.join(most)} {last} {end}" if most else end


def counted(number: float, noun: str, plural: str = "") -> str:
    """`1 run`, `12 runs`, `1,000 arrays`."""
    return f"{in_digits(number)} {noun if number == 1 else plural or noun + 's'}"


def in_digits(number: float) -> str:
    """A number with thousands apart and no digits that say nothing."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.6f}".rstrip("0").rstrip(".")


def in_percent(share: float) -> str:
    """`2%`, `0.5%`."""
    return f"{in_digits(float(share * 100))}%"
