"""What does not fit in a call on the control socket, as a sentence."""

from __future__ import annotations

import reprlib
from typing import Any

from fastapi.exceptions import RequestValidationError

SECRETS = {"password", "new_password"}
SHOWN = 3
"""How many fields are named; a call is mended one after the other anyway."""


def refusal_sentence(error: RequestValidationError) -> str:
    """The fields that do not fit: each with what is allowed and what was seen, cut short."""
    return "; ".join(_sentence(problem) for problem in error.errors()[:SHOWN])


def _sentence(problem: Any) -> str:
    _, *path = problem["loc"]
    field = ".".join(map(str, path))
    if problem["type"] == "json_invalid" or not path:
        return "the call is refused: what was sent is not a JSON object"
    if problem["type"] == "missing":
        return f"`{field}` is missing"
    if problem["type"] == "extra_forbidden":
        return f"`{field}` is not a field of this call"
    wrong = problem["msg"].removeprefix("Value error, ")
    if SECRETS.intersection(path):
        return f"`{field}`: {wrong}"
    return f"`{field}`: {wrong} (seen: {reprlib.repr(problem['input'])})"
