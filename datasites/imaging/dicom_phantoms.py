"""Writes phantoms as the DICOM files a hospital would have: every maker in its own way.

The patients, their names, numbers, addresses and doctors are invented, and each file is full of
them, so that de-identification has something to do. The same seed and maker give the same bytes.

References:
    DICOM PS3.3 A.2 (CR), A.4 (MR), A.26 (DX) say which attributes an image has; C.7.6.3 how its
    pixels are stored; C.11.2 how stored values become grey. PS3.10 section 7 describes the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
)

from datasites.imaging.head_phantoms import draw_head_phantoms, slice_heights
from datasites.imaging.invented_patients import Inventor, Patient, Study, patients_of

Progress = Callable[[int, int], None]
"""Called with the number of files written and the number of files to write."""

LABELS = "labels.csv"
HEAD_CLASSES = ("clear", "lesion")
_LUT_TOP = 4095
_FIELD_MM = 240
_IMPLEMENTATION = "2.25.302043790172249692526321623266752743501"


@dataclass(frozen=True)
class Maker:
    """How one manufacturer's devices write images.

    Attributes:
        chest: Modality of its chest images, `DX` or `CR`.
        bits: Bits Stored, 8, 10, 12, 14 or 16, of Bits Allocated 8 or 16 (always 16 for MR).
        photometric: What the lowest value is shown as: `MONOCHROME1` white, `MONOCHROME2` black.
        voi: What makes stored values grey: a window, a VOI LUT, or nothing.
        slope, intercept: Rescale of CR and MR; a DX image For Presentation has 1 and 0.
        transfer_syntax: UID of Explicit or Implicit VR LE, RLE Lossless or JPEG 2000 Lossless.
        private_creator: Owner of a private block with identifiers in it; empty for none.
        padding: Columns of Pixel Padding Value on each side of a chest image.
        file_name: Path of a file from `name`, `patient`, `birth`, `date`, `accession`, `study`,
            `series`, `sop` and `number`.
        labelled_by: What the first column of the labels of its chest images holds.
    """

    manufacturer: str
    model: str
    station: str
    chest: Literal["CR", "DX"]
    bits: int
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    voi: Literal["window", "lut", "none"]
    transfer_syntax: str
    file_name: str
    slope: float = 1
    intercept: float = 0
    private_creator: str = ""
    padding: int = 0
    labelled_by: Literal["sop_instance_uid", "accession_number"] = "sop_instance_uid"

    @cached_property
    def stored(self) -> NDArray[np.uint16]:
        """The stored value of each grey level of a drawing, (256,)."""
        grey = np.linspace(0, 1, 256)
        if self.photometric == "MONOCHROME1":
            grey = grey[::-1]
        low, high = self._range
        stored: NDArray[np.uint16] = np.rint(low + grey * (high - low)).astype(np.uint16)
        if self.voi == "lut":
            distance = np.abs(self.lut - grey[:, None] * _LUT_TOP)
            stored = distance.argmin(axis=1).astype(np.uint16)
        return stored

    @cached_property
    def lut(self) -> NDArray[np.uint16]:
        """The VOI LUT: an S-shaped film curve from every stored value to 12 bits."""
        across = np.linspace(-1, 1, 2**self.bits)
        curve = 0.5 + 0.5 * np.tanh(1.3 * across) / np.tanh(1.3)
        lut: NDArray[np.uint16] = np.rint(curve * _LUT_TOP).astype(np.uint16)
        return lut

    def rescale(self, modality: str) -> tuple[float, float]:
        """Rescale Slope and Intercept of its images of a modality."""
        return (1, 0) if modality == "DX" else (self.slope, self.intercept)

    def window(self, modality: str) -> tuple[float, float]:
        """Window Center and Width after the rescale (PS3.3 C.11.2.1.2.1, function LINEAR)."""
        slope, intercept = self.rescale(modality)
        low, high = (value * slope + intercept for value in self._range)
        return (low + high + 1) / 2, high - low + 1

    @property
    def padding_value(self) -> int:
        """The stored value at the end of the range that is shown black."""
        return 0 if self.photometric == "MONOCHROME2" else 2**self.bits - 1

    @property
    def _range(self) -> tuple[int, int]:
        """Stored values of black and white; a window leaves some room on both sides."""
        top = 2**self.bits - 1
        return (top // 16, top - top // 8) if self.voi == "window" else (0, top)


MAKERS = {
    "aster": Maker(
        manufacturer="Aster Phantom Works",
        model="Invented DX 12",
        station="ASTER-DX-01",
        chest="DX",
        bits=12,
        photometric="MONOCHROME2",
        voi="window",
        transfer_syntax=ExplicitVRLittleEndian,
        file_name="{name}_{patient}/{date}_{accession}/DX_{series}/IM{number:05d}.dcm",
        private_creator="ASTER PHANTOM 1.0",
    ),
    "borealis": Maker(
        manufacturer="Borealis Invented Imaging",
        model="Invented CR 10",
        station="BOREALIS-CR-7",
        chest="CR",
        bits=10,
        photometric="MONOCHROME1",
        voi="lut",
        transfer_syntax=ImplicitVRLittleEndian,
        file_name="{patient}/{study}/{series}/{sop}",
        private_creator="BOREALIS HEADER",
        labelled_by="accession_number",
    ),
    "cobalt": Maker(
        manufacturer="Cobalt Make-Believe Medical",
        model="Invented DX 14",
        station="COBALT_ROOM_3",
        chest="DX",
        bits=14,
        photometric="MONOCHROME1",
        voi="window",
        transfer_syntax=JPEG2000Lossless,
        file_name="{birth}-{name}/{accession}/{number:04d}.DCM",
        padding=3,
    ),
    "drift": Maker(
        manufacturer="Drift Fictional Radiography",
        model="Invented CR 8",
        station="DRIFT1",
        chest="CR",
        bits=8,
        photometric="MONOCHROME2",
        voi="none",
        transfer_syntax=RLELossless,
        file_name="DICOM/{patient}/{date}/I{number:07d}",
    ),
    "ember": Maker(
        manufacturer="Ember Pretend Systems",
        model="Invented CR 16",
        station="EMBER-SUITE-B",
        chest="CR",
        bits=16,
        photometric="MONOCHROME2",
        voi="window",
        transfer_syntax=ExplicitVRLittleEndian,
        file_name="archive/{study}/{name}.{number:03d}.dcm",
        slope=0.25,
        intercept=-1024,
        private_creator="EMBER NOTES",
    ),
}


def write_chest_phantoms(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    maker: Maker,
    seed: int,
    classes: Sequence[str],
    images_per_patient: tuple[int, int] = (1, 3),
    progress: Progress | None = None,
) -> Path:
    """Writes drawings as chest radiographs of invented patients, one study per image.

    Seen through its modality and VOI transformations, scaled to 0..255 and inverted if it is
    MONOCHROME1, a file is its drawing to within one grey level.

    Args:
        folder: Is made where it is missing; the files lie in folders below it.
        images: (N, H, W), bone bright.
        labels: (N,), indices of `classes`.
        maker: Of the device, which decides how values are stored and files are named.
        seed: Not negative; with the maker's station it decides who the patients are.
        classes: Names of the classes, as they stand in the labels.
        images_per_patient: Least and most images of one patient.
        progress: Is told how far it is.

    Returns:
        The path of `labels.csv` beside the folder, with the columns `sop_instance_uid` or
        `accession_number`, `label` and `sex`.

    Raises:
        ValueError: The labels do not fit the images or the classes.
    """
    if labels.shape != (len(images),) or not set(labels.tolist()) <= set(range(len(classes))):
        raise ValueError(
            f"Phantoms refused: {len(images)} images need as many labels below {len(classes)}, "
            f"one for each image; labels have the shape {labels.shape}."
        )
    invent = Inventor(maker.station, seed)
    patients = patients_of(invent, len(images), images_per_patient)
    header = _encode(_chest_header(maker))
    rows = []
    for index, (patient, visit) in enumerate(patients):
        study = Study(invent, patient, visit, number=index + 1)
        series = invent.uid("series", f"{index}.1")
        sop = invent.uid("instance", f"{index}.1.1")
        _set_patient(header, patient, study)
        _set_study(header, maker, study, "Chest PA (invented)")
        header.SeriesInstanceUID, header.SOPInstanceUID = series, sop
        header.SeriesNumber = header.InstanceNumber = 1
        stored = maker.stored[images[index]]
        if maker.padding:
            sides = ((0, 0), (maker.padding, maker.padding))
            stored = np.pad(stored, sides, constant_values=maker.padding_value)
        _set_pixels(header, maker, stored)
        _write(folder, header, maker, patient, study)
        key = sop if maker.labelled_by == "sop_instance_uid" else study.accession
        rows.append((key, classes[labels[index]], patient.sex))
        if progress:
            progress(index + 1, len(images))
    return _write_labels(folder, maker.labelled_by, rows)


def write_head_phantoms(
    folder: Path,
    *,
    patients: int,
    seed: int,
    maker: Maker,
    size: int = 96,
    slices: int = 5,
    positive_share: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Draws MR series of heads and writes them, one axial series per invented patient.

    Args:
        folder: Is made where it is missing; the files lie in folders below it.
        patients: At least 1.
        seed: Not negative; decides the drawings and, with the maker's station, the patients.
        maker: Of the scanner, which decides how values are stored and files are named.
        size: Rows and columns, 64 to 256.
        slices: Of each series, 3 to 12.
        positive_share: Share of patients with a lesion.
        progress: Is told how far it is.

    Returns:
        The path of `labels.csv` beside the folder, with the columns `series_instance_uid`,
        `label` (`clear` or `lesion`) and `sex`.

    Raises:
        ValueError: A number is out of its range.
    """
    images, labels = draw_head_phantoms(
        patients, seed=seed, size=size, slices=slices, positive_share=positive_share
    )
    invent = Inventor(maker.station, seed)
    spacing = _FIELD_MM / size
    heights = slice_heights(slices) * (_FIELD_MM / 2)
    header = _head_header(maker, size)
    header.PixelSpacing = [_decimal(spacing), _decimal(spacing)]
    header.SliceThickness = header.SpacingBetweenSlices = _decimal(heights[1] - heights[0])
    header = _encode(header)
    corner = _decimal(spacing / 2 - _FIELD_MM / 2)
    rows, written = [], 0
    for index in range(patients):
        patient = invent.patient(index)
        study = Study(invent, patient, 0, number=index + 1)
        _set_patient(header, patient, study)
        _set_study(header, maker, study, "Head MR (invented)")
        header.SeriesInstanceUID = invent.uid("series", f"{index}.1")
        header.FrameOfReferenceUID = invent.uid("frame", f"{index}")
        header.SeriesNumber = 3
        for number, (image, height) in enumerate(zip(images[index], heights, strict=True), start=1):
            header.SOPInstanceUID = invent.uid("instance", f"{index}.1.{number}")
            header.InstanceNumber = number
            header.ImagePositionPatient = [corner, corner, _decimal(height)]
            header.SliceLocation = _decimal(height)
            _set_pixels(header, maker, maker.stored[image])
            _write(folder, header, maker, patient, study)
            written += 1
            if progress:
                progress(written, patients * slices)
        rows.append((str(header.SeriesInstanceUID), HEAD_CLASSES[labels[index]], patient.sex))
    return _write_labels(folder, "series_instance_uid", rows)


def _header(maker: Maker, sop_class: str, modality: str) -> Dataset:
    """What all images of a device have in common."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    header.file_meta.TransferSyntaxUID = UID(maker.transfer_syntax)
    header.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    header.file_meta.ImplementationVersionName = "PHANTOM_1"
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = sop_class
    header.Modality = modality
    header.Manufacturer = maker.manufacturer
    header.ManufacturerModelName = maker.model
    header.StationName = maker.station
    header.DeviceSerialNumber = f"SN-{maker.station}"
    header.SoftwareVersions = "phantom 1"
    header.InstitutionName = "Invented General Hospital"
    header.InstitutionAddress = "1 Make-Believe Road, Inventington"
    header.InstitutionalDepartmentName = "Imaginary Radiology"
    header.OperatorsName = "Shutterley^Bram"
    header.BurnedInAnnotation = "NO"
    header.LossyImageCompression = "00"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = maker.photometric
    header.BitsAllocated = 8 if maker.bits == 8 and modality != "MR" else 16
    header.BitsStored = maker.bits
    header.HighBit = maker.bits - 1
    header.PixelRepresentation = 0
    slope, intercept = maker.rescale(modality)
    if modality == "DX" or (slope, intercept) != (1, 0):
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        header.RescaleType = "US"
    if maker.voi == "window":
        center, width = maker.window(modality)
        header.WindowCenter, header.WindowWidth = _decimal(center), _decimal(width)
        header.WindowCenterWidthExplanation = "STANDARD"
    elif maker.voi == "lut":
        table = Dataset()
        table.LUTDescriptor = [2**maker.bits % 2**16, 0, 12]
        table.LUTExplanation = "FILM CURVE"
        table.add_new("LUTData", "OW", maker.lut.astype("<u2").tobytes())
        header.VOILUTSequence = [table]
    return header


def _chest_header(maker: Maker) -> Dataset:
    is_digital = maker.chest == "DX"
    sop_class = (
        DigitalXRayImageStorageForPresentation if is_digital else ComputedRadiographyImageStorage
    )
    header = _header(maker, sop_class, maker.chest)
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.BodyPartExamined = "CHEST"
    header.ViewPosition = "PA"
    header.PatientOrientation = ["L", "F"]
    header.ImagerPixelSpacing = [_decimal(3.0), _decimal(3.0)]
    header.KVP = 120
    if maker.padding:
        header.PixelPaddingValue = maker.padding_value
    if is_digital:
        header.ImageType = ["ORIGINAL", "PRIMARY", ""]
        header.PresentationIntentType = "FOR PRESENTATION"
        header.PresentationLUTShape = (
            "IDENTITY" if maker.photometric == "MONOCHROME2" else "INVERSE"
        )
        header.PixelIntensityRelationship = "LOG"
        header.PixelIntensityRelationshipSign = -1
        header.ImageLaterality = "U"
        header.DetectorType = "SCINTILLATOR"
        header.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
        header.AcquisitionContextSequence = []
    return header


def _head_header(maker: Maker, size: int) -> Dataset:
    header = _header(maker, MRImageStorage, "MR")
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "IR"]
    header.BodyPartExamined = "HEAD"
    header.PatientPosition = "HFS"
    header.PositionReferenceIndicator = ""
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ScanningSequence = ["SE", "IR"]
    header.SequenceVariant = ["SK", "SP"]
    header.ScanOptions = ""
    header.MRAcquisitionType = "2D"
    header.SequenceName = "invented_flair"
    header.RepetitionTime, header.EchoTime, header.InversionTime = 9000, 120, 2500
    header.EchoTrainLength = 16
    header.MagneticFieldStrength = 1.5
    header.AcquisitionMatrix = [0, size, size, 0]
    return header


def _encode(header: Dataset) -> Dataset:
    """The header with its values as bytes, which pydicom writes three times as fast."""
    content = io.BytesIO()
    header.file_meta.MediaStorageSOPInstanceUID = UID("2.25.0")
    dcmwrite(content, header, enforce_file_format=True)
    content.seek(0)
    return dcmread(content)


def _set_patient(header: Dataset, patient: Patient, study: Study) -> None:
    header.PatientName = patient.name
    header.PatientID = patient.identifier
    header.PatientBirthDate = f"{patient.birth:%Y%m%d}"
    header.PatientSex = patient.sex
    header.PatientAge = f"{study.age:03d}Y"
    header.PatientAddress = patient.address
    header.PatientTelephoneNumbers = patient.telephone
    header.PatientComments = f"Invented; asked for by {study.referring.partition('^')[0]}"


def _set_study(header: Dataset, maker: Maker, study: Study, description: str) -> None:
    day = f"{study.day:%Y%m%d}"
    header.StudyInstanceUID = study.uid
    header.StudyID = study.accession[-6:]
    header.AccessionNumber = study.accession
    header.StudyDescription = header.SeriesDescription = description
    header.ReferringPhysicianName = study.referring
    header.PerformingPhysicianName = study.performing
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = day
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = study.time
    request = Dataset()
    request.RequestedProcedureID = f"RP{study.accession}"
    request.RequestedProcedureDescription = description
    request.ScheduledProcedureStepID = f"SPS{study.accession}"
    header.RequestAttributesSequence = [request]
    if maker.private_creator:
        block = header.private_block(0x0029, maker.private_creator, create=True)
        block.add_new(0x10, "LO", str(header.PatientName))
        block.add_new(0x11, "DA", day)
        block.add_new(0x20, "OB", f"{header.PatientID}:{study.accession}".encode())


def _set_pixels(header: Dataset, maker: Maker, stored: NDArray[np.uint16]) -> None:
    header.Rows, header.Columns = stored.shape
    dtype = "<u2" if header.BitsAllocated == 16 else "u1"
    values = stored.astype(dtype)
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    if maker.transfer_syntax in (RLELossless, JPEG2000Lossless):
        # RLE compresses the bytes of Bits Allocated, whatever is stored in them.
        is_rle = maker.transfer_syntax == RLELossless
        encoded = get_encoder(maker.transfer_syntax).encode(
            values,
            encoding_plugin="pylibjpeg",
            rows=header.Rows,
            columns=header.Columns,
            samples_per_pixel=1,
            number_of_frames=1,
            photometric_interpretation=maker.photometric,
            bits_allocated=header.BitsAllocated,
            bits_stored=header.BitsAllocated if is_rle else header.BitsStored,
            pixel_representation=0,
        )
        header.add_new("PixelData", "OB", encapsulate([encoded]))
    else:
        content = values.tobytes()
        content += b"\0" * (len(content) % 2)
        header.add_new("PixelData", "OB" if dtype == "u1" else "OW", content)


def _write(folder: Path, header: Dataset, maker: Maker, patient: Patient, study: Study) -> None:
    path = folder / maker.file_name.format(
        name=patient.name.replace("^", "_"),
        patient=patient.identifier,
        birth=f"{patient.birth:%Y%m%d}",
        date=f"{study.day:%Y%m%d}",
        accession=study.accession,
        study=header.StudyInstanceUID,
        series=header.SeriesInstanceUID,
        sop=header.SOPInstanceUID,
        number=int(header.InstanceNumber),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    dcmwrite(content, header, enforce_file_format=True)
    path.write_bytes(content.getvalue())


def _write_labels(folder: Path, key: str, rows: list[tuple[str, str, str]]) -> Path:
    path = folder.parent / LABELS
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((key, "label", "sex"))
        writer.writerows(rows)
    return path


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _decimal(number: float) -> str:
    """A number as a decimal string of at most 16 characters (PS3.5 6.2, DS)."""
    return f"{number:.8g}"
