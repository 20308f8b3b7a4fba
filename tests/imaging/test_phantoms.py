"""The phantoms are repeatable, honour what is asked for, and cannot be told apart by brightness."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from datasites.imaging.phantoms import _place_lungs, _position_patient, draw_chest_phantoms


def test_same_seed_draws_the_same_bytes() -> None:
    images, labels = draw_chest_phantoms(12, seed=5)
    again, labels_again = draw_chest_phantoms(12, seed=5)
    assert images.tobytes() == again.tobytes()
    assert labels.tobytes() == labels_again.tobytes()


def test_different_seeds_and_patients_draw_different_images() -> None:
    images = np.concatenate([draw_chest_phantoms(12, seed=seed)[0] for seed in (5, 6)])
    assert len({image.tobytes() for image in images}) == 24


@pytest.mark.parametrize("size", [28, 64, 100, 224])
def test_images_and_labels_have_the_documented_form(size: int) -> None:
    images, labels = draw_chest_phantoms(6, seed=1, size=size)
    assert images.shape == (6, size, size)
    assert images.dtype == np.uint8
    assert labels.shape == (6,)
    assert labels.dtype == np.int64
    # Dark surroundings, bright spine, and no exposure that saturates the image.
    assert all(image.min() < 60 and image.max() > 150 for image in images)
    assert np.mean((images == 0) | (images == 255)) < 0.02


def test_the_same_patient_is_drawn_at_every_size() -> None:
    small, labels = draw_chest_phantoms(8, seed=2, size=28)
    large, labels_large = draw_chest_phantoms(8, seed=2, size=224)
    shrunk = large.reshape(8, 28, 8, 28, 8).mean(axis=(2, 4))
    assert labels.tolist() == labels_large.tolist()
    assert np.abs(small - shrunk).mean() < 10
    for one, other in zip(small, shrunk, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("share", "positives"),
    [
        (0, 0),
        (0.3, 12),
        (0.5, 20),
        (0.51, 20),  # 20.4 phantoms: rounded
        (1, 40),
    ],
)
def test_share_of_positives_is_honoured(share: float, positives: int) -> None:
    _, labels = draw_chest_phantoms(40, seed=3, positive_share=share)
    assert labels.sum() == positives
    assert set(labels.tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("count", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("size", 27, "from 28 to 224"),
        ("size", 225, "from 28 to 224"),
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
        draw_chest_phantoms(**arguments)
    assert str(refusal.value) == (
        f"Phantoms refused: `{argument}` is {value}, allowed is {allowed}. "
        f"Call draw_chest_phantoms with a `{argument}` in that range."
    )


def test_mean_brightness_does_not_give_the_label_away() -> None:
    images, labels = draw_chest_phantoms(1000, seed=4)
    assert abs(roc_auc_score(labels, images.mean(axis=(1, 2))) - 0.5) < 0.1


def test_opacity_changes_the_image_inside_the_lungs_and_nowhere_else() -> None:
    clear, _ = draw_chest_phantoms(20, seed=8, size=64, positive_share=0)
    opaque, _ = draw_chest_phantoms(20, seed=8, size=64, positive_share=1)
    change = np.abs(opaque.astype(float) - clear)
    _, *patients = np.random.SeedSequence(8).spawn(21)
    for index, patient in enumerate(patients):
        rng = np.random.default_rng(patient.spawn(3)[0])
        x, y = _position_patient(rng, 64)
        fill = np.max([lung.fill(x, y) for lung in _place_lungs(rng)], axis=0)
        assert change[index][fill > 0.5].mean() > 1.5
        # The detector blur carries a change one pixel out of the lung.
        assert change[index][fill < 0.001].mean() < 0.3
    assert change.max(axis=(1, 2)).mean() > 60
