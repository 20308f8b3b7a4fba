"""Splits: no patient in two, look-alikes together, stratified, seeded, stable."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.imaging.splits import Placed, look_alikes, split_by_patient

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}

images_of_few = st.lists(
    st.builds(
        Placed,
        patient=st.sampled_from([f"p{k}" for k in range(12)]),
        label=st.integers(0, 3),
        perceptual_hash=st.sampled_from(["", *(f"h{k}" for k in range(30))]),
        order=st.integers(0, 10**6).map(lambda k: f"{k:07d}"),
    ),
    min_size=1,
    max_size=60,
)
all_shares = st.sampled_from([SHARES, {"train": 0.8, "test": 0.2}, {"train": 1.0}])


def many(patients: int, classes: int = 2, per_patient: int = 3, seed: int = 0) -> list[Placed]:
    """Patients with one to `per_patient` images, each of a class of their own."""
    rng = np.random.default_rng(seed)
    return [
        Placed(f"p{p}", p % classes, f"h{p}.{k}", f"{rng.integers(10**9):09d}")
        for p in range(patients)
        for k in range(int(rng.integers(1, per_patient + 1)))
    ]


@given(images=images_of_few, shares=all_shares, seed=st.integers(0, 5))
def test_every_patient_is_in_one_split_and_no_other(images, shares, seed):
    found = split_by_patient(images, shares, seed=seed)
    assert set(found) == {image.patient for image in images}
    assert set(found.values()) <= set(shares)


@given(images=images_of_few, shares=all_shares, seed=st.integers(0, 5))
def test_images_that_look_alike_are_in_one_split(images, shares, seed):
    found = split_by_patient(images, shares, seed=seed)
    splits = defaultdict(set)
    for image in images:
        if image.perceptual_hash:
            splits[image.perceptual_hash].add(found[image.patient])
    assert all(len(where) == 1 for where in splits.values())


@given(images=images_of_few, seed=st.integers(0, 5), data=st.data())
def test_the_order_of_the_images_and_the_names_of_patients_do_not_matter(images, seed, data):
    """Two sites have other pseudonyms for the same patients."""
    unique = [
        Placed(i.patient, i.label, i.perceptual_hash, f"{i.order}.{k}")
        for k, i in enumerate(images)
    ]
    renamed = [
        Placed(f"x{hash(i.patient)}", i.label, i.perceptual_hash, i.order)
        for i in data.draw(st.permutations(unique))
    ]
    one = split_by_patient(unique, SHARES, seed=seed)
    other = split_by_patient(renamed, SHARES, seed=seed)
    assert {f"x{hash(p)}": split for p, split in one.items()} == other


@given(images=images_of_few, more=images_of_few, seed=st.integers(0, 5))
def test_patients_stay_where_they_were_unless_they_now_look_alike(images, more, seed):
    earlier = split_by_patient(images, SHARES, seed=seed)
    now = split_by_patient(images + more, SHARES, seed=seed + 1, earlier=earlier)
    together = defaultdict(set)
    for image in images + more:
        together[now[image.patient]].add(image.patient)
    for patient, split in earlier.items():
        assert now[patient] in (split, "train")
    if not any(image.perceptual_hash for image in more + images):
        assert all(now[patient] == split for patient, split in earlier.items())


def test_patients_without_look_alikes_stay_whatever_is_added_and_whatever_the_seed():
    before = many(40)
    earlier = split_by_patient(before, SHARES, seed=1)
    later = before + [
        Placed(f"new {i.patient}", i.label, f"n{i.perceptual_hash}", i.order)
        for i in many(60, seed=2)
    ]
    now = split_by_patient(later, SHARES, seed=99, earlier=earlier)
    assert {patient: now[patient] for patient in earlier} == earlier
    sizes = Counter(now[image.patient] for image in later)
    for split, share in SHARES.items():
        assert sizes[split] / len(later) == pytest.approx(share, abs=0.03)


def test_patients_whom_the_parent_had_apart_and_who_look_alike_are_trained_on():
    images = [Placed(p, 0, "same", p) for p in "ab"] + [Placed("c", 0, "other", "c")]
    earlier = {"a": "test", "b": "val", "c": "test"}
    now = split_by_patient(images, SHARES, seed=0, earlier=earlier)
    assert now == {"a": "train", "b": "train", "c": "test"}


def test_a_split_that_is_no_longer_wanted_gets_nobody():
    images = many(30)
    earlier = split_by_patient(images, SHARES, seed=0)
    assert "val" in earlier.values()
    now = split_by_patient(images, {"train": 0.8, "test": 0.2}, seed=0, earlier=earlier)
    assert set(now) == set(earlier)
    assert set(now.values()) == {"train", "test"}


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_each_class_is_divided_as_the_shares_say(classes, seed):
    images = many(200, classes)
    found = split_by_patient(images, SHARES, seed=seed)
    for label in range(classes):
        sizes = Counter(found[image.patient] for image in images if image.label == label)
        total = sum(sizes.values())
        for split, share in SHARES.items():
            assert sizes[split] == pytest.approx(share * total, abs=3)


def test_a_rare_class_is_in_every_split():
    images = many(200) + [Placed(f"rare{k}", 2, f"r{k}", f"r{k}") for k in range(10)]
    found = split_by_patient(images, SHARES, seed=0)
    sizes = Counter(found[image.patient] for image in images if image.label == 2)
    assert sizes == {"train": 7, "val": 1, "test": 2}


def test_the_seed_decides_and_nothing_else_does():
    images = many(60)
    one = split_by_patient(images, SHARES, seed=1)
    assert split_by_patient(images, SHARES, seed=1) == one
    assert split_by_patient(images, SHARES, seed=2) != one


def test_one_large_patient_does_not_break_the_shares():
    images = [Placed("large", 0, f"l{k}", f"l{k}") for k in range(60)]
    images += [Placed(f"p{k}", 0, f"h{k}", f"h{k}") for k in range(40)]
    found = split_by_patient(images, SHARES, seed=0)
    assert found["large"] == "train"
    sizes = Counter(found[image.patient] for image in images)
    assert sizes["test"] == pytest.approx(20, abs=1)


def test_a_chain_of_look_alikes_stays_together():
    images = [Placed(f"p{k}", 0, f"h{k + j}", f"{k}{j}") for k in range(9) for j in (0, 1)]
    images += [Placed(f"q{k}", 0, f"x{k}", f"q{k}") for k in range(20)]
    found = split_by_patient(images, SHARES, seed=0)
    assert len({found[f"p{k}"] for k in range(9)}) == 1


def test_images_without_structure_look_like_nothing():
    images = [Placed(f"p{k}", 0, "", f"{k}") for k in range(20)]
    assert set(split_by_patient(images, SHARES, seed=0).values()) == set(SHARES)
    assert look_alikes(images) == 0


def test_look_alikes_are_counted_between_patients_only():
    images = [
        Placed("a", 0, "1", "1"), Placed("a", 0, "1", "2"), Placed("b", 0, "2", "3"),
        Placed("c", 0, "2", "4"), Placed("c", 0, "3", "5"),
    ]  # fmt: skip
    assert look_alikes(images) == 2
    assert look_alikes([]) == 0


def test_patients_with_many_images_are_in_every_split_as_the_others_are():
    """Who is seen often is ill in another way: a test split without them measures less."""
    images = many(10_000)
    found = split_by_patient(images, SHARES, seed=0)
    held = Counter(image.patient for image in images)
    for count in (1, 2, 3):
        sizes = Counter(found[patient] for patient, images_ in held.items() if images_ == count)
        for split, share in SHARES.items():
            assert sizes[split] / sum(sizes.values()) == pytest.approx(share, abs=0.05), count
