"""Federated averaging, by hand and in properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.aggregation import FedAvg, SiteUpdate, State
from policies.arrays import Arrays, arrays_sha256


def fed_avg(updates: list[SiteUpdate]) -> Arrays:
    """The mean, whatever the weights before the round were."""
    before = {name: np.zeros_like(a) for name, a in updates[0].weights.items()} if updates else {}
    state, _ = FedAvg().apply(State(before), updates)
    return state.weights


def update(site: str, examples: int, *numbers: float) -> SiteUpdate:
    return SiteUpdate(site, {"w": np.array(numbers, np.float32)}, examples)


def test_mean_by_hand() -> None:
    mean = fed_avg([update("a", 1, 0, 10), update("b", 3, 4, 30)])
    assert mean["w"].tolist() == [3.0, 25.0]  # (1*0 + 3*4) / 4, (1*10 + 3*30) / 4
    assert mean["w"].dtype == np.float32


def test_mean_of_three_by_hand() -> None:
    mean = fed_avg([update("a", 50, 1), update("b", 30, 2), update("c", 20, -4)])
    assert mean["w"].tolist() == [np.float32(0.3)]  # (50 + 60 - 80) / 100


def test_every_array_is_averaged_in_its_shape_and_type() -> None:
    def made(site: str, examples: int, number: float) -> SiteUpdate:
        weights: Arrays = {
            "scalar": np.array(number),
            "half": np.full((2, 2), number, np.float16),
            "empty": np.zeros((0, 3), np.float32),
        }
        return SiteUpdate(site, weights, examples)

    mean = fed_avg([made("a", 3, 1.0), made("b", 1, 5.0)])
    assert {name: (a.shape, a.dtype.name) for name, a in mean.items()} == {
        "scalar": ((), "float64"), "half": ((2, 2), "float16"), "empty": ((0, 3), "float32"),
    }  # fmt: skip
    assert mean["scalar"] == 2.0
    assert mean["half"].tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_site_without_examples_does_not_count() -> None:
    mean = fed_avg([update("a", 0, 1000), update("b", 7, 4)])
    assert mean["w"].tolist() == [4.0]


def test_one_site_alone_is_the_mean() -> None:
    assert (
        fed_avg([update("a", 5, 0.1, -0.2)])["w"].tolist()
        == update("", 1, 0.1, -0.2).weights["w"].tolist()
    )


@pytest.mark.parametrize("updates", [[], [update("a", 0, 1)], [update("a", 0, 1)] * 2])
def test_nothing_to_average_is_an_error(updates: list[SiteUpdate]) -> None:
    with pytest.raises(ValueError, match="there is no update to average"):
        fed_avg(updates)


def test_sum_is_taken_in_float64() -> None:
    """In float16, 60 000 + 60 000 would be infinite; in float32, 1 would be lost beside 1e8."""
    big = [SiteUpdate(s, {"w": np.array([60_000], np.float16)}, 1) for s in "ab"]
    assert fed_avg(big)["w"].tolist() == [60_000]
    far = [update("a", 1, 1e8), update("b", 1, 3), update("c", 1, -1e8)]
    assert fed_avg(far)["w"].tolist() == [1.0]


def test_updates_are_left_as_they_were() -> None:
    updates = [update("a", 1, 1, 2), update("b", 2, 3, 4)]
    before = [arrays_sha256(u.weights) for u in updates]
    fed_avg(updates)["w"] += 1
    assert [arrays_sha256(u.weights) for u in updates] == before


sizes = st.lists(st.integers(1, 10_000), min_size=1, max_size=6)
float32s = hnp.arrays(
    np.float32, (3,), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@given(float32s, sizes)
def test_mean_of_equal_updates_is_the_update(weights: np.ndarray, examples: list[int]) -> None:
    updates = [SiteUpdate(f"s{k}", {"w": weights}, n) for k, n in enumerate(examples)]
    np.testing.assert_array_equal(fed_avg(updates)["w"], weights)


@given(hnp.arrays(np.int64, (3,), elements=st.integers(-(2**40), 2**40)), sizes)
def test_mean_of_equal_whole_numbers_is_the_same_number(
    weights: np.ndarray, examples: list[int]
) -> None:
    """As the counter of batches of a normalisation layer is."""
    updates = [SiteUpdate(f"s{k}", {"w": weights}, n) for k, n in enumerate(examples)]
    np.testing.assert_array_equal(fed_avg(updates)["w"], weights)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_whole_numbers_stay_within_their_range(dtype: str) -> None:
    """The largest int64 has no float64 of its own; the next one above does not fit."""
    limits = np.iinfo(dtype)
    ends = np.array([limits.min, limits.max], dtype)
    mean = fed_avg([SiteUpdate(site, {"w": ends}, 1) for site in "ab"])["w"]
    assert mean[0] == limits.min
    assert limits.max - 1024 < mean[1] <= limits.max


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(1, 1000)), min_size=1))
def test_mean_is_the_weighted_mean_and_between_the_extremes(
    pairs: list[tuple[float, int]],
) -> None:
    updates = [update(f"s{k:03}", n, number) for k, (number, n) in enumerate(pairs)]
    (mean,) = fed_avg(updates)["w"].tolist()
    exact = sum(number * n for number, n in pairs) / sum(n for _, n in pairs)
    assert mean == pytest.approx(exact, rel=1e-6, abs=1e-6)
    numbers = [number for number, _ in pairs]
    assert min(numbers) <= mean <= max(numbers)


def test_twice_the_examples_is_the_same_as_two_equal_sites() -> None:
    one = fed_avg([update("a", 2, 1, 5), update("c", 1, 4, 8)])
    two = fed_avg([update("a", 1, 1, 5), update("b", 1, 1, 5), update("c", 1, 4, 8)])
    np.testing.assert_allclose(one["w"], two["w"], rtol=1e-7)


def test_sites_in_any_order_give_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    updates = [
        SiteUpdate(
            site,
            {"w": rng.normal(size=500).astype(np.float32), "v": rng.normal(size=500)},
            int(rng.integers(1, 1000)),
        )
        for site in ("st-marys", "north-clinic", "seaside", "zeta")
    ]
    digests = {arrays_sha256(fed_avg(list(order))) for order in itertools.permutations(updates)}
    assert len(digests) == 1
    # The order of a float64 sum does matter: without the sorting there are several results.
    sums = {
        sum(u.weights["v"] * u.examples for u in order).tobytes()
        for order in itertools.permutations(updates)
    }
    assert len(sums) > 1
