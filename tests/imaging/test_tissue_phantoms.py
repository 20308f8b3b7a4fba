"""Drawn tissue: the same bytes for a seed, balanced classes, and classes that can be learned."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from datasites.imaging.tissue_phantoms import CLASSES, draw_tissue_phantoms


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, two, other = (draw_tissue_phantoms(12, seed=seed, size=40) for seed in (1, 1, 2))
    assert one[0].tobytes() == two[0].tobytes() != other[0].tobytes()
    assert one[1].tolist() == two[1].tolist()


@pytest.mark.parametrize(("count", "size"), [(1, 28), (25, 64), (11, 224)])
def test_images_are_colour_and_classes_are_even(count: int, size: int) -> None:
    images, labels = draw_tissue_phantoms(count, seed=0, size=size)
    assert (images.shape, images.dtype) == ((count, size, size, 3), np.uint8)
    assert labels.dtype == np.int64
    counted = np.bincount(labels, minlength=len(CLASSES))
    assert counted.max() - counted.min() <= 1
    assert len(counted) == len(CLASSES) == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "`count` is 0, allowed is at least 1"),
        ({"seed": -1}, "`seed` is -1, allowed is at least 0"),
        ({"size": 27}, "`size` is 27, allowed is from 28 to 224"),
        ({"size": 225}, "`size` is 225, allowed is from 28 to 224"),
    ],
)
def test_an_argument_out_of_range_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        draw_tissue_phantoms(**{"count": 1, "seed": 0, "size": 28, **changes})


def test_no_single_colour_tells_the_class_and_texture_does() -> None:
    """Mean colours leave most classes apart from few others; a little texture adds the rest."""
    images, labels = draw_tissue_phantoms(600, seed=3, size=48)
    pixels = images.reshape(600, -1, 3).astype(float)
    colour = pixels.mean(1)
    edges = np.abs(np.diff(images.astype(float), axis=1)).reshape(600, -1, 3)
    texture = np.concatenate([colour, pixels.std(1), edges.mean(1), edges.std(1)], 1)
    found = []
    for features in (colour, texture):
        forest = RandomForestClassifier(100, random_state=0).fit(features[:400], labels[:400])
        found.append(forest.score(features[400:], labels[400:]))
    assert found[0] < 0.55 < 0.65 < found[1]
