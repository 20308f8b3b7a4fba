"""Templates: everything is escaped, and what a reader could not see is written out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datasites.page.wording import age, cut, day, moment, shown, size
from datasites.privacy_standing import standing_in_words
from policies.plain_words import counted

FOLDER = Path(__file__).parent


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cut": cut,
        "size": size,
        "moment": moment,
        "day": day,
        "age": lambda iso: age(iso, dt.datetime.now(dt.UTC)),
        "counted": counted,
        "privacy_lines": standing_in_words,
    }
    return environment


_TEMPLATES = _environment()


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """One page."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status)
