"""Reads the de-identification recipe: the profile, its options, what is kept and the closed words.

The recipe files in `recipes/` are written in the language of `deid` for a privacy officer to read,
and are read with `deid`'s own parser. A recipe that leaves something open is refused: it ends with
`REMOVE ALL`, and every attribute of words that it keeps has a closed list of words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import as_file, files
from types import MappingProxyType

from deid.config import DeidRecipe
from deid.logger import bot
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

OPTIONS = ("device-maker", "patient-characteristics", "shift-dates")
"""What may be added to the basic profile; each is a file in `recipes/`."""

_ALWAYS = ("basic-profile", "kept-attributes")
_WORDS = "closed-words.txt"
_CLAIM = re.compile(r"^# Claims (\d{6}) (.+)$", re.MULTILINE)
_TAG = re.compile(r"\(([0-9a-f]{4}),([0-9a-f]{4})\)")

NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "FL", "FD"})
WORDS = frozenset({"CS", "LO", "SH"})
_KEPT_AS_SHAPES = frozenset({"SQ", "TM", "UI"})


class Action(StrEnum):
    """What is done to an attribute, in the words of the recipe."""

    REMOVE = "REMOVE"
    BLANK = "BLANK"
    KEEP = "KEEP"
    SHIFT = "JITTER var:days"
    REMAP = "REPLACE func:remap_uid"
    PSEUDONYM = "REPLACE func:patient_pseudonym"
    YEAR = "REPLACE func:cut_to_year"
    DUMMY = "REPLACE func:dummy"
    AGE = "REPLACE func:group_age"
    CODES = "REPLACE func:standard_codes"


@dataclass(frozen=True)
class Recipe:
    """What is done to each attribute, and what that may be called.

    Attributes:
        options: The options that were asked for, sorted.
        codes: Code and meaning for (0012,0064) DeidentificationMethodCodeSequence, of CID 7050.
        text: All files of the recipe, one after the other.
        sha256: Hex digest of `text`.
        actions: Action by tag; what is not named is removed.
        words: Closed words by tag, in capitals, for each attribute of words that is kept.
    """

    options: tuple[str, ...]
    codes: tuple[tuple[str, str], ...]
    text: str
    sha256: str
    actions: Mapping[int, Action]
    words: Mapping[int, frozenset[str]]


def read_recipe(options: Sequence[str] = ()) -> Recipe:
    """The basic profile with the options.

    Raises:
        ValueError: An option is not known, or a recipe file leaves something open.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ValueError(
            f"De-identification option `{unknown[0]}` is not known; "
            f"there are {', '.join(f'`{option}`' for option in OPTIONS)}."
        )
    return _read(tuple(sorted(set(options))))


@cache
def _read(options: tuple[str, ...]) -> Recipe:
    folder = files(__package__) / "recipes"
    names = [f"{name}.deid" for name in (*_ALWAYS, *options)]
    texts = [(folder / name).read_text("utf-8") for name in (*names, _WORDS)]
    actions: dict[int, Action] = {}
    last = None
    for name in names:
        with as_file(folder / name) as path, without_chatter():
            lines = DeidRecipe([str(path)]).get_actions()
        for line in lines:
            tag, action = _parse(name, line)
            if tag is not None:
                actions[tag] = action
            last = (line["action"], line["field"]) if name == f"{_ALWAYS[-1]}.deid" else last
    if last != ("REMOVE", "ALL"):
        raise ValueError("The list of what is kept has to end with `REMOVE ALL`.")
    words = _read_words(texts[-1])
    _check_closed(actions, words)
    text = "\n".join(texts)
    return Recipe(
        options=options,
        codes=tuple((code, meaning) for each in texts for code, meaning in _CLAIM.findall(each)),
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        actions=MappingProxyType(actions),
        words=MappingProxyType(words),
    )


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keeps `deid` from writing a line per rule to stderr."""
    level, bot.level = bot.level, 0
    try:
        yield
    finally:
        bot.level = level


def _parse(name: str, line: Mapping[str, str]) -> tuple[int | None, Action]:
    """Tag and action of a line; no tag for patterns, which only ever remove."""
    verb, field = line["action"], line["field"]
    action = Action(f"{verb} {line['value'].strip()}" if "value" in line else verb)
    if action is Action.REMOVE and (field == "ALL" or field.startswith("contains:")):
        return None, action
    if match := _TAG.fullmatch(field):
        return int(match[1] + match[2], 16), action
    tag = tag_for_keyword(field)
    if tag is None:
        raise ValueError(f"{name} names `{field}`, which is no attribute of the DICOM dictionary.")
    return tag, action


def _read_words(text: str) -> dict[int, frozenset[str]]:
    words: dict[int, frozenset[str]] = {}
    tag = None
    for line in text.splitlines():
        if line.startswith("%"):
            tag = tag_for_keyword(line[1:].strip())
            if tag is None:
                raise ValueError(f"{_WORDS} names `{line}`, which is no attribute.")
            words[tag] = frozenset()
        elif line.strip() and not line.startswith("#") and tag is not None:
            words[tag] |= {word.strip().upper() for word in line.split("|")}
    return words


def _check_closed(actions: Mapping[int, Action], words: Mapping[int, frozenset[str]]) -> None:
    for tag, action in actions.items():
        if action is not Action.KEEP:
            continue
        kinds = set(dictionary_VR(tag).split(" or "))
        if kinds <= NUMBERS or kinds <= _KEPT_AS_SHAPES or (kinds <= WORDS and words.get(tag)):
            continue
        raise ValueError(f"The recipe keeps {keyword_for_tag(tag)} without a check of its values.")
