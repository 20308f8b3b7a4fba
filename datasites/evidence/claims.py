"""A statement of evidence: one sentence, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Line = Mapping[str, Any]


class Safe(StrEnum):
    """The Five Safes, and the record itself; the value is the heading that people read."""

    PEOPLE = "Safe people"
    PROJECTS = "Safe projects"
    DATA = "Safe data"
    SETTINGS = "Safe settings"
    OUTPUTS = "Safe outputs"
    RECORD = "This record"

    @property
    def question(self) -> str:
        """What the section answers."""
        return {
            Safe.PEOPLE: "Who asked, and who decided?",
            Safe.PROJECTS: "What was asked for, and who decided what under which policy?",
            Safe.DATA: "On which images, and how were they de-identified?",
            Safe.SETTINGS: "Where and how did it run?",
            Safe.OUTPUTS: "What left the hospital, what was refused, what was spent?",
            Safe.RECORD: "Who had this folder made?",
        }[self]


class Basis(StrEnum):
    """What a statement rests on; the value is the word that people read."""

    LOG = "log"
    DOCUMENT = "document"
    CONFIGURATION = "configuration"
    ABSENCE = "not in this excerpt"

    @property
    def meaning(self) -> str:
        """The sentence that explains the word."""
        return {
            Basis.LOG: "the lines of the audit log that are named say so",
            Basis.DOCUMENT: "a document in this folder says so; lines that are named fix its hash",
            Basis.CONFIGURATION: "the site is configured so; no line of the log proves it",
            Basis.ABSENCE: "no line that is shown here says otherwise; a hidden one might",
        }[self]


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence about a request.

    Attributes:
        safe: The section that it belongs to.
        text: The sentence.
        basis: What it rests on.
        lines: Numbers of the lines of the log.
        documents: Names of files in the folder.
        alarming: Whether it is shown in red: something was not protected.
    """

    safe: Safe
    text: str
    basis: Basis
    lines: tuple[int, ...] = ()
    documents: tuple[str, ...] = ()
    alarming: bool = False


def numbers(lines: Iterable[Line]) -> tuple[int, ...]:
    """The numbers of lines, in order."""
    return tuple(sorted(line["n"] for line in lines))


def of_kind(lines: Iterable[Line], *events: str) -> list[Line]:
    """The lines of these events."""
    return [line for line in lines if line["event"] in events]
