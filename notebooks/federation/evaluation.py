"""ROC-AUC and accuracy over all sites, from tables of counts; no score of an image is seen.

Each site returns how many images of each class have a score in each bin, with neighbouring bins
merged until a cell is large enough to leave; a merged cell stands at the mean bin of its images.
That is an approximation: `tests/federation/test_evaluation.py` bounds it against exact values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from federation.submission import Study
from policies.arrays import Arrays

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measures:
    """How well a model does on some images.

    Attributes:
        auc: Area under the ROC curve, NaN when a class is missing.
        accuracy: Share classified correctly at log-odds 0.
        confusion: (2, 2) images by true and predicted class, as estimated from the bins.
        images: Number of images counted.
    """

    auc: float
    accuracy: float
    confusion: NDArray[np.float64]
    images: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model measured at each site and over all of them."""

    sites: dict[str, Measures]
    overall: Measures
    tables: dict[str, Counts]

    def frame(self) -> pd.DataFrame:
        """One row per site, and one over all."""
        measured = {**self.sites, "all": self.overall}
        rows = [
            {"site": name, "auc": m.auc, "accuracy": m.accuracy, "images": m.images}
            for name, m in measured.items()
        ]
        return pd.DataFrame(rows).set_index("site")

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(float_format=lambda value: f"{value:.3f}"))


def evaluate(
    study: Study,
    weights: Arrays,
    config: Mapping[str, Any],
    *,
    round_number: int = 1,
    sites: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate weights inside every site of a study of the evaluation job, and add the counts up.

    Args:
        study: An approved study of `notebooks/jobs/evaluate_classifier.py`.
        weights: The model to evaluate.
        config: The job's arguments.
        round_number: Tells evaluations of different weights apart.
        sites: Sites to evaluate at; all of the study by default.

    Raises:
        RefusedError: A site refused, with the rule and what to do.
    """
    names = list(sites or study.sites)

    def visit(name: str) -> Counts:
        update = study.run(name, weights, config, round_number=round_number)
        return update.counts["scores"].astype(np.float64)

    with ThreadPoolExecutor(max(len(names), 1)) as pool:
        tables = dict(zip(names, pool.map(visit, names), strict=True))
    summed = np.sum([tables[name] for name in sorted(tables)], axis=0)
    return Evaluation(
        sites={name: measure(table) for name, table in tables.items()},
        overall=measure(summed),
        tables=tables,
    )


def exact_measures(score: Counts, labels: NDArray[np.int64]) -> Measures:
    """The measures of scores that are at hand: exact, ties counting one half.

    Args:
        score: (N,) log-odds of class 1.
        labels: (N,) 0 or 1.
    """
    predicted = (score >= 0).astype(np.int64)
    confusion = np.zeros((2, 2))
    np.add.at(confusion, (labels, predicted), 1)
    auc = float(roc_auc_score(labels, score)) if len(np.unique(labels)) == 2 else float("nan")
    return Measures(auc, float((predicted == labels).mean()), confusion, len(labels))


def measure(table: Counts) -> Measures:
    """The measures that a (2, bins) table of counts gives; ties within a bin count one half."""
    negative, positive = table
    images = round(float(table.sum()))
    total = float(negative.sum() * positive.sum())
    below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
    auc = float(np.sum(positive * (below + negative / 2)) / total) if total else float("nan")
    half = table.shape[1] // 2
    confusion = np.stack([table[:, :half].sum(1), table[:, half:].sum(1)], axis=1)
    accuracy = float(np.trace(confusion) / images) if images else float("nan")
    return Measures(auc, accuracy, confusion, images)
