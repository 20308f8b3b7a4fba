"""Several models side by side, at each site and over all: the table of a study."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import pandas as pd

from federation.evaluation import Evaluation
from federation.measures import NAMES, Measures

LOCAL = "local: "
"""A model of this name, followed by a site's title, was trained at that site alone."""
FEDERATED = "federated"
"""The model of this name was trained at all sites."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models, each evaluated at the same sites.

    Attributes:
        models: Name of the model -> its evaluation; `local: TITLE` for a site's own, `federated`,
            `pooled`.
    """

    models: dict[str, Evaluation]

    @property
    def columns(self) -> list[str]:
        """Titles of the sites, and `all`."""
        titles = dict.fromkeys(t for e in self.models.values() for t in e.rows if t != "all")
        return [*titles, "all"]

    def frame(self) -> pd.DataFrame:
        """One row per (model, site) with every measure and its interval."""
        frames = {name: evaluation.frame() for name, evaluation in self.models.items()}
        return pd.concat(frames, names=["model", "site"])

    def table(self, measure: str = "auc") -> pd.DataFrame:
        """One measure: a row per model, a column per site and one over all.

        Args:
            measure: One of `federation.measures.NAMES`.
        """
        if measure not in NAMES:
            raise ValueError(f"there is no measure `{measure}`; there are {', '.join(NAMES)}")
        rows = {
            model: {column: _cell(evaluation.rows.get(column), measure) for column in self.columns}
            for model, evaluation in self.models.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")

    @property
    def sentence(self) -> str:
        """The AUC of `federated` beside the sites' own models, in words.

        Empty where there is no model of the name `federated`, or none of a site's own.
        """
        shared = self.models.get(FEDERATED)
        own = {t: self.models[LOCAL + t] for t in self.columns if LOCAL + t in self.models}
        if shared is None or not own:
            return ""
        told = [
            _beside(f"At {title}", shared.rows.get(title), "its own model", model.rows.get(title))
            for title, model in own.items()
        ]
        known = {t: model.rows["all"] for t, model in own.items() if model.rows["all"].auc.known}
        if known:
            best = max(known, key=lambda title: known[title].auc.value)
            told.append(_beside("Over all", shared.rows["all"], f"that of {best}", known[best]))
        return " ".join(filter(None, told))

    def _repr_html_(self) -> str:
        best = {column: self._best(column) for column in self.columns}
        table = self.table()
        for column, model in best.items():
            if model is not None:
                table.loc[model, column] = f"▸ {table.loc[model, column]}"
        words = f"<p>{escape(self.sentence)}</p>" if self.sentence else ""
        note = "<p>AUC with its 95 % interval; ▸ is the best of its column.</p>"
        return table.to_html() + note + words

    def _best(self, column: str) -> str | None:
        known = {
            model: evaluation.rows[column].auc.value
            for model, evaluation in self.models.items()
            if column in evaluation.rows and evaluation.rows[column].auc.known
        }
        return max(known, key=lambda model: known[model]) if known else None


def _beside(where: str, shared: Measures | None, name: str, other: Measures | None) -> str:
    """One sentence of two AUCs; empty where one is not known."""
    if shared is None or other is None or not (shared.auc.known and other.auc.known):
        return ""
    ours, theirs = shared.auc, other.auc
    numbers = f"AUC {ours.value:.3f}, {name} {theirs.value:.3f}"
    if ours.low > theirs.high:
        return f"{where} the shared model is better: {numbers}."
    if theirs.low > ours.high:
        return f"{where} the shared model is worse: {numbers}."
    return f"{where} there is no clear difference: {numbers} (the intervals overlap)."


def _cell(measures: Measures | None, name: str) -> str:
    if measures is None:
        return "–"
    return "suppressed" if measures.images is None else str(getattr(measures, name))
