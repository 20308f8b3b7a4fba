"""Whether an image shows a head, from which a face can be rebuilt.

Faces are not removed (option 113102 of DICOM CID 7050 is not claimed): images that show one are
marked, and the policy decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from pydicom import Dataset

from datasites.imaging.deidentify import find_standard_code
from datasites.imaging.recipe import read_recipe

Answer = Literal["yes", "possibly", "no"]

_BODY_PART = 0x00180015
_SLICED = frozenset({"CT", "MR", "PT"})
_PHOTOGRAPHS = frozenset({"XC", "OP"})
_DESCRIPTIONS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
)

_HEAD_PARTS = frozenset({
    "BRAIN", "CEREBELLUM", "CHEEK", "CIRCLEOFWILLIS", "CORNEA", "EAR", "EYE", "EYELID", "FACE",
    "HEAD", "HEADNECK", "IAC", "JAW", "MANDIBLE", "MAXILLA", "MOUTH", "NOSE", "ORBIT", "PAROTID",
    "SCALP", "SELLA", "SINUS", "SKULL", "SUBMANDIBULAR", "TMJ", "TONGUE", "WHOLEBODY", "ZYGOMA",
})  # fmt: skip
_NEAR_PARTS = frozenset({
    "ARTERY", "BACK", "CAROTID", "CSPINE", "CTSPINE", "EXTREMITY", "FETUS", "LARYNX", "NECK",
    "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "PHARYNX", "SPINE", "THYROID", "VEIN",
})  # fmt: skip
_HEAD_WORDS = re.compile(
    r"\b(head|brain|skull|crani\w*|cereb\w*|encephal\w*|neuro\w*|fac(e|es|ial)|orbit\w*|sinus(es)?|"
    r"mandib\w*|maxill\w*|dental|tmj|iac|pituitary|sella|stroke|temporal bone|mastoid\w*|"
    r"kopf|sch(ä|ae)del|(ge)?hirn|ccts?|cmrt|nnh|gesicht\w*|kiefer|felsenbein|hypophyse\w*|"
    r"t(ê|e)te|cr(â|a)ne|c(é|e)r(é|e)bral\w*|cerveau|enc(é|e)phale|visage|"
    r"cabeza|cr(á|a)neo|cerebro|testa|cranio|encefalo|volto|hoofd|hersenen|schedel|whole ?body)\b",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(
    r"\b(chest|thora\w*|lungs?|lunge|heart|cardiac|coronar\w*|abdom\w*|pelvi\w*|becken|liver|leber|"
    r"kidneys?|renal|prostat\w*|breasts?|mamma\w*|hips?|knees?|knie|shoulders?|schulter|ankles?|feet|"
    r"foot|hands?|wrists?|elbows?|lumbar|lws|l-?spine|thoracic spine|femur|colon\w*|genou|rodilla|"
    r"torax|bauch|poumon|hombro)\b",
    re.IGNORECASE,
)


def shows_head(dataset: Dataset) -> Answer:
    """`yes`, `possibly` or `no`; never raises for the content of the header.

    CT, MR and PT are sliced, so that a face can be rebuilt: what Body Part Examined (0018,0015) and
    Anatomic Region Sequence (0008,2218) say counts first, then words of the descriptions in several
    languages. If nobody says a body part, the answer is `possibly`; so it is for necks and spines,
    and where a description contradicts the body part. Photographs (XC, OP) show faces as they are:
    `possibly`, unless another part of the body is named. All other modalities show bones or
    surfaces from which no face is rebuilt: `no`.
    """
    modality = _text(dataset, "Modality").upper()
    if modality not in _SLICED | _PHOTOGRAPHS:
        return "no"
    answers = {_judge_part(part) for part in _body_parts(dataset)}
    answers |= {_judge_words(meaning) for meaning in _regions(dataset)}
    said = _judge_words(" ; ".join(_text(dataset, name) for name in _DESCRIPTIONS))
    if "yes" in answers:
        return "yes" if modality in _SLICED else "possibly"
    if "no" in answers and "possibly" not in answers:
        return "possibly" if said == "yes" else "no"
    if not answers - {None} and said is not None:
        return said if modality in _SLICED or said == "no" else "possibly"
    return "yes" if said == "yes" and modality in _SLICED else "possibly"


def _judge_part(part: str) -> Answer | None:
    if part in _HEAD_PARTS:
        return "yes"
    if part in _NEAR_PARTS:
        return "possibly"
    return "no" if part in read_recipe().words[_BODY_PART] else _judge_words(part)


def _judge_words(text: str) -> Answer | None:
    """What words say; nothing where they name no part of the body."""
    words = text.replace("_", " ")
    if _HEAD_WORDS.search(words):
        return "yes"
    return "no" if _OTHER_WORDS.search(words) else None


def _body_parts(dataset: Dataset) -> Iterator[str]:
    part = re.sub(r"[ _^-]", "", _text(dataset, "BodyPartExamined").upper())
    if part:
        yield part


def _regions(dataset: Dataset) -> Iterator[str]:
    """Meanings of the anatomic regions, also of the frames; the standard's own where known."""
    groups = _items(dataset, "SharedFunctionalGroupsSequence")
    groups += _items(dataset, "PerFrameFunctionalGroupsSequence")[:1]
    frames = [frame for group in groups for frame in _items(group, "FrameAnatomySequence")]
    for source in (dataset, *frames):
        for item in _items(source, "AnatomicRegionSequence"):
            code = find_standard_code(
                _text(item, "CodeValue"), _text(item, "CodingSchemeDesignator")
            )
            yield code[2] if code else _text(item, "CodeMeaning")


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    with suppress(Exception):
        return [item for item in dataset.get(keyword) or [] if isinstance(item, Dataset)][:64]
    return []


def _text(dataset: Dataset, keyword: str) -> str:
    with suppress(Exception):
        value = dataset.get(keyword, "")
        return "" if value is None else str(value).strip()
    return ""
