"""A mock has the form of a dataset and nothing of its content."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import factories
from datasites.catalogue import write_version
from datasites.imaging.mock import MOCK_IMAGES, draw_mock


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (224, 224), (8, 8), (5, 9, 3), (1, 1)])
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_mock_has_the_form_of_the_dataset(shape: tuple[int, ...], classes: int) -> None:
    mock = draw_mock(shape, classes)
    assert set(mock) == {"images", "labels"}
    assert mock["images"].shape == (MOCK_IMAGES, *shape)
    assert mock["images"].dtype == np.uint8
    assert mock["labels"].shape == (MOCK_IMAGES,)
    assert mock["labels"].dtype == np.int64
    assert set(mock["labels"].tolist()) == set(range(classes))


@pytest.mark.parametrize("classes", [MOCK_IMAGES, MOCK_IMAGES + 1, 1000])
def test_every_class_occurs(classes: int) -> None:
    """A dataset may have up to a thousand."""
    assert set(draw_mock((4, 4), classes)["labels"].tolist()) == set(range(classes))


@pytest.mark.parametrize("count", [1, 5, 200])
def test_number_of_images_is_as_asked_for(count: int) -> None:
    mock = draw_mock((28, 28), 2, count=count)
    assert len(mock["images"]) == len(mock["labels"]) == count


def test_classes_are_about_as_frequent() -> None:
    counts = np.bincount(draw_mock((8, 8), 3, count=100)["labels"])
    assert sorted(counts) == [33, 33, 34]


def content(mock: dict[str, Any]) -> bytes:
    return mock["images"].tobytes() + mock["labels"].tobytes()


def test_same_schema_and_seed_are_the_same_bytes() -> None:
    drawn = content(draw_mock((28, 28), 2, seed=3))
    np.random.default_rng().random()
    assert content(draw_mock((28, 28), 2, seed=3)) == drawn
    assert content(draw_mock((28, 28), 2, seed=4)) != drawn
    assert content(draw_mock((28, 28), 2)) == content(draw_mock((28, 28), 2, seed=0))


def test_nothing_but_the_schema_and_the_seed_goes_in() -> None:
    """There is no argument by which a pixel, count or label could get in, and no global state."""
    assert list(inspect.signature(draw_mock).parameters) == [
        "shape", "classes", "dtype", "seed", "count", "groups",
    ]  # fmt: skip
    np.random.seed(1)
    one = content(draw_mock((8, 8), 2))
    np.random.seed(2)
    assert content(draw_mock((8, 8), 2)) == one


def test_mocks_of_two_datasets_with_one_schema_are_equal(tmp_path: Any) -> None:
    mocks = []
    for seed, train in ((1, 120), (2, 300)):
        splits = factories.splits(train=train, seed=seed)
        _, card = write_version(
            tmp_path / str(seed), splits, name="chest-xray", classes=("normal", "pneumonia"),
            source="a test", licence="none", description="", minimum_count=5,
        )  # fmt: skip
        mocks.append(content(draw_mock(card.shape, len(card.classes))))
    assert mocks[0] == mocks[1]


def test_images_differ_and_are_smooth() -> None:
    images = draw_mock((28, 28), 2)["images"].astype(float)
    assert len({image.tobytes() for image in images}) == MOCK_IMAGES
    steps = np.abs(np.diff(images, axis=2))
    assert steps.mean() < 30  # of 85 in independent noise
    assert images.std() > 40


def test_image_does_not_tell_the_label() -> None:
    mock = draw_mock((8, 8), 2, count=4000)
    means = [mock["images"][mock["labels"] == k].mean() for k in (0, 1)]
    assert abs(means[0] - means[1]) < 3


def test_subgroups_are_drawn_at_random_and_change_nothing_else() -> None:
    plain, mock = draw_mock((8, 8), 2), draw_mock((8, 8), 2, groups={"sex": ("F", "M")})
    assert set(mock) - set(plain) == {"group_sex"}
    assert mock["group_sex"].dtype == np.int8
    assert set(mock["group_sex"].tolist()) == {-1, 0, 1}
    for name, array in plain.items():
        np.testing.assert_array_equal(array, mock[name])
