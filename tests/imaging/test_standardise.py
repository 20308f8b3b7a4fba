"""The standardisation: what its description says is what the arrays are, to the bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from datasites.imaging.standardise import (
    CT_WINDOWS,
    HounsfieldWindow,
    Standardisation,
    StandardisationError,
    make_standardisation,
    read_standardisation,
    standardise,
)

FLOAT = np.float32


def made(image: np.ndarray, **changes: object) -> np.ndarray:
    return standardise(image.astype(FLOAT), Standardisation(**{"size": 28, **changes}))


def ramp(height: int, width: int) -> np.ndarray:
    return np.linspace(0, 1, height * width, dtype=FLOAT).reshape(height, width)


# --- geometry ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "top", "left", "inside"),
    [
        (28, 28, 0, 0, (28, 28)),
        (28, 14, 0, 7, (28, 14)),
        (14, 28, 7, 0, (14, 28)),
        (28, 13, 0, 7, (28, 13)),  # 15 black columns: 7 before, 8 after
        (56, 28, 0, 7, (28, 14)),
        (280, 56, 0, 11, (28, 6)),  # 5.6 is rounded
        (1, 1, 0, 0, (28, 28)),
        (1, 1000, 13, 0, (1, 28)),
        (1000, 1, 0, 13, (28, 1)),
        (3, 2, 0, 4, (28, 19)),  # 18.67
    ],
)
def test_padding_puts_the_image_in_the_middle_of_a_black_square(height, width, top, left, inside):
    found = made(np.ones((height, width)))
    expected = np.zeros((28, 28), np.uint8)
    expected[top : top + inside[0], left : left + inside[1]] = 255
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (28, 28, (0, 28), (0, 28)),
        (28, 40, (0, 28), (6, 34)),
        (41, 28, (6, 34), (0, 28)),  # 13 too many: 6 above, 7 below
    ],
)
def test_cropping_keeps_the_middle_of_the_longer_side(height, width, rows, columns):
    image = ramp(height, width)
    found = made(image, fit="crop", dtype="float32")
    np.testing.assert_array_equal(found, image[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("size", [28, 29, 31, 64, 224, 1023, 1024])
@pytest.mark.parametrize("shape", [(1, 1), (7, 900), (33, 31), (2000, 3)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_every_shape_becomes_the_square_that_was_asked_for(size, shape, fit):
    found = made(np.ones(shape), size=size, fit=fit)
    assert found.shape == (size, size)
    assert found.max() == 255
    if fit == "crop":
        assert found.min() == 255


def test_an_image_of_the_right_size_is_not_touched():
    image = ramp(28, 28)
    np.testing.assert_array_equal(made(image, dtype="float32"), image)
    np.testing.assert_array_equal(made(image), np.rint(image * 255).astype(np.uint8))


@pytest.mark.parametrize("factor", [2, 4, 10])
def test_making_smaller_is_antialiased(factor):
    """A fine chequerboard becomes grey, not a pattern of its own."""
    board = (np.indices((28 * factor, 28 * factor)).sum(axis=0) % 2).astype(FLOAT)
    found = made(board, dtype="float32")
    assert np.abs(found - 0.5).max() < 0.13


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos"])
def test_the_filter_is_pillows_on_floats(resize):
    image = np.random.default_rng(0).random((100, 60)).astype(FLOAT)
    found = made(image, resize=resize, dtype="float32")
    wanted = Image.fromarray(image).resize((17, 28), Image.Resampling[resize.upper()])
    np.testing.assert_array_equal(found[:, 5:22], np.clip(np.asarray(wanted), 0, 1))
    assert (found[:, :5] == 0).all()
    assert (found[:, 22:] == 0).all()


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grey", "value"),
    [(0, 0), (1, 255), (0.5, 128), (1 / 255, 1), (0.4 / 255, 0), (0.6 / 255, 1), (0.999, 255)],
)
def test_bytes_are_rounded_to_the_nearest(grey, value):
    assert (made(np.full((28, 28), grey)) == value).all()


def test_colour_becomes_luminance_and_grey_becomes_colour():
    colour = np.zeros((28, 28, 3))
    colour[..., 0], colour[..., 1], colour[..., 2] = 1.0, 0.5, 0.25
    assert (made(colour) == round(255 * (0.299 + 0.5 * 0.587 + 0.25 * 0.114))).all()
    three = made(colour, channels=3)
    assert three.shape == (28, 28, 3)
    assert three[0, 0].tolist() == [255, 128, 64]
    grey = made(ramp(28, 28), channels=3)
    for channel in range(3):
        np.testing.assert_array_equal(grey[..., channel], made(ramp(28, 28)))


@pytest.mark.parametrize(
    "layout",
    [
        np.ascontiguousarray,
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 2, 0)), 0, 2),
    ],
)
def test_luminance_has_the_same_bits_however_the_image_lies_in_memory(layout):
    """And on every processor: a matrix product adds in the order that suits the machine."""
    image = np.random.default_rng(1).random((28, 28, 3)).astype(FLOAT)
    red, green, blue = (
        image[..., k] * FLOAT(weight) for k, weight in enumerate((0.299, 0.587, 0.114))
    )
    found = made(layout(image), dtype="float32")
    np.testing.assert_array_equal(found, np.clip(red + green + blue, 0, 1))


def test_white_stays_white_in_luminance():
    assert (made(np.ones((28, 28, 3))) == 255).all()
    assert made(np.ones((40, 30, 3)), dtype="float32").max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("resize", ["bicubic", "lanczos"])
def test_filters_that_overshoot_stay_in_range(dtype, resize):
    edge = np.zeros((100, 100))
    edge[:, 50:] = 1
    found = made(edge, resize=resize, dtype=dtype)
    assert found.dtype == np.dtype(dtype)
    assert found.min() >= 0
    assert found.max() <= (255 if dtype == "uint8" else 1)


@given(
    image=arrays.arrays(
        np.float32,
        st.one_of(
            st.tuples(st.integers(1, 40), st.integers(1, 40)),
            st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
        ),
        elements=st.floats(0, 1, width=32),
    ),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "float16", "float32"]),
    fit=st.sampled_from(["pad", "crop"]),
    resize=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
)
def test_every_image_becomes_what_the_description_says(image, channels, dtype, fit, resize):
    wanted = Standardisation(size=28, channels=channels, dtype=dtype, fit=fit, resize=resize)
    before = image.copy()
    found = standardise(image, wanted)
    assert (found.shape, found.dtype.name) == (wanted.shape, dtype)
    assert np.isfinite(found).all()
    assert found.max() <= (255 if dtype == "uint8" else 1)
    np.testing.assert_array_equal(image, before, err_msg="the image given was changed")
    np.testing.assert_array_equal(standardise(image.copy(order="F"), wanted), found)


def test_the_bits_are_those_that_were_published_before():
    """A change here is another version of the rules: published arrays would no longer be had."""
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    for resize in ("bilinear", "bicubic", "lanczos"):
        for shape in ((100, 60), (31, 77), (20, 20, 3)):
            image = rng.random(shape).astype(FLOAT)
            for fit in ("pad", "crop"):
                channels = 3 if len(shape) == 3 else 1
                found = made(image, resize=resize, fit=fit, size=64, channels=channels)
                digest.update(found.tobytes())
    assert digest.hexdigest() == BITS, "raise Standardisation.version if this is meant"


BITS = "be304890618c3d8a0ca7e70e0e8f8156261962eb3bf21030dfab893242ed5600"


# --- the description ---------------------------------------------------------------------------


def test_a_description_comes_back_from_its_text(tmp_path):
    for wanted in (
        Standardisation(),
        Standardisation(size=1024, channels=3, dtype="float16", slices="every 5", fit="crop"),
        Standardisation(ct_window=HounsfieldWindow(centre=-600, width=1500)),
        Standardisation(mr_percentiles=(0.5, 99.9), ct_window="lung"),
    ):
        path = tmp_path / "standard.yaml"
        path.write_text(wanted.as_yaml())
        assert read_standardisation(path) == wanted
        assert read_standardisation(path).sha256 == wanted.sha256


def test_every_field_changes_the_digest():
    changes = [
        {}, {"size": 225}, {"channels": 3}, {"dtype": "float16"}, {"dtype": "float32"},
        {"ct_window": "lung"}, {"ct_window": {"centre": 40, "width": 400}},
        {"mr_percentiles": [1, 98]}, {"fit": "crop"}, {"resize": "lanczos"},
        {"slices": "middle"}, {"slices": "every 2"},
    ]  # fmt: skip
    digests = {make_standardisation(change).sha256 for change in changes}
    assert len(digests) == len(changes)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": 27}, "size"), ({"size": 1025}, "size"), ({"size": "large"}, "size"),
        ({"channels": 2}, "channels"), ({"dtype": "int16"}, "dtype"),
        ({"ct_window": "head"}, "ct_window"), ({"ct_window": {"centre": 0}}, "ct_window"),
        ({"ct_window": {"centre": 0, "width": 0}}, "ct_window"),
        ({"mr_percentiles": [99, 1]}, "mr_percentiles"),
        ({"mr_percentiles": [-1, 99]}, "mr_percentiles"),
        ({"mr_percentiles": [1, 101]}, "mr_percentiles"),
        ({"mr_percentiles": [5, 5]}, "mr_percentiles"), ({"fit": "stretch"}, "fit"),
        ({"resize": "nearest"}, "resize"), ({"slices": "every 0"}, "slices"),
        ({"slices": "every 1000"}, "slices"), ({"slices": "first"}, "slices"),
        ({"version": 2}, "version"), ({"colour": True}, "colour"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_with_the_name_of_the_field(tmp_path, change, field):
    path = tmp_path / "standard.yaml"
    path.write_text(yaml.safe_dump(change))
    with pytest.raises(StandardisationError, match=field):
        read_standardisation(path)


@pytest.mark.parametrize("size", [28, 1024])
def test_the_ends_of_the_range_of_sizes_are_allowed(size):
    assert Standardisation(size=size).shape == (size, size)


@pytest.mark.parametrize("content", [b"[1", b"\xff\xfe", b"- 1", b"text", b"", b"a: !!python/x"])
def test_what_is_no_description_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "standard.yaml"
    path.write_bytes(content)
    with pytest.raises(StandardisationError):
        read_standardisation(path)
    with pytest.raises(StandardisationError, match="there is no standardisation"):
        read_standardisation(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("rule", "count", "chosen"),
    [
        ("all", 0, []), ("all", 3, [0, 1, 2]),
        ("middle", 0, []), ("middle", 1, [0]), ("middle", 2, [1]), ("middle", 5, [2]),
        ("every 1", 3, [0, 1, 2]), ("every 2", 5, [0, 2, 4]), ("every 5", 5, [0]),
        ("every 5", 6, [0, 5]), ("every 999", 1000, [0, 999]), ("every 2", 0, []),
    ],
)  # fmt: skip
def test_slices_are_chosen_as_the_rule_says(rule, count, chosen):
    assert Standardisation(slices=rule).chosen(count) == chosen


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_a_named_window_has_its_centre_and_width(name):
    assert Standardisation(ct_window=name).hounsfield == CT_WINDOWS[name]
    own = HounsfieldWindow(centre=CT_WINDOWS[name][0], width=CT_WINDOWS[name][1])
    assert Standardisation(ct_window=own).hounsfield == CT_WINDOWS[name]
