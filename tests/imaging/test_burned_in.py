"""What is suspect for text by its header, and what is not; no value of free text in a sentence."""

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from datasites.imaging.burned_in import SUSPECT_MODALITIES, suspicion
from datasites.imaging.problems import Reason

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTIFRAME_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.4"
DX, CT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2"
PHILIPS = {"Manufacturer": "Philips Medical Systems", "ManufacturerModelName": "iU22"}
GE = {"Manufacturer": "GE MEDICAL SYSTEMS", "ManufacturerModelName": "LightSpeed VCT"}
SIEMENS = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "SOMATOM Definition AS+"}
AXIAL, DERIVED = ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "MPR"]


def made(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.filterwarnings("ignore")  # odd values are meant
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        # What the file says
        ({"Modality": "DX", "BurnedInAnnotation": "YES"}, Reason.MARKED_BURNED_IN),
        ({"Modality": "DX", "BurnedInAnnotation": "YES "}, Reason.MARKED_BURNED_IN),
        ({"Modality": "DX", "BurnedInAnnotation": "NO"}, None),
        ({"Modality": "DX", "SOPClassUID": DX, "ImageType": ["ORIGINAL", "PRIMARY"]}, None),
        ({}, None),
        # Modalities
        *[({"Modality": modality}, Reason.SUSPECT_DEVICE) for modality in SUSPECT_MODALITIES],
        *[({"Modality": m, "BurnedInAnnotation": "NO"}, None) for m in SUSPECT_MODALITIES],
        *[({"Modality": modality}, None) for modality in ("CR", "DX", "MG", "CT", "MR", "XA")],
        # Secondary captures, whatever modality they claim
        ({"Modality": "CR", "SOPClassUID": SECONDARY_CAPTURE}, Reason.SUSPECT_DEVICE),
        ({"Modality": "CT", "SOPClassUID": MULTIFRAME_CAPTURE}, Reason.SUSPECT_DEVICE),
        ({"Modality": "CT", "SOPClassUID": CT}, None),
        (
            {"Modality": "CR", "SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "NO"},
            None,
        ),
        ({"Modality": "CR", "ConversionType": "DF"}, Reason.SUSPECT_DEVICE),
        ({"Modality": "CR", "ConversionType": "SYN"}, None),
        # Saved screens and reports
        ({"Modality": "CT", "ImageType": ["DERIVED", "SCREEN SAVE"]}, Reason.SUSPECT_DEVICE),
        (
            {"Modality": "MR", "ImageType": ["DERIVED", "REPORT"], "BurnedInAnnotation": "NO"},
            Reason.SUSPECT_DEVICE,
        ),
        ({"Modality": "MR", "ImageType": DERIVED}, None),
        ({"Modality": "CT", "SeriesDescription": "Dose Report"}, Reason.SUSPECT_DEVICE),
        # Devices: the size decides, and the mark does not help
        ({"Modality": "US", **PHILIPS, "Rows": 600}, Reason.SUSPECT_DEVICE),
        (
            {"Modality": "US", **PHILIPS, "Rows": 600, "BurnedInAnnotation": "NO"},
            Reason.SUSPECT_DEVICE,
        ),
        ({"Modality": "US", **PHILIPS, "Rows": 601, "BurnedInAnnotation": "NO"}, None),
        # Ordinary images of common scanners
        ({"Modality": "CT", **GE, "ImageType": AXIAL, "Rows": 512, "Columns": 512}, None),
        ({"Modality": "CT", **SIEMENS, "ImageType": AXIAL, "Rows": 512}, None),
        ({"Modality": "CT", "Manufacturer": "TOSHIBA", "ImageType": AXIAL, "Rows": 512}, None),
        ({"Modality": "MR", "Manufacturer": "SIEMENS", "ImageType": AXIAL}, None),
    ],
)
def test_suspicion_by_header(values: dict[str, object], reason: Reason | None) -> None:
    found = suspicion(made(**values))
    assert (found.reason if found else None) is reason


@pytest.mark.parametrize(
    ("suspects", "is_suspect"),
    [(SUSPECT_MODALITIES, True), (("US",), True), (("SC",), False), ((), False)],
)
def test_the_site_decides_which_modalities_are_suspect(
    suspects: tuple[str, ...], is_suspect: bool
) -> None:
    ultrasound = made(Modality="US", **PHILIPS, Rows=600)
    assert (suspicion(ultrasound, suspects) is not None) is is_suspect


def test_sentence_says_what_to_do_and_quotes_no_text() -> None:
    values = {"SeriesDescription": "Dose Report of Jane Doe", "StationName": "DOE"}
    found = suspicion(made(Modality="CT", **values))
    assert found is not None
    assert "Doe" not in str(found)
    assert "export the images without annotations" in found.detail


def test_unreadable_values_raise_nothing() -> None:
    dataset = made(Modality="CT")
    for tag in (0x00280301, 0x00080008, 0x00080070):
        value = b"\xff\x00\xfe"
        dataset[tag] = RawDataElement(Tag(tag), "FD", len(value), value, 0, False, True)
    assert suspicion(dataset) is None
