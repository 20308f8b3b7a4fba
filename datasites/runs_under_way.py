"""Runs that are under way: they go on whether or not anybody waits for them.

A long training does not hang on one HTTP call. A run works in the queue of its dataset version, and
a call waits for it for a while; when it takes longer, the researcher is told that it is under way,
and asks again with the same run id. The end of a run is recorded by the run itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from datasites.ledger import Outcome, RunId

MOST_WAITING = 16
"""Calls that wait at one time; others are told at once that their run is under way."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """One run that has not ended, or just did.

    Attributes:
        run: Its id.
        arguments: Digest of the weights and arguments that it was asked for with.
        outcome: What comes of it.
        since: When it was asked for, seconds of the monotonic clock.
    """

    run: RunId
    arguments: str
    outcome: Future[Outcome]
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return time.monotonic() - self.since


class RunsUnderWay:
    """The runs of a site that are under way: at most one per request."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._runs: dict[int, UnderWay] = {}
        self._queues: dict[str, ThreadPoolExecutor] = {}
        self._untaken: set[RunId] = set()
        self._stopping: Future[None] = Future()
        self._waiting = threading.Semaphore(MOST_WAITING)

    @property
    def is_stopping(self) -> bool:
        """Whether the site stops: what fails now is interrupted, and starts again another time."""
        return self._stopping.done()

    def of(self, request: int) -> UnderWay | None:
        """The run of a request that is under way."""
        with self._turn:
            return self._runs.get(request)

    def begin(
        self, run: RunId, arguments: str, version: str, work: Callable[[], Outcome]
    ) -> UnderWay:
        """Put a run in the queue of its dataset version. The request has none under way."""

        def carry_out() -> Outcome:
            try:
                return work()
            finally:
                with self._turn:
                    self._untaken.add(run)
                    del self._runs[run.request]

        with self._turn:
            queue = self._queues.setdefault(
                version, ThreadPoolExecutor(1, thread_name_prefix=f"runs-{version[:8]}")
            )
            under_way = UnderWay(run, arguments, queue.submit(carry_out))
            self._runs[run.request] = under_way
            return under_way

    def wait_for(self, under_way: UnderWay, seconds: float) -> Outcome | None:
        """What came of a run, or None when it takes longer, or the site stops.

        Raises:
            Exception: What the run's work raised.
        """
        if self._waiting.acquire(blocking=False):
            try:
                either: list[Future[Any]] = [under_way.outcome, self._stopping]
                wait(either, seconds, FIRST_COMPLETED)
            finally:
                self._waiting.release()
        outcome = under_way.outcome
        return outcome.result() if outcome.done() and not outcome.cancelled() else None

    def take(self, run: RunId) -> bool:
        """Whether this is the first time that the outcome of a run is taken since it ended."""
        with self._turn:
            first = run in self._untaken
            self._untaken.discard(run)
            return first

    def rest(self, seconds: float) -> bool:
        """Wait for so long, or until the site stops: whether it does."""
        wait([self._stopping], max(0.0, seconds))
        return self.is_stopping

    def stop(self) -> None:
        """Let nobody wait any longer; to be followed by the end of the cages."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def close(self) -> None:
        """End the queues; what is in them did not start."""
        self.stop()
        with self._turn:
            queues = list(self._queues.values())
        for queue in queues:
            queue.shutdown(wait=True, cancel_futures=True)
