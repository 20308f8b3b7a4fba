"""Head phantoms are repeatable, cut one head per series, and cannot be told apart by brightness."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from datasites.imaging.head_phantoms import draw_head_phantoms, slice_heights


def test_same_seed_draws_the_same_bytes() -> None:
    images, labels = draw_head_phantoms(4, seed=5, size=64)
    again, labels_again = draw_head_phantoms(4, seed=5, size=64)
    assert images.tobytes() == again.tobytes()
    assert labels.tobytes() == labels_again.tobytes()


def test_different_seeds_heads_and_slices_draw_different_images() -> None:
    drawn = [draw_head_phantoms(4, seed=seed, size=64)[0] for seed in (5, 6)]
    assert len({image.tobytes() for images in drawn for head in images for image in head}) == 40


@pytest.mark.parametrize(("size", "slices"), [(64, 3), (96, 5), (256, 12)])
def test_images_and_labels_have_the_documented_form(size: int, slices: int) -> None:
    images, labels = draw_head_phantoms(4, seed=1, size=size, slices=slices)
    assert images.shape == (4, slices, size, size)
    assert images.dtype == np.uint8
    assert labels.shape == (4,)
    assert labels.dtype == np.int64
    # Air is dark in the corners, fat is bright, and nothing saturates much.
    assert images[:, :, :4, :4].max() < 60
    assert all(image.max() > 150 for head in images for image in head)
    assert np.mean(images == 255) < 0.01


def test_the_same_head_is_drawn_at_every_size() -> None:
    small, labels = draw_head_phantoms(4, seed=2, size=64)
    large, labels_large = draw_head_phantoms(4, seed=2, size=256)
    shrunk = large.reshape(4, 5, 64, 4, 64, 4).mean(axis=(3, 5))
    assert labels.tolist() == labels_large.tolist()
    for one, other in zip(small.reshape(20, -1), shrunk.reshape(20, -1), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.95


def test_neighbouring_slices_resemble_each_other_more_than_other_heads() -> None:
    images, _ = draw_head_phantoms(6, seed=8, size=64, slices=12)
    flat = images.reshape(6, 12, -1)
    within = np.mean([np.corrcoef(flat[i, 5], flat[i, 6])[0, 1] for i in range(6)])
    between = np.mean([np.corrcoef(flat[i, 5], flat[i - 1, 5])[0, 1] for i in range(6)])
    assert within > between + 0.05


def test_a_lesion_brightens_part_of_a_head_and_leaves_the_rest_as_it_was() -> None:
    clear, _ = draw_head_phantoms(40, seed=4, size=64, positive_share=0)
    lesion, _ = draw_head_phantoms(40, seed=4, size=64, positive_share=1)
    brighter = (lesion.astype(int) - clear).reshape(40, -1) > 15
    assert brighter.sum(axis=1).min() >= 5
    assert brighter.mean(axis=1).max() < 0.1
    assert np.all(lesion >= clear)


def test_classes_cannot_be_told_apart_by_brightness() -> None:
    images, labels = draw_head_phantoms(300, seed=5, size=64, slices=3)
    flat = images.reshape(300, -1)
    for score in (flat.mean(axis=1), flat.std(axis=1), flat.max(axis=1)):
        assert 0.35 < roc_auc_score(labels, score) < 0.65


@pytest.mark.parametrize(("share", "positives"), [(0, 0), (0.3, 6), (0.52, 10), (1, 20)])
def test_share_of_positives_is_honoured(share: float, positives: int) -> None:
    _, labels = draw_head_phantoms(20, seed=3, size=64, slices=3, positive_share=share)
    assert labels.sum() == positives
    assert set(labels.tolist()) <= {0, 1}


def test_slices_go_upwards_at_equal_distances() -> None:
    steps = np.diff(slice_heights(12))
    assert steps.min() > 0
    assert np.allclose(steps, steps[0])


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("count", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("size", 63, "from 64 to 256"),
        ("size", 257, "from 64 to 256"),
        ("slices", 2, "from 3 to 12"),
        ("slices", 13, "from 3 to 12"),
        ("positive_share", -0.01, "from 0 to 1"),
        ("positive_share", 1.01, "from 0 to 1"),
        ("positive_share", float("nan"), "from 0 to 1"),
    ],
)
def test_argument_out_of_range_is_refused_with_a_sentence(
    argument: str, value: float, allowed: str
) -> None:
    arguments = {"count": 2, "seed": 0, argument: value}
    with pytest.raises(ValueError, match="Phantoms refused") as refusal:
        draw_head_phantoms(**arguments)
    assert str(refusal.value) == (
        f"Phantoms refused: `{argument}` is {value}, allowed is {allowed}. "
        f"Call draw_head_phantoms with a `{argument}` in that range."
    )
