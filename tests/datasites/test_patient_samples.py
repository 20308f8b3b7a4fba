"""Who is in a step, how often, and with which images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from datasites.sandbox.patient_samples import Patients, physical_batches


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=30))
def test_each_image_is_of_its_patient(owners: list[int]) -> None:
    patients = Patients.of(np.array(owners, np.int32))
    assert len(patients) == len(set(owners))
    for place, owner in enumerate(sorted(set(owners))):
        assert patients.images(place, 100).tolist() == [
            i for i, o in enumerate(owners) if o == owner
        ]


def test_every_patient_is_drawn_at_the_rate_independently_of_the_others() -> None:
    patients, rate, steps = Patients.of(np.arange(40, dtype=np.int32)), 0.3, 5000
    drawn = np.zeros((steps, 40))
    for step in range(steps):
        drawn[step, patients.drawn(rate)] = 1
    spread = np.sqrt(rate * (1 - rate) / steps)
    assert np.abs(drawn.mean(0) - rate).max() < 5 * spread
    together = np.corrcoef(drawn.T)[~np.eye(40, dtype=bool)]
    assert np.abs(together).max() < 5 / np.sqrt(steps)
    sizes = drawn.sum(1)  # of a binomial distribution: also few, also many
    assert sizes.var() == pytest.approx(40 * rate * (1 - rate), rel=0.1)


@pytest.mark.parametrize(("rate", "number"), [(1.0, 50), (1e-12, 0)])
def test_all_or_nobody_may_be_drawn(rate: float, number: int) -> None:
    assert len(Patients.of(np.arange(50, dtype=np.int32)).drawn(rate)) == number


def test_a_patient_with_many_images_shows_some_at_random() -> None:
    patients = Patients.of(np.array([0, 1, 1, 1, 1, 2], np.int32))
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(3000):
        chosen = patients.images(1, 2)
        assert len(set(chosen.tolist())) == 2
        seen[tuple(sorted(chosen.tolist()))] += 1
    assert set(seen) == {(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}
    assert chisquare(list(seen.values())).pvalue > 1e-6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 4), st.integers(4, 9))
def test_physical_batches_hold_whole_patients_and_no_more_than_fit(
    owners: list[int], most: int, at_once: int
) -> None:
    numbers = np.array(owners, np.int32)
    patients = Patients.of(numbers)
    seen: Counter[int] = Counter()
    for batch in physical_batches(patients, np.arange(len(patients)), most, at_once):
        assert 1 <= len(batch.rows) == batch.of_each.sum() <= at_once
        of = numbers[batch.rows]
        assert [of[k] for k in np.cumsum([0, *batch.of_each[:-1]])] == list(dict.fromkeys(of))
        assert not set(of) & set(seen)  # no patient is in two of them
        seen.update(of.tolist())
    assert seen == {owner: min(most, owners.count(owner)) for owner in set(owners)}


def test_nobody_gives_no_physical_batch() -> None:
    patients = Patients.of(np.zeros(3, np.int32))
    assert list(physical_batches(patients, np.zeros(0, np.int64), 1, 8)) == []


def test_the_unit_of_a_plan_is_the_one_that_the_version_has(tmp_path: Path) -> None:
    assert len(Patients.of_split(tmp_path, "train", "image", 5)) == 5
    with pytest.raises(ValueError, match="unit"):
        Patients.of_split(tmp_path, "train", "patient", 5)
    np.save(tmp_path / "train_patients.npy", np.array([0, 0, 1, 1, 1], np.int32))
    assert len(Patients.of_split(tmp_path, "train", "patient", 5)) == 2
    with pytest.raises(ValueError, match="unit"):
        Patients.of_split(tmp_path, "train", "image", 5)
