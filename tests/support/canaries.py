"""Canaries: unique strings planted as identifiers wherever a DICOM export can hide one.

`plant` writes a folder of chest phantoms and their siblings that is full of canaries, of which a
dataset can still be published. `search` finds every canary in whatever was made from it, also in
archives and databases, also encoded, hashed without a key, or byte-swapped.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import lzma
import re
import shutil
import sqlite3
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from pydicom import DataElement, Dataset, config, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from datasites.imaging.dicom_phantoms import MAKERS, write_chest_phantoms
from datasites.imaging.phantoms import draw_chest_phantoms

CLASSES = ("clear", "opacity")
SIZE = 224
# Patients by the maker of their devices; each place is planted in one patient of every maker.
IMAGES_PER_PATIENT = 2
PATIENTS = {"aster": 20, "borealis": 10, "drift": 5, "cobalt": 5}
BURNED_IN = {"aster": 4, "borealis": 2, "drift": 2}
_CHUNK = 8 * 2**20


@dataclass(frozen=True)
class Canary:
    """One string, where it was planted, and the bytes that would give it away."""

    text: str
    where: str
    needles: dict[bytes, str] = field(repr=False)
    """Bytes to search for -> how they encode the text."""


@dataclass(frozen=True)
class Canaries:
    """What was planted.

    Attributes:
        folder: The source, with images, siblings and archives.
        labels: CSV beside the folder, with `sop_instance_uid` and `label`.
        planted: Every canary that stands in the folder as bytes.
        burned_in: Names (relative to the folder, `/` between parts) of the images with a canary in
            their pixels -> the canary.
        images: Names of all images of chests, those in archives as `archive.zip/member`.
    """

    folder: Path
    labels: Path
    planted: tuple[Canary, ...]
    burned_in: dict[str, str]
    images: tuple[str, ...]

    @property
    def publishable(self) -> tuple[str, ...]:
        """Images without a canary in their pixels."""
        return tuple(name for name in self.images if name not in self.burned_in)


@dataclass(frozen=True)
class Hit:
    """A canary that got out."""

    canary: str
    where: str
    encoding: str
    file: str

    def __str__(self) -> str:
        return f"{self.canary} (planted in {self.where}) stands as {self.encoding} in {self.file}"


# --- planting ---


Planter = Callable[[Dataset, str, int], None]
"""Puts a canary into an image; the number makes values that must be unique so."""


@dataclass(frozen=True)
class _Place:
    where: str
    kind: str
    plant: Planter


def _set(keyword: str, form: str = "{}") -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        setattr(image, keyword, form.format(text, number))

    return plant


def _add(tag: int, vr: str, form: str = "{}") -> Planter:
    """Adds an element with this VR, whatever the dictionary says."""

    def plant(image: Dataset, text: str, number: int) -> None:
        value = form.format(text, number)
        is_binary = vr in ("OB", "OW", "UN", "OF")
        image.add(DataElement(tag, vr, _even(value.encode()) if is_binary else value))

    return plant


def _within(keyword: str, inner: Planter) -> Planter:
    """Plants in an item of a sequence, kept if it is there already."""

    def plant(image: Dataset, text: str, number: int) -> None:
        if not image.get(keyword):
            setattr(image, keyword, [Dataset()])
        inner(image[keyword].value[0], text, number)

    return plant


def _in_meta(keyword: str, form: str = "{}") -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        setattr(image.file_meta, keyword, form.format(text, number))

    return plant


def _nested_five_deep(image: Dataset, text: str, number: int) -> None:
    inner = Dataset()
    inner.PersonName = text
    for keyword in (
        "PersonIdentificationCodeSequence",
        "ContentCreatorIdentificationCodeSequence",
        "ReferencedStudySequence",
        "ReferencedSeriesSequence",
        "SourceImageSequence",
    ):
        outer = Dataset()
        setattr(outer, keyword, [inner])
        inner = outer
    image.update(inner)


def _private(group: int, creator: str, element: int, vr: str, form: str = "{}") -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        value: Any = form.format(text, number)
        if vr in ("OB", "UN"):
            value = _even(value.encode())
        block = image.private_block(group, creator.format(text), create=True)
        block.add_new(element, vr, value)

    return plant


def _private_sequence(image: Dataset, text: str, number: int) -> None:
    item = Dataset()
    item.PatientName = text
    _private(0x0045, "QUIET INNER", 0x01, "LO")(item, text, number)
    image.private_block(0x0047, "QUIET OUTER", create=True).add_new(0x05, "SQ", [item])


def _private_without_creator(image: Dataset, text: str, number: int) -> None:
    image.add(DataElement(0x00D11101, "LO", text))


def _code_meaning(image: Dataset, text: str, number: int) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "51185008", "SCT", text
    image.AnatomicRegionSequence = [item]


def _lut_explanation(image: Dataset, text: str, number: int) -> None:
    if "VOILUTSequence" not in image:
        table = Dataset()
        table.LUTDescriptor = [2**image.BitsStored, 0, 16]
        ramp = np.linspace(0, 2**16 - 1, 2**image.BitsStored)
        table.add_new("LUTData", "OW", ramp.astype("<u2").tobytes())
        image.VOILUTSequence = [table]
    image.VOILUTSequence[0].LUTExplanation = text


def _overlay(image: Dataset, text: str, number: int) -> None:
    _add_overlay(image, 0x6000, _overlay_plane(text))


def _overlay_plane(text: str) -> NDArray[np.bool_]:
    plane = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(plane).text((8, 8), text, fill=255, font=ImageFont.load_default(24))
    plane_of_bits: NDArray[np.bool_] = np.asarray(plane) > 127
    return plane_of_bits


def _add_overlay(image: Dataset, group: int, plane: NDArray[np.bool_]) -> None:
    base = group << 16
    image.add(DataElement(base | 0x0010, "US", plane.shape[0]))
    image.add(DataElement(base | 0x0011, "US", plane.shape[1]))
    image.add(DataElement(base | 0x0040, "CS", "G"))
    image.add(DataElement(base | 0x0050, "SS", [1, 1]))
    image.add(DataElement(base | 0x0100, "US", 1))
    image.add(DataElement(base | 0x0102, "US", 0))
    packed = np.packbits(plane.ravel(), bitorder="little").tobytes()
    image.add(DataElement(base | 0x3000, "OW", _even(packed)))


def _overlay_text(element: int) -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        _add_overlay(image, 0x6002, np.zeros((8, 8), bool))
        image.add(DataElement(0x60020000 | element, "LO", text))

    return plant


def _high_bits(image: Dataset, text: str, number: int) -> None:
    """Four bits of the text above Bits Stored in each of the first pixels, which are else 0."""
    if image.BitsStored > 12 or image.file_meta.TransferSyntaxUID.is_compressed:
        return
    values = np.frombuffer(image.PixelData, "<u2").copy()
    values[: 2 * len(text)] = _nibbles(text).astype(np.uint16) << 12
    image.PixelData = values.tobytes()


def _nibbles(text: str) -> NDArray[np.uint8]:
    return np.array([part for byte in text.encode() for part in (byte >> 4, byte & 15)], np.uint8)


def _icon(image: Dataset, text: str, number: int) -> None:
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    icon.Rows = icon.Columns = 8
    icon.BitsAllocated = icon.BitsStored = 8
    icon.HighBit, icon.PixelRepresentation = 7, 0
    icon.add_new("PixelData", "OB", text.encode().ljust(64, b"\0"))
    image.IconImageSequence = [icon]


def _preamble(image: Dataset, text: str, number: int) -> None:
    image.preamble = (b"II*\0" + text.encode()).ljust(128, b"\0")


def _curve(image: Dataset, text: str, number: int) -> None:
    image.add(DataElement(0x50000005, "US", 2))
    image.add(DataElement(0x50000010, "US", 4))
    image.add(DataElement(0x50000020, "CS", "POLY"))
    image.add(DataElement(0x50000103, "US", 0))
    image.add(DataElement(0x50003000, "OW", _even(text.encode()).ljust(16, b"\0")))


def _charset(charset: str | list[str], keyword: str, form: str) -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        image.SpecificCharacterSet = charset
        setattr(image, keyword, form.format(text, number))

    return plant


def _multi_value(keyword: str) -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        setattr(image, keyword, [*image[keyword].value, text])

    return plant


def _patient_id(image: Dataset, text: str, number: int) -> None:
    image.PatientID = f"{text}-{image.PatientID}"


def _private_meta(image: Dataset, text: str, number: int) -> None:
    image.file_meta.PrivateInformationCreatorUID = "1.2.826.0.1.7"
    image.file_meta.PrivateInformation = _even(text.encode())


def _uid(keyword: str, form: str = "1.2.826.0.1.{}.{}") -> Planter:
    def plant(image: Dataset, text: str, number: int) -> None:
        setattr(image, keyword, form.format(text, number))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID

    return plant


PLACES = (
    # Three character sets, first and side by side: no image gets two of them.
    _Place("name in kanji", "kanji", _charset(["", "ISO 2022 IR 87"], "PatientName", "Yamada={}")),
    _Place("name in GB18030", "hanzi", _charset("GB18030", "OtherPatientNames", "Wang={}")),
    _Place("name in Cyrillic", "cyrillic", _charset("ISO_IR 144", "PatientMotherBirthName", "{}")),
    # The 18 kinds of 45 CFR 164.514(b)(2).
    _Place("PatientName", "word", _set("PatientName", "{}^INVENTED")),
    _Place("PatientAddress", "word", _set("PatientAddress", "7 {} Street")),
    _Place("RegionOfResidence", "word", _set("RegionOfResidence")),
    _Place("PatientBirthDate", "old date", _set("PatientBirthDate")),
    _Place("StudyDate", "future date", _set("StudyDate")),
    _Place("AcquisitionDateTime", "time stamp", _set("AcquisitionDateTime")),
    _Place("PatientTelephoneNumbers", "digits", _set("PatientTelephoneNumbers")),
    _Place(
        "fax",
        "digits",
        _within("RequestAttributesSequence", _set("ReasonForTheRequestedProcedure", "fax {}")),
    ),
    _Place("e-mail", "word", _set("PatientTelecomInformation", "mailto:{}@example.org")),
    _Place("social security number", "digits", _set("OtherPatientIDs")),
    _Place("PatientID", "word", _patient_id),
    _Place("IssuerOfPatientID", "word", _set("IssuerOfPatientID")),
    _Place("health plan", "word", _within("PatientInsurancePlanCodeSequence", _code_meaning)),
    _Place("AdmissionID", "word", _set("AdmissionID")),
    _Place("AccessionNumber", "word", _set("AccessionNumber", "{}-{}")),
    _Place(
        "licence",
        "word",
        _within("PhysiciansOfRecordIdentificationSequence", _set("InstitutionName")),
    ),
    _Place("vehicle", "word", _set("PatientComments", "came by car, plate {}, with family")),
    _Place("DeviceSerialNumber", "word", _set("DeviceSerialNumber")),
    _Place("DeviceUID", "digits", _uid("DeviceUID")),
    _Place("URL", "word", _set("RetrieveURL", "https://example.org/{}")),
    _Place("IP address", "word", _set("StationName", "ip6-{}")),
    _Place("biometric", "word", _private(0x0031, "FINGERPRINT", 0x10, "OB")),
    _Place("photograph", "word", _icon),
    _Place("Occupation", "word", _set("Occupation")),
    # UIDs.
    _Place("SOPInstanceUID", "digits", _uid("SOPInstanceUID")),
    _Place("StudyInstanceUID", "digits", _uid("StudyInstanceUID")),
    _Place("SeriesInstanceUID", "digits", _uid("SeriesInstanceUID")),
    _Place("FrameOfReferenceUID", "digits", _uid("FrameOfReferenceUID")),
    _Place("InstanceCreatorUID", "digits", _uid("InstanceCreatorUID")),
    _Place(
        "ReferencedSOPInstanceUID",
        "digits",
        _within("ReferencedPatientSequence", _set("ReferencedSOPInstanceUID", "1.2.826.{}")),
    ),
    _Place(
        "UID of a code",
        "digits",
        _within("ProcedureCodeSequence", _set("ContextUID", "1.2.840.{}")),
    ),
    # Sequences.
    _Place(
        "RequestAttributesSequence",
        "word",
        _within("RequestAttributesSequence", _set("RequestedProcedureID")),
    ),
    _Place(
        "ReferencedPatientSequence", "word", _within("ReferencedPatientSequence", _set("PatientID"))
    ),
    _Place("five sequences deep", "word", _nested_five_deep),
    _Place(
        "OriginalAttributesSequence",
        "word",
        _within(
            "OriginalAttributesSequence", _within("ModifiedAttributesSequence", _set("PatientName"))
        ),
    ),
    _Place(
        "ContributingEquipmentSequence",
        "word",
        _within("ContributingEquipmentSequence", _set("InstitutionName")),
    ),
    _Place("CodeMeaning", "word", _code_meaning),
    # Private elements.
    _Place("private element", "word", _private(0x0029, "QUIET 1.0", 0x20, "LO", "Pt {}")),
    _Place("private binary", "word", _private(0x0029, "QUIET 1.0", 0x21, "OB")),
    _Place("private creator", "word", _private(0x0033, "{}", 0x01, "LO", "nothing")),
    _Place("private UN", "word", _private(0x0029, "QUIET 1.0", 0x22, "UN")),
    _Place("private sequence", "word", _private_sequence),
    _Place("private without creator", "word", _private_without_creator),
    _Place(
        "private in a kept item",
        "word",
        _within("AnatomicRegionSequence", _private(0x0011, "QUIET 2.0", 0x30, "LO")),
    ),
    # File meta, preamble and what follows the pixels.
    _Place("source AE title", "word", _in_meta("SourceApplicationEntityTitle")),
    _Place("sending AE title", "word", _in_meta("SendingApplicationEntityTitle")),
    _Place("ImplementationVersionName", "word", _in_meta("ImplementationVersionName")),
    _Place("private information of the file", "word", _private_meta),
    _Place(
        "creator of private information",
        "digits",
        _in_meta("PrivateInformationCreatorUID", "1.2.826.0.1.{}"),
    ),
    _Place("preamble", "word", _preamble),
    _Place("DataSetTrailingPadding", "word", _add(0xFFFCFFFC, "OB", "{}")),
    # Overlays, curves, audio, and bits beside the stored ones.
    _Place("overlay plane", "word", _overlay),
    _Place("OverlayDescription", "word", _overlay_text(0x0022)),
    _Place("OverlayLabel", "word", _overlay_text(0x1500)),
    _Place("OverlayComments", "word", _overlay_text(0x4000)),
    _Place("curve data", "word", _curve),
    _Place("CurveDescription", "word", _add(0x50020022, "LO")),
    _Place("AudioComments", "word", _add(0x5000200E, "LT", "heard {} cough")),
    _Place("unused high bits", "word", _high_bits),
    # Attributes that are often kept, and how they can be misused.
    _Place("LUTExplanation", "word", _lut_explanation),
    _Place("WindowCenterWidthExplanation", "word", _set("WindowCenterWidthExplanation")),
    _Place("RescaleType", "word", _set("RescaleType")),
    _Place("ProtocolName", "word", _set("ProtocolName")),
    _Place("StudyDescription", "word", _set("StudyDescription", "chest of {} for Dr {}")),
    _Place("SeriesDescription", "word", _set("SeriesDescription")),
    _Place("ImageComments", "word", _set("ImageComments")),
    _Place("DerivationDescription", "word", _set("DerivationDescription")),
    _Place("SoftwareVersions", "word", _set("SoftwareVersions")),
    _Place("DetectorID", "word", _set("DetectorID")),
    _Place("FilterType", "word", _set("FilterType")),
    _Place("ImageType", "word", _multi_value("ImageType")),
    _Place("AcquisitionDeviceProcessingCode", "word", _set("AcquisitionDeviceProcessingCode")),
    _Place("InstanceNumber", "digits", _set("InstanceNumber")),
    _Place("DistanceSourceToPatient", "digits", _set("DistanceSourceToPatient")),
    _Place("OperatorsName", "word", _set("OperatorsName", "{}^NURSE")),
    _Place("InstitutionName", "word", _set("InstitutionName")),
    # Values under the wrong VR, long ones, unknown and retired elements.
    _Place("a name in BodyPartExamined", "word", _set("BodyPartExamined", "{}^Quillfeather")),
    _Place("a name in ViewPosition", "word", _add(0x00185101, "LO", "{}^Quillfeather")),
    _Place("text in a date", "word", _add(0x00080022, "LO", "{}")),
    _Place("a known element as UN", "word", _add(0x00104000, "UN", "{}")),
    _Place("long text", "word", _set("AdditionalPatientHistory", "many words " * 800 + "{}")),
    _Place("unknown element", "word", _add(0x00109999, "LO")),
    _Place("retired element", "word", _add(0x00084000, "LT")),
    _Place(
        "digital signature", "word", _within("DigitalSignaturesSequence", _add(0x04000120, "OB"))
    ),
)


def plant(folder: Path, *, seed: int) -> Canaries:
    """Writes a source full of canaries.

    40 patients with two chest images each, and one in an archive, can be published; four more
    have a canary drawn into each of their eight images. The labels hold the SOP Instance UIDs as
    written.

    Args:
        folder: Is made, and must not be there.
        seed: The same seed plants the same canaries.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    planted = [_canary(_invent(rng, place.kind), place.where) for place in PLACES]
    chests: dict[str, _Chest] = {}
    with config.disable_value_validation():
        for maker, count in PATIENTS.items():
            drawn = _as_dicom(maker, *_draw(maker, count * IMAGES_PER_PATIENT, seed), seed)
            for index, (place, canary) in enumerate(zip(PLACES, planted, strict=True)):
                first = index % count * IMAGES_PER_PATIENT
                for number in range(first, first + IMAGES_PER_PATIENT):
                    place.plant(drawn[number].image, canary.text, len(chests) + number + 1)
            chests.update({chest.name: chest for chest in drawn})
        burned_in, with_text = _burn_in(rng, seed)
        chests.update({chest.name: chest for chest in with_text})
        chests, renamed = _rename(rng, chests)
        planted += renamed
        for name, chest in chests.items():
            _write(folder / name, chest.image)
        planted += _append(rng, folder, [name for name in chests if name.startswith("aster/")])
        archived, chest_in_archive, more = _add_siblings(rng, folder, seed)
        chests[archived] = chest_in_archive
    planted += more
    rows = [(str(chest.image.SOPInstanceUID), chest.title) for chest in chests.values()]
    labels = folder.parent / f"{folder.name}-labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("sop_instance_uid", "label"), *rows])
    canaries = Canaries(folder, labels, tuple(planted), burned_in, tuple(chests))
    missing = {canary.text for canary in planted} - {
        hit.canary for hit in search([folder], canaries)
    }
    if missing:
        raise AssertionError(f"not planted: {[c.where for c in planted if c.text in missing]}")
    return canaries


@dataclass(frozen=True)
class _Chest:
    """A phantom as a file: its name below the source, the file, and its class."""

    name: str
    image: Dataset
    title: str


def _draw(maker: str, count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    seed_of_maker = 1000 * list(PATIENTS).index(maker) + seed
    return draw_chest_phantoms(count, seed=seed_of_maker, size=SIZE)


def _as_dicom(
    maker: str, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int
) -> list[_Chest]:
    """The files that a maker's device writes, in the order of the drawings."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "dicom"
        write_chest_phantoms(
            folder,
            images,
            labels,
            maker=MAKERS[maker],
            seed=seed,
            classes=CLASSES,
            images_per_patient=(IMAGES_PER_PATIENT, IMAGES_PER_PATIENT),
        )
        read = {
            f"{maker}/{path.relative_to(folder).as_posix()}": dcmread(path)
            for path in folder.rglob("*")
            if path.is_file()
        }
    # The number at the end of an accession number counts the images.
    order = sorted(read, key=lambda name: str(read[name].AccessionNumber)[-6:])
    return [
        _Chest(name, read[name], CLASSES[label]) for name, label in zip(order, labels, strict=True)
    ]


def _burn_in(rng: np.random.Generator, seed: int) -> tuple[dict[str, str], list[_Chest]]:
    """Images with a canary in letters of 20 to 28 pixels: white, black, with and without a box."""
    burned_in: dict[str, str] = {}
    chests: list[_Chest] = []
    for maker, count in BURNED_IN.items():
        drawings, labels = _draw(maker, count, seed + 1)
        texts = [_invent(rng, "word") for _ in range(count)]
        for index, text in enumerate(texts):
            drawings[index] = _burn(drawings[index], text, 20 + 4 * (index % 3), index % 4)
        drawn = _as_dicom(maker, drawings, labels, seed + 1)
        burned_in.update({chest.name: text for chest, text in zip(drawn, texts, strict=True)})
        chests += drawn
    return burned_in, chests


def _burn(drawing: NDArray[np.uint8], text: str, size: int, style: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(drawing)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    at = [(6, 4), (30, 190), (20, 4), (10, 100)][style]
    box = draw.textbbox(at, text, font=font)
    around = (box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4)
    ink = [255, 0, 255, 0][style]
    if style != 0:
        draw.rectangle(around, fill=255 - ink)
    draw.text(at, text, fill=ink, font=font)
    return np.asarray(picture)


def _rename(
    rng: np.random.Generator, chests: dict[str, _Chest]
) -> tuple[dict[str, _Chest], list[Canary]]:
    """Puts canaries into the name of a folder and of two files, one of them in kanji."""
    folder, file = (_canary(_invent(rng, "word"), f"name of a {w}") for w in ("folder", "file"))
    foreign = _canary(_invent(rng, "kanji"), "name of a file in kanji")
    paths = ("aster/{0}/x/1.dcm", "aster/y/{1}.dcm", "borealis/z/{2}")
    names = [name for name in chests if name.startswith("aster/")][:2]
    names += [name for name in chests if name.startswith("borealis/")][:1]
    new = {
        old: path.format(folder.text, file.text, foreign.text)
        for old, path in zip(names, paths, strict=True)
    }
    return {new.get(name, name): c for name, c in chests.items()}, [folder, file, foreign]


def _write(path: Path, image: Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    dcmwrite(path, image, enforce_file_format=True)


def _append(rng: np.random.Generator, folder: Path, names: list[str]) -> list[Canary]:
    """Adds to two files what stands after their pixels: an element, and bytes that are none."""
    element = _canary(_invent(rng, "word"), "element after the pixels")
    loose = _canary(_invent(rng, "word"), "bytes after the dataset")
    encoded = b"\x10\0\0\x40" + b"LT" + len(element.text).to_bytes(2, "little")
    for name, content in ((names[4], encoded + element.text.encode()), (names[6], b"")):
        with (folder / name).open("ab") as file:
            file.write(content or b"\0\0" + loose.text.encode())
    return [element, loose]


def _add_siblings(
    rng: np.random.Generator, folder: Path, seed: int
) -> tuple[str, _Chest, list[Canary]]:
    """What lies between the images of an export; one image more is in the archive."""
    planted = []

    def invent(where: str) -> str:
        planted.append(_canary(_invent(rng, "word"), where))
        return planted[-1].text

    (folder / "reports").mkdir()
    (folder / "report.pdf").write_bytes(_pdf(invent("PDF file")))
    (folder / "patients.txt").write_text(f"1\t{invent('text file')}\n", encoding="utf-16")
    (folder / ".export.xml").write_text(f"<patient>{invent('hidden XML file')}</patient>\n")
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", invent("PNG text"))
    Image.new("L", (64, 64), 90).save(folder / "photo.png", pnginfo=note)
    exif = Image.Exif()
    exif[0x010E] = invent("EXIF")
    Image.new("L", (64, 64), 90).save(folder / "face.jpg", exif=exif)

    pdf = _object(EncapsulatedPDFStorage, "DOC", invent("patient of a PDF in DICOM"))
    pdf.DocumentTitle = invent("title of a PDF in DICOM")
    pdf.MIMETypeOfEncapsulatedDocument = "application/pdf"
    pdf.EncapsulatedDocument = _even(_pdf(invent("PDF in DICOM")))
    _write(folder / "reports" / "IM0001.dcm", pdf)
    report = _object(BasicTextSRStorage, "SR", invent("patient of a report"))
    finding = Dataset()
    finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
    finding.TextValue = f"{invent('text of a report')} has a normal chest."
    report.ValueType, report.ContentSequence = "CONTAINER", [finding]
    _write(folder / "reports" / "IM0002", report)
    directory = _object(MediaStorageDirectoryStorage, "", "")
    record = Dataset()
    record.DirectoryRecordType, record.PatientName = "PATIENT", invent("DICOMDIR")
    directory.DirectoryRecordSequence = [record]
    _write(folder / "DICOMDIR", directory)

    chest = _as_dicom("drift", *_draw("drift", 1, seed + 2), seed + 2)[0]
    chest.image.PatientName = invent("image in an archive")
    content = io.BytesIO()
    dcmwrite(content, chest.image, enforce_file_format=True)
    member = f"{invent('name of an archive member')}/1.dcm"
    with zipfile.ZipFile(folder / "backup.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content.getvalue())
        archive.writestr("readme.txt", invent("text in an archive"))
        archive.comment = invent("comment of an archive").encode()
    return f"backup.zip/{member}", chest, planted


def _object(sop_class: str, modality: str, patient: str) -> Dataset:
    """A DICOM object without pixels."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = f"2.25.{int.from_bytes(hashlib.md5(patient.encode()).digest())}"
    made.Modality, made.PatientName, made.PatientID = modality, patient, patient
    return made


def _pdf(text: str) -> bytes:
    page = f"BT /F1 12 Tf ({text}) Tj ET"
    return (
        f"%PDF-1.4\n1 0 obj <</Title ({text})>> endobj\n"
        f"2 0 obj <</Length {len(page)}>> stream\n{page}\nendstream endobj\ntrailer <<>>\n%%EOF\n"
    ).encode()


def _even(content: bytes) -> bytes:
    return content + b"\0" * (len(content) % 2)


# --- strings and what would give them away ---

_LETTERS = "BCDFGHJKLMNPRSTVWX23456789"
_SIGNS = {
    "kanji": "山田川上花木林森村松竹梅",
    "hanzi": "王李张刘陈杨赵黄周吴徐孙",
    "cyrillic": "БГДЖЗИЛПФЦЧШЭЮЯ",
}
_CHARSETS = {"kanji": "iso2022_jp", "hanzi": "gb18030", "cyrillic": "iso8859-5"}


def _invent(rng: np.random.Generator, kind: str) -> str:
    """A string of a kind that no one else would write.

    Dates are years away from those of phantoms, also after they were shifted.
    """
    month_and_day = f"{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    match kind:
        case "word":
            return "QZ" + "".join(rng.choice(list(_LETTERS), size=8))
        case "digits":
            return f"1{rng.integers(0, 10**9):09d}"
        case "old date":
            return f"18{rng.integers(70, 99)}{month_and_day}"
        case "future date":
            return f"20{rng.integers(70, 99)}{month_and_day}"
        case "time stamp":
            return f"2069{month_and_day}1122{rng.integers(10, 60)}.{rng.integers(0, 10**6):06d}"
        case _:
            return "".join(rng.choice(list(_SIGNS[kind]), size=7))


def _canary(text: str, where: str) -> Canary:
    needles = {}
    for charset in ("utf-8", *_CHARSETS.values()):
        try:
            needles.setdefault(text.encode(charset), charset)
        except UnicodeEncodeError:
            continue
    plain = text.encode()
    for order in ("utf-16-le", "utf-16-be"):
        needles[text.encode(order)] = order
    needles.setdefault(text.lower().encode(), "lower case")
    needles[plain.hex().encode()] = needles[plain.hex().upper().encode()] = "hex"
    for start in range(3):
        needles[_base64_within(plain, start)] = "base64"
    needles[plain[::-1]] = "reversed"
    for start in range(2):
        swapped = bytearray(plain[start : start + (len(plain) - start) // 2 * 2])
        swapped[::2], swapped[1::2] = swapped[1::2], swapped[::2]
        needles[bytes(swapped)] = "bytes swapped"
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(algorithm, plain)
        needles[digest.hexdigest().encode()] = needles[digest.digest()] = f"{algorithm} without key"
    if not text.isascii():
        needles[text.encode("ascii", "backslashreplace")] = "JSON escapes"
        needles["".join(f"%{byte:02X}" for byte in plain).encode()] = "percent escapes"
    if "date" in where.lower() and len(text) >= 8:
        needles[f"{text[:4]}-{text[4:6]}-{text[6:8]}".encode()] = "ISO date"
    if where == "overlay plane":
        needles.update(_plane_needles(text))
    if where == "unused high bits":
        nibbles = _nibbles(text)
        needles[(nibbles.astype("<u2") << 12).tobytes()[1:]] = "high bits"
        needles[(nibbles << 4).tobytes()] = "high bits as bytes"
    return Canary(text, where, needles)


def _base64_within(text: bytes, start: int) -> bytes:
    """The characters that only the text decides, `start` bytes after a group of three."""
    encoded = base64.b64encode(b"\0" * start + text)
    return encoded[-(-start * 8 // 6) : (start + len(text)) * 8 // 6]


def _plane_needles(text: str) -> dict[bytes, str]:
    plane = _overlay_plane(text)
    row = plane[np.abs(np.diff(plane.astype(int))).sum(axis=1).argmax()]
    inked = np.flatnonzero(row)
    part = row[inked[0] : inked[-1] + 1].astype(np.uint8)
    packed = np.packbits(row, bitorder="little").tobytes().strip(b"\0")
    return {packed: "overlay bits", part.tobytes(): "overlay", (part * 255).tobytes(): "overlay"}


# --- searching ---


def search(paths: Iterable[Path], canaries: Canaries) -> list[Hit]:
    """Every canary in the files below some paths, in their names, in archives and databases.

    The canaries drawn into pixels are searched for as text, too.
    """
    finder = _Finder(canaries)
    hits: dict[tuple[str, str], Hit] = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found = finder.in_bytes(file.relative_to(path.parent).as_posix().encode())
            if file.is_file():
                with tempfile.TemporaryDirectory() as scratch:
                    found += finder.in_file(file, Path(scratch))
            for canary, encoding, within in found:
                name = f"{file}/{within}" if within else str(file)
                hits.setdefault((canary.text, name), Hit(canary.text, canary.where, encoding, name))
    return list(hits.values())


def search_bytes(content: bytes, canaries: Canaries, name: str = "message") -> list[Hit]:
    """Every canary in a message, a log or captured traffic."""
    found = _Finder(canaries).in_bytes(content)
    return [Hit(canary.text, canary.where, encoding, name) for canary, encoding, _ in found]


_Found = list[tuple[Canary, str, str]]


class _Finder:
    """Finds many needles in one pass: by their first two bytes, the next two, then the rest."""

    def __init__(self, canaries: Canaries) -> None:
        burned = [_canary(text, f"pixels of {name}") for name, text in canaries.burned_in.items()]
        self._by_key: dict[bytes, list[tuple[bytes, Canary, str]]] = defaultdict(list)
        self._first, self._second = np.zeros(2**16, bool), np.zeros(2**16, bool)
        for canary in (*canaries.planted, *burned):
            for needle, encoding in canary.needles.items():
                self._by_key[needle[:4]].append((needle, canary, encoding))
                self._first[needle[0] | needle[1] << 8] = True
                self._second[needle[2] | needle[3] << 8] = True
        self.longest = max(len(n) for c in (*canaries.planted, *burned) for n in c.needles)

    def in_bytes(self, content: bytes, within: str = "") -> _Found:
        if len(content) < 4:
            return []
        single = np.frombuffer(content, np.uint8).astype(np.uint16)
        pairs = single[:-1] | single[1:] << 8
        found: dict[str, tuple[Canary, str, str]] = {}
        for at in np.flatnonzero(self._first[pairs[:-2]] & self._second[pairs[2:]]):
            for needle, canary, encoding in self._by_key.get(content[at : at + 4], ()):
                if content.startswith(needle, at):
                    found.setdefault(canary.text, (canary, encoding, within))
        return list(found.values())

    def in_stream(self, stream: BinaryIO, within: str = "") -> _Found:
        found, tail = [], b""
        while chunk := stream.read(_CHUNK):
            found += self.in_bytes(tail + chunk, within)
            tail = (tail + chunk)[-self.longest :]
        return found

    def in_file(self, path: Path, scratch: Path, within: str = "", depth: int = 0) -> _Found:
        """In a file and, four levels deep, in what is packed in it."""
        with path.open("rb") as stream:
            found = self.in_stream(stream, within)
        if depth == 4:
            return found
        for name, packed in _unpack(path):
            inner = f"{within}/{name}" if within else name
            found += self.in_bytes(name.encode("utf-8", "surrogateescape"), inner)
            copy = scratch / f"{depth}"
            with copy.open("wb") as file:
                shutil.copyfileobj(packed, file)
            found += self.in_file(copy, scratch, inner, depth + 1)
        return found


def _unpack(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """What is in an archive, a compressed file, a PDF or a database: names and contents."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(b"SQLite format 3\0"):
        yield "rows", io.BytesIO("\n".join(_rows_of(path)).encode("utf-8", "surrogateescape"))
    elif start.startswith(b"%PDF"):
        for number, packed in enumerate(
            re.findall(rb"stream\r?\n(.*?)endstream", path.read_bytes(), re.S)
        ):
            with contextlib.suppress(zlib.error):
                yield f"stream {number}", io.BytesIO(zlib.decompress(packed))
    elif start.startswith(b"PK\3\4") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    with archive.open(member) as content:
                        yield member.filename, content
    elif start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
        opener = {b"\x1f": gzip.open, b"B": bz2.open, b"\xfd": lzma.open}[start[:1]]
        with (
            contextlib.suppress(OSError, EOFError, lzma.LZMAError, zlib.error),
            opener(path) as content,
        ):
            yield "unpacked", content
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for entry in archive:
                if content := archive.extractfile(entry):
                    yield entry.name, content


def _rows_of(path: Path) -> Iterator[str]:
    """All rows of a database with its write-ahead log, read from a copy; blobs as text."""
    with tempfile.TemporaryDirectory() as place:
        for suffix in ("", "-wal"):
            if (source := path.with_name(path.name + suffix)).exists():
                shutil.copy(source, Path(place) / f"copy{suffix}")
        with contextlib.closing(sqlite3.connect(Path(place) / "copy")) as database:
            database.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
            tables = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
            for (table,) in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        is_blob = isinstance(value, bytes)
                        yield value.decode("latin-1") if is_blob else str(value)
