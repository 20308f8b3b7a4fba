"""The noise itself, and the clipping before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import kstest

from policies.arrays import change_norm, global_norm
from policies.privacy.noise import GRID, gaussian_steps, noised, random_words
from policies.privacy.update_noise import clip_update, noise_update

NUMBERS = arrays(
    np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e6, 1e6, width=32)
)


def test_random_words_are_uniform_and_never_the_same() -> None:
    words = random_words(100_000)
    assert kstest(words / 2.0**64, "uniform").pvalue > 1e-6
    bits = np.unpackbits(words.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))
    assert not np.intersect1d(words, random_words(100_000)).size


@pytest.mark.parametrize("deviation", [0.01, 1.0, 37.5])
def test_noise_is_gaussian_with_the_deviation_that_was_asked_for(deviation: float) -> None:
    values = noised(np.zeros(200_000), deviation)
    assert kstest(values / deviation, "norm").pvalue > 1e-6
    assert values.std() == pytest.approx(deviation, rel=0.02)


def test_whole_noise_has_the_tails_of_a_gaussian() -> None:
    steps = gaussian_steps(1_000_000, 3.0)
    assert steps.dtype == np.int64
    assert np.mean(np.abs(steps) > 9.5) == pytest.approx(0.00154, rel=0.15)


def test_what_leaves_lies_on_one_grid_whatever_was_under_it() -> None:
    """Mironov 2012 tells two values apart by the last digits that can occur; here all can."""
    step = 1.5 * GRID
    for under in (0.0, 1 / 3, 1e-9, -77.7):
        steps = noised(np.full(1000, under), 1.5) / step
        np.testing.assert_array_equal(steps, np.rint(steps))


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS, st.floats(1e-3, 1e3))
def test_a_clipped_change_is_never_longer_than_the_clip(
    after: np.ndarray, other: np.ndarray, clip: float
) -> None:
    sent = {"a": np.zeros_like(after), "b": np.ones_like(other)}
    update = {"a": after, "b": other}
    change = clip_update(update, sent, clip)
    assert global_norm(change) <= clip
    if change_norm(update, sent) <= clip:
        np.testing.assert_array_equal(change["a"], after.astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32"])
def test_an_update_keeps_its_names_shapes_and_types(dtype: str) -> None:
    sent = {"w": np.zeros((3, 4), dtype), "new": np.zeros(2, dtype)}
    update = {"w": np.ones((3, 4), dtype), "new": np.ones(2, dtype)}
    change = clip_update(update, {"w": sent["w"]}, 1.0)
    out = noise_update(change, update, {"w": sent["w"]}, 1.0, 2.0)
    assert {n: (a.shape, a.dtype.name) for n, a in out.items()} == {
        "w": ((3, 4), dtype), "new": ((2,), dtype),
    }  # fmt: skip
    assert all(np.isfinite(a).all() for a in out.values())


def test_too_much_noise_for_a_type_is_its_largest_number() -> None:
    like = {"w": np.zeros(1000, np.float16)}
    out = noise_update({"w": np.zeros(1000)}, like, like, 1e6, 1.0)
    assert np.isfinite(out["w"]).all()
    assert np.abs(out["w"]).max() == np.finfo(np.float16).max


def test_noise_is_as_large_as_the_sensitivity_of_two_changes_in_the_ball() -> None:
    like = {"w": np.zeros(100_000, np.float64)}
    out = noise_update({"w": np.zeros(100_000)}, like, like, 0.5, 3.0)
    assert out["w"].std() == pytest.approx(3.0 * 2 * 0.5, rel=0.02)
