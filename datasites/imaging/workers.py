"""Worker processes for files that may crash or hang a decoder; a broken file costs only itself.

A batch that crashes, hangs or needs too much memory is taken apart: its units run alone, then the
items of a unit alone, so that only the culprit is put into quarantine.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from pathlib import Path
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from datasites.imaging.preparing import PreparedUnit, Settings, prepare
from datasites.imaging.problems import Reason
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.sources.source import Item, Unit

BATCH_ITEMS, SEARCHED_BATCH_ITEMS = 4, 16
"""Few, so that no process is left over; more where Tesseract is started for each batch."""
BATCH_BYTES = 64_000_000
SECONDS_PER_BATCH, SECONDS_PER_ITEM = 60, 10
MEMORY_BYTES = 6 * 2**30
"""Address space of a worker beside its libraries."""
T = TypeVar("T")
R = TypeVar("R")
Q = TypeVar("Q")


class Workers:
    """A pool of processes that read foreign files."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or len(os.sched_getaffinity(0))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["datasites.imaging.preparing"])
        self._pool = ProcessPool(self.count, initializer=_limit, context=context)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def map(
        self, function: Callable[[list[T]], list[R]], batches: Iterable[list[T]], otherwise: Q
    ) -> Iterator[list[R | Q]]:
        """Apply a function to batches in other processes; results in their order.

        `otherwise` stands for each item that ends or stops the process that looks at it.
        """
        scheduled = [(batch, self._call(function, batch)) for batch in batches]
        for batch, future in scheduled:
            try:
                yield list(future.result())
            except Exception:  # of any kind: a file may break what reads it
                results: list[R | Q] = []
                for item in batch:
                    try:
                        results += self._call(function, [item]).result()
                    except Exception:  # of any kind: a file may break what reads it
                        results.append(otherwise)
                yield results

    def _call(self, function: Callable[[list[T]], list[R]], batch: list[T]) -> Future[list[R]]:
        seconds = SECONDS_PER_BATCH + SECONDS_PER_ITEM * len(batch)
        future: Future[list[R]] = self._pool.schedule(function, args=(batch,), timeout=seconds)
        return future

    def prepare(self, units: Iterable[Unit], settings: Settings) -> Iterator[list[PreparedUnit]]:
        """Prepare units in batches, a few at a time; results as they come."""
        waiting: dict[Future[list[PreparedUnit]], list[Unit]] = {}
        again: list[list[Unit]] = []
        batches = _batches(units, SEARCHED_BATCH_ITEMS if settings.search_text else BATCH_ITEMS)
        more = True
        while more or waiting or again:
            while (again or more) and len(waiting) < 2 * self.count:
                batch = again.pop() if again else next(batches, None)
                if batch is None:
                    more = False
                    break
                waiting[self._schedule(batch, settings)] = batch
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                batch = waiting.pop(future)
                try:
                    yield future.result()
                except Exception:  # of any kind: a file may break what reads it
                    if len(batch) > 1:
                        again += [[unit] for unit in batch]
                    else:
                        yield [self._without_culprits(batch[0], settings)]

    def _without_culprits(self, unit: Unit, settings: Settings) -> PreparedUnit:
        """A unit without the items that end every process that reads them.

        Each item is tried alone, and then the rest together; a process may also be ended from
        outside, so that one end alone condemns nothing.
        """
        prepared = self._try(unit, settings) if len(unit.items) == 1 else None
        if isinstance(prepared, PreparedUnit):
            return prepared
        culprits: dict[Item, Exception] = {}
        for item in unit.items:
            tried = self._try(Unit(unit.name, (item,)), settings)
            if isinstance(tried, Exception):
                culprits[item] = tried
        rest = tuple(item for item in unit.items if item not in culprits)
        done = self._try(Unit(unit.name, rest), settings) if rest else None
        if isinstance(done, Exception):
            culprits |= dict.fromkeys(rest, done)
        key = Pseudonyms(settings.secret).key("unit", unit.name)
        result = done if isinstance(done, PreparedUnit) else PreparedUnit(key)
        result.quarantined += [_given_up(i, settings, error) for i, error in culprits.items()]
        result.items = len(unit.items)
        return result

    def _try(self, unit: Unit, settings: Settings) -> PreparedUnit | Exception:
        try:
            return self._schedule([unit], settings).result()[0]
        except Exception as error:  # of any kind: it is told below in words of ours
            return error

    def _schedule(self, batch: list[Unit], settings: Settings) -> Future[list[PreparedUnit]]:
        seconds = SECONDS_PER_BATCH + SECONDS_PER_ITEM * sum(len(unit.items) for unit in batch)
        future: Future[list[PreparedUnit]] = self._pool.schedule(
            prepare, args=(batch, settings), timeout=seconds
        )
        return future


def _batches(units: Iterable[Unit], most: int) -> Iterator[list[Unit]]:
    batch: list[Unit] = []
    items = size = 0
    for unit in units:
        batch.append(unit)
        items, size = items + len(unit.items), size + unit.size
        if items >= most or size >= BATCH_BYTES:
            yield batch
            batch, items, size = [], 0, 0
    if batch:
        yield batch


def _given_up(item: Item, settings: Settings, error: Exception) -> tuple[str, Reason, str]:
    """The last word about an item that ends or stops every process that reads it."""
    if isinstance(error, MemoryError):
        reason, detail = Reason.TOO_LARGE, "needs more memory than one file may have"
    elif isinstance(error, TimeoutError):
        reason, detail = Reason.BROKEN, "the decoder does not come to an end with it"
    elif isinstance(error, ProcessExpired):
        reason, detail = Reason.BROKEN, "the decoder crashes on it"
    else:
        reason, detail = Reason.BROKEN, "it cannot be read"
    return Pseudonyms(settings.secret).key("sop", item.name), reason, detail


def _limit() -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # decoders write to it what they think of a file
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
