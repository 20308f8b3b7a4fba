"""The study as one HTML file that a compliance officer can print: no scripts, nothing fetched.

`write_report` turns plain values into a page; figures are inline SVG whose text is the page's
own typeface. The same content gives the same bytes.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from federation.aggregation.diagnostics import Diagnostics, diagnostics_frame
from federation.comparison import LOCAL, Comparison
from federation.evaluation import SUPPRESSED, shown
from federation.history import SiteRound
from federation.release import Release
from federation.report_figures import (
    ALL,
    Drawing,
    Points,
    auc_figure,
    contributions_figure,
    evaluation_drawing,
    loss_figure,
    measures_figure,
    points,
    release_drawing,
    rounded,
)
from federation.subgroups import Subgroups
from federation.whole_file import write_whole

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
"""In English wherever the report is written."""


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
        comparison: The models with their intervals; `measures` stands for it where there is none.
        subgroups: The model measured by subgroup.
        release: The verdict of the leakage test, None where none was made.
        diagnostics: Number of a round -> how far the weights moved in it.
        sentence: Who contributed, as `RoundsResult.sentence` says it.
        day: On which it was written.
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
    comparison: Comparison | None = None
    subgroups: Subgroups | None = None
    release: Release | None = None
    diagnostics: dict[int, Diagnostics] = field(default_factory=dict)
    sentence: str = ""
    day: dt.date | None = None

    @property
    def kind(self) -> str:
        """What this is, and of when."""
        month = MONTHS[self.day.month - 1] if self.day else ""
        day = f", {self.day.day} {month} {self.day.year}" if self.day else ""
        return f"Federated study, report{day}"


@dataclass(frozen=True, slots=True)
class Page:
    """What the page and the PDF show of a content.

    Attributes:
        facts: (number, what it counts).
        table: Columns, and per model its cells.
        caption: What stands under the table.
        figures: The drawings.
        attacks: The drawing of the leakage test, None where none was made.
        missing: (when, reason).
        records: One per site and round.
    """

    facts: list[tuple[str, str]]
    table: dict[str, Any]
    caption: str
    figures: list[Drawing]
    attacks: Drawing | None
    missing: list[tuple[str, str]]
    records: list[SiteRound]


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report as one self-contained HTML file; an old file stays until it is whole."""
    write_whole(path, render_report(content).encode("utf-8"))


def page_of(content: ReportContent) -> Page:
    """The tables and figures of a content."""
    names, records = _names(content), _records(content.history)
    titles = list(names.values())
    table = _table(content, titles)
    drawings = [
        auc_figure(_aucs(content), titles),
        loss_figure(records, names),
        measures_figure(content.measures.get("auc", {}), table["columns"]),
        contributions_figure(records, names),
    ]
    if content.comparison is not None:
        drawings += [
            evaluation_drawing(evaluation.rows, model)
            for model, evaluation in content.comparison.models.items()
            if not model.startswith(LOCAL)
        ]
    below = "its 95 % interval" if content.comparison is not None else "accuracy"
    return Page(
        facts=_facts(content.sites, records, names),
        table=table,
        caption=f"AUC, and below it {below}. The best AUC of a column is bold and marked.",
        figures=[drawing for drawing in drawings if drawing is not None],
        attacks=release_drawing(content.release),
        missing=_missing(records, names),
        records=records,
    )


def render_report(content: ReportContent) -> str:
    """The page as text."""
    page, names, aucs = page_of(content), _names(content), _aucs(content)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=rounded, count=_count)
    template = environment.from_string(
        files("federation").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        content=content,
        page=page,
        measured=_measured(content),
        leakage=None if content.release is None else _cells(content.release.table()),
        diagnostics=_diagnostics(content, names),
        rounds=[
            (names.get(r.site, r.site), r, dict(aucs.get(names.get(r.site, r.site), [])))
            for r in page.records
        ],
        over_all=dict(aucs.get(ALL, [])),
    )


def _names(content: ReportContent) -> dict[str, str]:
    """Short name of a site -> its title."""
    return {str(site.get("name", site["title"])): str(site["title"]) for site in content.sites}


def _aucs(content: ReportContent) -> dict[str, Points]:
    """Title of a site, or `all` -> AUC per round."""
    names, frame = _names(content), content.auc_by_round
    return {names.get(str(n), str(n)): points(frame[n].items()) for n in frame.columns}


def measured_tables(content: ReportContent) -> dict[str, pd.DataFrame]:
    """Every measure of each model that is not a single site's, and by subgroup."""
    models = {} if content.comparison is None else content.comparison.models
    tables = {m: shown(found.rows) for m, found in models.items() if not m.startswith(LOCAL)}
    if content.subgroups is not None:
        tables[f"By subgroup: {content.subgroups.by}"] = content.subgroups.table()
    return tables


def _measured(content: ReportContent) -> list[tuple[str, list[str], list[list[str]]]]:
    """Name, columns and rows of each table of every measure."""
    return [(model, *_cells(table)) for model, table in measured_tables(content).items()]


def _cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table whose index is text."""
    rows = zip(table.index, table.fillna("–").to_numpy().tolist(), strict=True)
    return [str(column) for column in table.columns], [[str(t), *map(str, row)] for t, row in rows]


def _diagnostics(content: ReportContent, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One per round and site: how far it moved the weights, and whether with the others."""
    if not content.diagnostics:
        return []
    rows = diagnostics_frame(content.diagnostics).reset_index().to_dict("records")
    for row in rows:
        row["site"] = names.get(str(row["site"]), str(row["site"]))
    return [{str(key): value for key, value in row.items()} for row in rows]


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


def _table(content: ReportContent, titles: Sequence[str]) -> dict[str, Any]:
    """Columns, and per model its cells: AUC, what stands below, whether it is its column's best."""
    aucs, accuracies = content.measures.get("auc", {}), content.measures.get("accuracy", {})
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
            below = rounded(accuracies.get(model, {}).get(column))
            if content.comparison is not None:
                below = _interval(content.comparison, model, column)
            cells.append((column, auc, below, is_best))
        rows.append({"model": model, "is_local": model.startswith(LOCAL), "cells": cells})
    return {"columns": columns, "rows": rows}


def _interval(comparison: Comparison, model: str, column: str) -> str:
    """The 95 % interval of an AUC; what there is in its place where there is none."""
    measures = comparison.models[model].rows.get(column)
    if measures is None:
        return "–"
    if measures.images is None:
        return SUPPRESSED
    return f"{rounded(measures.auc.low)} to {rounded(measures.auc.high)}"
