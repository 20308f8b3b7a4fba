"""AUC from counts in bins: exact before cells are merged, close to it after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score

from federation.evaluation import Evaluation, exact_measures, measure
from federation.job import Job, read_job

JOB: Job = read_job(Path(__file__).parents[2] / "notebooks/jobs/evaluate_classifier.py")
MINIMUM = 5
BINS = 240
"""As in the demonstration."""

Table = NDArray[np.float64]


def namespace() -> dict[str, object]:
    names: dict[str, object] = {"__name__": JOB.name}
    exec(compile(JOB.text, "job.py", "exec"), names)
    return names


merge = namespace()["merge"]


def merged(table: NDArray[np.int64], minimum: int = MINIMUM) -> NDArray[np.int64]:
    return np.stack([merge(row, minimum) for row in table])  # type: ignore[operator]


def binned(score: NDArray[np.float64], labels: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    """Counts per class and bin, as the job makes them."""
    edges = np.linspace(-12, 12, bins + 1)
    cut = score.clip(-12, 12)
    return np.stack([np.histogram(cut[labels == k], edges)[0] for k in (0, 1)])


# ---------------------------------------------------------------------------- before merging

tables = st.integers(1, 20).flatmap(
    lambda bins: st.lists(
        st.lists(st.integers(0, 30), min_size=bins, max_size=bins), min_size=2, max_size=2
    )
).map(lambda rows: np.array(rows, float))  # fmt: skip


@given(tables.filter(lambda table: (table.sum(1) > 0).all()))
def test_auc_of_bins_is_that_of_scikit_learn_on_binned_scores(table: Table) -> None:
    counts = table.astype(int)
    labels = np.repeat([0, 1], counts.sum(1))
    score = np.concatenate([np.repeat(np.arange(table.shape[1]), row) for row in counts])
    found = measure(table)
    assert found.auc == pytest.approx(roc_auc_score(labels, score), abs=1e-12)
    assert found.images == len(labels)
    above = (score >= table.shape[1] // 2).astype(int)
    assert found.accuracy == pytest.approx(accuracy_score(labels, above), abs=1e-12)
    assert found.confusion.sum() == len(labels)


@pytest.mark.parametrize(
    ("rows", "auc", "accuracy"),
    [
        ([[10, 0], [0, 10]], 1.0, 1.0),  # told apart
        ([[0, 10], [10, 0]], 0.0, 0.0),  # told apart, the wrong way round
        ([[5, 5], [5, 5]], 0.5, 0.5),  # not told apart
        ([[10, 0], [10, 0]], 0.5, 0.5),  # ties count one half
        ([[6, 2], [2, 6]], 0.75, 0.75),
        ([[3, 0, 1, 0], [0, 1, 0, 3]], 0.9375, 0.75),  # (16 - 1) / 16 pairs, 3 + 3 of 8
    ],
)
def test_measures_by_hand(rows: list[list[int]], auc: float, accuracy: float) -> None:
    found = measure(np.array(rows, float))
    assert (found.auc, found.accuracy) == (auc, accuracy)


@pytest.mark.parametrize("rows", [[[3, 4], [0, 0]], [[0, 0], [1, 2]], [[0, 0], [0, 0]]])
def test_auc_of_one_class_is_not_a_number(rows: list[list[int]]) -> None:
    found = measure(np.array(rows, float))
    assert np.isnan(found.auc)
    assert found.images == sum(map(sum, rows))


def test_measures_of_no_image_are_not_numbers() -> None:
    found = measure(np.zeros((2, 4)))
    assert found.images == 0
    assert np.isnan(found.accuracy)


def test_confusion_has_a_row_per_true_class() -> None:
    found = measure(np.array([[7.0, 0, 0, 3], [1, 0, 2, 4]]))
    assert found.confusion.tolist() == [[7, 3], [1, 6]]


def test_exact_measures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    score = np.append(rng.normal(size=199) + labels[:199], 0.0)
    found = exact_measures(score, labels)
    assert found.auc == roc_auc_score(labels, score)
    assert found.accuracy == accuracy_score(labels, score >= 0)
    assert found.confusion.sum() == found.images == 200
    assert np.isnan(exact_measures(score, np.zeros(200, np.int64)).auc)


def test_evaluation_is_a_row_per_site_and_one_over_all() -> None:
    sites = {name: np.array([[10.0, 2], [1, n]]) for name, n in (("a", 7), ("b", 3))}
    made = Evaluation(
        {name: measure(table) for name, table in sites.items()},
        measure(sites["a"] + sites["b"]),
        sites,
    )
    frame = made.frame()
    assert list(frame.index) == ["a", "b", "all"]
    assert frame["images"].tolist() == [20, 16, 36]
    assert frame.loc["all", "auc"] == measure(np.array([[20.0, 4], [2, 10]])).auc


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


# ------------------------------------------------------------------------- how close it stays


def study(rng: np.random.Generator) -> tuple[float, float]:
    """AUC over three hospitals: from merged counts, and from the scores themselves."""
    strength, spread = rng.uniform(0, 3), rng.uniform(0.5, 3)
    total, scores, truth = np.zeros((2, BINS)), [], []
    for _ in range(3):
        count = int(rng.integers(60, 400))
        labels = (rng.random(count) < rng.uniform(0.2, 0.8)).astype(np.int64)
        shift = rng.normal(0, 0.5)  # hospitals differ
        score = spread * (rng.normal(size=count) + strength * (labels - 0.5) + shift)
        total += merged(binned(score, labels, BINS))
        scores.append(score)
        truth.append(labels)
    return measure(total).auc, float(roc_auc_score(np.concatenate(truth), np.concatenate(scores)))


def test_auc_over_three_sites_stays_close_to_the_exact_one() -> None:
    rng = np.random.default_rng(2026)
    found = np.array([study(rng) for _ in range(200)])
    errors = found[:, 0] - found[:, 1]
    assert np.ptp(found[:, 1]) > 0.3  # good and useless models alike
    assert np.abs(errors).max() < 0.03
    assert np.abs(errors).mean() < 0.003
    assert abs(errors.mean()) < 0.003


def test_accuracy_is_exact_where_both_sides_of_zero_are_large_enough() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 500)
    score = rng.normal(size=500) + (labels - 0.5)
    table = binned(score, labels, BINS)
    halves = [table[:, : BINS // 2].sum(1), table[:, BINS // 2 :].sum(1)]
    assert np.min(halves) >= MINIMUM
    found, exact = measure(merged(table).astype(float)), exact_measures(score, labels)
    assert found.accuracy == exact.accuracy
    assert found.confusion.tolist() == exact.confusion.tolist()
