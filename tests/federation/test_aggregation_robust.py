"""Median, trimmed mean, Krum, Multi-Krum, norm-bounded mean: by hand, plain loops, poison."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_aggregation as slow
from federation.aggregation import (
    Algorithm,
    FedAvg,
    Krum,
    Median,
    MultiKrum,
    NormBoundedMean,
    SiteUpdate,
    TrimmedMean,
)
from slow_aggregation import Slow
from updates import SIZE, after, model, numbers, real_ones, some_updates, start, update


def test_median_by_hand() -> None:
    """The number of examples does not count."""
    three = [update("a", 1, 1, 9), update("b", 1000, 5, 7), update("c", 1, 2, 8)]
    assert after(Median(), [0, 0], three).weights["w"].tolist() == [2.0, 8.0]
    four = [*three, update("d", 1, 4, -100)]
    assert after(Median(), [0, 0], four).weights["w"].tolist() == [3.0, 7.5]


def test_trimmed_mean_by_hand() -> None:
    five = [update(s, 9, x) for s, x in zip("abcde", (100, 1, 2, 6, -100), strict=True)]
    assert after(TrimmedMean(1), [0], five).weights["w"].tolist() == [3.0]  # (1 + 2 + 6) / 3
    assert after(TrimmedMean(2), [0], five).weights["w"].tolist() == [2.0]
    assert after(TrimmedMean(0), [0], five).weights["w"].tolist() == [1.8]


LINE = [update(s, 9, x) for s, x in zip("abcde", (0, 1, 3, 4, 50), strict=True)]
"""Squared distances to the two nearest: a 1 + 9, b 1 + 4, c 1 + 4, d 1 + 9, e 46^2 + 47^2."""


def test_krum_by_hand() -> None:
    """Of b and c, with a score of 5 each, the first by name."""
    algorithm = Krum(faulty=1)
    state, seen = algorithm.apply(algorithm.init(start(0)), LINE)
    assert state.weights["w"].tolist() == [1.0]
    assert seen.left_out == ("a", "c", "d", "e")


def test_of_many_equal_updates_krum_takes_the_first_by_name() -> None:
    _, seen = Krum().apply(Krum().init(start(0)), [update(f"s{k:02}", 1, 7) for k in range(40)])
    assert seen.left_out == tuple(f"s{k:02}" for k in range(1, 40))


def test_multi_krum_by_hand() -> None:
    algorithm = MultiKrum(faulty=1, selected=3)
    state, seen = algorithm.apply(algorithm.init(start(0)), LINE)
    assert state.weights["w"].tolist() == [pytest.approx(4 / 3)]  # a, b, c
    assert seen.left_out == ("d", "e")


def test_norm_bounded_mean_by_hand() -> None:
    """The change (30, 40) is shortened to a tenth; that of b is short enough."""
    algorithm = NormBoundedMean(bound=5)
    state, seen = algorithm.apply(
        algorithm.init(start(1, 1)), [update("a", 1, 31, 41), update("b", 3, 1, 3)]
    )
    assert state.weights["w"].tolist() == [1.75, 3.5]  # 1 + 3 / 4, 1 + (4 + 3 * 2) / 4
    assert seen.clipped == {"a": pytest.approx(0.1)}
    assert seen.site_norms == {"a": 50.0, "b": 2.0}


def test_norm_bounded_by_the_median_by_hand() -> None:
    three = [update("a", 1, 100), update("b", 1, 2), update("c", 2, -4)]  # norms 100, 2, 4
    assert after(NormBoundedMean(), [0], three).weights["w"].tolist() == [-0.5]  # (4 + 2 - 8) / 4


@given(model, some_updates())
def test_median_is_as_in_plain_loops(x: list[float], drawn: list[Slow]) -> None:
    found = after(Median(), x, real_ones(drawn)).weights["w"]
    np.testing.assert_allclose(found, slow.median(drawn), rtol=1e-12)


@given(model, some_updates(least=5, most=8), st.integers(0, 2))
def test_trimmed_mean_is_as_in_plain_loops(x: list[float], drawn: list[Slow], faulty: int) -> None:
    found = after(TrimmedMean(faulty), x, real_ones(drawn)).weights["w"]
    np.testing.assert_allclose(found, slow.trimmed_mean(drawn, faulty), rtol=1e-9, atol=1e-9)


whole = st.lists(st.integers(-50, 50).map(float), min_size=SIZE, max_size=SIZE)
"""Whole numbers have exact distances, so that equal scores are equal in both versions."""


@given(
    st.lists(st.builds(Slow, whole, st.integers(1, 9)), min_size=5, max_size=8),
    st.integers(0, 1),
    st.integers(1, 4),
)
def test_krum_is_as_in_plain_loops(drawn: list[Slow], faulty: int, selected: int) -> None:
    order, zeros = slow.krum_order(drawn, faulty), [0.0] * SIZE
    one = after(Krum(faulty), zeros, real_ones(drawn)).weights["w"]
    assert one.tolist() == drawn[order[0]].y
    some = after(MultiKrum(faulty, selected), zeros, real_ones(drawn)).weights["w"]
    expected = [sum(drawn[i].y[k] for i in order[:selected]) / selected for k in range(SIZE)]
    np.testing.assert_allclose(some, expected, rtol=1e-12, atol=1e-12)


@given(model, some_updates(), st.sampled_from([None, 0.5, 20.0, 1e9]))
def test_norm_bounded_mean_is_as_in_plain_loops(
    x: list[float], drawn: list[Slow], bound: float | None
) -> None:
    found = after(NormBoundedMean(bound), x, real_ones(drawn)).weights["w"]
    np.testing.assert_allclose(found, slow.norm_bounded(x, drawn, bound), rtol=1e-9, atol=1e-9)


# What one poisoned site of five can do. It claims as many examples as the others.

honest = st.lists(st.lists(numbers, min_size=SIZE, max_size=SIZE), min_size=4, max_size=4)
poison = st.sampled_from([1e6, -1e6, 1e30, 1e300]) | st.floats(-1e6, 1e6)
site_of_poison = st.sampled_from(["a-first", "zz-last"])


def five(good: list[list[float]], bad: float, site: str) -> list[SiteUpdate]:
    return [
        *(update(f"s{k}", 100, *y) for k, y in enumerate(good)),
        update(site, 100, *[bad] * SIZE),
    ]


@pytest.mark.parametrize("algorithm", [Median(), TrimmedMean(1)], ids=["median", "trimmed"])
@given(honest, poison, site_of_poison)
def test_poison_leaves_each_entry_between_the_honest_ones(
    algorithm: Algorithm, good: list[list[float]], bad: float, site: str
) -> None:
    found = after(algorithm, [0.0] * SIZE, five(good, bad, site)).weights["w"]
    assert (np.min(good, axis=0) - 1e-9 <= found).all()
    assert (found <= np.max(good, axis=0) + 1e-9).all()


@given(honest, poison, site_of_poison)
def test_poison_leaves_krum_near_an_honest_update(
    good: list[list[float]], bad: float, site: str
) -> None:
    """Within sqrt(5 - 1 - 2) of the largest distance between two honest updates."""
    far = max(np.linalg.norm(np.subtract(a, b)) for a in good for b in good)
    found = after(Krum(1), [0.0] * SIZE, five(good, bad, site)).weights["w"]
    assert min(np.linalg.norm(found - y) for y in good) <= 2**0.5 * far + 1e-9


@given(honest, poison, site_of_poison, st.integers(1, 4))
def test_poison_leaves_multi_krum_near_the_honest_updates(
    good: list[list[float]], bad: float, site: str, selected: int
) -> None:
    """Each selected update is so near to some honest one, so their mean is to their hull."""
    far = max(np.linalg.norm(np.subtract(a, b)) for a in good for b in good)
    found = after(MultiKrum(1, selected), [0.0] * SIZE, five(good, bad, site)).weights["w"]
    middle = np.mean(good, axis=0)
    reach = max(np.linalg.norm(y - middle) for y in good)
    assert np.linalg.norm(found - middle) <= reach + 2**0.5 * far + 1e-9


@given(honest, poison, site_of_poison)
def test_poison_moves_the_norm_bounded_mean_by_its_share_of_the_bound(
    good: list[list[float]], bad: float, site: str
) -> None:
    """A fifth of the bound; the median norm is at most that of an honest site."""
    zeros = [0.0] * SIZE
    for bound in (None, 2.0):
        found = after(NormBoundedMean(bound), zeros, five(good, bad, site)).weights["w"]
        norms = [float(np.linalg.norm(y)) for y in good]
        limit = float(np.median([*norms, abs(bad) * SIZE**0.5])) if bound is None else bound
        assert limit <= max(norms) or bound is not None
        without = sum(
            np.array(y) * min(1.0, limit / n if n else 1.0) / 5
            for y, n in zip(good, norms, strict=True)
        )
        assert np.linalg.norm(found - without) <= limit / 5 + 1e-9


def test_the_mean_and_too_little_trimming_are_moved_by_poison() -> None:
    good = [[1.0] * SIZE, [2.0] * SIZE, [3.0] * SIZE, [4.0] * SIZE]
    for algorithm in (FedAvg(), TrimmedMean(0), NormBoundedMean(1e9)):
        found = after(algorithm, [0.0] * SIZE, five(good, 1e6, "z")).weights["w"]
        np.testing.assert_allclose(found, (10 + 1e6) / 5)


@pytest.mark.parametrize("algorithm", [Krum(), MultiKrum()], ids=["krum", "multi-krum"])
def test_krum_names_the_poisoned_site(algorithm: Algorithm) -> None:
    good = [[1.0] * SIZE, [2.0] * SIZE, [3.0] * SIZE, [4.0] * SIZE]
    _, seen = algorithm.apply(algorithm.init(start(0, 0, 0)), five(good, 1e300, "z"))
    assert "z" in seen.left_out


def test_norm_bounded_mean_names_the_poisoned_site() -> None:
    good = [[1.0] * SIZE] * 4
    _, seen = NormBoundedMean().apply(NormBoundedMean().init(start(0, 0, 0)), five(good, 1e6, "z"))
    assert seen.clipped == {"z": pytest.approx(1e-6)}


def test_a_change_too_large_for_a_float_does_not_move_the_norm_bounded_mean() -> None:
    updates = [update("a", 1, 1.5e308), update("b", 1, -1.5e308), update("c", 1, -1.5e308)]
    found = after(NormBoundedMean(bound=1), [-1.5e308], updates).weights["w"]
    assert found.tolist() == [-1.5e308]


def test_counters_of_batches_do_not_decide_and_cannot_be_poisoned() -> None:
    def made(site: str, number: float, batches: int) -> SiteUpdate:
        weights = {"w": np.array([number], np.float32), "batches": np.array(batches)}
        return SiteUpdate(site, weights, 10)

    before = {"w": np.zeros(1, np.float32), "batches": np.array(0)}
    batches = (5, 90, 20, 40, 2**62)
    given_ = [made(s, 1 + k / 8, b) for k, (s, b) in enumerate(zip("abcde", batches, strict=True))]
    for algorithm, expected in (
        (Median(), 40), (TrimmedMean(1), 50), (NormBoundedMean(), 40), (Krum(), 90),
    ):  # fmt: skip
        state, seen = algorithm.apply(algorithm.init(before), given_)
        assert state.weights["batches"].tolist() == expected, algorithm
        assert state.weights["batches"].dtype == np.int64
        assert max(seen.site_norms.values()) == 1.5


@pytest.mark.parametrize(
    ("algorithm", "least"),
    [(TrimmedMean(1), 3), (TrimmedMean(2), 5), (Krum(1), 5), (Krum(2), 7), (MultiKrum(1, 4), 5),
     (MultiKrum(1, 6), 7), (Median(), 1), (NormBoundedMean(), 1)],
)  # fmt: skip
def test_a_round_with_too_few_updates_is_refused(algorithm: Algorithm, least: int) -> None:
    enough = [update(f"s{k}", 1, k) for k in range(least)]
    after(algorithm, [0], enough)
    assert algorithm.least_updates == least
    if least > 1:
        with pytest.raises(ValueError, match=f"has {least - 1} updates.*at least {least}; wait"):
            after(algorithm, [0], enough[1:])
