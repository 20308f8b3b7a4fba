"""Which images may show a face, by what their header says."""

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from datasites.imaging.recognisable import shows_head


def made(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def region(value: str, scheme: str, meaning: str = "") -> list[Dataset]:
    return [made(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("values", "answer"),
    [
        # Body part
        ({"Modality": "CT", "BodyPartExamined": "HEAD"}, "yes"),
        ({"Modality": "MR", "BodyPartExamined": "BRAIN"}, "yes"),
        ({"Modality": "PT", "BodyPartExamined": "WHOLEBODY"}, "yes"),
        ({"Modality": "CT", "BodyPartExamined": "WHOLE BODY"}, "yes"),
        ({"Modality": "MR", "BodyPartExamined": "NECK"}, "possibly"),
        ({"Modality": "MR", "BodyPartExamined": "CSPINE"}, "possibly"),
        ({"Modality": "CT", "BodyPartExamined": "CHEST"}, "no"),
        ({"Modality": "MR", "BodyPartExamined": "KNEE"}, "no"),
        ({"Modality": "MR", "BodyPartExamined": "ANOTHER"}, "possibly"),
        ({"Modality": "CT", "BodyPartExamined": "CHEST", "StudyDescription": "HEAD"}, "possibly"),
        # Codes, of both schemes; what a file calls a known code does not count
        ({"Modality": "CT", "AnatomicRegionSequence": region("T-D1100", "SRT")}, "yes"),
        ({"Modality": "CT", "AnatomicRegionSequence": region("69536005", "SCT")}, "yes"),
        ({"Modality": "CT", "AnatomicRegionSequence": region("80891009", "SCT", "Head")}, "no"),
        ({"Modality": "CT", "AnatomicRegionSequence": region("1", "99X")}, "possibly"),
        # Words, where nobody names a body part
        ({"Modality": "MR", "StudyDescription": "MRT Schädel nativ"}, "yes"),
        ({"Modality": "CT", "SeriesDescription": "CCT 5.0"}, "yes"),
        ({"Modality": "MR", "ProtocolName": "t1_mpr_brain_sag"}, "yes"),
        ({"Modality": "MR", "StudyDescription": "IRM cérébrale"}, "yes"),
        ({"Modality": "CT", "StudyDescription": "CT Thorax"}, "no"),
        ({"Modality": "CT", "StudyDescription": "Thorax and head"}, "yes"),
        ({"Modality": "CT", "StudyDescription": "study 7"}, "possibly"),
        ({"Modality": "CT"}, "possibly"),
        ({"Modality": "MR"}, "possibly"),
        # Other modalities
        ({"Modality": "DX", "BodyPartExamined": "SKULL"}, "no"),
        ({"Modality": "US"}, "no"),
        ({}, "no"),
        ({"Modality": "XC"}, "possibly"),
        ({"Modality": "OP"}, "possibly"),
        ({"Modality": "XC", "BodyPartExamined": "FACE"}, "possibly"),
        ({"Modality": "XC", "BodyPartExamined": "HAND"}, "no"),
    ],
)
def test_head_is_recognised(values: dict[str, object], answer: str) -> None:
    assert shows_head(made(**values)) == answer


def test_region_of_an_enhanced_frame_counts() -> None:
    anatomy = made(AnatomicRegionSequence=region("T-D1100", "SRT"))
    group = made(FrameAnatomySequence=[anatomy])
    assert shows_head(made(Modality="MR", SharedFunctionalGroupsSequence=[group])) == "yes"


def test_unreadable_header_is_not_taken_for_harmless() -> None:
    dataset = made(Modality="CT")
    value = b"\xff\xfe\x00"
    dataset[0x00180015] = RawDataElement(Tag(0x00180015), "FD", 3, value, 0, False, True)
    assert shows_head(dataset) == "possibly"
