"""Means of an evaluation of which only a noised table left: they follow from the table alone."""

from __future__ import annotations

import math

import numpy as np

from federation.intervals import Table, area_under_roc
from federation.measures import probabilities


def means_of(scores: Table, operating_point: float) -> dict[str, float]:
    """The means that a site would have computed of its images, from binned scores.

    Args:
        scores: (1, 2, bins) images of the first and of the second class by score; with noise in
            the cells, these means have noise, too. Intervals do not cover that noise.
        operating_point: The probability in the middle of the bins.

    Returns:
        `accuracy`, `sensitivity`, `specificity`, `brier`, `auc`, `loss`; what rests on no image
        is 0.
    """
    others, members = scores[0]
    half = len(members) // 2
    total = max(float(scores[0].sum()), 1.0)
    p = probabilities(len(members), operating_point)
    area = area_under_roc(scores[0])[0]
    return {
        "accuracy": float(members[half:].sum() + others[:half].sum()) / total,
        "sensitivity": float(members[half:].sum()) / max(float(members.sum()), 1.0),
        "specificity": float(others[:half].sum()) / max(float(others.sum()), 1.0),
        "brier": float((members * (1 - p) ** 2 + others * p**2).sum()) / total,
        "auc": area if math.isfinite(area) else 0.0,
        "loss": -float((members * np.log(p) + others * np.log1p(-p)).sum()) / total,
    }
