"""The lines of a text, numbered as Python numbers them in its errors."""

from __future__ import annotations

import re

_ENDS = re.compile(r"\r\n|\r|\n")


def lines_of(text: str) -> list[str]:
    """The lines without their ends; a form feed or a Unicode separator ends none."""
    lines = _ENDS.split(text)
    return lines[:-1] if lines[-1] == "" else lines
