"""From an archive that is asked over a network to units: what DICOMweb and DIMSE have in common.

A series is listed, fetched, and compared with the list. An instance counts only if its own header
says that it is the one that was listed (`instance_uids`). What is listed and not delivered, also
after further tries, becomes an item that is refused: it is counted in quarantine, so that no series
is silently short.

A unit is named `UID#0-…` after its series and a hash of the instances that were listed: a series
that grew or shrank since it was done is another unit. A series of more than `unit_bytes` is not
held in memory at once. It is yielded in parts named `UID#1-…`, `UID#2-…`; a part that is done is
recognised by the list alone, and is not fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from datasites.imaging.problems import Quarantined, Reason, UnreadableSourceError
from datasites.imaging.sources.instance_uids import read_instance_uids
from datasites.imaging.sources.patience import Patience, UnavailableError
from datasites.imaging.sources.source import Item, Unit

UNIT_BYTES = 256 * 2**20
INSTANCE_BYTES = 2**30
TRIES = 3
EMPTY_SERIES_IN_A_ROW = 5
NOT_DELIVERED = "the PACS lists or counts it, and does not deliver it"
WHOLE = 0
"""The number of a unit that is a whole series; parts are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study that was found, with its number of instances if the archive tells."""

    uid: str
    instances: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """A series that was found, with its number of instances if the archive tells."""

    study: str
    uid: str
    instances: int | None


class Basket:
    """Takes the instances of one series that were asked for, each once.

    Attributes:
        over: More than `unit_bytes` would have been in it; nothing more is taken.
        strangers: How many it was given that were not asked for.
    """

    def __init__(self, series: str, wanted: Iterable[str], unit_bytes: int) -> None:
        self._series, self._room = series, unit_bytes
        self._taken: dict[str, bytes] = {}
        self.wanted: tuple[str, ...] = ()
        self._names: frozenset[str] = frozenset()
        self.over, self.strangers = False, 0
        self.want(wanted)

    def want(self, uids: Iterable[str]) -> None:
        """Change what is wanted; what is in the basket stays."""
        self.wanted = tuple(uids)
        self._names = frozenset(self.wanted)

    def put(self, content: bytes) -> bool:
        """Take a PS3.10 file if it is an instance that is wanted; say whether it is."""
        found = read_instance_uids(content)
        if found is None or found.series != self._series or found.sop_instance not in self._names:
            self.strangers += 1
            return False
        if found.sop_instance in self._taken:
            return True
        if len(content) > self._room:
            self.over = True
            return False
        self._room -= len(content)
        self._taken[found.sop_instance] = content
        return True

    def missing(self) -> tuple[str, ...]:
        """What is wanted and was not delivered."""
        return tuple(uid for uid in self.wanted if uid not in self._taken)

    def items(self) -> tuple[Item, ...]:
        """An item for each instance that is wanted; refused where it was not delivered."""
        return tuple(
            Item(uid, content=content, size=len(content))
            if (content := self._taken.get(uid)) is not None
            else Item(uid, refused=Quarantined(Reason.BROKEN, NOT_DELIVERED))
            for uid in self.wanted
        )

    def is_empty(self) -> bool:
        """Whether nothing was delivered."""
        return not self._taken


class Archive(Protocol):
    """What can be asked of a PACS. Each method can be called again after an `UnavailableError`."""

    @property
    def kind(self) -> str:
        """What it is, in words that identify nobody."""

    def find_studies(self) -> list[Study]:
        """The studies that the query is met by."""

    def find_series(self, study: str) -> list[Series]:
        """The series of a study that the query is met by."""

    def find_instances(self, series: Series) -> list[str]:
        """The SOP Instance UIDs of a series, in the order of their numbers."""

    def fetch_series(self, series: Series, basket: Basket) -> None:
        """Put what the PACS delivers into the basket until that is over."""

    def fetch_instance(self, series: Series, uid: str, basket: Basket) -> None:
        """Put one instance into the basket, or nothing if the PACS cannot deliver it."""

    def close(self) -> None:
        """End the connections."""


class PacsSource:
    """A PACS as a source: series by series, the next one fetched while one is worked on.

    Attributes:
        items: How many instances the studies have that were found; unknown before they were, and
            where the archive does not tell or not every series of a study is wanted.
    """

    lists_everything = True

    def __init__(
        self,
        archive: Archive,
        patience: Patience,
        *,
        whole_studies: bool,
        unit_bytes: int = UNIT_BYTES,
    ) -> None:
        self._archive, self._patience = archive, patience
        self._whole_studies, self._unit_bytes = whole_studies, unit_bytes
        self.items: int | None = None

    @property
    def kind(self) -> str:
        """What it is, in words that identify nobody."""
        return self._archive.kind

    def units(self, is_done: Callable[[str], bool]) -> Iterator[Unit]:
        """Every series that is not done, as `Source.units` says.

        `is_done` is called in the thread of the caller; the PACS is asked from another one too.

        Raises:
            UnreadableSourceError: The PACS refuses, or delivers nothing of what it lists.
            SourceLostError: It stopped answering for longer than the patience lasts.
        """
        pool = ThreadPoolExecutor(1, thread_name_prefix="pacs")
        try:
            yield from _hold_back_empty(self._fetched(is_done, pool))
        finally:
            self._patience.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            self._archive.close()

    def _fetched(
        self, is_done: Callable[[str], bool], pool: ThreadPoolExecutor
    ) -> Iterator[_Fetched]:
        before: tuple[Series, Future[_Fetched | None]] | None = None
        for series in self._series():
            listed = self._listed(series)
            if not listed or is_done(part_name(series.uid, WHOLE, listed)):
                continue
            if _end_of_done_part(series.uid, listed, 0, 1, is_done) is None:
                now = (series, pool.submit(self._fetch_whole, series, listed))
                if before:
                    yield from self._finished(*before, is_done)
                before = now
            else:
                yield from self._fetch_parts(series, is_done)
        if before:
            yield from self._finished(*before, is_done)

    def _series(self) -> Iterator[Series]:
        studies = self._patience.ask(self._archive.find_studies)
        counts = [study.instances for study in studies if study.instances is not None]
        if self._whole_studies and len(counts) == len(studies):
            self.items = sum(counts)
        seen: set[str] = set()
        for study in studies:
            for series in self._patience.ask(partial(self._archive.find_series, study.uid)):
                if series.uid not in seen:
                    seen.add(series.uid)
                    yield series

    def _listed(self, series: Series) -> list[str]:
        listed = self._patience.ask(lambda: self._archive.find_instances(series))
        return list(dict.fromkeys(listed)) + [
            f"{series.uid}/not listed {number}"
            for number in range(len(set(listed)) + 1, (series.instances or 0) + 1)
        ]

    def _finished(
        self,
        series: Series,
        future: Future[_Fetched | None],
        is_done: Callable[[str], bool],
    ) -> Iterator[_Fetched]:
        fetched = future.result()
        if fetched is None:
            yield from self._fetch_parts(series, is_done)
        else:
            yield fetched

    def _fetch_whole(self, series: Series, listed: Sequence[str]) -> _Fetched | None:
        """All of a series, or nothing if it is too large for one unit."""
        basket = Basket(series.uid, listed, self._unit_bytes)
        with contextlib.suppress(UnavailableError):  # what is missing is asked for with patience
            self._archive.fetch_series(series, basket)
        for attempt in range(TRIES):
            for uid in basket.missing():
                if basket.over:
                    return None
                self._fetch_one(series, uid, basket)
            if basket.over:
                return None
            if attempt == TRIES - 1 or not (basket.missing() or basket.strangers):
                break
            self._patience.pause(attempt)
            basket.strangers = 0
            basket.want(self._listed(series))  # a study may have grown
        name = part_name(series.uid, WHOLE, basket.wanted)
        return _Fetched(Unit(name, basket.items()), basket.is_empty())

    def _fetch_one(self, series: Series, uid: str, basket: Basket) -> None:
        if "/" not in uid:
            self._patience.ask(lambda: self._archive.fetch_instance(series, uid, basket))

    def _fetch_parts(self, series: Series, is_done: Callable[[str], bool]) -> Iterator[_Fetched]:
        listed = self._listed(series)
        start, number = 0, 1
        while start < len(listed):
            end = _end_of_done_part(series.uid, listed, start, number, is_done)
            if end is None:
                part = self._fetch_part(series, listed[start:])
                end = start + len(part.wanted)
                name = part_name(series.uid, number, listed[start:end])
                yield _Fetched(Unit(name, part.items()), part.is_empty())
            start, number = end, number + 1

    def _fetch_part(self, series: Series, listed: Sequence[str]) -> Basket:
        """As many instances from the beginning of a list as a unit may hold, at least one."""
        part = Basket(series.uid, (), self._unit_bytes)
        for uid in listed:
            wanted = (*part.wanted, uid)
            part.want(wanted)
            for attempt in range(TRIES):
                self._fetch_one(series, uid, part)
                if part.over or uid not in part.missing():
                    break
                self._patience.pause(attempt)
            if part.over and len(wanted) > 1:
                part.want(wanted[:-1])
                return part
            if part.over:
                alone = Basket(series.uid, wanted, INSTANCE_BYTES)
                self._fetch_one(series, uid, alone)
                return alone
        return part


@dataclass(frozen=True, slots=True)
class _Fetched:
    unit: Unit
    is_empty: bool


def _hold_back_empty(fetched: Iterable[_Fetched]) -> Iterator[Unit]:
    """Yields units; those of which nothing came wait until another shows that fetching works.

    Raises:
        UnreadableSourceError: Nothing came of several in a row.
    """
    held: list[Unit] = []
    for each in fetched:
        if each.is_empty:
            held.append(each.unit)
            if len(held) == EMPTY_SERIES_IN_A_ROW:
                raise UnreadableSourceError(
                    f"the PACS lists images and delivers none: nothing came of "
                    f"{len(held)} series in a row; ask its administrator whether this account may "
                    "retrieve, and whether its storage is complete"
                )
        else:
            yield from held
            held.clear()
            yield each.unit
    yield from held


def part_name(series: str, number: int, uids: Sequence[str]) -> str:
    """The name of a unit that is these instances of a series and no others."""
    digest = hashlib.sha256("\n".join(uids).encode()).hexdigest()
    return f"{series}#{number}-{digest[:16]}"


def _end_of_done_part(
    series: str,
    listed: Sequence[str],
    start: int,
    number: int,
    is_done: Callable[[str], bool],
) -> int | None:
    """Where the part that begins at `start` ends, if such a part is done already."""
    digest = hashlib.sha256()
    for end in range(start + 1, len(listed) + 1):
        digest.update((("\n" if end > start + 1 else "") + listed[end - 1]).encode())
        if is_done(f"{series}#{number}-{digest.hexdigest()[:16]}"):
            return end
    return None
