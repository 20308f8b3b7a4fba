"""Single images move an honest result alike; stored images show."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from datasites.influence import Influence, Probe, measure_influence
from policies.update_rules import Update

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (8, 64)).astype(np.float64)
CHANGES = 255 - 2 * IMAGES


def update(weights: NDArray[np.float64], examples: int = 8) -> Update:
    return Update({"w": weights.astype(np.float32)}, {"loss": 0.5}, examples)


def averaged(images: NDArray[np.float64]) -> Update:
    """Every image goes thinly into every number, like in training."""
    mixing = np.random.default_rng(2).normal(0, 1e-3, (64, 1000))
    return update(np.tanh(images @ mixing).mean(0))


def stored(images: NDArray[np.float64]) -> Update:
    """Two images stand in the weights as they are."""
    return update(np.concatenate([np.zeros(500), images[:2].ravel() / 255, np.ones(372)]))


def one_of_them(images: NDArray[np.float64]) -> Update:
    """The result rests on one image alone."""
    return update(np.full(1000, images[3].mean()))


def probe(job, count: int = 8, again=None):
    first = job(IMAGES)
    probes = []
    for row in range(count):
        changed = IMAGES.copy()
        changed[row] = 255 - changed[row]
        probes.append(Probe(CHANGES[row], job(changed)))
    return measure_influence(first, again or job(IMAGES), probes)


def test_training_like_results_move_with_every_image_alike() -> None:
    found = probe(averaged)
    assert (found.probed, found.moved, found.found, found.repeatable) == (8, 8, 0, True)
    assert found.largest_share < 0.3
    assert not found.suspicious
    assert found.in_words().startswith("8 of 8 changed images move the result")
    assert found.in_words().endswith("(if all moved it alike: 12%; suspicious: more than 50%)")
    few = Influence(3, 3, 0.6, 0, repeatable=True)
    assert few.in_words().endswith("(if all moved it alike: 33%; too few images to suspect)")


def test_stored_pixels_are_found_in_the_returned_numbers() -> None:
    found = probe(stored)
    assert (found.moved, found.found) == (2, 2)
    assert found.suspicious
    assert found.in_words() == ("the pixels of 2 of 8 changed images stand in the returned numbers")


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (-3, 7), (1e-6, 0), (1e6, -1)])
def test_pixels_are_found_whatever_they_are_multiplied_with(scale: float, offset: float) -> None:
    def job(images: NDArray[np.float64]) -> Update:
        hidden = np.concatenate([np.zeros(10), images.mean(0) * scale * 8 + offset, np.zeros(900)])
        return update(hidden)

    assert probe(job).found == 8


def test_a_result_that_rests_on_one_image_is_suspicious() -> None:
    found = probe(one_of_them)
    assert (found.moved, found.largest_share) == (1, 1.0)
    assert found.suspicious
    assert (
        found.in_words()
        == "1 of 8 changed images move the result, and one of them makes 100% of all movement"
    )


@pytest.mark.parametrize(
    ("shares", "suspicious"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], False),
        ([8, 1, 1, 1, 1, 1, 1, 1], True),  # 53 %
        ([6, 1, 1, 1, 1, 1, 1, 1], False),  # 46 %
    ],
)
def test_share_of_one_image_on_both_sides_of_its_threshold(
    shares: list[int], suspicious: bool
) -> None:
    scale = np.array(shares, float)

    def job(images: NDArray[np.float64]) -> Update:
        flipped = (images != IMAGES).any(1) * scale
        return update(np.full(1000, flipped.sum()))

    assert probe(job).suspicious is suspicious


def test_few_probes_say_nothing_about_shares() -> None:
    assert not probe(one_of_them, count=3).suspicious
    assert probe(averaged, count=0).in_words() == "no image was changed to see what it moves"


def test_noise_between_equal_runs_is_not_taken_for_movement() -> None:
    first = update(np.zeros(1000))
    noisy = update(RNG.normal(0, 1, 1000))
    probes = [Probe(CHANGES[0], update(RNG.normal(0, 0.5, 1000)))]
    found = measure_influence(first, noisy, probes)
    assert (found.moved, found.repeatable) == (0, False)
    assert found.in_words() == "none of 1 changed images moves the result"


def test_results_of_another_size_are_compared_all_the_same() -> None:
    first = update(np.zeros(1000))
    probes = [Probe(CHANGES[0], update(np.ones(10))), Probe(CHANGES[1], update(np.ones(2000)))]
    assert measure_influence(first, first, probes).moved == 2
