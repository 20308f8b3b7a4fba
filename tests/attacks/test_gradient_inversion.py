"""Attack: rebuild a patient's image from the update of that one image.

It succeeds against plain weights and against weights that are only clipped. It fails against what
the gate of a site with `privacy.mode: update_noise` lets out, and against a masked update.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from datasites.imaging.phantoms import draw_chest_phantoms
from gradient_inversion import invert, likeness, masked, one_step, small_model, weights_of
from policies.arrays import change_norm
from policies.privacy.update_noise import clip_update, noise_update

CLIP_NORM, NOISE_MULTIPLIER = 0.05, 0.5
STEPS = 150
IMAGES, LABELS = draw_chest_phantoms(2, seed=3)
IMAGE, LABEL = IMAGES[0] / 255, int(LABELS[0])
SUCCESS, FAILURE = 0.95, 0.2
"""Correlation with the image from which it is seen, and below which nothing of it is."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model is slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_image_is_rebuilt_from_a_plain_update() -> None:
    model = small_model()
    found = invert(model, one_step(model, IMAGE, LABEL), LABEL, steps=STEPS)
    assert likeness(found, IMAGE) > SUCCESS
    assert likeness(found, IMAGES[1] / 255) < likeness(found, IMAGE)


def test_clipping_alone_hides_nothing() -> None:
    model = small_model()
    sent, update = weights_of(model), one_step(model, IMAGE, LABEL)
    assert change_norm(update, sent) > CLIP_NORM
    change = clip_update(update, sent, CLIP_NORM)
    clipped = {name: sent[name] + change[name] for name in sent}
    assert likeness(invert(model, clipped, LABEL, steps=STEPS), IMAGE) > SUCCESS


def test_nothing_is_rebuilt_from_an_update_that_is_clipped_and_noised() -> None:
    model = small_model()
    sent, update = weights_of(model), one_step(model, IMAGE, LABEL)
    change = clip_update(update, sent, CLIP_NORM)
    noisy = noise_update(change, update, sent, CLIP_NORM, NOISE_MULTIPLIER)
    assert abs(likeness(invert(model, noisy, LABEL, steps=STEPS), IMAGE)) < FAILURE


def test_nothing_is_rebuilt_from_a_masked_update() -> None:
    model = small_model()
    sent, update = weights_of(model), one_step(model, IMAGE, LABEL)
    seen = masked(update, sent, np.random.default_rng(0))
    assert abs(likeness(invert(model, seen, LABEL, steps=STEPS), IMAGE)) < FAILURE
