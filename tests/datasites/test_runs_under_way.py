"""Runs go on without the calls that asked for them, one of a request at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from datasites.ledger import Outcome, RunId, RunState
from datasites.runs_under_way import MOST_WAITING, RunsUnderWay, UnderWay

RELEASED = Outcome(RunState.RELEASED, {"sha256": "0" * 64}, b"arrays")
VERSION = "a" * 64


@pytest.fixture
def runs() -> Iterator[RunsUnderWay]:
    made = RunsUnderWay()
    yield made
    made.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets the runs that `wait` makes come to their end."""
    event = threading.Event()
    yield event
    event.set()


def run(request: int = 7, attempt: int = 1) -> RunId:
    return RunId(request, 1, attempt)


def waits(gate: threading.Event) -> Callable[[], Outcome]:
    def work() -> Outcome:
        assert gate.wait(20)
        return RELEASED

    return work


def begin(runs: RunsUnderWay, one: RunId, work: Callable[[], Outcome]) -> UnderWay:
    return runs.begin(one, "b" * 64, VERSION, work)


def test_a_quick_run_is_answered_by_the_call_that_asked_for_it(runs: RunsUnderWay) -> None:
    under_way = begin(runs, run(), lambda: RELEASED)
    assert runs.wait_for(under_way, 20) == RELEASED


def test_a_long_run_goes_on_when_nobody_waits_any_longer(
    runs: RunsUnderWay, gate: threading.Event
) -> None:
    under_way = begin(runs, run(), waits(gate))
    assert runs.wait_for(under_way, 0.01) is None
    assert runs.of(7) is under_way
    assert under_way.seconds > 0
    gate.set()
    assert runs.wait_for(under_way, 20) == RELEASED
    assert runs.of(7) is None


def test_the_end_of_a_run_is_no_longer_under_way_when_it_is_told(runs: RunsUnderWay) -> None:
    for attempt in range(1, 200):
        under_way = begin(runs, run(attempt=attempt), lambda: RELEASED)
        assert runs.wait_for(under_way, 20) == RELEASED
        assert runs.of(7) is None


def test_only_the_first_who_takes_an_outcome_is_the_first(runs: RunsUnderWay) -> None:
    runs.wait_for(begin(runs, run(), lambda: RELEASED), 20)
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(runs.take, [run()] * 8)) == [False] * 7 + [True]


def test_an_outcome_of_an_earlier_start_of_the_site_was_taken(runs: RunsUnderWay) -> None:
    assert runs.take(run()) is False


def test_what_a_run_raises_reaches_everybody_who_waits_and_frees_the_request(
    runs: RunsUnderWay, gate: threading.Event
) -> None:
    def fail() -> Outcome:
        assert gate.wait(20)
        raise LookupError("no cage")

    under_way = begin(runs, run(), fail)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(runs.wait_for, under_way, 20) for _ in range(3)]
        gate.set()
        for one in asked:
            with pytest.raises(LookupError, match="no cage"):
                one.result(20)
    assert runs.of(7) is None
    assert runs.wait_for(begin(runs, run(attempt=2), lambda: RELEASED), 20) == RELEASED


def test_runs_of_one_version_take_turns_and_those_of_another_do_not_wait(
    runs: RunsUnderWay, gate: threading.Event
) -> None:
    begin(runs, run(1), waits(gate))
    second = begin(runs, run(2), lambda: RELEASED)
    elsewhere = runs.begin(run(3), "b" * 64, "c" * 64, lambda: RELEASED)
    assert runs.wait_for(elsewhere, 20) == RELEASED
    assert runs.wait_for(second, 0.05) is None
    gate.set()
    assert runs.wait_for(second, 20) == RELEASED


def test_more_calls_than_may_wait_are_told_at_once_that_the_run_is_under_way(
    runs: RunsUnderWay, gate: threading.Event
) -> None:
    under_way = begin(runs, run(), waits(gate))
    with ThreadPoolExecutor(MOST_WAITING) as pool:
        asked = [pool.submit(runs.wait_for, under_way, 20) for _ in range(MOST_WAITING)]
        end = time.monotonic() + 20
        while runs._waiting._value and time.monotonic() < end:
            time.sleep(0.01)
        started = time.monotonic()
        assert runs.wait_for(under_way, 20) is None
        assert time.monotonic() - started < 5
        gate.set()
        assert [one.result(20) for one in asked] == [RELEASED] * MOST_WAITING


def test_who_waits_is_told_at_once_when_the_site_stops(
    runs: RunsUnderWay, gate: threading.Event
) -> None:
    under_way = begin(runs, run(), waits(gate))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(runs.wait_for, under_way, 20)
        assert not runs.is_stopping
        runs.stop()
        assert asked.result(5) is None
        runs.stop()  # again makes no difference
        assert runs.is_stopping
        gate.set()


def test_what_waits_in_a_queue_when_the_site_closes_does_not_start(gate: threading.Event) -> None:
    runs, started = RunsUnderWay(), []

    def note() -> Outcome:
        started.append(1)
        return RELEASED

    begin(runs, run(1), waits(gate))
    second = begin(runs, run(2), note)
    threading.Timer(0.1, gate.set).start()
    runs.close()
    assert started == []
    assert runs.wait_for(second, 1) is None
