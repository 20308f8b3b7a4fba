"""The trust matrix: who could see what of one request, as settings and log together say.

It says what the product lets through, and only as far as a test of this project shows it. Whoever
has the machine, or is told something by a person, stands outside of it; the rows say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from datasites.evidence.documents import Documents
from datasites.evidence.runs import RunEnd, RunRecord


class Sight(StrEnum):
    """Whether someone could see something; the value is the word that people read."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"


class Column(StrEnum):
    """What there is to see."""

    IMAGES = "images"
    LABELS = "labels"
    IDENTIFIERS = "patient identifiers"
    TEXT = "job text"
    UPDATES = "single-site updates"
    NUMBERS = "metrics and counts"
    LOG = "audit log"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one party could see of one thing.

    Attributes:
        sight: Yes, no or partly.
        reason: Why, in a few words.
        shown_by: Test files of this project that show it; empty where it follows from the set-up.
    """

    sight: Sight
    reason: str
    shown_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Party:
    """One row: who, and a cell for each column in order."""

    name: str
    cells: tuple[Cell, ...]


CANARIES = "tests/attacks/test_canaries.py"
CALLS = "tests/attacks/test_calls.py"
CAGE = "tests/attacks/test_cage.py"
UPDATES = "tests/attacks/test_updates.py"
LEAKS = "tests/attacks/test_what_leaks.py"

_SAME = "as the researcher: Sitegate has no server between; the notebook averages"


def trust_matrix(documents: Documents, runs: Sequence[RunRecord]) -> list[Party]:
    """Who could see what of a request."""
    case = _Case(documents, runs)
    researcher = case.researcher()
    return [
        Party("Researcher", researcher),
        Party(
            "Coordinator (the researcher's own notebook)",
            tuple(Cell(cell.sight, _SAME, cell.shown_by) for cell in researcher),
        ),
        Party("Other hospitals", case.other_hospitals()),
        Party("This hospital's approvers", case.people(decides=True)),
        Party("Compliance", case.people(decides=False)),
        Party("Host administrator", case.host_administrator()),
        Party("Network observer", case.network_observer()),
    ]


class _Case:
    """What the cells depend on."""

    def __init__(self, documents: Documents, runs: Sequence[RunRecord]) -> None:
        started = [run for run in runs if run.end is not RunEnd.NOT_STARTED]
        self._ran = bool(started)
        self._caged = all(run.sandbox == "bubblewrap" for run in started)
        self._released = sum(run.end is RunEnd.RELEASED for run in runs)
        self._terms = documents.terms
        self._is_deidentified = documents.certificate is not None and bool(
            documents.certificate.document.methods
        )

    def researcher(self) -> tuple[Cell, ...]:
        """The account that asked."""
        return (
            self._pixels(),
            self._labels(),
            self._identifiers(),
            Cell(Sight.YES, "wrote it"),
            self._released_cell("the updates that left, as computed: no noise was added"),
            self._released_cell("as declared, with the number of images used"),
            Cell(Sight.NO, "only the answers to its own calls", (LEAKS,)),
        )

    def other_hospitals(self) -> tuple[Cell, ...]:
        """Sites of the same study; hospitals do not call each other."""
        apart = "hospitals do not call each other"
        mixed = "as far as the researcher passes on what left, averaged or not"
        told = "what such updates tell of them; hospitals do not call each other"
        passed = Cell(Sight.PARTLY, mixed) if self._released else Cell(Sight.NO, "no update left")
        data = Cell(Sight.PARTLY, told) if self._released else Cell(Sight.NO, apart)
        return (
            data,
            data,
            Cell(Sight.NO, apart),
            Cell(Sight.PARTLY, "where the researcher submitted it too"),
            passed,
            passed,
            Cell(Sight.PARTLY, "its length and last hash, where it was countersigned"),
        )

    def people(self, *, decides: bool) -> tuple[Cell, ...]:
        """Those who decide, or read along, at this hospital."""
        sheet = "the review sheet" if decides else "what compliance reads"
        return (
            Cell(Sight.NO, f"{sheet} holds no image"),
            Cell(Sight.PARTLY, "numbers per class, from the card"),
            Cell(Sight.NO, f"{sheet} holds none", (CANARIES,)),
            Cell(Sight.YES, "shown line by line" if decides else "part of the request"),
            Cell(Sight.NO, "hash and size only"),
            Cell(Sight.PARTLY, "names; values on the mock only"),
            Cell(Sight.YES, "all of it"),
        )

    def host_administrator(self) -> tuple[Cell, ...]:
        """Who has the site's own user account, or root, on the machine."""
        everything = "whoever has the machine can read everything on it"
        identifiers = "originals and the secret of the pseudonyms, where they lie there"
        return (
            Cell(Sight.YES, everything),
            Cell(Sight.YES, everything),
            Cell(Sight.PARTLY, identifiers),
            Cell(Sight.YES, everything),
            Cell(Sight.YES, everything),
            Cell(Sight.YES, everything),
            Cell(Sight.YES, "and with the site's key a new one can be written: keep checkpoints"),
        )

    def network_observer(self) -> tuple[Cell, ...]:
        """Who sees the packets between researcher and site."""
        hidden = Cell(Sight.NO, "TLS", (CALLS,))
        size = "TLS; size and time of calls show"
        return (
            Cell(Sight.NO, "not sent"),
            Cell(Sight.NO, "not sent"),
            Cell(Sight.NO, "not sent", (CANARIES,)),
            hidden,
            Cell(Sight.PARTLY, size, (CALLS,)) if self._released else Cell(Sight.NO, "none left"),
            hidden,
            Cell(Sight.NO, "not sent"),
        )

    def _pixels(self) -> Cell:
        if not self._ran:
            return Cell(Sight.NO, "no run is shown")
        if not self._caged:
            return Cell(Sight.YES, "approved code ran without a sandbox")
        if not self._released:
            return Cell(Sight.NO, "code ran in the sandbox and no update left", (CAGE, LEAKS))
        return Cell(
            Sight.PARTLY,
            "no image left as such; updates can tell something of the images behind them",
            (CAGE, UPDATES),
        )

    def _labels(self) -> Cell:
        if self._ran and not self._caged:
            return Cell(Sight.YES, "approved code ran without a sandbox")
        what = "numbers per class, from the card"
        more = "; updates can tell something of them" if self._released else ""
        return Cell(Sight.PARTLY, what + more, (UPDATES,) if self._released else ())

    def _identifiers(self) -> Cell:
        if self._ran and not self._caged:
            return Cell(Sight.YES, "approved code ran without a sandbox, beside the site's files")
        if not self._is_deidentified:
            return Cell(Sight.PARTLY, "nothing here says how headers were de-identified")
        return Cell(
            Sight.NO,
            "code gets arrays without headers; text in pixels is searched for, not proved absent",
            (CANARIES,),
        )

    def _released_cell(self, reason: str) -> Cell:
        if not self._released:
            return Cell(Sight.NO, "no update left")
        return Cell(Sight.YES, reason, (UPDATES,))
