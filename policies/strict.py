"""The base of every model that is parsed from outside, and the sentences for what does not fit."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

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
        return f"`{field}` is not a field; {_hint(problem['loc'], model)}"
    if problem["type"] == "missing":
        return f"`{field}` is missing"
    wrong = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and not problem["loc"]:  # fields that contradict
        return str(wrong)
    return f"`{field}`: {wrong} (seen: {_short(problem['input'])})"


def _hint(path: Sequence[str | int], model: type[BaseModel]) -> str:
    """The known field that an unknown one may stand for, of the section that it stands in."""
    *above, name = path
    section: Any = model
    for part in above:
        section = _inside(section, part)
    known = list(section.model_fields)
    near = difflib.get_close_matches(str(name), known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"the fields here are {', '.join(f'`{field}`' for field in known)}"


def _inside(annotation: Any, part: str | int) -> Any:
    """The type of a model's field, or of what a list or mapping holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        held = annotation.model_fields[str(part)].annotation
    else:
        held = [a for a in get_args(annotation) if a is not Ellipsis][-1]
    if get_origin(held) in (Union, UnionType):  # a field that may be left out
        held = next(a for a in get_args(held) if a is not type(None))
    return held


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def some(names: Iterable[str], limit: int = 4) -> str:
    """A few names for a sentence: `a, b, c and 5 more`."""
    listed = sorted(names)
    shown = ", ".join(_short(n, 40).strip("'") for n in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
