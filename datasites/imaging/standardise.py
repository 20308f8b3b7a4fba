"""The standardisation: one description that says exactly what the arrays of a study are.

Hospitals that publish with the same description and the same library versions get bit-identical
arrays from the same file: decode, modality and VOI transform to [0, 1], crop or fit to a square,
antialiased resize in 32-bit floats, pad, round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, StringConstraints, ValidationError, model_validator

from policies.strict import Strict, model_sha256, validation_sentences

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (60, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "lung": (-600, 1500),
    "mediastinum": (40, 400),
    "subdural": (75, 215),
}
"""Centre and width of the named windows, in Hounsfield units."""
RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""


class StandardisationError(ValueError):
    """A description that is missing or invalid; the message names the field."""


class HounsfieldWindow(Strict):
    """A window of one's own for CT, in Hounsfield units."""

    centre: float = Field(ge=-2000, le=5000)
    """Middle of the range that is kept."""
    width: float = Field(ge=1, le=10_000)
    """Length of the range that is kept."""


class Standardisation(Strict):
    """How files become arrays. All sites of a study use the same."""

    version: Literal[1] = 1
    """Of the rules below; a change that alters a pixel gets a new number."""
    size: int = Field(default=224, ge=28, le=1024)
    """Height and width of an image, in pixels."""
    channels: Literal[1, 3] = 1
    """1: (H, W), colour becomes luminance. 3: (H, W, 3) RGB, grey is repeated."""
    dtype: Literal["uint8", "float16", "float32"] = "uint8"
    """`uint8`: 0 to 255. Floats: 0 to 1."""
    ct_window: Literal["abdomen", "bone", "brain", "lung", "mediastinum", "subdural"] | (
        HounsfieldWindow
    ) = "mediastinum"
    """What of a CT's Hounsfield units becomes black to white."""
    mr_percentiles: tuple[float, float] = (1.0, 99.0)
    """Percentiles of an MR series' values that become black and white."""
    fit: Literal["pad", "crop"] = "pad"
    """How an image becomes square: black borders, or the middle of the longer side."""
    resize: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    """The filter; all of them are antialiased."""
    slices: Annotated[str, StringConstraints(pattern=r"^(all|middle|every [1-9][0-9]{0,2})$")] = (
        "all"
    )
    """Which slices of a series and frames of a file: `all`, `middle`, or `every 5`."""

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Standardisation:
        low, high = self.mr_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("mr_percentiles rise, from 0 to 100: for example [1, 99]")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        square = (self.size, self.size)
        return square if self.channels == 1 else (*square, 3)

    @property
    def hounsfield(self) -> tuple[float, float]:
        """Centre and width of the CT window."""
        if isinstance(self.ct_window, HounsfieldWindow):
            return self.ct_window.centre, self.ct_window.width
        return CT_WINDOWS[self.ct_window]

    @property
    def sha256(self) -> str:
        """Digest of the description's meaning."""
        return model_sha256(self)

    def chosen(self, count: int) -> list[int]:
        """The indices of `count` slices or frames, in order, that the rule keeps."""
        if self.slices == "all":
            return list(range(count))
        if self.slices == "middle":
            return [count // 2] if count else []
        return list(range(0, count, int(self.slices.removeprefix("every "))))

    def as_yaml(self) -> str:
        """The description as text, to give to another hospital."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def read_standardisation(path: Path) -> Standardisation:
    """The description in a YAML file.

    Raises:
        StandardisationError: It is missing, not YAML, or a field is unknown or out of range.
    """
    try:
        plain: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StandardisationError(f"there is no standardisation {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StandardisationError(f"{path} is not YAML") from error
    return make_standardisation(plain, str(path))


def make_standardisation(plain: object, source: str = "the standardisation") -> Standardisation:
    """A description from plain values; raises `StandardisationError` naming what does not fit."""
    if not isinstance(plain, dict):
        raise StandardisationError(f"{source} is not valid: it has no fields, such as `size: 224`")
    window = plain.get("ct_window")
    if isinstance(window, str) and window not in CT_WINDOWS:
        raise StandardisationError(
            f"{source} is not valid: `ct_window` is `{window}`; write {', '.join(CT_WINDOWS)}, or "
            "centre and width of your own in a file for --standard"
        )
    try:
        return Standardisation.model_validate(plain)
    except ValidationError as error:
        sentences = "; ".join(validation_sentences(error, Standardisation))
        raise StandardisationError(f"{source} is not valid: {sentences}") from error


def standardise(image: NDArray[np.float32], wanted: Standardisation) -> NDArray[Any]:
    """One image as the description wants it.

    Args:
        image: (H, W) or (H, W, 3) float32 in [0, 1].
        wanted: The description.

    Returns:
        `wanted.shape`, of `wanted.dtype`.
    """
    if wanted.channels == 1 and image.ndim == 3:
        red, green, blue = (image[:, :, c] * LUMINANCE[c] for c in range(3))
        image = red + green + blue  # one after the other: a matrix product may round differently
    if wanted.fit == "crop":
        image = _middle_square(image)
    image = _fit(image, wanted.size, RESAMPLING[wanted.resize])
    if wanted.channels == 3 and image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    np.clip(image, 0, 1, out=image)
    if wanted.dtype == "uint8":
        grey: NDArray[np.uint8] = np.rint(image * np.float32(255)).astype(np.uint8)
        return grey
    return image.astype(np.float16 if wanted.dtype == "float16" else np.float32)


def _middle_square(image: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _fit(image: NDArray[np.float32], size: int, filter_: Image.Resampling) -> NDArray[np.float32]:
    """The image with its longer side `size`, in the middle of a black square."""
    height, width = image.shape[:2]
    longer = max(height, width)
    new = (max(1, round(height * size / longer)), max(1, round(width * size / longer)))
    if image.ndim == 2:
        resized = _resize(image, new, filter_)
    else:
        resized = np.stack([_resize(image[:, :, c], new, filter_) for c in range(3)], axis=2)
    square = np.zeros((size, size, *image.shape[2:]), dtype=np.float32)
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    square[top : top + new[0], left : left + new[1]] = resized
    return square


def _resize(
    plane: NDArray[np.float32], shape: tuple[int, int], filter_: Image.Resampling
) -> NDArray[np.float32]:
    picture = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(picture.resize((shape[1], shape[0]), filter_), dtype=np.float32)
