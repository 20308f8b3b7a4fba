"""A model measured by subgroup, such as by sex, inside every site that knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from federation.errors import FederationError
from federation.evaluation import EVALUATION_DEFAULTS, Evaluation, evaluate_at, shown
from federation.measures import Measures, SiteTable, measure
from federation.side_by_side import ask_all
from federation.study_checks import check_config, check_run
from federation.subgroup_figure import subgroup_figure
from federation.submission import Study
from policies.arrays import Arrays

ALL = "all"


@dataclass(frozen=True, slots=True)
class Subgroups:
    """A model measured on the images of each value of an attribute.

    Attributes:
        by: The attribute.
        groups: Value -> the evaluation on its images, at the sites whose card has the value.
        overall: The measures over all images that were counted.
        without: Value -> titles of the sites whose card does not have it.
    """

    by: str
    groups: dict[str, Evaluation]
    overall: Measures
    without: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, dict[str, Measures]]:
        """Value, and `all` -> title of a site, and `all` -> measures."""
        found = {value: dict(evaluation.rows) for value, evaluation in self.groups.items()}
        return {**found, ALL: {ALL: self.overall}}

    @property
    def sentences(self) -> list[str]:
        """Which sites do not know a value."""
        return [
            f"{', '.join(titles)}: no subgroup {self.by} {value} in the dataset's card."
            for value, titles in self.without.items()
            if titles
        ]

    def frame(self) -> pd.DataFrame:
        """A row per value and site; each measure with its interval, or `suppressed`."""
        tables = {value: shown(rows) for value, rows in self.rows.items()}
        return pd.concat(tables, names=[self.by, "site"])

    def table(self) -> pd.DataFrame:
        """The same with one name per row: `F at St Mary's`, `F`, …, `all`."""
        table = self.frame()
        names = [value if site == ALL else f"{value} at {site}" for value, site in table.index]
        table.index = pd.Index(names)
        return table

    def figure(self) -> Figure:
        """AUC of each value with its interval, at each site and over all."""
        return subgroup_figure(self.by, self.rows)

    def _repr_html_(self) -> str:
        below = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.sentences)
        return f"{self.frame().to_html()}{below}"


def evaluate_groups(
    study: Study,
    weights: Arrays | Callable[[str], Arrays],
    config: Mapping[str, Any],
    *,
    by: str,
    first_round: int = 1,
    sites: Sequence[str] | None = None,
) -> Subgroups:
    """Evaluate weights on each subgroup inside the sites, one run per value and site.

    A site counts no value of an attribute where one has too few images; it is shown as suppressed.

    Args:
        study: An approved study of `notebooks/jobs/evaluate_classifier.py`, its terms made with
            `evaluation_terms(by=...)`.
        weights: The model to evaluate, or site -> its model.
        config: The job's other arguments.
        by: The attribute, such as `sex`.
        first_round: Round number of the first value; each further value has the next one.
        sites: Sites to evaluate at; all of the study by default.

    Raises:
        FederationError: The terms do not allow it, no card has the attribute, or the weights or
            `config` are not what the study asked for.
        RefusedError: A site refused for another reason than too few images.
    """
    names = list(sites or study.sites)
    bound = study.wanted.arguments.get("by")
    if bound is None or not bound.allows(by):
        asked = [] if bound is None else [b for b in bound.choices or (bound.value,) if b]
        allowed = ", ".join(map(str, asked)) or "no subgroups"
        raise FederationError(
            f"`by` is {by!r}; the study asked for {allowed}. Ask with evaluation_terms(by=[{by!r}])"
        )
    values = {name: _values(study, name, by) for name in names}
    known = sorted({value for found in values.values() for value in found})
    if not known:
        raise FederationError(
            f"no dataset card of {', '.join(names)} has the subgroup `{by}`; "
            "`sites[name].dataset(...)` shows which there are"
        )
    config = {**EVALUATION_DEFAULTS, **config, "by": by}
    sent = weights if callable(weights) else lambda _: weights
    most = max(map(len, values.values())) - 1
    check_run(study, names, sent, {**config, "group": 0})
    check_config(study, {**config, "group": most})
    point = float(config["operating_point"])

    def evaluate_one(value: str, round_number: int) -> Evaluation:
        def visit(name: str) -> SiteTable | None:
            place = {"group": values[name].index(value)}
            return evaluate_at(study, name, sent(name), {**config, **place}, round_number)

        here = [name for name in names if value in values[name]]
        titles = {name: study.federation[name].title for name in here}
        return Evaluation.of(ask_all(here, visit), titles, point)

    groups = {value: evaluate_one(value, first_round + k) for k, value in enumerate(known)}
    tables = [table for found in groups.values() for table in found.tables.values()]
    return Subgroups(
        by=by,
        groups=groups,
        overall=measure(tables, point),
        without={
            value: [study.federation[name].title for name in names if value not in values[name]]
            for value in known
        },
    )


def _values(study: Study, name: str, by: str) -> list[str]:
    card = study.federation[name].dataset(study.wanted.dataset).card
    return [str(value) for value in card.get("groups", {}).get(by, ())]
