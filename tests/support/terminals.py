"""What a person reads on a terminal, after the characters that a program wrote to it."""

from __future__ import annotations

import re


def screen(written: str) -> list[str]:
    """The rows of the screen; a row is as long as it gets."""
    rows, y, x = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\r":
            x = 0
        elif token == "\n":
            y, x = y + 1, 0
            rows += [""] * (y + 1 - len(rows))
        elif token == "\x1b[A":
            y = max(y - 1, 0)
        elif not token.startswith("\x1b"):
            rows[y] = rows[y][:x].ljust(x) + token + rows[y][x + len(token) :]
            x += len(token)
    return [row.rstrip() for row in rows]
