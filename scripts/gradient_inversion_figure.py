"""Draws docs/figures/gradient_inversion.png: what is rebuilt from the update of one image.

    PYTHONPATH=.:tests/support .venv/bin/python scripts/gradient_inversion_figure.py

The image is a drawn phantom, of no patient. The attack is that of
tests/attacks/test_gradient_inversion.py, with more steps.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from datasites.imaging.phantoms import draw_chest_phantoms
from gradient_inversion import (
    Picture,
    invert,
    likeness,
    masked,
    one_step,
    small_model,
    weights_of,
)
from policies.privacy.update_noise import clip_update, noise_update

ROOT = Path(__file__).resolve().parent.parent
CLIP_NORM, NOISE_MULTIPLIER = 0.05, 0.5
INK, GREY = "#1c2127", "#5d6670"


def pictures() -> tuple[Picture, dict[str, Picture]]:
    """The image, and what is rebuilt from each kind of update."""
    images, labels = draw_chest_phantoms(1, seed=3)
    image, label, model = images[0] / 255, int(labels[0]), small_model()
    sent, update = weights_of(model), one_step(model, image, label)
    change = clip_update(update, sent, CLIP_NORM)
    seen = {
        "from plain weights": update,
        "clipped and noised": noise_update(change, update, sent, CLIP_NORM, NOISE_MULTIPLIER),
        "masked": masked(update, sent, np.random.default_rng(0)),
    }
    return image, {name: invert(model, arrays, label) for name, arrays in seen.items()}


def draw(path: Path) -> None:
    """Four pictures side by side."""
    image, rebuilt = pictures()
    plt.style.use(ROOT / "notebooks" / "figures.mplstyle")
    figure, row = plt.subplots(1, 4, figsize=(8, 2.6))
    shown = {"the image": image, **rebuilt}
    for axes, (title, picture) in zip(row, shown.items(), strict=True):
        axes.imshow(picture, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, color=INK)
        says = "drawn, of no patient" if title == "the image" else _says(picture, image)
        axes.set_xlabel(says, color=GREY, fontsize=8.5, loc="left")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=150)


def _says(picture: Picture, image: Picture) -> str:
    return f"correlation {likeness(picture, image) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


if __name__ == "__main__":
    draw(ROOT / "docs" / "figures" / "gradient_inversion.png")
