"""What a study costs the patients of each hospital, as the hospitals' ledgers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from federation.notebook_tables import BAD, GOOD, WAITING, Cell, Row, html_table

COLUMNS = (
    "site", "protection", "asked", "spent by this study", "spent by everyone", "cap", "left",
    "delta", "each run",
)  # fmt: skip


class PrivacyCosts(pd.DataFrame):
    """One row per hospital; epsilons are per patient, at the hospital's delta.

    `asked` is for all runs of the study, `spent by everyone` counts every study on the dataset in
    the period of the hospital's policy, `left` is what its cap leaves.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        rows: list[Row] = []
        for row in self.to_dict("records"):
            if row["protection"] == "none":
                cell = Cell("✕ none", BAD, "updates leave as they were computed")
                rows.append([row["site"], cell, *["–"] * (len(COLUMNS) - 2)])
                continue
            colour = GOOD if row["asked"] <= row["cap"] else WAITING
            numbers = [_number(row[name]) for name in COLUMNS[2:8]]
            rows.append([row["site"], Cell(row["protection"], colour), *numbers, row["each run"]])
        return html_table(list(COLUMNS), rows)


def privacy_costs(requests: Mapping[str, Mapping[str, Any]]) -> PrivacyCosts:
    """The costs of a study's requests: title of the hospital -> what it says of the request."""
    rows = []
    for title, request in requests.items():
        told = request["privacy"]
        numbers = [told[n] for n in ("asked", "by_request", "spent", "cap", "left", "delta")]
        rows.append([title, told["mode"], *numbers, told["run"]])
    return PrivacyCosts(rows, columns=list(COLUMNS))


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4g}"
