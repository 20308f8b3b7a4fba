"""Reads one DICOM file that nobody vouches for: bounded, without a crash, or a reason why not.

The checks come from the header alone, before a pixel is decoded: what a header claims costs nothing
to write, and a decoder would believe it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
import zlib
from collections.abc import Iterator

from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from datasites.imaging.problems import Quarantined, Reason

MAXIMUM_PIXELS = 100_000_000
"""Rows x columns of one frame: 10,000 x 10,000."""
MAXIMUM_FRAMES = 20_000
MAXIMUM_DECODED_BYTES = 4 * 10**9
MAXIMUM_INFLATED_BYTES = 10**9
INFLATED_AT_ONCE = 2**20
MODALITIES = {
    "CR": "computed radiography", "CT": "computed tomography", "DX": "digital radiography",
    "ES": "endoscopy", "GM": "general microscopy", "IO": "intra-oral radiography",
    "MG": "mammography", "MR": "magnetic resonance", "OP": "ophthalmic photography",
    "OT": "other", "PX": "panoramic radiography", "RF": "radiofluoroscopy",
    "SC": "secondary capture", "US": "ultrasound", "XA": "angiography",
    "XC": "photography",
}  # fmt: skip
"""Modalities that are read (PS3.3 C.7.3.1.1.1); `SC` is the retired word for secondary capture."""
OTHER_MODALITIES = (
    "AU", "BI", "DOC", "ECG", "EPS", "HD", "IVOCT", "IVUS", "KO", "M3D", "NM", "OAM", "OCT", "OPM",
    "OPT", "OPV", "OSS", "PLAN", "PR", "PT", "REG", "RESP", "RG", "RTDOSE", "RTIMAGE", "RTPLAN",
    "RTRECORD", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "TG", "VA",
)  # fmt: skip
"""Modalities that are not read; only these are named to a person, for a header may say anything."""
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = (
    "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422",
    "YBR_ICT", "YBR_RCT",
)  # fmt: skip
config.settings.reading_validation_mode = config.IGNORE  # odd values are no reason to refuse


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without pydicom's warnings, which name values of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parse_dicom(content: bytes, *, pixels: bool = True) -> Dataset:
    """The dataset in the bytes of a DICOM file (PS3.10), with or without the preamble.

    Raises:
        Quarantined: It is no DICOM file, ends too early, or inflates to too much.
    """
    _check_deflated(content)
    try:
        with quietly():
            dataset = dcmread(io.BytesIO(content), force=True, stop_before_pixels=not pixels)
            _check_is_dicom(dataset, content)
    except Quarantined:
        raise
    except InvalidDicomError as error:
        raise Quarantined(Reason.NOT_AN_IMAGE, "not a DICOM file") from error
    except MemoryError as error:
        raise Quarantined(Reason.TOO_LARGE, "needs more memory than one file may have") from error
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise _unreadable(content) from error
    return dataset


def check_image(dataset: Dataset) -> None:
    """Whether a dataset is an image that is read, by its header.

    Raises:
        Quarantined: It has no pixels, too many, or of a kind that is not read.
    """
    if "PixelData" not in dataset:
        for name in ("FloatPixelData", "DoubleFloatPixelData"):
            if name in dataset:
                raise Quarantined(Reason.UNSUPPORTED, "pixels are floating-point numbers")
        if "Image Storage" in text_of_class(dataset):
            raise Quarantined(Reason.BROKEN, "an image file without its pixels")
        raise Quarantined(Reason.NOT_AN_IMAGE, "a DICOM object without pixels")
    modality = text(dataset, "Modality")
    if modality not in MODALITIES:
        known = ", ".join(MODALITIES)
        shown = modality if modality in OTHER_MODALITIES else "missing or odd"
        raise Quarantined(Reason.UNSUPPORTED, f"modality {shown}; read are {known}")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if rows * columns > MAXIMUM_PIXELS:
        raise Quarantined(
            Reason.TOO_LARGE,
            f"the header says {rows:,} x {columns:,} pixels; at most {MAXIMUM_PIXELS:,} are read",
        )
    frames = frame_count(dataset)
    if frames > MAXIMUM_FRAMES:
        raise Quarantined(
            Reason.TOO_LARGE, f"the header says {frames:,} frames; at most {MAXIMUM_FRAMES:,} are"
        )
    photometric = text(dataset, "PhotometricInterpretation")
    samples, allocated = whole(dataset, "SamplesPerPixel"), whole(dataset, "BitsAllocated")
    stored = whole(dataset, "BitsStored")
    if photometric not in GREY + COLOUR:
        raise Quarantined(Reason.UNSUPPORTED, "a photometric interpretation that is not read")
    if samples != (1 if photometric in (*GREY, "PALETTE COLOR") else 3):
        raise Quarantined(Reason.BROKEN, f"{samples} samples per pixel do not fit {photometric}")
    if allocated not in (1, 8, 16) or not 1 <= stored <= allocated:
        raise Quarantined(
            Reason.UNSUPPORTED, f"{stored} of {allocated} bits; read are 1 to 16 of 8 or 16"
        )
    if rows * columns * samples * max(1, allocated // 8) * frames > MAXIMUM_DECODED_BYTES:
        raise Quarantined(Reason.TOO_LARGE, "decoded it would be over 4 GB")
    high_bit = text(dataset, "HighBit")
    if high_bit and high_bit != str(stored - 1):
        raise Quarantined(
            Reason.UNSUPPORTED, f"the highest of {stored} bits is not bit {stored - 1} (HighBit)"
        )
    if modality == "CT" and not has_hounsfield(dataset):
        raise Quarantined(
            Reason.UNSUPPORTED, "CT without rescale slope and intercept is not in Hounsfield units"
        )
    _check_length(dataset)


def _check_length(dataset: Dataset) -> None:
    """Refuse uncompressed pixels that end too early."""
    syntax = transfer_syntax(dataset)
    if not syntax.is_transfer_syntax or syntax.is_compressed:
        return  # the decoder says what is wrong with it
    try:
        with quietly():
            there = len(dataset.get_item("PixelData").value)
            wanted = get_expected_length(dataset)
    except Exception as error:  # pydicom converts late, and raises many kinds
        raise Quarantined(Reason.BROKEN, "the pixels cannot be read") from error
    if there < wanted:
        raise Quarantined(Reason.BROKEN, "the pixels cannot be decoded: the file ends within them")


def has_hounsfield(dataset: Dataset) -> bool:
    """Whether the values of a CT can be turned into Hounsfield units (PS3.3 C.8.2.1.1.2)."""
    return "RescaleSlope" in dataset or "SharedFunctionalGroupsSequence" in dataset


def frame_count(dataset: Dataset) -> int:
    """Number of Frames (0028,0008), at least 1."""
    if "NumberOfFrames" not in dataset:
        return 1
    value = text(dataset, "NumberOfFrames")
    if value and not value.isdecimal():
        raise Quarantined(Reason.BROKEN, "the number of frames is no number")
    return max(1, int(value or 1))


def transfer_syntax(dataset: Dataset) -> UID:
    """The transfer syntax, from the file meta information or as it was found to be."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        return UID(str(meta.TransferSyntaxUID))
    little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
    if not little:
        return UID("1.2.840.10008.1.2.2")
    return UID("1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1")


def text(dataset: Dataset, keyword: str) -> str:
    """A value as trimmed text; empty when it is missing, multiple or cannot be read."""
    with contextlib.suppress(Exception), quietly():  # pydicom converts late, and raises many kinds
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip(" \0")
    return ""


def whole(dataset: Dataset, keyword: str) -> int:
    """A whole number at least 1.

    Raises:
        Quarantined: It is missing or is none.
    """
    value = text(dataset, keyword)
    if not value.isdecimal() or not int(value):
        raise Quarantined(Reason.BROKEN, f"{keyword} is missing or is no number")
    return int(value)


def _check_is_dicom(dataset: Dataset, content: bytes) -> None:
    if content[128:132] != b"DICM" and not text(dataset, "SOPClassUID").startswith("1."):
        raise Quarantined(Reason.NOT_AN_IMAGE, "not a DICOM file")
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and "Storage Directory" in text_of_class(dataset):
        raise Quarantined(Reason.NOT_AN_IMAGE, "a DICOMDIR; the files it lists are read themselves")


def text_of_class(dataset: Dataset) -> str:
    """The name of the storage class, empty for one that the standard does not know."""
    meta = getattr(dataset, "file_meta", None)
    uid = text(dataset, "SOPClassUID") or (text(meta, "MediaStorageSOPClassUID") if meta else "")
    name = UID(uid).name
    return "" if name == uid else name


def _unreadable(content: bytes) -> Quarantined:
    if content[128:132] == b"DICM":
        return Quarantined(Reason.BROKEN, "the DICOM file cannot be read to its end")
    return Quarantined(Reason.NOT_AN_IMAGE, "not a DICOM file")


def _check_deflated(content: bytes) -> None:
    """Refuse a deflated dataset that would not stop growing (PS3.5 A.5)."""
    if content[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in content[:4096]:
        return
    if content[132:138] != b"\x02\x00\x00\x00UL":
        raise Quarantined(Reason.BROKEN, "a deflated file without a length of its meta information")
    start = 144 + int.from_bytes(content[140:144], "little")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, left = 0, content[start:]
    try:
        while left and size <= MAXIMUM_INFLATED_BYTES:
            size += len(inflater.decompress(left, INFLATED_AT_ONCE))
            left = inflater.unconsumed_tail
    except zlib.error as error:
        raise Quarantined(Reason.BROKEN, "a deflated file that cannot be inflated") from error
    if size > MAXIMUM_INFLATED_BYTES:
        raise Quarantined(
            Reason.TOO_LARGE, f"inflates to more than {MAXIMUM_INFLATED_BYTES:,} bytes"
        )
