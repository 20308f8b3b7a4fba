"""Pixels are what an independent reading with pydicom's own functions says they are.

The independent reading decodes without the product: `pixel_array`, then `apply_modality_lut` and
`apply_voi_lut` or `apply_color_lut` or `convert_color_space`, then scales to [0, 1].
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    convert_color_space,
    get_decoder,
)
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from datasites.imaging.dicom_file import check_image, frame_count, parse_dicom
from datasites.imaging.dicom_phantoms import MAKERS, write_chest_phantoms
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.pixels import decode, render
from datasites.imaging.problems import Quarantined, Reason
from dicom_samples import as_bytes, bundled_files, sample

GREY = ("MONOCHROME1", "MONOCHROME2")
# Grey is computed in 64 bits here and kept in 32 there.
TOLERANCE = 2e-6


def product(content: bytes, frame: int = 0, modality: str = "") -> NDArray[np.float32]:
    """What is published, of a file as it is or as if it had another modality."""
    dataset = parse_dicom(content)
    if modality:
        dataset.Modality = modality
    check_image(dataset)
    return render(dataset, frame, decode(dataset, frame), None)


def independent(content: bytes, frame: int = 0) -> NDArray[np.float64]:
    """One frame as grey or RGB in [0, 1], high is bright, padding is black."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = dcmread(io.BytesIO(content), force=True)
        if not getattr(image, "file_meta", None) or "TransferSyntaxUID" not in image.file_meta:
            image.file_meta.TransferSyntaxUID = _found_syntax(image)
        if image.PhotometricInterpretation in GREY:
            pixels = image.pixel_array
            return _grey(image, pixels[frame] if frame_count(image) > 1 else pixels)
        return _colour(image, frame)


def _found_syntax(image: Dataset) -> UID:
    implicit, little = image.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _grey(image: Dataset, pixels: NDArray[Any]) -> NDArray[np.float64]:
    values = apply_modality_lut(pixels, image)
    if not image.get("VOILUTSequence"):
        values = values.astype(np.float64)
    if image.get("VOILUTSequence"):
        shown = apply_voi_lut(np.rint(values).astype(np.int64), image)
        grey = shown / (2 ** image.VOILUTSequence[0].LUTDescriptor[2] - 1)
    elif image.get("WindowWidth") and image.get("WindowCenter") is not None:
        low, high = sorted(_whole_range(image))
        grey = (apply_voi_lut(values, image) - low) / (high - low)
    else:
        low, high = sorted(_whole_range(image))
        if image.BitsStored > 8:
            inside = values[~_padding(image, pixels)]
            low, high = inside.min(), inside.max()
        grey = (values - low) / max(high - low, 1e-12)
    grey = np.clip(grey.astype(np.float64), 0, 1)
    if image.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    grey[_padding(image, pixels)] = 0
    return grey


def _whole_range(image: Dataset) -> tuple[float, float]:
    """Modality values of the lowest and highest stored value."""
    if image.get("ModalityLUTSequence"):
        return 0, 2 ** image.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits = image.BitsStored
    low, high = (0, 2**bits - 1)
    if image.PixelRepresentation:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def _padding(image: Dataset, pixels: NDArray[Any]) -> NDArray[np.bool_]:
    if image.get("PixelPaddingValue") is None:
        return np.zeros(pixels.shape, dtype=bool)
    ends = [image.PixelPaddingValue, image.get("PixelPaddingRangeLimit", image.PixelPaddingValue)]
    if image.PixelRepresentation:
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    return (pixels >= min(ends)) & (pixels <= max(ends))


def _colour(image: Dataset, frame: int) -> NDArray[np.float64]:
    syntax = image.file_meta.TransferSyntaxUID
    pixels, meta = get_decoder(syntax).as_array(image, index=frame, raw=True)
    if image.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, image)
        return colours[..., :3] / (2.0 ** (8 * colours.dtype.itemsize) - 1)
    space = str(meta["photometric_interpretation"])
    if space in ("YBR_FULL", "YBR_FULL_422"):
        pixels = convert_color_space(pixels, space, "RGB")
    return pixels / (2.0**image.BitsStored - 1)


# --- pydicom's own files ---


def _with_pixels() -> list[Path]:
    found = []
    for path in bundled_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = dcmread(path, force=True)
                has_pixels = "PixelData" in image and "Rows" in image
            except Exception:  # broken on purpose
                continue
        if has_pixels:
            found.append(path)
    return found


FILES = _with_pixels()

# Of a modality that is not read, or of none: their pixels are compared as if they were `OT`.
OTHER_MODALITY = {
    "GDCMJ2K_TextGBR.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm",
    "liver_1frame.dcm",
    "liver_expb_1frame.dcm",
}
# More than 16 bits, which pydicom decodes.
TOO_MANY_BITS = {
    "SC_rgb_rle_32bit.dcm",
    "SC_rgb_rle_32bit_2frame.dcm",
    "rtdose.dcm",
    "rtdose_1frame.dcm",
    "rtdose_expb.dcm",
    "rtdose_expb_1frame.dcm",
    "rtdose_rle.dcm",
    "rtdose_rle_1frame.dcm",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_bundled_file_is_read_as_pydicom_reads_it_or_refused(path: Path) -> None:
    content = path.read_bytes()
    modality = "OT" if path.name in OTHER_MODALITY else ""
    if path.name in OTHER_MODALITY | TOO_MANY_BITS:
        with pytest.raises(Quarantined) as refusal:
            product(content)
        assert refusal.value.reason == Reason.UNSUPPORTED
    try:
        independent(content)
    except Exception:  # pydicom raises many kinds on what it does not decode
        with pytest.raises(Quarantined):
            product(content, modality="OT")
        return
    if path.name in TOO_MANY_BITS:
        with pytest.raises(Quarantined, match=r"32 of 32 bits"):
            product(content, modality="OT")
        return
    for frame in {0, frame_count(parse_dicom(content)) - 1}:
        expected = independent(content, frame)
        shown = product(content, frame, modality)
        assert shown.shape == expected.shape
        assert np.abs(shown - expected).max() <= TOLERANCE


def test_the_bundled_files_cover_the_transfer_syntaxes_and_photometric_interpretations() -> None:
    syntaxes, photometrics = set(), set()
    for path in FILES:
        if path.name not in TOO_MANY_BITS:
            image = parse_dicom(path.read_bytes(), pixels=False)
            with contextlib.suppress(Quarantined):
                product(path.read_bytes(), modality="OT")
                syntaxes.add(image.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
                photometrics.add(image.PhotometricInterpretation)
    assert {syntax.keyword for syntax in syntaxes} == {
        "DeflatedExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
        "ExplicitVRLittleEndian",
        "ImplicitVRLittleEndian",
        "JPEG2000",
        "JPEG2000Lossless",
        "JPEGBaseline8Bit",
        "JPEGExtended12Bit",
        "JPEGLSLossless",
        "JPEGLSNearLossless",
        "JPEGLosslessSV1",
        "RLELossless",
    }
    assert photometrics == {
        "MONOCHROME1",
        "MONOCHROME2",
        "PALETTE COLOR",
        "RGB",
        "YBR_FULL",
        "YBR_FULL_422",
        "YBR_RCT",
    }


# --- samples ---

RAMP = tuple(range(0, 4096, 4))
CURVE = tuple(int(65535 * (n / 1023) ** 2) for n in range(1024))

SAMPLES: dict[str, dict[str, Any]] = {
    "12 bits": {},
    "8 bits": {"bits_allocated": 8, "bits_stored": 8},
    "10 bits": {"bits_stored": 10},
    "16 bits": {"bits_stored": 16},
    "6 of 8 bits": {"bits_allocated": 8, "bits_stored": 6},
    "1 bit": {"bits_allocated": 1, "bits_stored": 1, "modality": "OT"},
    "signed": {"signed": True, "modality": "MR"},
    "signed 16 bits": {"signed": True, "bits_stored": 16, "modality": "MR"},
    "signed 8 bits": {"signed": True, "bits_stored": 8, "bits_allocated": 8, "modality": "MR"},
    "inverted": {"photometric": "MONOCHROME1"},
    "inverted, window": {"photometric": "MONOCHROME1", "window": (1800, 900)},
    "window": {"window": (2000, 1000)},
    "window beyond the values": {"window": (2048, 9000)},
    "window of width 1": {"window": (2000, 1)},
    "window of width 2": {"window": (2000, 2)},
    "window of fractions": {"window": (2000.5, 333.3)},
    "exact window": {"window": (2000, 1000, "LINEAR_EXACT")},
    "exact window below 1": {"window": (2000, 0.5, "LINEAR_EXACT")},
    "sigmoid window": {"window": (2000, 1000, "SIGMOID")},
    "two windows": {"window": ([2000, 100], [1000, 50])},
    "CT": {"modality": "CT", "rescale": (1, -1024), "window": (40, 400)},
    "CT, signed": {"modality": "CT", "signed": True, "rescale": (1, 0), "window": (40, 400)},
    "CT without window": {"modality": "CT", "rescale": (1, -1024)},
    "slope of a fraction": {"rescale": (0.37, -12.5), "window": (300, 250)},
    "VOI LUT": {"voi_lut": (100, CURVE, 16), "bits_stored": 10},
    "VOI LUT of 10 bits": {"voi_lut": (0, tuple(range(1024)), 10), "bits_stored": 10},
    "VOI LUT of 8 bits": {
        "voi_lut": (0, tuple(range(256)), 8),
        "bits_stored": 8,
        "bits_allocated": 8,
    },
    "VOI LUT, inverted": {"voi_lut": (0, CURVE, 16), "photometric": "MONOCHROME1"},
    "VOI LUT before a window": {"voi_lut": (0, CURVE, 16), "window": (2000, 1000)},
    "VOI LUT after a rescale": {"voi_lut": (-1000, CURVE, 16), "rescale": (1, -1024)},
    "modality LUT": {"modality_lut": (0, RAMP, 16), "window": (2000, 1500)},
    "modality LUT, signed": {"modality_lut": (-200, RAMP, 16), "signed": True},
    "padding": {"padding_value": 0, "window": (2000, 1000)},
    "padding, inverted": {"padding_value": 4095, "photometric": "MONOCHROME1"},
    "padding of a range": {"padding_value": 0, "padding_limit": 60, "window": (2000, 1000)},
    "padding, signed": {"padding_value": -2000, "signed": True, "modality": "MR"},
    "padding without window": {"padding_value": 0},
    "big endian": {"transfer_syntax": ExplicitVRBigEndian, "window": (2000, 1000)},
    "implicit": {"transfer_syntax": ImplicitVRLittleEndian, "window": (2000, 1000)},
    "deflated": {"transfer_syntax": DeflatedExplicitVRLittleEndian, "window": (2000, 1000)},
    "RLE": {"transfer_syntax": RLELossless, "window": (2000, 1000)},
    "JPEG 2000": {"transfer_syntax": JPEG2000Lossless, "window": (2000, 1000)},
    "JPEG 2000, signed": {
        "transfer_syntax": JPEG2000Lossless,
        "signed": True,
        "modality": "MR",
        "window": (0, 1000),
    },
    "frames": {"frames": 3, "modality": "XA", "window": (2000, 1000)},
    "frames, RLE": {"frames": 3, "modality": "XA", "transfer_syntax": RLELossless},
    "RGB": {"photometric": "RGB", "bits_allocated": 8, "bits_stored": 8, "modality": "XC"},
    "RGB by planes": {
        "photometric": "RGB",
        "bits_allocated": 8,
        "bits_stored": 8,
        "planar": 1,
        "modality": "XC",
    },
    "RGB of 12 bits": {"photometric": "RGB", "modality": "XC"},
    "RGB, RLE": {
        "photometric": "RGB",
        "bits_allocated": 8,
        "bits_stored": 8,
        "modality": "XC",
        "transfer_syntax": RLELossless,
    },
    "YBR_FULL": {
        "photometric": "YBR_FULL",
        "bits_allocated": 8,
        "bits_stored": 8,
        "modality": "US",
    },
    "YBR_FULL_422": {
        "photometric": "YBR_FULL_422",
        "bits_allocated": 8,
        "bits_stored": 8,
        "modality": "US",
    },
    "YBR_FULL, RLE, frames": {
        "photometric": "YBR_FULL",
        "bits_allocated": 8,
        "bits_stored": 8,
        "modality": "US",
        "transfer_syntax": RLELossless,
        "frames": 2,
    },
    "palette": {
        "photometric": "PALETTE COLOR",
        "bits_allocated": 8,
        "bits_stored": 8,
        "modality": "US",
        "palette": (
            tuple(range(0, 65536, 257)),
            tuple(range(65535, -1, -257)),
            tuple(n * n for n in range(256)),
        ),
    },
    "short palette": {
        "photometric": "PALETTE COLOR",
        "bits_allocated": 8,
        "bits_stored": 8,
        "modality": "US",
        "palette": ((0, 30_000, 65_535),) * 3,
        "palette_first": 100,
    },
}


@pytest.mark.parametrize("changes", SAMPLES.values(), ids=SAMPLES)
def test_a_sample_is_read_as_pydicom_reads_it(changes: dict[str, Any]) -> None:
    content = as_bytes(sample(**changes))
    for frame in range(changes.get("frames", 1)):
        expected = independent(content, frame)
        assert expected.max() > expected.min()
        shown = product(content, frame)
        assert shown.dtype == np.float32
        assert shown.shape == expected.shape
        assert np.abs(shown - expected).max() <= TOLERANCE


# --- by hand ---


def _row(values: list[int], **changes: Any) -> list[float]:
    """Grey in [0, 1] of the first pixels of an image with these stored values."""
    stored = np.zeros((1, 32, 40), dtype=np.int64)
    stored[0, 0, : len(values)] = values
    return product(as_bytes(sample(values=stored, **changes)))[0, : len(values)].tolist()


@pytest.mark.parametrize(
    ("changes", "stored", "expected"),
    [
        # C.11.2.1.2.1: black up to c - 0.5 - (w-1)/2 = 1, white above c - 0.5 + (w-1)/2 = 4.
        ({"window": (3, 4)}, [0, 1, 2, 3, 4, 5], [0, 0, 1 / 3, 2 / 3, 1, 1]),
        # The example of the standard: c = 2048, w = 4096 is the identity of 12 bits.
        ({"window": (2048, 4096)}, [0, 1, 4094, 4095], [0, 1 / 4095, 4094 / 4095, 1]),
        # c = 2048, w = 1 becomes black below 2048 and white from there on.
        ({"window": (2048, 1)}, [2046, 2047, 2048, 2049], [0, 0, 1, 1]),
        # C.11.2.1.3.2, LINEAR_EXACT: black up to c - w/2 = 1, white above c + w/2 = 5.
        ({"window": (3, 4, "LINEAR_EXACT")}, [0, 1, 2, 3, 4, 5, 6], [0, 0, 0.25, 0.5, 0.75, 1, 1]),
        # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w)).
        (
            {"window": (100, 8, "SIGMOID")},
            [98, 100, 102],
            [1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e)],
        ),
        # C.11.1: 2 x - 10, then the window from 0 (black) to 30 (white).
        ({"rescale": (2, -10), "window": (15.5, 31)}, [4, 5, 10, 20, 21], [0, 0, 1 / 3, 1, 1]),
        # Hounsfield units: air -1024 black, water 0 at half of the mediastinum's 350 around 40.
        (
            {"modality": "CT", "rescale": (1, -1024), "window": (40, 351)},
            [0, 1024, 1300],
            [0, 0.5 - 39.5 / 350, 1],
        ),
        # A VOI LUT: before the first entry the first, after the last the last (C.11.2.1.1).
        ({"voi_lut": (10, (0, 51, 255), 8)}, [0, 10, 11, 12, 13], [0, 0, 0.2, 1, 1]),
        # MONOCHROME1: the lowest is white (C.7.6.3.1.2).
        ({"photometric": "MONOCHROME1", "window": (3, 4)}, [0, 2, 5], [1, 2 / 3, 0]),
        # Padding is black, and is so in MONOCHROME1 (C.7.5.1.1.2).
        (
            {"photometric": "MONOCHROME1", "window": (3, 4), "padding_value": 1},
            [0, 1, 2],
            [1, 0, 2 / 3],
        ),
        # More entries than 8 bits can count, of 8 bits each.
        (
            {"voi_lut": (0, tuple(n // 4 for n in range(1024)), 8), "bits_stored": 10},
            [0, 4, 600, 1023],
            [0, 1 / 255, 150 / 255, 1],
        ),
        # Bits above Bits Stored are none of the pixel's (PS3.5 8.1.1): 0x5000 is an old overlay.
        ({"window": (2048, 4096)}, [0x5000 + 819, 4095], [0.2, 1]),
        # 16 bits without a window: from the image's lowest to its highest value.
        ({"bits_stored": 16}, [0, 500, 1000], [0, 0.5, 1]),
        # 8 bits without a window: as they are.
        ({"bits_allocated": 8, "bits_stored": 8}, [51, 102], [0.2, 0.4]),
    ],
)
def test_grey_by_the_formulas_of_the_standard(
    changes: dict[str, Any], stored: list[int], expected: list[float]
) -> None:
    assert _row(stored, **changes) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("luminance", "blue", "red", "expected"),
    [
        # C.7.6.3.1.2, YBR_FULL: R = Y + 1.402 (Cr - 128), and so on.
        (128, 128, 128, (128, 128, 128)),
        (76, 85, 255, (254, 0, 0)),  # pure red, rounded on the way there
        (100, 128, 178, (170, 64, 100)),
    ],
)
def test_colour_by_the_formulas_of_the_standard(
    luminance: int, blue: int, red: int, expected: tuple[int, int, int]
) -> None:
    values = np.broadcast_to(np.array([luminance, blue, red]), (1, 32, 40, 3))
    image = sample(
        photometric="YBR_FULL", bits_allocated=8, bits_stored=8, modality="US", values=values
    )
    shown = product(as_bytes(image))[0, 0] * 255
    assert shown.tolist() == pytest.approx(expected, abs=1.01)


@pytest.mark.parametrize("shared", [True, False])
def test_each_frame_of_an_enhanced_image_has_its_own_window_and_rescale(shared: bool) -> None:
    def group(intercept: float, centre: float) -> Dataset:
        rescale, window, item = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, intercept, "HU"
        window.WindowCenter, window.WindowWidth = centre, 101
        item.PixelValueTransformationSequence, item.FrameVOILUTSequence = [rescale], [window]
        return item

    image = sample(
        modality="CT",
        frames=2,
        values=np.full((2, 32, 40), 1000),
        SharedFunctionalGroupsSequence=[group(-1000, 20) if shared else Dataset()],
        PerFrameFunctionalGroupsSequence=[
            Dataset() if shared else group(-1000, 20),
            group(-960, 20),
        ],
    )
    content = as_bytes(image)
    # (x - (c - 0.5)) / (w - 1) + 0.5 with x = 0, then 40.
    assert product(content, 0)[0, 0] == pytest.approx(0.305, abs=1e-6)
    assert product(content, 1)[0, 0] == pytest.approx(0.705, abs=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_phantoms_of_every_maker_show_their_drawing(name: str, tmp_path: Path) -> None:
    maker = MAKERS[name]
    drawings, labels = draw_chest_phantoms(4, seed=5, size=64)
    write_chest_phantoms(
        tmp_path / "dicom", drawings, labels, maker=maker, seed=5, classes=("clear", "opacity")
    )
    seen = set()
    for path in (tmp_path / "dicom").rglob("*"):
        if path.is_file():
            shown = product(path.read_bytes()) * 255
            if maker.padding:
                assert not shown[:, : maker.padding].any()
                shown = shown[:, maker.padding : -maker.padding]
            distances = np.abs(drawings - shown).max(axis=(1, 2))
            assert distances.min() <= 1
            seen.add(int(distances.argmin()))
    assert seen == {0, 1, 2, 3}


def test_an_rle_frame_that_is_longer_than_its_image_is_broken() -> None:
    """The decoder panics, which is no `Exception` in Python."""
    runs = b"\x81\x00" * 11  # each says 128 times 0; ten of them fill 32 x 40 pixels
    header = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13)
    image = sample(transfer_syntax=RLELossless)
    image.add_new("PixelData", "OB", encapsulate([header + runs + runs]))
    with pytest.raises(Quarantined) as refusal:
        product(as_bytes(image))
    assert refusal.value.reason == Reason.BROKEN


def test_stored_bits_that_do_not_start_at_the_lowest_are_refused() -> None:
    with pytest.raises(Quarantined, match="the highest of 12 bits is not bit 11"):
        check_image(sample(high_bit=13))
