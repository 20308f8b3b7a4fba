"""Near-duplicates: copies are found, other images are not taken for copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from datasites.imaging.near_duplicates import perceptual_hash
from datasites.imaging.phantoms import draw_chest_phantoms

PICTURES, _ = draw_chest_phantoms(300, seed=5, size=128)
PHANTOM = PICTURES[0]


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=quality)
    with Image.open(content) as picture:
        return np.asarray(picture)


def scaled(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("number", range(5))
def test_an_image_has_one_hash_of_sixteen_digits(number):
    found = perceptual_hash(PICTURES[number])
    assert len(found) == 16
    assert int(found, 16)
    assert perceptual_hash(PICTURES[number].copy()) == found


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.clip(a.astype(int) + 3, 0, 255).astype(np.uint8),
        lambda a: recompressed(a, 95),
        lambda a: scaled(a, 256),
        np.asfortranarray,
    ],
)
def test_most_copies_have_the_hash_of_their_original(change):
    same = sum(perceptual_hash(change(a)) == perceptual_hash(a) for a in PICTURES[:60])
    assert same >= 50


def test_different_patients_rarely_share_a_hash():
    hashes = [perceptual_hash(a) for a in PICTURES]
    assert len(set(hashes)) >= 0.97 * len(hashes)


@pytest.mark.parametrize("change", [np.fliplr, np.flipud, np.rot90, lambda a: 255 - a])
def test_a_mirrored_turned_or_inverted_image_is_another(change):
    changed = np.ascontiguousarray(change(PHANTOM))
    assert perceptual_hash(changed) != perceptual_hash(PHANTOM)


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (512, 40)])
def test_an_image_without_structure_looks_like_nothing(grey, shape):
    assert perceptual_hash(np.full(shape, grey, dtype=np.uint8)) == ""


def test_noise_on_an_empty_slice_is_no_structure():
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.integers(0, 4, (256, 256), dtype=np.uint8)
        assert perceptual_hash(noise) == ""


@pytest.mark.parametrize("shape", [(2, 300), (300, 2), (3, 3), (33, 31)])
def test_images_of_any_shape_have_a_hash(shape):
    image = np.zeros(shape, dtype=np.uint8)
    image[shape[0] // 2 :, shape[1] // 2 :] = 200
    assert len(perceptual_hash(image)) == 16
