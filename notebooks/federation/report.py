"""The study as one HTML file that a compliance officer can print: no scripts, nothing fetched.

`write_report` turns plain values into a page; figures are inline SVG whose text is the page's
own typeface. The same content gives the same bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from federation.history import SiteRound
from federation.report_figures import (
    ALL,
    LOCAL,
    auc_figure,
    contributions_figure,
    loss_figure,
    measures_figure,
    points,
    rounded,
)

SUPPRESSED = "suppressed"


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Everything that the report says; a count that is None is shown as suppressed.

    Attributes:
        title: "Pneumonia on chest X-rays, three hospitals".
        question: What the study asks, in one or two sentences.
        sites: Per site: `title`, `images` (int or None), `class_counts` (class -> int or None),
            `decision` (a sentence), `policy`, `request`; and, if it is known, `name` (the short
            name that `history` and `auc_by_round` use) and `state` (as `Study.states` says it).
        history: `History.frame()`.
        auc_by_round: Index round; a column per site's name, and `all`.
        measures: `auc` and `accuracy` -> model (`local: St Mary's`, `federated`, `pooled`) ->
            column (a site's title, or `all`) -> value.
        refusals: `site`, `rule`, `sentence`: what was refused and what came of it.
        privacy: One true sentence.
        notes: What `pooled` means, how the AUC comes out of counts.
        provenance: Digests, seed, versions, data: what it takes to make the numbers again.
        audit: Per site: `title`, `lines`, `verified`, `public_key`.
    """

    title: str
    question: str
    sites: list[dict[str, Any]]
    history: pd.DataFrame
    auc_by_round: pd.DataFrame
    measures: dict[str, dict[str, dict[str, float]]]
    refusals: list[dict[str, str]]
    privacy: str
    notes: list[str]
    provenance: dict[str, str]
    audit: list[dict[str, Any]]


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report as one self-contained HTML file; an old file stays until it is whole."""
    page = render_report(content).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def render_report(content: ReportContent) -> str:
    """The page as text."""
    names = {str(site.get("name", site["title"])): str(site["title"]) for site in content.sites}
    titles = list(names.values())
    records = _records(content.history)
    aucs = {
        names.get(str(name), str(name)): points(content.auc_by_round[name].items())
        for name in content.auc_by_round.columns
    }
    table = _table(content.measures, titles)
    figures = [
        figure
        for figure in (
            auc_figure(aucs, titles),
            loss_figure(records, names),
            measures_figure(content.measures.get("auc", {}), table["columns"]),
            contributions_figure(records, names),
        )
        if figure is not None
    ]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=rounded, count=_count)
    template = environment.from_string(
        files("federation").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        content=content,
        facts=_facts(content.sites, records, names),
        table=table,
        figures=figures,
        missing=_missing(records, names),
        rounds=[
            (names.get(r.site, r.site), r, dict(aucs.get(names.get(r.site, r.site), [])))
            for r in records
        ],
        over_all=dict(aucs.get(ALL, [])),
    )


def _records(frame: pd.DataFrame) -> list[SiteRound]:
    rows = frame.reset_index().to_dict("records")
    return [SiteRound(**{str(key): value for key, value in row.items()}) for row in rows]


def _count(value: int | None) -> str:
    return SUPPRESSED if value is None else f"{value:,}"


def _facts(
    sites: Sequence[Mapping[str, Any]], records: Sequence[SiteRound], names: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(number, what it counts), for the line under the question."""
    known = [site["images"] for site in sites if site["images"] is not None]
    images = f"{sum(known):,}" if len(known) == len(sites) else f"at least {sum(known):,}"
    # No run is possible without an approval, so a contribution shows one where no state is given.
    contributed = {names.get(r.site, r.site) for r in records if r.state == "contributed"}
    approved = [
        site
        for site in sites
        if site.get("state", "approved" if site["title"] in contributed else "") == "approved"
    ]
    rounds = len({record.round for record in records})
    return [
        (str(len(sites)), "site" if len(sites) == 1 else "sites"),
        (images, "images"),
        (str(rounds), "round" if rounds == 1 else "rounds"),
        (f"{len(approved)} of {len(sites)}", "approved by their data owner"),
    ]


def _missing(records: Sequence[SiteRound], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """("Rounds 4, 5, North Clinic", reason), in the order in which it first happened."""
    found: dict[tuple[str, str], list[int]] = {}
    for record in records:
        if record.state != "contributed":
            found.setdefault((record.site, record.reason), []).append(record.round)
    return [
        (
            f"{'Round' if len(rounds) == 1 else 'Rounds'} {', '.join(map(str, rounds))}, "
            f"{names.get(site, site)}",
            reason or "no reason was recorded",
        )
        for (site, reason), rounds in found.items()
    ]


def _table(
    measures: Mapping[str, Mapping[str, Mapping[str, float]]], titles: Sequence[str]
) -> dict[str, Any]:
    """Columns, and per model its cells: AUC, accuracy, whether the AUC is its column's best."""
    aucs, accuracies = measures.get("auc", {}), measures.get("accuracy", {})
    models = list(dict.fromkeys([*aucs, *accuracies]))
    seen = [c for values in (*aucs.values(), *accuracies.values()) for c in values if c != ALL]
    columns = [*dict.fromkeys([*titles, *seen]), ALL]
    best = {
        column: max(
            (v for row in aucs.values() if math.isfinite(v := row.get(column, math.nan))),
            default=math.nan,
        )
        for column in columns
    }
    rows = []
    for model in models:
        cells = []
        for column in columns:
            auc = aucs.get(model, {}).get(column)
            is_best = rounded(auc) == rounded(best[column]) != "–"
            cells.append((column, auc, accuracies.get(model, {}).get(column), is_best))
        rows.append({"model": model, "is_local": model.startswith(LOCAL), "cells": cells})
    return {"columns": columns, "rows": rows}
