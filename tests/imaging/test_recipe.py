"""The recipe is complete, closed, readable by `deid`, and says truthfully what it claims."""

import warnings
from importlib.resources import files
from pathlib import Path

import pytest
from deid.config import DeidRecipe
from pydicom import Dataset, dcmread
from pydicom import data as pydicom_data
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from datasites.imaging.deidentify import Deidentifier
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.recipe import OPTIONS, Action, read_recipe, without_chatter

CT = Path(pydicom_data.__file__).parent / "test_files" / "CT_small.dcm"
FOLDER = Path(str(files("datasites.imaging") / "recipes"))


def action_of(keyword: str, *options: str) -> Action | None:
    return read_recipe(options).actions.get(tag_for_keyword(keyword))


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        # One row of Table E.1-1 for each action code.
        ("PatientAddress", Action.REMOVE),  # X
        ("AccessionNumber", Action.BLANK),  # Z
        ("StudyInstanceUID", Action.REMAP),  # U
        ("XRayDetectorID", Action.DUMMY),  # D
        ("ContentTime", Action.BLANK),  # Z/D
        ("OperatorsName", Action.REMOVE),  # X/Z/D
        ("ProtocolName", Action.REMOVE),  # X/D
        ("SourceImageSequence", Action.REMOVE),  # X/Z/U*
        ("EncapsulatedDocument", Action.REMOVE),  # D, of a kind that has no dummy
        # Ours
        ("PatientID", Action.PSEUDONYM),
        ("StudyDate", Action.YEAR),
        ("Rows", Action.KEEP),
        ("Manufacturer", None),  # not in the table, and on no list
    ],
)
def test_attribute_has_the_action_of_the_profile(keyword: str, action: Action | None) -> None:
    assert action_of(keyword) is action


def test_profile_has_every_row_of_the_table() -> None:
    profile = FOLDER / "basic-profile.deid"
    with without_chatter():
        rows = DeidRecipe([str(profile)]).get_actions()
    assert len(rows) == 653 + 3  # overlay data and comments are one of three patterns
    assert len({row["field"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("options", "keyword", "action"),
    [
        (("shift-dates",), "StudyDate", Action.SHIFT),
        (("shift-dates",), "StudyTime", Action.KEEP),
        (("shift-dates",), "PatientBirthDate", Action.BLANK),
        (("patient-characteristics",), "PatientAge", Action.AGE),
        (("patient-characteristics",), "EthnicGroup", Action.REMOVE),
        (("device-maker",), "Manufacturer", Action.KEEP),
        (("device-maker",), "DeviceSerialNumber", Action.REMOVE),
    ],
)
def test_option_changes_what_it_says(
    options: tuple[str, ...], keyword: str, action: Action
) -> None:
    assert action_of(keyword, *options) is action


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ((), ["113100", "113103", "113105"]),
        (("shift-dates",), ["113100", "113103", "113105", "113107"]),
        (("patient-characteristics",), ["113100", "113103", "113105", "113108"]),
        (("device-maker",), ["113100", "113103", "113105"]),  # makes no claim
    ],
)
def test_codes_are_those_of_the_options(options: tuple[str, ...], codes: list[str]) -> None:
    assert [code for code, _ in read_recipe(options).codes] == codes


def test_nothing_is_claimed_that_is_not_done() -> None:
    claimed = {code for code, _ in read_recipe(OPTIONS).codes}
    # Clean pixels, clean faces, full dates, device, UIDs, safe private, institution.
    assert not claimed & {"113101", "113102", "113106", "113109", "113110", "113111", "113112"}


def test_unknown_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="is not known") as refusal:
        read_recipe(["full-dates"])
    assert str(refusal.value) == (
        "De-identification option `full-dates` is not known; "
        "there are `device-maker`, `patient-characteristics`, `shift-dates`."
    )


def test_digest_changes_with_the_options_and_not_with_their_order() -> None:
    digests = {read_recipe(options).sha256 for options in [(), *((name,) for name in OPTIONS)]}
    assert len(digests) == 4
    assert read_recipe(OPTIONS[::-1]).sha256 == read_recipe(OPTIONS).sha256


def test_reading_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with without_chatter():
        DeidRecipe([str(FOLDER / "kept-attributes.deid")])
    assert capfd.readouterr() == ("", "")


def test_every_kept_attribute_of_words_has_a_list_of_words() -> None:
    recipe = read_recipe(OPTIONS)
    kept = [tag for tag, action in recipe.actions.items() if action is Action.KEEP]
    words = [tag for tag in kept if dictionary_VR(tag) in ("CS", "LO", "SH")]
    assert len(words) >= 40
    assert all(recipe.words[tag] for tag in words), [keyword_for_tag(tag) for tag in words]


def test_no_kept_attribute_can_hold_free_text_or_bytes() -> None:
    recipe = read_recipe(OPTIONS)
    kept = {tag for tag, action in recipe.actions.items() if action is Action.KEEP}
    kinds = {kind for tag in kept for kind in dictionary_VR(tag).split(" or ")}
    assert not kinds & {"PN", "LT", "ST", "UT", "UC", "UR", "AE", "OB", "OW", "UN", "AS", "DA"}


def test_deid_itself_does_the_same_to_top_level_attributes() -> None:
    """`deid` runs our text with our functions; its own limits are left out of the comparison."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what pydicom will remove
        from deid.dicom.parser import DicomParser
    pseudonyms = Pseudonyms(b"7" * 32)
    original = dcmread(CT, stop_before_pixels=True)
    ours = Deidentifier(read_recipe(), pseudonyms)(original).header

    copy = dcmread(CT, stop_before_pixels=True)
    files_of_recipe = [
        str(FOLDER / f"{name}.deid") for name in ("basic-profile", "kept-attributes")
    ]
    with without_chatter():
        parser = DicomParser(copy, recipe=DeidRecipe(files_of_recipe), disable_skip=True)
        parser.define("remap_uid", lambda field, **_: pseudonyms.uid(str(field.element.value)))
        parser.define(
            "patient_pseudonym", lambda field, **_: pseudonyms.patient(field.element.value)
        )
        parser.define("cut_to_year", lambda field, **_: f"{field.element.value[:4]}0101")
        parser.define("dummy", lambda **_: "REMOVED")
        parser.define("standard_codes", lambda **_: None)
        parser.parse(remove_private=True)
    theirs: Dataset = parser.dicom

    blanked = {tag for tag, action in read_recipe().actions.items() if action is Action.BLANK}
    compared = 0
    for tag in set(theirs.keys()) | set(ours.keys()):
        if tag in blanked:  # with `REMOVE ALL`, `deid` removes what it has blanked
            assert not theirs.get(tag) or not theirs[tag].value
        elif tag in (0x00120062, 0x00120063, 0x00120064, 0x00280303):
            assert tag in ours  # the declaration, which `deid` does not write
        elif tag in theirs and theirs[tag].is_empty:
            assert tag not in ours  # ours keeps nothing that is empty
        else:
            assert tag in theirs, tag
            assert tag in ours, tag
            expected = theirs[tag].value
            if theirs[tag].VR in ("DS", "IS"):
                assert ours[tag].value == pytest.approx(expected, rel=1e-5)
            else:
                assert ours[tag].value == expected
            compared += 1
    assert compared > 40
