"""The base of every model that is parsed from outside, and the sentences for what does not fit."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """A frozen model that takes no unknown field and no number that is not finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def canonical_json(value: Any) -> bytes:
    """The one way in which a JSON value is written before it is hashed or signed: UTF-8 bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def model_sha256(model: BaseModel) -> str:
    """Hex SHA-256 of a model's canonical JSON."""
    return hashlib.sha256(canonical_json(model.model_dump(mode="json"))).hexdigest()


def validation_sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence per field that does not fit: the field, what is wrong, the value seen."""
    return [_sentence(problem, model) for problem in error.errors()]


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "document"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _field_names(model), n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"`{field}` is not a field{hint}"
    if problem["type"] == "missing":
        return f"`{field}` is missing"
    return f"`{field}`: {problem['msg']} (seen: {_short(problem['input'])})"


def _field_names(model: type[BaseModel]) -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        names.append(name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                names.extend(_field_names(inner))
    return names


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def some(names: Iterable[str], limit: int = 4) -> str:
    """A few names for a sentence: `a, b, c and 5 more`."""
    listed = sorted(names)
    shown = ", ".join(_short(n, 40).strip("'") for n in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
