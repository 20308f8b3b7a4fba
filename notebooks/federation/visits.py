"""One round's visits: every site is asked for its update, each in a thread of its own.

The threads are nobody's to wait for. When the round is over, by time or by hand, they are told so
and what they bring afterwards is thrown away: a run id is asked for in its own round only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from federation.aggregation.algorithm import SiteUpdate
from federation.aggregation.updates import misfit
from federation.causes import Cause, cause_of, is_busy
from federation.errors import ConnectionLostError, FederationError, RefusedError
from federation.history import SiteRound
from federation.side_by_side import start
from federation.submission import RunUpdate, Study
from policies.arrays import Arrays

LOOK_S = 0.25
"""Seconds after which those who watch are told again how long a site has been training."""
ASK_AGAIN_S = 1.0
"""Seconds from one try to the next at a site that does not answer, or is busy."""

WAITING, TRAINING, SENT = "waits for its turn", "training", "sent"
SILENT, BUSY = "does not answer", "still at an earlier run"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a round asks of every site.

    Attributes:
        number: The round.
        config: The job's arguments.
        weights: The global weights, which updates must fit.
        to_send: Gives what one site is sent.
        patience_s: Site -> how long it is asked again when it does not answer.
    """

    number: int
    config: Mapping[str, Any]
    weights: Arrays
    to_send: Callable[[str], Arrays]
    patience_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of asking one site: its line of the history, and the update if it can be used."""

    record: SiteRound
    update: SiteUpdate | None = None


@dataclass(frozen=True, slots=True)
class Doing:
    """What a site is doing, and since when (seconds of the monotonic clock)."""

    what: str
    since: float

    @property
    def in_words(self) -> str:
        """`training 12 s`, `sent`, `missing: late`."""
        if self.what in (TRAINING, SILENT, BUSY):
            return f"{self.what} {time.monotonic() - self.since:.0f} s"
        return self.what


Show = Callable[[Mapping[str, str]], None]
"""Is given site -> what it is doing, in words, whenever that changes and some times a second."""


class RoundOver(Exception):
    """The round is over, and nobody waits for this site any more."""


def visit_sites(
    study: Study,
    names: Sequence[str],
    asked: Asked,
    *,
    at_once: int,
    timeout_s: float | None,
    show: Show,
) -> dict[str, Visit]:
    """Ask sites for their updates and wait for all, or until the time is over.

    Args:
        study: The study.
        names: The sites, in the order in which they are asked.
        asked: What they are asked.
        at_once: How many are asked at one time.
        timeout_s: Seconds after which the round is over; None: it lasts until every site is heard.
        show: Told what each site is doing, from this thread.
    """
    news: SimpleQueue[tuple[str, Doing | Visit | BaseException]] = SimpleQueue()
    over, waiting = threading.Event(), deque(names)
    began = time.monotonic()

    def work() -> None:
        while not over.is_set():
            try:
                name = waiting.popleft()
            except IndexError:
                return

            def tell(what: str, since: float, name: str = name) -> None:
                news.put((name, Doing(what, since)))

            try:
                news.put((name, _ask(study, name, asked, over, tell)))
            except RoundOver:
                return
            except BaseException as error:  # told to the thread that waits
                news.put((name, error))

    doing = {name: Doing(WAITING, began) for name in names}
    visits: dict[str, Visit] = {}
    try:
        for _ in range(min(at_once, len(names))):
            start(work)
        while len(visits) < len(names):
            left_s = LOOK_S if timeout_s is None else began + timeout_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                name, told = news.get(timeout=min(LOOK_S, left_s))
            except Empty:
                pass
            else:
                if isinstance(told, BaseException):
                    raise told
                if isinstance(told, Visit):
                    visits[name] = told
                    told = Doing(_ended(told.record), time.monotonic())
                doing[name] = told
            show({name: doing[name].in_words for name in names})
    finally:
        over.set()
    for name in names:
        if name not in visits:
            visits[name] = _late(name, asked.number, doing[name], timeout_s or 0.0)
            doing[name] = Doing(_ended(visits[name].record), time.monotonic())
    show({name: doing[name].in_words for name in names})
    return visits


def _ask(
    study: Study,
    name: str,
    asked: Asked,
    over: threading.Event,
    tell: Callable[[str, float], None],
) -> Visit:
    """Ask one site until it has given its update, said no, or was silent for too long."""
    started = heard = time.monotonic()

    def while_running(_: float) -> None:
        nonlocal heard
        if over.is_set():
            raise RoundOver
        heard = time.monotonic()
        tell(TRAINING, started)

    def missing(cause: Cause, reason: str) -> Visit:
        seconds = time.monotonic() - started
        return Visit(
            SiteRound(asked.number, name, "missing", reason, seconds=seconds, cause=cause.value)
        )

    sent = asked.to_send(name)
    while True:
        tell(TRAINING, started)
        try:
            update = study.run(
                name, sent, asked.config, round_number=asked.number, while_running=while_running
            )
        except ConnectionLostError as lost:
            # The same run id again: answered with the same update, and charged once.
            if time.monotonic() - heard >= asked.patience_s[name]:
                return missing(Cause.NO_ANSWER, str(lost))
            tell(SILENT, heard)
        except FederationError as error:
            if not is_busy(error):
                said = error.reasons if isinstance(error, RefusedError) else str(error)
                return missing(cause_of(error), said)
            heard = time.monotonic()
            tell(BUSY, started)
        else:
            given = SiteUpdate(name, update.weights, update.examples, update.metrics)
            if reason := misfit(given, asked.weights):
                return missing(Cause.DOES_NOT_FIT, f"its update was not used: {reason}")
            return Visit(_contributed(asked.number, name, update, started), given)
        if over.wait(ASK_AGAIN_S):
            raise RoundOver


def _contributed(number: int, name: str, update: RunUpdate, started: float) -> SiteRound:
    return SiteRound(
        number,
        name,
        "contributed",
        examples=update.examples,
        loss=update.metrics.get("loss", float("nan")),
        accuracy=update.metrics.get("accuracy", float("nan")),
        seconds=time.monotonic() - started,
        run=update.run,
    )


def _late(name: str, number: int, doing: Doing, timeout_s: float) -> Visit:
    """What the history says of a site that was not done when the round's time was over."""
    cause = Cause.NO_ANSWER if doing.what == SILENT else Cause.LATE
    reason = (
        f"the {timeout_s:g} s of the round were over, and the site {_was[doing.what]}; an update "
        "that comes now is not used"
    )
    return Visit(SiteRound(number, name, "missing", reason, seconds=timeout_s, cause=cause.value))


_was = {
    WAITING: "was still to be asked",
    TRAINING: "was still training",
    SILENT: "did not answer",
    BUSY: "was still at a run of an earlier round",
}


def _ended(record: SiteRound) -> str:
    return SENT if record.state == "contributed" else f"missing: {record.cause}"
