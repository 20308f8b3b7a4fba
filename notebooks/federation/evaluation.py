"""Evaluate a model inside every site, and put together what leaves: counts and a few means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from federation.errors import RefusedError
from federation.evaluation_figures import evaluation_figure
from federation.intervals import Estimate
from federation.measures import NAMES, Measures, SiteTable, measure
from federation.noised_scores import means_of
from federation.side_by_side import ask_all
from federation.study_checks import check_run
from federation.submission import Study
from policies.arrays import Arrays

SUPPRESSED = "suppressed"
"""What is shown in the place of numbers that rest on too few images."""
EVALUATION_DEFAULTS = {"operating_point": 0.5}
"""Arguments of the evaluation job that need not be given."""
WHOLE = {"by": "", "group": 0}
"""Arguments that let the evaluation job count all images, in a study that may ask by group."""
TOO_FEW = frozenset({"examples.minimum", "counts.minimum"})
"""Rules by which a site keeps a result that rests on too few images."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model measured at each site and over all of them.

    Attributes:
        sites: Short name of the site -> its measures.
        overall: The measures over all images.
        tables: What each site released.
        titles: Short name of the site -> its title.
    """

    sites: dict[str, Measures]
    overall: Measures
    tables: dict[str, SiteTable]
    titles: dict[str, str]

    @classmethod
    def of(
        cls, found: Mapping[str, SiteTable | None], titles: dict[str, str], point: float
    ) -> Evaluation:
        """The measures of what sites released at an operating point; None for too few images."""
        tables = {name: table for name, table in found.items() if table is not None}
        return cls(
            sites={
                name: Measures(operating_point=point) if table is None else measure([table], point)
                for name, table in found.items()
            },
            overall=measure([tables[name] for name in sorted(tables)], point),
            tables=tables,
            titles=titles,
        )

    @property
    def rows(self) -> dict[str, Measures]:
        """Title of a site, and `all` -> measures."""
        return {**{self.titles[n]: m for n, m in self.sites.items()}, "all": self.overall}

    def frame(self) -> pd.DataFrame:
        """One row per site and one over all; each measure with `_low` and `_high` beside it."""
        return pd.DataFrame(
            [{"site": title, **_plain(measures)} for title, measures in self.rows.items()]
        ).set_index("site")

    def figure(self) -> Figure:
        """ROC curves above and reliability diagrams below, a column per site and one over all."""
        return evaluation_figure(self.rows)

    def _repr_html_(self) -> str:
        return shown(self.rows).to_html()


def evaluate(
    study: Study,
    weights: Arrays | Callable[[str], Arrays],
    config: Mapping[str, Any],
    *,
    round_number: int = 1,
    sites: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate weights inside every site of a study of the evaluation job, and add the counts up.

    A site whose images are too few for its policy is shown as suppressed.

    Args:
        study: An approved study of `notebooks/jobs/evaluate_classifier.py`.
        weights: The model to evaluate; or site -> its model, for algorithms such as FedBN that keep
            a part of it local: `lambda site: algorithm.to_send(result.state, site)`.
        config: The job's arguments.
        round_number: Tells evaluations of different weights apart.
        sites: Sites to evaluate at; all of the study by default.

    Raises:
        FederationError: The weights or `config` are not what the study asked for.
        RefusedError: A site refused for another reason, with the rule and what to do.
    """
    names = list(sites or study.sites)
    config = evaluation_config(study, config)
    sent = weights if callable(weights) else lambda _: weights
    check_run(study, names, sent, config)

    def visit(name: str) -> SiteTable | None:
        return evaluate_at(study, name, sent(name), config, round_number)

    titles = {name: study.federation[name].title for name in names}
    return Evaluation.of(ask_all(names, visit), titles, float(config["operating_point"]))


def evaluation_config(study: Study, config: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation job's arguments for all images, with those that were left out."""
    open_groups = {name: value for name, value in WHOLE.items() if name in study.wanted.arguments}
    return {**EVALUATION_DEFAULTS, **open_groups, **config}


def evaluate_at(
    study: Study, name: str, weights: Arrays, config: Mapping[str, Any], round_number: int
) -> SiteTable | None:
    """What one site releases about a model, None where its images are too few.

    Raises:
        RefusedError: The site refused for another reason, with the rule and what to do.
    """
    try:
        update = study.run(name, weights, config, round_number=round_number)
    except RefusedError as refused:
        if {finding.rule for finding in refused.findings} <= TOO_FEW:
            return None
        raise
    scores = update.counts["scores"].astype(np.float64)
    classified = update.counts.get("classified")
    means = update.metrics or means_of(scores, float(config["operating_point"]))
    return SiteTable(
        scores,
        None if classified is None else classified.astype(np.float64),
        means,
        round(float(scores[0].sum())),  # `examples` is the smallest group's number, for the site
    )


def shown(rows: Mapping[str, Measures]) -> pd.DataFrame:
    """A table for people: each measure with its interval, `suppressed` where images are too few."""
    return pd.DataFrame(
        [
            {
                "": title,
                "images": SUPPRESSED if measures.images is None else f"{measures.images:,}",
                **{_in_words(name): _shown(measures, name) for name in NAMES},
            }
            for title, measures in rows.items()
        ]
    ).set_index("")


def _in_words(name: str) -> str:
    return {"auc": "AUC", "brier": "Brier score"}.get(name, name.replace("_", " "))


def _shown(measures: Measures, name: str) -> str:
    return SUPPRESSED if measures.images is None else str(getattr(measures, name))


def _plain(measures: Measures) -> dict[str, float | None]:
    plain: dict[str, float | None] = {}
    for name in NAMES:
        estimate: Estimate = getattr(measures, name)
        plain |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {**plain, "images": measures.images}
