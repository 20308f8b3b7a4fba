"""De-identifies DICOM headers by a recipe: a new header is made, the original is only read.

Guarantee, per instance: the new header holds only attributes that the recipe names, with values of
a closed form (numbers, listed words, UIDs of the standard, keyed hashes, dates as the recipe says).
No text of the original is copied. It assumes that the secret of the pseudonyms stays at the site.

The file decides nothing: kind of value (VR), names and meanings come from pydicom's dictionary.
Values are read from their bytes here, because they may be anything; what does not read as what it
should be is removed, and nothing raises. Pixel data (group 7FE0) is neither read nor counted.

References: DICOM PS3.15 Annex E; PS3.5 section 6.2 for the form of values.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from pydicom import Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.recipe import NUMBERS, WORDS, Action, Recipe

MAXIMUM_DEPTH = 8
MAXIMUM_ELEMENTS = 100_000
MAXIMUM_VALUES = 64
LARGEST_NUMBER = 1e6

PRIVATE = "private tags"
NOT_LISTED = "not on the list of what is kept"
TOO_MANY = "elements beyond the limit"

_PIXEL_GROUP = 0x7FE0
_NOT_IN_A_DATASET = frozenset({0x0000, 0x0002, 0x0004})
"""Groups of messages, file meta and directories: a damaged file may have them among the rest."""
_OLDEST_AGE = "090Y"
_AMBIGUOUS = frozenset({"US or SS", "US or OW", "US or SS or OW", "OB or OW"})
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})? *")
_DATE = re.compile(r"((?:19|20)\d\d)\.?(\d\d)\.?(\d\d)")
_MOMENT = re.compile(r"((?:19|20)\d{6})(\d{2}(?:\d{2}(?:\d{2})?)?)?(?:\.\d{1,6})?([+-]\d{4})?")
_TIME = re.compile(r"((?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d)?)?)(?:\.\d{1,6})?")
_AGE = re.compile(r"(\d{3})([DWMY])")
_DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000D"}
_DUMMY_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})

_PATIENT_ID, _STUDY_UID, _TRANSFER_SYNTAX = 0x00100020, 0x0020000D, 0x00020010
_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _SIGNED = 0x00080005, 0x00080016, 0x00080018, 0x00280103


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A new header and what became of every element of the original.

    Attributes:
        header: Without pixel data; its `file_meta` is new.
        actions: How often each of `removed`, `emptied`, `replaced`, `shifted`, `cut to the year`,
            `remapped` and `kept` befell an attribute, as `("(0010,0010) PatientName", "emptied")`.
            Names come from the dictionary; private and unknown tags have one name each.
    """

    header: Dataset
    actions: Counter[tuple[str, str]]


@dataclass(slots=True)
class _Run:
    """What one call carries through the levels of one dataset."""

    patient: str
    days: int
    is_signed: bool
    elements: int = 0
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)


class Deidentifier:
    """Applies one recipe with one site's pseudonyms."""

    def __init__(self, recipe: Recipe, pseudonyms: Pseudonyms) -> None:
        self._recipe, self._pseudonyms = recipe, pseudonyms
        self._actions, self._words = dict(recipe.actions), dict(recipe.words)
        self._done = {
            Action.KEEP: "kept",
            Action.SHIFT: "shifted",
            Action.REMAP: "remapped",
            Action.PSEUDONYM: "replaced",
            Action.YEAR: "cut to the year",
            Action.DUMMY: "replaced",
            Action.AGE: "replaced",
            Action.CODES: "replaced",
        }

    def __call__(self, dataset: Dataset) -> Deidentified:
        """The de-identified header; `dataset` stays as it is, and nothing in it can raise."""
        patient_id = identify_patient(dataset)
        patient = self._pseudonyms.patient(patient_id) if patient_id else ""
        run = _Run(
            patient=patient,
            days=self._pseudonyms.days(patient or _first_text(dataset, _STUDY_UID)),
            is_signed=_first_number(dataset, _SIGNED) == 1,
        )
        header = self._clean(dataset, run, depth=0)
        self._declare(header)
        header.file_meta = _make_file_meta(dataset, header)
        return Deidentified(header, run.actions)

    def _clean(self, dataset: Dataset, run: _Run, depth: int) -> Dataset:
        clean = Dataset()
        for tag in sorted(dataset.keys()):
            number = int(tag)
            if number >> 16 == _PIXEL_GROUP:
                continue
            run.elements += 1
            if run.elements > MAXIMUM_ELEMENTS:
                run.actions[TOO_MANY, "removed"] += 1
                break
            action = self._actions.get(number, Action.REMOVE)
            if number >> 16 in _NOT_IN_A_DATASET:
                action = Action.REMOVE
            new, done = None, "removed"
            if action is not Action.REMOVE:
                try:
                    new, done = self._apply(action, number, dataset, run, depth)
                except Exception:  # whatever a hostile value does, it is removed
                    new, done = None, "removed"
            if new is not None:
                clean.add(new)
            run.actions[_name(number), done] += 1
        return clean

    def _apply(
        self, action: Action, tag: int, dataset: Dataset, run: _Run, depth: int
    ) -> tuple[DataElement | None, str]:
        kinds = _kinds(tag)
        vr = "SS" if run.is_signed and "SS" in kinds else kinds[0]
        if action is Action.BLANK:
            return _element(tag, vr, Sequence() if vr == "SQ" else ""), "emptied"
        if action is Action.DUMMY:
            return _dummy(tag, vr), "replaced"
        element = dataset.get_item(tag, keep_deferred=True)
        if not isinstance(element, DataElement | RawDataElement) or _is_empty(element.value):
            return None, "removed"
        vr = element.VR if element.VR in kinds else vr
        if element.VR not in (vr, None, "UN") and element.VR not in _AMBIGUOUS:
            return None, "removed"
        value: list[Any]
        if vr == "SQ":
            value = self._sequence(action, element, run, depth)
        elif vr in NUMBERS:
            value = _numbers(element, vr)
        else:
            value = self._texts(action, tag, vr, _texts(element, vr), run)
        if not value or (vr != "SQ" and len(value) > _most_values(tag)):
            return None, "removed"
        done = self._done[action]
        if action is Action.KEEP and "" in value:
            done = "replaced"
        elif action is Action.AGE and _OLDEST_AGE not in value:
            done = "kept"
        single = value if vr == "SQ" or len(value) > 1 else value[0]
        return _element(tag, vr, single), done

    def _sequence(
        self, action: Action, element: DataElement | RawDataElement, run: _Run, depth: int
    ) -> list[Dataset]:
        items = _items(element)
        if action is Action.CODES:
            found = [_standard_code_item(item) for item in items[:MAXIMUM_VALUES]]
            return [item for item in found if item is not None]
        if depth + 1 >= MAXIMUM_DEPTH:
            return []
        return [self._clean(item, run, depth + 1) for item in items]

    def _texts(self, action: Action, tag: int, vr: str, texts: list[str], run: _Run) -> list[str]:
        """New values for the texts of an attribute; none when one of them may not stand."""
        match action:
            case Action.PSEUDONYM:
                return [run.patient] if run.patient else []
            case Action.REMAP:
                return [self._remap(text) for text in texts if text]
            case Action.SHIFT:
                return _all_or_none(_shift(text, vr, run.days) for text in texts)
            case Action.YEAR:
                return _all_or_none(_cut_to_year(text) for text in texts)
            case Action.AGE:
                return _all_or_none(_group_age(text) for text in texts)
        if vr in WORDS:
            words = self._words[tag]
            kept = [text.upper() if text.upper() in words else "" for text in texts]
            return kept if any(kept) else []
        if vr == "UI":
            return texts if all(text in UID_dictionary for text in texts) else []
        if vr == "TM":
            return _all_or_none(_cut_to_second(text) for text in texts)
        return []

    def _remap(self, uid: str) -> str:
        return uid if uid in UID_dictionary else self._pseudonyms.uid(uid)

    def _declare(self, header: Dataset) -> None:
        """Says in the header what was done, (0012,0062) to (0012,0064) and (0028,0303)."""
        header.PatientIdentityRemoved = "YES"
        header.DeidentificationMethod = [
            "DICOM PS3.15 Annex E, every attribute not listed removed",
            f"Recipe SHA-256 {self._recipe.sha256[:32]}",
            *(f"Option {option}" for option in self._recipe.options),
        ]
        header.DeidentificationMethodCodeSequence = Sequence(
            _code_item(code, "DCM", meaning) for code, meaning in self._recipe.codes
        )
        header.LongitudinalTemporalInformationModified = "MODIFIED"


def identify_patient(dataset: Dataset) -> str:
    """Patient ID (0010,0020) as text, empty where there is none.

    Bytes that do not decode are read as Latin-1, so that the same bytes always name the same
    patient.
    """
    try:
        element = dataset.get_item(_PATIENT_ID)
        value = element.value if isinstance(element, DataElement | RawDataElement) else None
        if isinstance(value, bytes):
            return _decode(value, dataset).strip(" \0")
        if isinstance(value, MultiValue):
            return "\\".join(map(str, value)).strip()
        return "" if value is None else str(value).strip()
    except Exception:
        return ""


def _decode(value: bytes, dataset: Dataset) -> str:
    element = dataset.get_item(_CHARACTER_SET)
    is_element = isinstance(element, DataElement | RawDataElement)
    names = _texts(element, "CS") if is_element else [""]
    if not all(name in python_encoding for name in names):  # it would be named in a warning
        return value.decode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return decode_bytes(value, convert_encodings(names), set())
        except Exception:
            return value.decode("latin-1")


def _make_file_meta(dataset: Dataset, header: Dataset) -> FileMetaDataset:
    """New file meta: SOP class and instance as in the header, and the original transfer syntax."""
    meta = FileMetaDataset()
    original = getattr(dataset, "file_meta", None)
    syntax = _first_text(original, _TRANSFER_SYNTAX) if original is not None else ""
    meta.TransferSyntaxUID = UID(syntax) if syntax in UID_dictionary else ExplicitVRLittleEndian
    if _SOP_CLASS in header:
        meta.MediaStorageSOPClassUID = header[_SOP_CLASS].value
    if _SOP_INSTANCE in header:
        meta.MediaStorageSOPInstanceUID = header[_SOP_INSTANCE].value
    return meta


def _element(tag: int, vr: str, value: object) -> DataElement:
    return DataElement(tag, vr, value, validation_mode=IGNORE)


@lru_cache(4096)
def _name(tag: int) -> str:
    """What an attribute is called in the table of actions; nothing of it comes from a file."""
    group, number = tag >> 16, tag & 0xFFFF
    if group % 2:
        return PRIVATE
    keyword = keyword_for_tag(tag)
    if not keyword:
        return NOT_LISTED
    repeats = group >> 8 in (0x50, 0x60)
    return f"({f'{group >> 8:02x}xx' if repeats else f'{group:04X}'},{number:04X}) {keyword}"


@lru_cache(4096)
def _kinds(tag: int) -> tuple[str, ...]:
    """The VRs that the dictionary allows for an attribute."""
    return tuple(dictionary_VR(tag).split(" or ")) if keyword_for_tag(tag) else ("LO",)


@lru_cache(4096)
def _most_values(tag: int) -> int:
    """How many values an attribute may have by the dictionary (VM: `1`, `2-2n`, `1-3`)."""
    most = dictionary_VM(tag).split("-")[-1]
    return int(most) if most.isdecimal() else MAXIMUM_VALUES


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, Sized) and len(value) == 0)


def _texts(element: DataElement | RawDataElement, vr: str) -> list[str]:
    """The texts of an element."""
    value: Any = element.value
    if isinstance(value, bytes):
        value = value.decode("latin-1" if vr in ("UI", "LO") else "ascii")
    values = value.split("\\") if isinstance(value, str) else list(value)
    texts = [str(value).strip(" \0") for value in values]
    return texts if len(texts) <= MAXIMUM_VALUES else []


def _numbers(element: DataElement | RawDataElement, vr: str) -> list[float | int | str]:
    """The numbers of an element, rounded; none when one of them is none or too large."""
    value = element.value
    if isinstance(value, bytes) and vr in _BINARY:
        is_little = not isinstance(element, RawDataElement) or (
            element.is_little_endian or element.VR == "UN"
        )
        count = len(value) // struct.calcsize(_BINARY[vr])
        values: list[object] = list(
            struct.unpack(f"{'<' if is_little else '>'}{count}{_BINARY[vr]}", value)
        )
    elif isinstance(value, bytes | str):
        text = value.decode("ascii") if isinstance(value, bytes) else value
        values = list(text.rstrip("\0").split("\\"))
    else:
        values = list(value) if isinstance(value, Iterable) else [value]
    if len(values) > MAXIMUM_VALUES:
        return []
    # Pairs of characters, read as numbers of two bytes, are larger than that.
    limit = LARGEST_NUMBER if len(values) == 1 or vr not in ("US", "SS") else 0x2000
    return [_number(each, vr, limit) for each in values]


def _number(value: object, vr: str, limit: float) -> float | int | str:
    """The number with at most six significant digits, in the form of its VR.

    Raises:
        ValueError: It is no number, not finite, or not below the limit.
    """
    text = str(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    number = float(text)
    if not math.isfinite(number) or abs(number) >= limit:
        raise ValueError("too large")
    if vr == "DS":
        return f"{number:.6g}"
    if vr in ("FL", "FD"):
        return float(f"{number:.6g}")
    if number != int(number):
        raise ValueError("not whole")
    return str(int(number)) if vr == "IS" else int(number)


def _items(element: DataElement | RawDataElement) -> list[Dataset]:
    value = element.value
    if isinstance(element, RawDataElement):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = convert_raw_data_element(element).value
    return list(value) if isinstance(value, Sequence) else []


def _dummy(tag: int, vr: str) -> DataElement | None:
    if vr in _DUMMY_TEXTS:
        return _element(tag, vr, "REMOVED")
    return _element(tag, vr, _DUMMIES[vr]) if vr in _DUMMIES else None


def _all_or_none(texts: Iterable[str | None]) -> list[str]:
    found = list(texts)
    return [] if None in found else [text for text in found if text is not None]


def _shift(text: str, vr: str, days: int) -> str | None:
    """A date (DA) or date with time (DT) moved by days; DT to the second, without a time zone."""
    if vr == "DA":
        match = _DATE.fullmatch(text)
        day, time = ("".join(match.groups()), "") if match else ("", "")
    else:
        match = _MOMENT.fullmatch(text)
        day, time = (match[1], match[2] or "") if match else ("", "")
    if not day or (time and not _TIME.fullmatch(time)):
        return None
    moved = datetime.strptime(day, "%Y%m%d") + timedelta(days=days)
    return f"{moved:%Y%m%d}{time}"


def _cut_to_year(text: str) -> str | None:
    match = _DATE.fullmatch(text)
    return f"{match[1]}0101" if match else None


def _cut_to_second(text: str) -> str | None:
    match = _TIME.fullmatch(text)
    return match[1] if match else None


def _group_age(text: str) -> str | None:
    """The age; ages over 89 years are one group (HIPAA 164.514(b)(2)(i)(C))."""
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    return _OLDEST_AGE if match[2] == "Y" and int(match[1]) > 89 else text


def _standard_code_item(item: Dataset) -> Dataset | None:
    """The item's code as the standard writes it, if it is one of anatomy, view or laterality."""
    value = _first_text(item, 0x00080100)
    scheme = _first_text(item, 0x00080102)
    code = find_standard_code(value, scheme)
    return _code_item(*code) if code else None


@lru_cache(1024)
def find_standard_code(value: str, scheme: str) -> tuple[str, str, str] | None:
    """Value, scheme and meaning of a code of CID 4, 4031, 4010, 4014 or 244; SRT becomes SCT."""
    sought = Code(value, "SRT" if scheme in ("SNM3", "99SDM") else scheme, "")
    for concept in _standard_codes():
        if concept == sought:
            return concept.value, concept.scheme_designator, concept.meaning
    return None


@cache
def _standard_codes() -> tuple[Code, ...]:
    groups = (codes.cid4, codes.cid4031, codes.cid4010, codes.cid4014, codes.cid244)
    return tuple(
        {code.value: code for group in groups for code in group.concepts.values()}.values()
    )


def _code_item(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _first_text(dataset: Dataset, tag: int) -> str:
    try:
        element = dataset.get_item(tag)
        if isinstance(element, DataElement | RawDataElement):
            return next(iter(_texts(element, dictionary_VR(tag))), "")
    except Exception:
        return ""
    return ""


def _first_number(dataset: Dataset, tag: int) -> float | int | str | None:
    try:
        element = dataset.get_item(tag)
        if isinstance(element, DataElement | RawDataElement):
            return next(iter(_numbers(element, dictionary_VR(tag))), None)
    except Exception:
        return None
    return None
