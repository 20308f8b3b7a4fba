"""How well a model does, from the tables that leave hospitals; no score of an image is seen.

With two classes, accuracy, sensitivity, specificity and Brier score are exact, as is a single
site's AUC: they are means over images, which a site computes itself. What else joins sites or needs
a curve comes from binned scores, an approximation that `tests/federation/test_measures.py` bounds
against scikit-learn on the scores themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from federation.intervals import (
    UNKNOWN,
    Estimate,
    Table,
    area_interval,
    area_under_roc,
    around,
    mean_of_proportions,
    proportion,
)

LIMIT = 12.0
"""Log-odds of the outer edges of the table."""
GROUPS, OF_A_GROUP = 10, 40
"""Most groups that a calibration error is computed over, and fewest images of one."""
DRAWS = 400


@dataclass(frozen=True, slots=True)
class SiteTable:
    """What an evaluation at one site released.

    Attributes:
        scores: (classes, 2, bins) images of other classes and of the class by score; one class,
            the second, where there are two.
        classified: (classes, 2) images classified wrongly and rightly; None with two classes.
        means: `loss`, `accuracy`, `sensitivity`, `specificity`, `brier`, `auc`, as the site
            computed them.
        images: Images counted.
    """

    scores: Table
    classified: Table | None
    means: dict[str, float]
    images: int


@dataclass(frozen=True, slots=True)
class Measures:
    """How well a model does on some images.

    Attributes:
        auc: Area under the ROC curve; with more than two classes the mean over each against all
            others.
        accuracy: Share of images whose class has the highest score.
        balanced_accuracy: Mean over the classes of the share classified rightly.
        sensitivity: Share of the second class with a probability of `operating_point` or more;
            with more than two classes the mean over each class of its own.
        specificity: Share of the others with a lower one.
        brier: Half the mean squared distance of probabilities from the truth (Brier 1950); with two
            classes the usual mean of (probability - truth) squared.
        calibration_error: Mean distance of predicted and observed shares over up to ten groups of
            about equally many images, by predicted probability (Nixon et al. 2019, arXiv
            1904.01685, static and adaptive); mean over classes.
        images: Images counted; None when they are too few to be shown.
        operating_point: Probability at which a class is called.
        roc: (n, 2) false and true positive rates of the second class, from (0, 0) to (1, 1).
        reliability: (n, 3) mean predicted probability, observed share, images.
    """

    auc: Estimate = UNKNOWN
    accuracy: Estimate = UNKNOWN
    balanced_accuracy: Estimate = UNKNOWN
    sensitivity: Estimate = UNKNOWN
    specificity: Estimate = UNKNOWN
    brier: Estimate = UNKNOWN
    calibration_error: Estimate = UNKNOWN
    images: int | None = None
    operating_point: float = 0.5
    roc: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    reliability: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))


NAMES = (
    "auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier",
    "calibration_error",
)  # fmt: skip


def measure(sites: Sequence[SiteTable], operating_point: float = 0.5) -> Measures:
    """The measures over all images of some sites.

    Args:
        sites: What each released; those without images count for nothing.
        operating_point: The probability that the job was given.
    """
    present = [site for site in sites if site.images]
    if not present:
        return Measures(operating_point=operating_point)
    scores = np.sum([site.scores for site in present], axis=0)
    images = sum(site.images for site in present)
    return Measures(
        auc=_auc(present, scores),
        accuracy=proportion(sum(s.means["accuracy"] * s.images for s in present), images),
        balanced_accuracy=_balanced(present, scores),
        sensitivity=_rate(present, scores, "sensitivity"),
        specificity=_rate(present, scores, "specificity"),
        brier=_brier(present, scores, operating_point),
        calibration_error=_calibration_error(scores, operating_point),
        images=images,
        operating_point=operating_point,
        roc=roc_points(scores[-1]),
        reliability=reliability_points(scores[-1], operating_point),
    )


def exact_measures(score: NDArray[np.float64], labels: NDArray[np.int64]) -> Measures:
    """The measures of two classes whose scores are at hand, ties counting one half.

    Args:
        score: (N,) log-odds of class 1.
        labels: (N,) 0 or 1.
    """
    bins = np.unique(score, return_inverse=True)[1]
    table = np.stack([np.bincount(bins[labels == k], minlength=bins.max() + 1) for k in (0, 1)])
    called, right = score >= 0, (score >= 0) == labels
    probability = 1 / (1 + np.exp(-score))
    squares = (probability - labels) ** 2
    positive, negative = labels == 1, labels == 0
    sensitivity = proportion(float(right[positive].sum()), float(positive.sum()))
    specificity = proportion(float(right[negative].sum()), float(negative.sum()))
    area, error = area_under_roc(table.astype(np.float64))
    if math.isfinite(area):
        area = float(roc_auc_score(labels, score))
    groups = _equal_groups(np.argsort(np.argsort(probability, kind="stable")) + 0.5, len(labels))
    apart = [abs(float((labels - probability)[groups == g].sum())) for g in range(GROUPS)]
    return Measures(
        auc=area_interval(area, error, float(min(positive.sum(), negative.sum()))),
        accuracy=proportion(float(right.sum()), len(labels)),
        balanced_accuracy=mean_of_proportions(
            [sensitivity, specificity], [float(positive.sum()), float(negative.sum())]
        ),
        sensitivity=sensitivity,
        specificity=specificity,
        brier=around(float(squares.mean()), float(squares.std() / math.sqrt(len(labels)))),
        calibration_error=Estimate(sum(apart) / len(labels)),
        images=len(called),
        roc=roc_points(table.astype(np.float64)),
    )


def roc_points(table: Table) -> NDArray[np.float64]:
    """(n, 2) false and true positive rates of a (2, bins) table, from the highest score down."""
    if not (table.sum(1) > 0).all():
        return np.zeros((0, 2))
    rates = np.cumsum(table[:, ::-1], axis=1) / table.sum(1, keepdims=True)
    points = np.concatenate([np.zeros((2, 1)), rates], axis=1).T
    return np.asarray(np.unique(points, axis=0), np.float64)


def reliability_points(table: Table, operating_point: float) -> NDArray[np.float64]:
    """(n, 3) mean predicted probability, observed share and images of each group."""
    probability, counts = probabilities(table.shape[1], operating_point), table.sum(0)
    groups = _equal_groups(np.cumsum(counts) - counts / 2, float(counts.sum()))
    rows = []
    for group in range(GROUPS):
        here = groups == group
        count = float(counts[here].sum())
        if count:
            predicted = float((counts * probability)[here].sum()) / count
            rows.append((predicted, float(table[1, here].sum()) / count, count))
    return np.array(rows, np.float64).reshape(-1, 3)


def _equal_groups(ranks: NDArray[np.float64], images: float) -> NDArray[np.int64]:
    """Group of each rank: as many groups as have `OF_A_GROUP` images, `GROUPS` at most."""
    number = max(1, min(GROUPS, int(images // OF_A_GROUP)))
    return np.asarray(np.minimum(ranks / max(images, 1.0) * number, number - 1), np.int64)


def probabilities(bins: int, operating_point: float) -> NDArray[np.float64]:
    """The probability in the middle of each bin."""
    middle = (np.arange(bins) + 0.5) / bins * 2 * LIMIT - LIMIT
    odds = middle + math.log(operating_point / (1 - operating_point))
    return np.asarray(1 / (1 + np.exp(-odds)), np.float64)


def _auc(sites: Sequence[SiteTable], scores: Table) -> Estimate:
    """Mean over the classes; with two, pairs of images of one site count as that site says."""
    found = [area_under_roc(table) for table in scores]
    areas = [area for area, _ in found if math.isfinite(area)]
    if not areas:
        return UNKNOWN
    area = sum(areas) / len(areas)
    # Areas of several classes hang together: this is the most that their mean can vary.
    error = sum(error for area, error in found if math.isfinite(area)) / len(areas)
    if len(scores) == 1:
        area = _area_over_sites(sites)
    elif len(sites) == 1:
        area = sites[0].means["auc"]
    return area_interval(area, error, float(scores.sum(2).min()))


def _area_over_sites(sites: Sequence[SiteTable]) -> float:
    """Share of pairs in order: exact within a site, from binned scores between two."""
    in_order = pairs = 0.0
    for one in sites:
        for other in sites:
            table = np.stack([other.scores[0, 0], one.scores[0, 1]])
            number = float(table.sum(1).prod())
            if number:
                share = one.means["auc"] if one is other else area_under_roc(table)[0]
                in_order, pairs = in_order + number * share, pairs + number
    return in_order / pairs


def _balanced(sites: Sequence[SiteTable], scores: Table) -> Estimate:
    """Mean over the classes of the share classified rightly."""
    if sites[0].classified is None:
        shares = [_rate(sites, scores, name) for name in ("sensitivity", "specificity")]
        counts = [float(scores[0, k].sum()) for k in (1, 0)]
        return mean_of_proportions(shares, counts)
    table = np.sum([site.classified for site in sites if site.classified is not None], axis=0)
    counts = [float(n) for n in table.sum(1)]
    shares = [proportion(float(r), n) for r, n in zip(table[:, 1], counts, strict=True)]
    return mean_of_proportions(shares, counts)


def _rate(sites: Sequence[SiteTable], scores: Table, name: str) -> Estimate:
    """Share of members at or above the operating point, or of others below it.

    With two classes as sites computed it; with more from the table, the mean over the classes.
    """
    row = 1 if name == "sensitivity" else 0
    counts = [float(n) for n in scores[:, row].sum(1)]
    if len(scores) == 1:
        hits = sum(site.means[name] * float(site.scores[0, row].sum()) for site in sites)
        return proportion(hits, counts[0])
    half = scores.shape[2] // 2
    rows = scores[:, 1, half:] if row else scores[:, 0, :half]
    shares = [proportion(float(h), n) for h, n in zip(rows.sum(1), counts, strict=True)]
    return mean_of_proportions(shares, counts)


def _brier(sites: Sequence[SiteTable], scores: Table, operating_point: float) -> Estimate:
    """The exact mean; its error from the spread of squares in the table."""
    images = sum(site.images for site in sites)
    value = sum(site.means["brier"] * site.images for site in sites) / images
    p = probabilities(scores.shape[2], operating_point)
    squares = np.stack([p**2, (1 - p) ** 2])
    spread = 0.0
    for table in scores:
        share = table / max(float(table.sum()), 1.0)
        variance = float((share * squares**2).sum() - (share * squares).sum() ** 2)
        spread += math.sqrt(max(variance, 0.0))
    half = 1.0 if len(scores) == 1 else 0.5
    return around(value, half * spread / math.sqrt(images))


def _calibration_error(scores: Table, operating_point: float) -> Estimate:
    """Mean over the classes, with a percentile interval of tables drawn again from the counts.

    A mean of distances is never negative, so drawing again adds to it; the interval is moved back
    by what it adds.
    """
    probability = probabilities(scores.shape[2], operating_point)
    rng = np.random.default_rng(0)
    value, drawn = 0.0, np.zeros(DRAWS)
    for table in scores:
        counts, total = table.sum(0), float(table.sum())
        groups = _equal_groups(np.cumsum(counts) - counts / 2, total)
        of_group = np.eye(GROUPS)[groups]
        flat = table.ravel() / total
        again = rng.multinomial(int(total), flat, DRAWS).reshape(DRAWS, *table.shape)
        tables = np.concatenate([table[None], again])
        apart = tables.sum(1) * probability - tables[:, 1]  # predicted less observed
        distances = np.abs(apart @ of_group).sum(1) / total / len(scores)
        value, drawn = value + float(distances[0]), drawn + distances[1:]
    low, high = np.quantile(drawn, [0.025, 0.975]) - (drawn.mean() - value)
    return Estimate(value, max(0.0, float(low)), min(1.0, float(high)))
