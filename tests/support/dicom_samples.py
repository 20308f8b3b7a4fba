"""Small DICOM images of every kind, pydicom's own test files, and ways to damage a file."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from numpy.typing import NDArray
from pydicom import Dataset, config, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
    XRayAngiographicImageStorage,
)

SOP_CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "CT": CTImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "MR": MRImageStorage,
    "OT": SecondaryCaptureImageStorage,
    "US": UltrasoundImageStorage,
    "XA": XRayAngiographicImageStorage,
    "XC": VLPhotographicImageStorage,
}
MULTI_FRAME = {
    "OT": MultiFrameTrueColorSecondaryCaptureImageStorage,
    "US": UltrasoundMultiFrameImageStorage,
}
_BOMB_BYTES = 2**30 + 2**26
_COMPRESSED = (RLELossless, JPEG2000Lossless, JPEG2000)
_LUT = tuple[int, Sequence[int], int]
"""First mapped value, entries, bits per entry."""


def sample(
    *,
    modality: str = "CR",
    photometric: str = "MONOCHROME2",
    bits_allocated: int = 16,
    bits_stored: int = 12,
    high_bit: int | None = None,
    signed: bool = False,
    rescale: tuple[float, float] | None = None,
    window: tuple[float, float] | tuple[float, float, str] | None = None,
    voi_lut: _LUT | None = None,
    modality_lut: _LUT | None = None,
    palette: tuple[Sequence[int], Sequence[int], Sequence[int]] | None = None,
    palette_first: int = 0,
    palette_bits: int = 16,
    planar: int = 0,
    frames: int = 1,
    transfer_syntax: str = ExplicitVRLittleEndian,
    padding_value: int | None = None,
    padding_limit: int | None = None,
    rows: int = 32,
    columns: int = 40,
    values: NDArray[Any] | None = None,
    seed: int = 0,
    **attributes: Any,
) -> Dataset:
    """A DICOM image, read back from the bytes of its file.

    Args:
        rescale: Slope and intercept.
        window: Centre, width and, if it is not LINEAR, the VOI LUT function.
        voi_lut, modality_lut: First mapped value, entries and bits per entry.
        palette: Entries of red, green and blue.
        planar: Planar Configuration of colour images.
        values: Stored values, (frames, rows, columns[, 3]); random over all stored bits, with the
            lowest, the highest and the padding value among them, where they are not given.
        attributes: Set last, by keyword; None deletes.
        seed: Of the random values.
        modality, photometric, bits_allocated, bits_stored, high_bit, signed, frames, rows, columns,
            transfer_syntax, padding_value, padding_limit: As in the header.
    """
    is_colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    image.SOPClassUID = (MULTI_FRAME if frames > 1 else {}).get(modality, SOP_CLASSES[modality])
    image.SOPInstanceUID, image.SeriesInstanceUID = f"2.25.9{seed}1", f"2.25.9{seed}2"
    image.StudyInstanceUID = f"2.25.9{seed}3"
    image.Modality, image.PatientID, image.PatientName = modality, f"S{seed}", "Sample^Invented"
    image.SamplesPerPixel, image.PhotometricInterpretation = 3 if is_colour else 1, photometric
    image.Rows, image.Columns = rows, columns
    image.BitsAllocated, image.BitsStored = bits_allocated, bits_stored
    image.HighBit = bits_stored - 1 if high_bit is None else high_bit
    image.PixelRepresentation = int(signed)
    if frames > 1:
        image.NumberOfFrames = frames
    if is_colour:
        image.PlanarConfiguration = planar
    if rescale:
        image.RescaleSlope, image.RescaleIntercept = rescale
        image.RescaleType = "HU" if modality == "CT" else "US"
    if window:
        image.WindowCenter, image.WindowWidth = window[:2]
        if len(window) == 3:
            image.VOILUTFunction = window[2]
    for keyword, lut in (("VOILUTSequence", voi_lut), ("ModalityLUTSequence", modality_lut)):
        if lut:
            setattr(image, keyword, [_lut_item(*lut, signed=signed or rescale is not None)])
    if "ModalityLUTSequence" in image:
        image.ModalityLUTSequence[0].ModalityLUTType = "US"
    for name, entries in zip(("Red", "Green", "Blue"), palette or (), strict=False):
        descriptor = [len(entries) % 2**16, palette_first, palette_bits]
        setattr(image, f"{name}PaletteColorLookupTableDescriptor", descriptor)
        dtype = "<u2" if palette_bits == 16 else "u1"
        table = np.asarray(entries).astype(dtype).tobytes()
        setattr(image, f"{name}PaletteColorLookupTableData", table + b"\0" * (len(table) % 2))
    vr = "SS" if signed else "US"
    if padding_value is not None:
        image.add_new("PixelPaddingValue", vr, padding_value)
    if padding_limit is not None:
        image.add_new("PixelPaddingRangeLimit", vr, padding_limit)
    if values is None:
        shape = (frames, rows, columns, 3) if is_colour else (frames, rows, columns)
        values = _random_values(image, shape, padding_value, seed)
    _set_pixels(image, values)
    for keyword, value in attributes.items():
        if value is None:
            del image[keyword]
        else:
            setattr(image, keyword, value)
    return pydicom.dcmread(io.BytesIO(as_bytes(image)))


def as_bytes(image: Dataset) -> bytes:
    """The file (PS3.10) of a dataset, also of one with invalid values."""
    content = io.BytesIO()
    with config.disable_value_validation():
        dcmwrite(content, image, enforce_file_format=True)
    return content.getvalue()


def bundled_files() -> list[Path]:
    """pydicom's own test files, those that came with the package: nothing is downloaded.

    Also the deliberately broken ones, DICOMDIRs, and files that are not DICOM at all.
    """
    folder = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py")


def _lut_item(first: int, entries: Sequence[int], bits: int, *, signed: bool) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries) % 2**16, first, bits])
    if signed and len(entries) >= 2**15:
        raise ValueError("a table this long cannot be described in signed numbers")
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


def _random_values(
    image: Dataset, shape: tuple[int, ...], padding: int | None, seed: int
) -> NDArray[np.int64]:
    bits = image.BitsStored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if image.PixelRepresentation else (0, 2**bits)
    values = np.random.default_rng(seed).integers(low, high, shape)
    values.flat[0], values.flat[1] = low, high - 1
    if padding is not None:
        values.flat[5:15] = padding
    return values


def _set_pixels(image: Dataset, values: NDArray[Any]) -> None:
    """Writes stored values, shifted up to High Bit, in the layout that the header describes."""
    if image.BitsAllocated == 1:
        packed = np.packbits(values.astype(np.uint8).ravel(), bitorder="little").tobytes()
        image.add_new("PixelData", "OB", packed + b"\0" * (len(packed) % 2))
        return
    frames = values.reshape(int(image.get("NumberOfFrames", 1)), image.Rows, image.Columns, -1)
    frames = frames << (image.HighBit - image.BitsStored + 1)
    kind = "i" if image.PixelRepresentation else "u"
    syntax = image.file_meta.TransferSyntaxUID
    if syntax in _COMPRESSED:
        stored = frames.astype(f"<{kind}{image.BitsAllocated // 8}")
        encoded = [_encode(image, frame) for frame in stored]
        image.add_new("PixelData", "OB", encapsulate(encoded))
        return
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    stored = frames.astype(f"{order}{kind}{image.BitsAllocated // 8}")
    if image.PhotometricInterpretation == "YBR_FULL_422":
        # Two pixels share their colour differences: Y1 Y2 Cb Cr (PS3.3 C.7.6.3.1.2).
        pairs = stored.reshape(-1, 2, 3)
        stored = np.concatenate([pairs[:, :, 0], pairs[:, 0, 1:]], axis=1)
    elif image.get("PlanarConfiguration"):
        stored = np.moveaxis(stored, 3, 1)
    content = np.ascontiguousarray(stored).tobytes()
    vr = "OB" if image.BitsAllocated == 8 else "OW"
    image.add_new("PixelData", vr, content + b"\0" * (len(content) % 2))


def _encode(image: Dataset, frame: NDArray[Any]) -> bytes:
    syntax = image.file_meta.TransferSyntaxUID
    photometric = image.PhotometricInterpretation
    options: dict[str, Any] = {}
    if syntax == JPEG2000:
        options["j2k_cr"] = [4]
    return get_encoder(syntax).encode(
        frame if frame.shape[-1] == 3 else frame[:, :, 0],
        encoding_plugin="pylibjpeg",
        rows=image.Rows,
        columns=image.Columns,
        samples_per_pixel=image.SamplesPerPixel,
        number_of_frames=1,
        photometric_interpretation=photometric,
        bits_allocated=image.BitsAllocated,
        bits_stored=image.BitsAllocated if syntax == RLELossless else image.BitsStored,
        pixel_representation=image.PixelRepresentation,
        planar_configuration=0,
        **options,
    )


# --- damage ---

_PIXEL_TAGS = {
    "SamplesPerPixel": 0x0002,
    "NumberOfFrames": 0x0008,
    "Rows": 0x0010,
    "Columns": 0x0011,
    "BitsAllocated": 0x0100,
    "BitsStored": 0x0101,
    "HighBit": 0x0102,
    "PixelRepresentation": 0x0103,
    "WindowCenter": 0x1050,
    "RescaleSlope": 0x1053,
    "PixelData": 0x7FE00010,
}
_SYNTAXES = (
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.57",
    b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.4.201", b"1.2.840.10008.1.2.5", b"1.2.3.4.5", b"", b"\xff" * 8,
)  # fmt: skip
_VRS = (
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OF OW PN SH SL SQ SS ST TM UI UL UN US UT ZZ".split()
)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file with one to four kinds of damage; never more than 2 MB longer."""
    for _ in range(int(rng.integers(1, 5))):
        data = _DAMAGES[int(rng.integers(len(_DAMAGES)))](data, rng)
    return data


def _flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    # Half of the time in the header, which is a small part of the file.
    end = min(len(damaged), 2048) if rng.random() < 0.5 else len(damaged)
    for _ in range(int(rng.integers(1, 9))):
        if end:
            damaged[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _duplicate_chunk(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    at = int(rng.integers(len(data) + 1))
    return data[:at] + data[start:end] + data[at:]


def _remove_chunk(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _zero_chunk(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes([int(rng.choice([0, 255]))]) * (end - start) + data[end:]


def _change_length(data: bytes, rng: np.random.Generator) -> bytes:
    """Gives an element of Explicit VR another length."""
    at = _find_element(data, rng)
    if at is None:
        return _flip_bits(data, rng)
    if data[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF"):
        length = int(rng.choice([0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, rng.integers(2**32)]))
        return data[: at + 8] + struct.pack("<I", length) + data[at + 12 :]
    length = int(rng.choice([0, 1, 3, 0x7FFF, 0xFFFF, rng.integers(2**16)]))
    return data[: at + 6] + struct.pack("<H", length) + data[at + 8 :]


def _change_vr(data: bytes, rng: np.random.Generator) -> bytes:
    at = _find_element(data, rng)
    if at is None:
        return _flip_bits(data, rng)
    return data[: at + 4] + _VRS[int(rng.integers(len(_VRS)))] + data[at + 6 :]


def _swap_tags(data: bytes, rng: np.random.Generator) -> bytes:
    one, other = _find_element(data, rng), _find_element(data, rng)
    if one is None or other is None:
        return _flip_bits(data, rng)
    damaged = bytearray(data)
    damaged[one : one + 4], damaged[other : other + 4] = (
        data[other : other + 4],
        data[one : one + 4],
    )
    return bytes(damaged)


def _claim_size(data: bytes, rng: np.random.Generator) -> bytes:
    """Gives an attribute of the image a value far from the truth, in Explicit or Implicit VR."""
    keyword = list(_PIXEL_TAGS)[int(rng.integers(len(_PIXEL_TAGS)))]
    number = _PIXEL_TAGS[keyword]
    tag = struct.pack("<HH", number >> 16 or 0x0028, number & 0xFFFF)
    at = data.find(tag, 132)
    if at < 0 or len(data) < at + 12:
        return _flip_bits(data, rng)
    length = (
        struct.unpack("<H", data[at + 6 : at + 8])[0]
        or struct.unpack("<H", data[at + 4 : at + 6])[0]
    )
    end = at + 8 + min(length, 64)
    if keyword in ("NumberOfFrames", "WindowCenter", "RescaleSlope"):
        claims = (b"2147483647", b"-1", b"0", b"1e308", b"nan", b"65535", b"\\", b"abc", b"")
        value = claims[int(rng.integers(len(claims)))].ljust(end - at - 8)[: end - at - 8]
    else:
        claim = int(rng.choice([0, 1, 3, 7, 64, 255, 4096, 65535]))
        value = struct.pack("<H", claim).ljust(end - at - 8, b"\0")[: end - at - 8]
    return data[: at + 8] + value + data[end:]


def _change_syntax(data: bytes, rng: np.random.Generator) -> bytes:
    at = data.find(b"\x02\0\x10\0UI")
    if at < 0:
        return _flip_bits(data, rng)
    length = struct.unpack("<H", data[at + 6 : at + 8])[0]
    value = _SYNTAXES[int(rng.integers(len(_SYNTAXES)))]
    value += b"\0" * (len(value) % 2)
    return data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]


def _nest_sequences(data: bytes, rng: np.random.Generator) -> bytes:
    """Adds a sequence 10 to 3,000 deep before the pixels, with undefined lengths."""
    deep = int(rng.choice([10, 100, 1000, 3000]))
    opening = b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    # Sometimes it never closes.
    added = opening * deep + (closing * deep if rng.random() < 0.7 else b"")
    at = data.rfind(b"\xe0\x7f\x10\0")
    return data[:at] + added + data[at:] if at >= 0 else data + added


def _deflate(data: bytes, rng: np.random.Generator) -> bytes:
    """Says that the dataset is deflated, and makes it so: well, cut short, or into a bomb."""
    if data[128:132] != b"DICM":
        return _flip_bits(data, rng)
    start = _after_meta(data)
    kind = int(rng.choice(3, p=[0.48, 0.48, 0.04]))
    content = data[start:]
    if kind == 2:
        content += b"\x11\0\x11\0OB\0\0" + struct.pack("<I", _BOMB_BYTES)
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content)
    packed += packer.flush(zlib.Z_FULL_FLUSH) + _bomb() if kind == 2 else packer.flush()
    uid = b"1.2.840.10008.1.2.1.99"
    meta = b"\x02\0\x10\0UI" + struct.pack("<H", len(uid)) + uid
    length = b"\x02\0\0\0UL\x04\0" + struct.pack("<I", len(meta))
    return data[:132] + length + meta + (packed[: len(packed) // 2] if kind == 1 else packed)


@functools.lru_cache(maxsize=1)
def _bomb() -> bytes:
    """A deflated stream of nothing but zeros, about 1.1 MB that inflate to 1.1 GB."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    part = bytes(2**24)
    return b"".join(packer.compress(part) for _ in range(_BOMB_BYTES // 2**24)) + packer.flush()


def _after_meta(data: bytes) -> int:
    at = 132
    while data[at : at + 2] == b"\x02\0" and len(data) > at + 12:
        if data[at + 4 : at + 6] in (b"OB", b"UN"):
            at += 12 + struct.unpack("<I", data[at + 8 : at + 12])[0]
        else:
            at += 8 + struct.unpack("<H", data[at + 6 : at + 8])[0]
    return at


def _find_element(data: bytes, rng: np.random.Generator) -> int | None:
    """Where some element of Explicit VR Little Endian may begin."""
    vr = _VRS[int(rng.integers(len(_VRS) - 1))]
    found = data.find(vr, int(rng.integers(132, max(133, min(len(data), 6000)))))
    return found - 4 if found >= 4 and len(data) >= found + 8 else None


def _span(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data) + 1))
    return start, min(len(data), start + int(rng.choice([1, 2, 8, 100, 5000])))


_DAMAGES = (
    _flip_bits, _flip_bits, _truncate, _duplicate_chunk, _remove_chunk, _zero_chunk,
    _change_length, _change_length, _change_vr, _swap_tags, _claim_size, _claim_size,
    _change_syntax, _nest_sequences, _deflate,
)  # fmt: skip
