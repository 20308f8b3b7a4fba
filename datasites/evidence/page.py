"""`evidence.html`: the record as one page for people, self-contained, to read and to print."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from datasites.audit_events import Event
from datasites.evidence.claims import Line
from datasites.evidence.sentences import counted, when

MANY_LINES = 8
"""A statement with more lines than this shows them when it is asked to."""

_NOT_SHOWN = {"signature", "approval_signature", "public_key", "type"}
"""Details of lines that tell a reader nothing; they stand in the excerpt."""


def render_page(record: dict[str, Any], lines: Sequence[Line]) -> str:
    """The page of a record.

    Args:
        record: What `make_record` made.
        lines: The lines that are shown; every number of a line is a link to its row.
    """
    return _template().render(record=record, rows=_rows(lines))


def _rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The table of lines, with a row for the lines that are hidden between two."""
    rows: list[dict[str, Any]] = []
    last = 0
    for line in lines:
        if line["n"] > last + 1:
            hidden = line["n"] - last - 1
            rows.append({"hidden": hidden, "first": last + 1, "last": line["n"] - 1})
        last = line["n"]
        rows.append({"hidden": 0, "line": line, "told": _told(line)})
    return rows


def _told(line: Line) -> list[tuple[str, str]]:
    """What a line holds beside time, event, person and subject."""
    if line["event"] == Event.CHECKPOINT:
        return [("covers lines up to", f"{line['detail']['lines']:,}")]
    told = [(name.replace("_", " "), value) for name, value in line["objects"].items()]
    told += [
        (name.replace("_", " "), _plain(value))
        for name, value in line["detail"].items()
        if name not in _NOT_SHOWN
    ]
    return [("reason", line["reason"]), *told] if line["reason"] else told


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["when"] = when
    environment.filters["counted"] = counted
    environment.globals["MANY_LINES"] = MANY_LINES
    source = files("datasites.evidence").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source)
