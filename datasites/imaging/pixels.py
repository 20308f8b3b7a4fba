"""Decodes frames of a DICOM image and renders them as grey or colour in [0, 1].

References:
    DICOM PS3.3 C.7.6.3 (Image Pixel), C.7.6.16 (functional groups), C.7.9 (Palette Color).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from datasites.imaging.dicom_file import GREY, quietly, text, transfer_syntax, whole
from datasites.imaging.problems import Quarantined, Reason
from datasites.imaging.transform import (
    Lut,
    Modality,
    Range,
    Rescale,
    Stored,
    Voi,
    Window,
    grey_table,
    look_up,
    modality_values,
)

SAMPLES_PER_FRAME = 40_000
"""Pixels of a frame that percentiles are taken from, evenly spaced."""


def decode(dataset: Dataset, frame: int) -> NDArray[Any]:
    """The stored values of one frame: (H, W), or (H, W, 3) RGB.

    Raises:
        Quarantined: The transfer syntax is not read, or the pixels are broken.
    """
    syntax = transfer_syntax(dataset)
    try:
        with quietly():
            pixels = pixel_array(dataset, index=frame, raw=False)
    except MemoryError as error:
        raise Quarantined(Reason.TOO_LARGE, "needs more memory than one file may have") from error
    except NotImplementedError as error:  # pydicom's word for a transfer syntax without a decoder
        raise Quarantined(Reason.UNSUPPORTED, f"transfer syntax {_name(syntax)}") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # decoders raise many kinds; a panic in Rust is no Exception
        if not syntax.is_transfer_syntax or syntax.is_private:
            raise Quarantined(Reason.UNSUPPORTED, "an unknown transfer syntax") from error
        raise Quarantined(
            Reason.BROKEN, f"the pixels cannot be decoded ({_name(syntax)})"
        ) from error
    shape = (whole(dataset, "Rows"), whole(dataset, "Columns"))
    if pixels.shape[:2] != shape or pixels.dtype.kind not in "biu" or pixels.dtype.itemsize > 2:
        raise Quarantined(Reason.BROKEN, "the pixels are not what the header says")
    return np.asarray(pixels)


def render(
    dataset: Dataset, frame: int, pixels: NDArray[Any], voi: Voi | None
) -> NDArray[np.float32]:
    """One decoded frame as (H, W) or (H, W, 3) float32 in [0, 1]; high is bright.

    Args:
        dataset: The image that the frame is of.
        frame: Its index, for images with functional groups.
        pixels: What `decode` gave.
        voi: What becomes black to white, in modality units; None: what the file says.
    """
    if text(dataset, "PhotometricInterpretation") not in GREY:
        return _colour(dataset, pixels)
    header = _frame_header(dataset, frame)
    stored = _stored(dataset, pixels)
    modality = _modality(header, stored)
    chosen = voi or _voi(header, dataset)
    if chosen is None:
        low, high = value_range(dataset, frame, pixels)
        chosen = Range(low, high)
    return look_up(grey_table(stored, modality, chosen), _as_integers(pixels))


def value_range(dataset: Dataset, frame: int, pixels: NDArray[Any]) -> tuple[float, float]:
    """What is shown of an image whose file names no window, in modality units.

    Its lowest to highest value without padding; all that 8 bits can hold for 8-bit images.
    """
    stored = _stored(dataset, pixels)
    modality = _modality(_frame_header(dataset, frame), stored)
    table = modality_values(stored, modality)
    if stored.bits > 8:
        if isinstance(modality, Rescale) and stored.padding is None and _is_plain(stored):
            ends = look_up(table, np.array([pixels.min(), pixels.max()], dtype=pixels.dtype))
            return float(ends.min()), float(ends.max())
        present = np.bincount(look_up(np.arange(len(table)), _as_integers(pixels)).ravel())
        table = table[np.flatnonzero(present)]
    table = table[~np.isnan(table)]
    return (float(table.min()), float(table.max())) if len(table) else (0.0, 1.0)


def sample_values(dataset: Dataset, frame: int, pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Modality values of evenly spaced pixels of a grey frame, without padding, (n,)."""
    stored = _stored(dataset, pixels)
    table = modality_values(stored, _modality(_frame_header(dataset, frame), stored))
    flat = _as_integers(pixels).reshape(-1)
    values: NDArray[np.float64] = look_up(table, flat[:: max(1, len(flat) // SAMPLES_PER_FRAME)])
    return values[~np.isnan(values)]


def _colour(dataset: Dataset, pixels: NDArray[Any]) -> NDArray[np.float32]:
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        try:
            with quietly():
                pixels = apply_color_lut(_as_integers(pixels), dataset)
            bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        except Exception as error:  # pydicom raises many kinds on damaged palettes
            raise Quarantined(Reason.BROKEN, "the colour palette cannot be read") from error
        if bits not in (8, 16) or pixels.ndim != 3:
            raise Quarantined(Reason.BROKEN, "the colour palette cannot be read")
        bits = 8 * pixels.dtype.itemsize if bits == 8 else 16
    else:
        bits = whole(dataset, "BitsStored")
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise Quarantined(Reason.BROKEN, "the pixels are not what the header says")
    return pixels[:, :, :3].astype(np.float32) / np.float32(2**bits - 1)


def _stored(dataset: Dataset, pixels: NDArray[Any]) -> Stored:
    allocated = 8 * _as_integers(pixels).dtype.itemsize
    bits = min(whole(dataset, "BitsStored"), allocated)
    signed = text(dataset, "PixelRepresentation") == "1"
    inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    return Stored(allocated, bits, signed, _padding(dataset, signed, bits), inverted)


def _padding(dataset: Dataset, signed: bool, bits: int) -> tuple[int, int] | None:
    """Pixel Padding Value (0028,0120), to its Range Limit (0028,0121) where there is one."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = text(dataset, keyword)
        if value.lstrip("-").isdecimal():
            number = int(value)
            if signed and number >= 2**15:
                number -= 2**16  # US where SS was meant
            ends.append(number)
    return (min(ends), max(ends)) if ends and "PixelPaddingValue" in dataset else None


def _is_plain(stored: Stored) -> bool:
    return stored.bits in (8, 16)


def _frame_header(dataset: Dataset, frame: int) -> Dataset:
    """Where the transformations of a frame stand: the dataset, or its functional groups."""
    if "SharedFunctionalGroupsSequence" not in dataset:
        return dataset
    header = Dataset()
    try:
        groups = list(dataset.SharedFunctionalGroupsSequence[:1])
        groups += list(dataset.get("PerFrameFunctionalGroupsSequence", []))[frame : frame + 1]
        for group in groups:
            for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in group.get(keyword) or []:
                    header.update(item)
    except (AttributeError, TypeError, KeyError) as error:
        raise Quarantined(Reason.BROKEN, "the functional groups cannot be read") from error
    return header


def _modality(header: Dataset, stored: Stored) -> Modality:
    try:
        if header.get("ModalityLUTSequence"):
            return _lut(header, "ModalityLUTSequence", stored.signed)
        slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
        rescale = Rescale(
            1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
        )
    except Quarantined:
        raise
    except Exception as error:  # pydicom converts late, and raises many kinds
        raise Quarantined(Reason.BROKEN, "the modality transformation cannot be read") from error
    if not np.isfinite([rescale.slope, rescale.intercept]).all() or not rescale.slope:
        raise Quarantined(Reason.BROKEN, "the rescale slope is 0 or no number")
    return rescale


def _voi(header: Dataset, dataset: Dataset) -> Voi | None:
    """The first VOI LUT or window of a file; None when it has none that can be used."""
    try:
        if header.get("VOILUTSequence"):
            return _lut(header, "VOILUTSequence", signed=True)
        centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    except Quarantined:
        raise
    except Exception as error:  # pydicom converts late, and raises many kinds
        raise Quarantined(Reason.BROKEN, "the VOI transformation cannot be read") from error
    function = text(header, "VOILUTFunction") or "LINEAR"
    if centre is None or width is None or not np.isfinite([centre, width]).all():
        return None
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width < (function == "LINEAR"):
        return None
    return Window(centre, width, function) if width > 0 else None


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float):
        return float(value)
    return float(value[0]) if len(value) else None


def _lut(header: Dataset, keyword: str, signed: bool) -> Lut:
    """A modality or VOI LUT sequence's first item, its entries read by pydicom."""
    with quietly():
        item = header[keyword].value[0]
        count, first, bits = (int(n) for n in item.LUTDescriptor)
        count, first = count or 2**16, first - 2**16 if signed and first >= 2**15 else first
        if not 1 <= bits <= 16:
            raise Quarantined(Reason.BROKEN, f"a look-up table with entries of {bits} bits")
        entries = _entries(item, count, bits)
    return Lut(first, tuple(int(n) for n in entries), bits)


def _entries(item: Dataset, count: int, bits: int) -> NDArray[np.int64]:
    """LUT Data (0028,3006): words, or two 8-bit entries to a word (PS3.3 C.11.1.1.1)."""
    data = item.LUTData
    entries: NDArray[Any]
    if isinstance(data, bytes):
        little = item.original_encoding[1] is not False
        if bits <= 8 and count <= len(data) < 2 * count:
            if not little:
                data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
            entries = np.frombuffer(data, np.uint8, count)
        else:
            entries = np.frombuffer(data, "<u2" if little else ">u2", count)
    else:
        entries = np.asarray(data, dtype=np.int64).reshape(-1)[:count] & 0xFFFF
    if len(entries) < count or entries.max(initial=0) >= 2**bits:
        raise Quarantined(Reason.BROKEN, "a look-up table that is not what its descriptor says")
    return entries.astype(np.int64)


def _as_integers(pixels: NDArray[Any]) -> NDArray[Any]:
    """Bit planes (1 bit allocated) as bytes; anything else as it is, in the machine's order."""
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _name(syntax: UID) -> str:
    return syntax.name if syntax.is_transfer_syntax else "unknown"
