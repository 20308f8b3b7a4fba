"""Phantom files are DICOM as PS3.3 and PS3.10 want it, and show the drawing they were made from."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
)

from datasites.imaging.dicom_phantoms import (
    MAKERS,
    Maker,
    write_chest_phantoms,
    write_head_phantoms,
)
from datasites.imaging.head_phantoms import draw_head_phantoms
from datasites.imaging.phantoms import draw_chest_phantoms

CLASSES = ("clear", "opacity")

# PS3.3: attributes that must be there with a value (type 1), and that must be there (type 2).
COMMON = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality SamplesPerPixel "
    "PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelData",
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber "
    "ReferringPhysicianName SeriesNumber InstanceNumber Manufacturer",
)
MODALITIES = {
    "DX": (
        "PresentationIntentType ImageType PixelIntensityRelationship "
        "PixelIntensityRelationshipSign RescaleIntercept RescaleSlope RescaleType "
        "PresentationLUTShape LossyImageCompression PatientOrientation BurnedInAnnotation "
        "ImagerPixelSpacing ImageLaterality",
        "DetectorType AnatomicRegionSequence AcquisitionContextSequence",
    ),
    "CR": ("", "BodyPartExamined ViewPosition PatientOrientation"),
    "MR": (
        "ImageType PixelSpacing ImageOrientationPatient ImagePositionPatient FrameOfReferenceUID "
        "ScanningSequence SequenceVariant",
        "PositionReferenceIndicator SliceThickness PatientPosition ScanOptions MRAcquisitionType "
        "RepetitionTime EchoTime EchoTrainLength InversionTime",
    ),
}
SOP_CLASSES = {
    "DX": DigitalXRayImageStorageForPresentation,
    "CR": ComputedRadiographyImageStorage,
    "MR": MRImageStorage,
}


@pytest.fixture(scope="module")
def drawings() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Phantoms, and one image that has all grey levels."""
    images, labels = draw_chest_phantoms(12, seed=3, size=64)
    images[0] = np.arange(64 * 64).reshape(64, 64) % 256
    return images, labels


@pytest.fixture(scope="module", params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


@pytest.fixture(scope="module")
def chests(
    maker: Maker,
    drawings: tuple[NDArray[np.uint8], NDArray[np.int64]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("chests") / "dicom"
    write_chest_phantoms(folder, *drawings, maker=maker, seed=7, classes=CLASSES)
    return folder


@pytest.fixture(scope="module")
def heads(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "dicom"
    write_head_phantoms(folder, patients=3, seed=7, maker=maker, size=64, slices=4)
    return folder


def _read(folder: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _rows(labels: Path) -> list[list[str]]:
    return list(csv.reader(labels.read_text().splitlines()))


def _shown(image: Dataset) -> NDArray[np.float64]:
    """What a viewer shows, 0 black to 255 white, by pydicom's own transformations."""
    values = apply_modality_lut(image.pixel_array, image)
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    low, high = intercept, (2**image.BitsStored - 1) * slope + intercept
    if "VOILUTSequence" in image:
        low, high = 0, 2 ** image.VOILUTSequence[0].LUTDescriptor[2] - 1
    grey = (apply_voi_lut(values, image) - low) / (high - low) * 255
    return 255 - grey if image.PhotometricInterpretation == "MONOCHROME1" else grey


def test_a_chest_file_shows_its_drawing(
    chests: Path, maker: Maker, drawings: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    key = {"sop_instance_uid": "SOPInstanceUID", "accession_number": "AccessionNumber"}
    images = {image[key[maker.labelled_by]].value: image for image in _read(chests)}
    rows = _rows(chests.parent / "labels.csv")
    assert rows[0] == [maker.labelled_by, "label", "sex"]
    assert len(images) == len(rows) - 1 == len(drawings[0])
    for (name, label, sex), drawing, index in zip(rows[1:], *drawings, strict=True):
        shown = _shown(images[name])
        if maker.padding:
            assert shown.shape == (64, 64 + 2 * maker.padding)
            margin = shown[:, : maker.padding]
            assert np.all(margin == 0)
            shown = shown[:, maker.padding : -maker.padding]
        assert np.abs(shown - drawing).max() <= 1
        assert label == CLASSES[index]
        assert sex == images[name].PatientSex


def test_a_head_series_shows_its_drawing_in_order(heads: Path) -> None:
    images, labels = draw_head_phantoms(3, seed=7, size=64, slices=4)
    rows = _rows(heads.parent / "labels.csv")
    assert rows[0] == ["series_instance_uid", "label", "sex"]
    assert [row[1] for row in rows[1:]] == [("clear", "lesion")[label] for label in labels]
    files = _read(heads)
    for (series, _, sex), head in zip(rows[1:], images, strict=True):
        cuts = sorted(
            (file for file in files if file.SeriesInstanceUID == series),
            key=lambda file: file.ImagePositionPatient[2],
        )
        assert [cut.InstanceNumber for cut in cuts] == [1, 2, 3, 4]
        assert {cut.BodyPartExamined for cut in cuts} == {"HEAD"}
        assert {cut.PatientSex for cut in cuts} == {sex}
        assert len({cut.FrameOfReferenceUID for cut in cuts}) == 1
        assert all(cut.ImageOrientationPatient == [1, 0, 0, 0, 1, 0] for cut in cuts)
        steps = np.diff([float(cut.ImagePositionPatient[2]) for cut in cuts])
        assert np.allclose(steps, float(cuts[0].SpacingBetweenSlices), atol=1e-4)
        for cut, drawing in zip(cuts, head, strict=True):
            assert np.abs(_shown(cut) - drawing).max() <= 1


@pytest.mark.parametrize("kind", ["chests", "heads"])
def test_files_have_the_attributes_of_their_sop_class(
    kind: str, maker: Maker, request: pytest.FixtureRequest
) -> None:
    for image in _read(request.getfixturevalue(kind)):
        modality = maker.chest if kind == "chests" else "MR"
        assert image.Modality == modality
        assert image.SOPClassUID == SOP_CLASSES[modality]
        assert image.file_meta.MediaStorageSOPClassUID == image.SOPClassUID
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.file_meta.TransferSyntaxUID == maker.transfer_syntax
        for with_value, present in (COMMON, MODALITIES[modality]):
            for name in with_value.split():
                assert not image[name].is_empty, name
            for name in present.split():
                assert name in image, name
        assert image.BitsStored == maker.bits
        assert image.HighBit == maker.bits - 1
        assert image.BitsAllocated == (8 if maker.bits == 8 and modality != "MR" else 16)


def test_every_uid_is_a_valid_number_below_2_25(chests: Path, heads: Path) -> None:
    for image in _read(chests) + _read(heads):
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            assert re.fullmatch(r"2\.25\.[1-9]\d{30,38}", image[name].value)
    images = _read(chests)
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert len({image.StudyInstanceUID for image in images}) == len(images)


def test_file_names_hold_identifiers(chests: Path, heads: Path) -> None:
    for folder in (chests, heads):
        for path in folder.rglob("*"):
            if path.is_file():
                image = dcmread(path, stop_before_pixels=True)
                held = (
                    str(image.PatientName).replace("^", "_"),
                    image.PatientID,
                    image.AccessionNumber,
                    image.StudyInstanceUID,
                )
                assert any(value in path.relative_to(folder).as_posix() for value in held)


def test_private_blocks_hold_identifiers(chests: Path, maker: Maker) -> None:
    for image in _read(chests):
        if not maker.private_creator:
            assert not any(element.tag.is_private for element in image)
            continue
        block = image.private_block(0x0029, maker.private_creator)
        assert image.PatientID.encode() in block[0x20].value


@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 3), (2, 4)])
def test_patients_have_as_many_images_as_asked(low: int, high: int, tmp_path: Path) -> None:
    images, labels = draw_chest_phantoms(60, seed=1)
    write_chest_phantoms(
        tmp_path / "dicom",
        images,
        labels,
        maker=MAKERS["aster"],
        seed=1,
        classes=CLASSES,
        images_per_patient=(low, high),
    )
    visits: dict[str, set[str]] = {}
    for image in _read(tmp_path / "dicom"):
        visits.setdefault(image.PatientID, set()).add(image.StudyDate)
    counts = sorted(len(days) for days in visits.values())
    assert sum(counts) == 60
    # Only the last patient may have fewer, when the images run out.
    assert counts[1] == low
    assert counts[-1] == high


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(
    maker: Maker, tmp_path: Path, drawings: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    def files(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name / "dicom"
        write_chest_phantoms(folder, *drawings, maker=maker, seed=seed, classes=CLASSES)
        write_head_phantoms(folder / "heads", patients=1, seed=seed, maker=maker, size=64, slices=3)
        return {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }

    first = files("first", 1)
    assert files("again", 1) == first
    assert not set(first) & set(files("other", 2)) - {"labels.csv", "dicom/labels.csv"}


def test_hospitals_with_the_same_seed_have_other_patients(
    tmp_path: Path, drawings: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    numbers = set()
    for name in ("aster", "ember"):
        folder = tmp_path / name / "dicom"
        write_chest_phantoms(folder, *drawings, maker=MAKERS[name], seed=1, classes=CLASSES)
        numbers |= {(name, image.PatientID) for image in _read(folder)}
    assert len({number for _, number in numbers}) == len(numbers)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_head_phantoms(
        tmp_path / "dicom",
        patients=2,
        seed=1,
        maker=MAKERS["drift"],
        size=64,
        slices=3,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, "2 images need as many labels below 2"),
        ({"labels": np.array([0, 2])}, "2 images need as many labels below 2"),
        ({"seed": -1}, "`seed` is -1, allowed is at least 0"),
        ({"images_per_patient": (0, 1)}, r"`images_per_patient` is \(0, 1\)"),
        ({"images_per_patient": (3, 2)}, r"`images_per_patient` is \(3, 2\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    images, labels = draw_chest_phantoms(2, seed=1)
    arguments = {"labels": labels, "seed": 1, **changes}
    with pytest.raises(ValueError, match=f"Phantoms refused: .*{message}"):
        write_chest_phantoms(
            tmp_path / "dicom", images, maker=MAKERS["aster"], classes=CLASSES, **arguments
        )
