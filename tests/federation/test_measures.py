"""Measures from what leaves hospitals, beside scikit-learn's on the scores themselves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
)

from federation.intervals import area_interval, area_under_roc, proportion
from federation.job import Job, read_job
from federation.measures import (
    NAMES,
    Measures,
    SiteTable,
    exact_measures,
    measure,
    probabilities,
    reliability_points,
    roc_points,
)

JOB: Job = read_job(Path(__file__).parents[2] / "notebooks/jobs/evaluate_classifier.py")
MINIMUM = 5
BINS = 240
"""As in the demonstration."""

Table = NDArray[np.float64]
Scores = tuple[NDArray[np.float64], NDArray[np.int64]]


def namespace() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": JOB.name}
    exec(compile(JOB.text, "job.py", "exec"), names)
    return names


NAMESPACE = namespace()
merge = NAMESPACE["merge"]


def merged(table: NDArray[np.int64], minimum: int = MINIMUM) -> NDArray[np.int64]:
    return np.stack([merge(row, minimum) for row in table])


def released(
    output: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    point: float = 0.5,
    minimum: int = MINIMUM,
    bins: int = BINS,
) -> SiteTable:
    """What the job releases for images whose outputs (N, classes) are at hand."""
    names = namespace()
    names["build_model"] = lambda card, config: None
    names["predict"] = lambda images, enough, *_: torch_softmax(images[enough])

    class Data:
        def __init__(self) -> None:
            self.card = {"classes": [str(k) for k in range(output.shape[1])]}

        def arrays(self, split: str) -> tuple[Any, Any]:
            return output, labels

    config = {"split": "test", "minimum_count": minimum, "bins": bins, "operating_point": point}
    result = names["evaluate"](Data(), {}, config)
    classified = result["counts"].get("classified")
    return SiteTable(
        result["counts"]["scores"].astype(float),
        None if classified is None else classified.astype(float),
        result["metrics"],
        result["examples"],
    )


def torch_softmax(output: NDArray[np.float64]) -> Any:
    import torch

    return torch.from_numpy(output).softmax(1)


def hospital(
    rng: np.random.Generator, count: int, classes: int = 2, strength: float = 2.0
) -> Scores:
    """Outputs (N, classes) and labels of one hospital, which differs from others a little."""
    shares = rng.dirichlet([4.0] * classes)
    labels = rng.choice(classes, count, p=shares).astype(np.int64)
    output = rng.normal(size=(count, classes)) + rng.normal(0, 0.3, classes)
    output[np.arange(count), labels] += strength
    return output, labels


def softmax(output: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(output - output.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# ------------------------------------------------------------- beside scikit-learn, over sites


@pytest.mark.parametrize("strength", [0.3, 1.5, 3.0])
@pytest.mark.parametrize(("count", "bound"), [(80, 0.01), (200, 0.006), (600, 0.002)])
@pytest.mark.parametrize("sites", [1, 3, 8])
def test_measures_over_sites_are_close_to_those_of_pooled_scores(
    sites: int, count: int, bound: float, strength: float
) -> None:
    """Within 0.002 where a hospital has some hundreds of images; exact at one hospital."""
    rng = np.random.default_rng([sites, count, round(10 * strength)])
    found = [hospital(rng, count, strength=strength) for _ in range(sites)]
    got = measure([released(output, labels) for output, labels in found])
    output, labels = np.concatenate([o for o, _ in found]), np.concatenate([y for _, y in found])
    p = softmax(output)[:, 1]
    called = (p >= 0.5).astype(int)
    assert got.images == sites * count
    assert got.auc.value == pytest.approx(
        roc_auc_score(labels, p), abs=1e-9 if sites == 1 else bound
    )
    assert got.accuracy.value == pytest.approx(accuracy_score(labels, called), abs=1e-9)
    assert got.brier.value == pytest.approx(brier_score_loss(labels, p), abs=1e-9)
    expected = {
        "sensitivity": recall_score(labels, called),
        "specificity": recall_score(labels, called, pos_label=0),
        "balanced_accuracy": balanced_accuracy_score(labels, called),
    }
    for name, value in expected.items():
        assert getattr(got, name).value == pytest.approx(value, abs=1e-9), name
    ece = expected_calibration_error(labels, p)
    assert got.calibration_error.value == pytest.approx(ece, abs=0.06 if count == 80 else 0.03)
    for name in NAMES:
        estimate = getattr(got, name)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1, name


def expected_calibration_error(labels: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    number = max(1, min(10, len(p) // 40))
    groups = np.argsort(np.argsort(p, kind="stable")) * number // len(p)
    return float(sum(abs((labels[groups == g] - p[groups == g]).sum()) for g in range(10)) / len(p))


@pytest.mark.parametrize("classes", [3, 10])
def test_measures_of_several_classes_are_close_to_those_of_pooled_scores(classes: int) -> None:
    rng = np.random.default_rng(classes)
    found = [hospital(rng, 150 * classes, classes) for _ in range(3)]
    tables = [released(output, labels) for output, labels in found]
    got = measure(tables)
    output, labels = np.concatenate([o for o, _ in found]), np.concatenate([y for _, y in found])
    p = softmax(output)
    assert got.auc.value == pytest.approx(roc_auc_score(labels, p, multi_class="ovr"), abs=0.002)
    assert measure(tables[:1]).auc.value == pytest.approx(
        roc_auc_score(found[0][1], softmax(found[0][0]), multi_class="ovr"), abs=1e-9
    )
    assert got.accuracy.value == pytest.approx(accuracy_score(labels, p.argmax(1)), abs=1e-9)
    assert got.balanced_accuracy.value == pytest.approx(
        balanced_accuracy_score(labels, p.argmax(1)), abs=0.01
    )
    truth = np.eye(classes)[labels]
    assert got.brier.value == pytest.approx(((p - truth) ** 2).sum(1).mean() / 2, abs=1e-9)
    called = p >= 0.5
    for name, value in (
        ("sensitivity", recall_score(truth, called, average="macro")),
        ("specificity", recall_score(1 - truth, ~called, average="macro")),
    ):
        assert getattr(got, name).value == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize("point", [0.1, 0.5, 0.8])
def test_sensitivity_and_specificity_are_those_at_the_operating_point(point: float) -> None:
    """Exact at any point, because cells above and below it are merged apart."""
    rng = np.random.default_rng(5)
    output, labels = hospital(rng, 500)
    got = measure([released(output, labels, point=point)], point)
    p = softmax(output)[:, 1]
    assert got.sensitivity.value == pytest.approx(recall_score(labels, p >= point))
    assert got.specificity.value == pytest.approx(recall_score(labels, p >= point, pos_label=0))
    assert got.operating_point == point
    ece = expected_calibration_error(labels, p)
    assert got.calibration_error.value == pytest.approx(ece, abs=0.02)


def test_order_of_sites_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    tables = [released(*hospital(rng, 100)) for _ in range(4)]
    one, other = measure(tables), measure(tables[::-1])
    for name in NAMES:
        assert getattr(one, name).value == pytest.approx(getattr(other, name).value, abs=1e-12)


# ------------------------------------------------------------------------------- suppression


@pytest.mark.parametrize(("positives", "kept"), [(4, 60), (5, 65), (0, 60)])
def test_a_class_with_too_few_images_counts_for_nothing(positives: int, kept: int) -> None:
    output, labels = np.zeros((60 + positives, 2)), np.zeros(60 + positives, np.int64)
    labels[60:] = 1
    table = released(output, labels)
    got = measure([table])
    assert got.images == table.images == table.scores.sum() == kept
    assert got.auc.known == got.sensitivity.known == (positives >= 5)


def test_no_site_is_nothing_to_measure() -> None:
    for got in (measure([]), Measures()):
        assert got.images is None
        assert not any(getattr(got, name).known for name in NAMES)


# --------------------------------------------------------------------------------- intervals


def slow_delong(table: Table) -> tuple[float, float]:
    """Variance of the placements of every image, one after the other."""
    others = [k for k, n in enumerate(table[0]) for _ in range(int(n))]
    members = [k for k, n in enumerate(table[1]) for _ in range(int(n))]

    def before(x: int, y: int) -> float:
        return 1.0 if x < y else 0.5 if x == y else 0.0

    v10 = [np.mean([before(x, y) for x in others]) for y in members]
    v01 = [np.mean([before(x, y) for y in members]) for x in others]
    variance = np.var(v10, ddof=1) / len(members) + np.var(v01, ddof=1) / len(others)
    return float(np.mean(v10)), math.sqrt(variance)


tables = st.integers(2, 12).flatmap(
    lambda bins: st.lists(
        st.lists(st.integers(0, 6), min_size=bins, max_size=bins), min_size=2, max_size=2
    )
).map(lambda rows: np.array(rows, float))  # fmt: skip


@given(tables.filter(lambda table: (table.sum(1) > 1).all()))
def test_area_and_its_error_are_those_of_an_independent_slow_version(table: Table) -> None:
    assert area_under_roc(table) == pytest.approx(slow_delong(table), abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "auc"),
    [
        ([[10, 0], [0, 10]], 1.0), ([[0, 10], [10, 0]], 0.0), ([[5, 5], [5, 5]], 0.5),
        ([[6, 2], [2, 6]], 0.75), ([[3, 0, 1, 0], [0, 1, 0, 3]], 0.9375),
    ],
)  # fmt: skip
def test_area_by_hand(rows: list[list[int]], auc: float) -> None:
    assert area_under_roc(np.array(rows, float))[0] == auc


@pytest.mark.parametrize("rows", [[[3, 4], [0, 0]], [[0, 0], [1, 2]], [[0, 0], [0, 0]]])
def test_area_of_one_class_is_not_a_number(rows: list[list[int]]) -> None:
    assert math.isnan(area_under_roc(np.array(rows, float))[0])
    assert not area_interval(math.nan, math.nan, 0).known


def test_interval_of_a_perfect_area_does_not_pretend_to_be_sure() -> None:
    found = area_interval(1.0, 0.0, 12)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(proportion(12, 12).low)
    assert found.low == pytest.approx(0.757, abs=0.001)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_wilson_intervals_are_the_published_ones(
    hits: int, count: int, low: float, high: float
) -> None:
    found = proportion(hits, count)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_intervals_of_the_area_hold_the_truth_as_often_as_they_say() -> None:
    """150 studies of 3 x 100 images; the true area is that of two normal distributions."""
    rng = np.random.default_rng(8)
    truth, held = float(norm.cdf(1.5 / math.sqrt(2))), 0
    for _ in range(150):
        sites = []
        for _ in range(3):
            labels = (rng.random(100) < 0.5).astype(np.int64)
            score = rng.normal(size=100) + 1.5 * labels
            sites.append(released(np.stack([np.zeros(100), score], 1), labels))
        found = measure(sites).auc
        held += found.low <= truth <= found.high
    assert 0.9 <= held / 150 <= 0.99


# ---------------------------------------------------------------------- curves and exact ones


def test_curves_start_and_end_where_they_must() -> None:
    points = roc_points(np.array([[5.0, 3, 0, 2], [0, 4, 1, 5]]))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()
    assert roc_points(np.array([[5.0, 3], [0, 0]])).shape == (0, 2)


def test_reliability_has_the_images_of_each_group() -> None:
    table = np.zeros((2, 10))
    table[0, 4], table[1, 4], table[1, 9] = 30, 10, 50
    p = probabilities(10, 0.5)
    rows = reliability_points(table, 0.5)
    assert rows[:, 2].tolist() == [40, 50]
    assert rows[0].tolist() == pytest.approx([p[4], 0.25, 40])
    assert rows[1].tolist() == pytest.approx([p[9], 1.0, 50])


def test_exact_measures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    score = np.append(rng.normal(size=199) + labels[:199], 0.0)
    found = exact_measures(score, labels)
    p = 1 / (1 + np.exp(-score))
    assert found.auc.value == roc_auc_score(labels, score)
    assert found.accuracy.value == accuracy_score(labels, score >= 0)
    assert found.balanced_accuracy.value == balanced_accuracy_score(labels, score >= 0)
    assert found.brier.value == pytest.approx(brier_score_loss(labels, p))
    assert found.calibration_error.value == pytest.approx(expected_calibration_error(labels, p))
    assert found.images == 200
    assert not exact_measures(score, np.zeros(200, np.int64)).auc.known


# ----------------------------------------------------------------------------------- merging

rows = st.integers(1, 60).flatmap(
    lambda bins: st.lists(
        st.one_of(st.just(0), st.integers(0, 4), st.integers(0, 50)), min_size=bins, max_size=bins
    )
).map(lambda row: np.array(row, np.int64))  # fmt: skip


@settings(max_examples=500)
@given(rows, st.integers(2, 12))
def test_merged_cells_are_zero_or_large_enough(row: NDArray[np.int64], minimum: int) -> None:
    (found,) = merged(row[None], minimum)
    assert found.shape == row.shape
    assert found.dtype == row.dtype
    assert ((found == 0) | (found >= minimum)).all()


@settings(max_examples=500)
@given(rows, st.integers(2, 12))
def test_merging_keeps_the_images_of_a_class_that_is_large_enough(
    row: NDArray[np.int64], minimum: int
) -> None:
    (found,) = merged(row[None], minimum)
    assert found.sum() == (row.sum() if row.sum() >= minimum else 0)


@given(rows)
def test_merging_keeps_the_sides_of_zero_apart_where_both_are_large_enough(
    row: NDArray[np.int64],
) -> None:
    half = len(row) // 2
    low, high = int(row[:half].sum()), int(row[half:].sum())
    if all(n == 0 or n >= MINIMUM for n in (low, high)):
        (found,) = merged(row[None])
        assert (found[:half].sum(), found[half:].sum()) == (low, high)


@given(rows)
def test_merging_moves_the_mean_by_less_than_one_bin(row: NDArray[np.int64]) -> None:
    (found,) = merged(row[None])
    if row.sum() >= MINIMUM:
        bins = np.arange(len(row))
        assert abs((bins * found).sum() - (bins * row).sum()) <= 0.5 * row.sum()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([5, 0, 0, 5], [5, 0, 0, 5]),
        ([4, 0, 0, 0], [0, 0, 0, 0]),  # too few altogether: left out
        ([5, 0, 0, 4], [0, 9, 0, 0]),  # one side too small: all at the mean, 12 / 9
        ([1, 4, 4, 1], [0, 5, 5, 0]),
        ([3, 3, 3, 3], [6, 0, 6, 0]),  # each half at its mean bin, 0.5: rounded to 0
        ([2, 1, 2, 0, 0, 0], [0, 5, 0, 0, 0, 0]),
    ],
)
def test_merging_by_hand(row: list[int], expected: list[int]) -> None:
    assert merged(np.array([row]))[0].tolist() == expected


@given(rows.map(lambda row: np.where(row < MINIMUM, 0, row)))
def test_cells_that_are_large_enough_stay_as_they_are(row: NDArray[np.int64]) -> None:
    """The job's header says that bins are merged *until* a cell is large enough."""
    assert merged(row[None])[0].tolist() == row.tolist()
