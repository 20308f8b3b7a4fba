"""Every run is charged once, before it starts, and never more often than was approved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from datasites.errors import RecordError, RunRefused
from datasites.ledger import MAXIMUM_STARTS, Ledger, Outcome, RunId, RunState
from datasites.records import Records, RunRow

APPROVAL = 3
ARGUMENTS = "a" * 64
RELEASED = Outcome(RunState.RELEASED, {"sha256": "0" * 64, "metrics": {"loss": 0.5}}, b"arrays")


class Open:
    """A ledger in a directory, which can be closed and opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()

    def open(self) -> None:
        self.records = Records(f"sqlite:///{self.folder / 'site.db'}")
        self.ledger = Ledger(self.records, self.folder / "results")

    def reopen(self) -> Ledger:
        self.records.close()
        self.open()
        return self.ledger


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Open]:
    opened = Open(tmp_path)
    yield opened
    opened.records.close()


@pytest.fixture
def ledger(site: Open) -> Ledger:
    return site.ledger


def reserve(
    ledger: Ledger,
    run: RunId,
    limit: int = 10,
    arguments: str = ARGUMENTS,
    per_day: int = 1000,
) -> Outcome | None:
    return ledger.reserve(run, APPROVAL, limit, per_day, arguments)


def end(ledger: Ledger, ended: RunId, outcome: Outcome) -> None:
    """What a run does at its end, the line of the log between the two left out."""
    ledger.keep(ended, outcome)
    ledger.settle(ended, outcome)


def interrupt_all(ledger: Ledger) -> list[RunId]:
    """What a site does at its start with runs that started and did not end."""
    found = ledger.unsettled()
    for one in found:
        ledger.interrupt(one)
    return found


def run(round_number: int = 1, attempt: int = 1, request: int = 7) -> RunId:
    return RunId(request, round_number, attempt)


def sentences(call: Callable[[], object]) -> list[str]:
    with pytest.raises(RunRefused) as refused:
        call()
    return [finding.sentence for finding in refused.value.findings]


def test_run_id_is_written_short() -> None:
    assert str(RunId(7, 3, 1)) == "R-7/3/1"


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_so_many_runs_start_and_no_more(ledger: Ledger, limit: int) -> None:
    for k in range(limit):
        assert reserve(ledger, run(k), limit) is None
    assert sentences(lambda: reserve(ledger, run(limit), limit)) == [
        f"runs.maximum: {limit} of {limit} runs are used; allowed: at most {limit} runs, failed "
        "ones included. To do: submit a new request for more runs."
    ]
    assert ledger.used(7) == limit


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.REFUSED, RunState.RELEASED])
def test_run_is_charged_whatever_came_of_it(ledger: Ledger, state: RunState) -> None:
    assert ledger.used(7) == 0
    reserve(ledger, run(), 1)
    assert ledger.used(7) == 1  # before it ends
    end(ledger, run(), Outcome(state, {"findings": []}, b"x"))
    assert ledger.used(7) == 1
    assert len(sentences(lambda: reserve(ledger, run(2), 1))) == 1


def test_attempts_of_a_round_are_charged_each(ledger: Ledger) -> None:
    for attempt in (1, 2, 3):
        assert reserve(ledger, run(1, attempt), 3) is None
    assert ledger.used(7) == 3
    assert len(sentences(lambda: reserve(ledger, run(1, 4), 3))) == 1


def test_requests_have_budgets_of_their_own(ledger: Ledger) -> None:
    assert reserve(ledger, run(request=1), 1) is None
    assert reserve(ledger, run(request=2), 1) is None
    assert (ledger.used(1), ledger.used(2), ledger.used(3)) == (1, 1, 0)
    assert ledger.counts([1, 2, 3]) == (2, 0)


def test_another_approval_of_the_same_request_is_no_new_budget(ledger: Ledger) -> None:
    assert ledger.reserve(run(1), 1, 2, 9, ARGUMENTS) is None
    assert ledger.reserve(run(2), 2, 2, 9, ARGUMENTS) is None
    assert sentences(lambda: ledger.reserve(run(3), 2, 2, 9, ARGUMENTS)) == [
        "runs.maximum: 2 of 2 runs are used; allowed: at most 2 runs, failed ones included. "
        "To do: submit a new request for more runs."
    ]


def test_runs_of_a_day_are_counted_apart(site: Open) -> None:
    for number in (1, 2):
        assert reserve(site.ledger, run(number), 10, per_day=2) is None
    assert sentences(lambda: reserve(site.ledger, run(3), 10, per_day=2)) == [
        "runs.per_day: 2 runs in the last 24 hours; allowed: at most 2 runs in 24 hours. "
        "To do: go on tomorrow with the same round."
    ]
    with site.records.write() as session:  # a day later
        for row in session.scalars(select(RunRow)):
            row.charged_at = "2020-01-01T00:00:00.000000Z"
    assert reserve(site.ledger, run(3), 10, per_day=2) is None


def test_same_id_is_answered_the_same_and_costs_nothing(ledger: Ledger) -> None:
    reserve(ledger, run(), 1)
    end(ledger, run(), RELEASED)
    for _ in range(3):
        assert reserve(ledger, run(), 1) == RELEASED
    assert ledger.used(7) == 1


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.REFUSED])
def test_refused_run_is_answered_the_same(ledger: Ledger, state: RunState) -> None:
    outcome = Outcome(state, {"findings": [{"rule": "run.failed"}]})
    reserve(ledger, run())
    end(ledger, run(), outcome)
    assert reserve(ledger, run()) == outcome


@pytest.mark.parametrize("settled", [True, False])
def test_same_id_with_other_arguments_is_refused(ledger: Ledger, settled: bool) -> None:
    reserve(ledger, run())
    if settled:
        end(ledger, run(), RELEASED)
    assert sentences(lambda: reserve(ledger, run(), arguments="b" * 64)) == [
        "run.id: run R-7/1/1 was asked for with other weights or arguments; allowed: one set of "
        "arguments per run id. To do: raise `attempt` or `round`."
    ]
    assert ledger.used(7) == 1


def test_same_round_of_another_request_is_another_run(ledger: Ledger) -> None:
    reserve(ledger, run(request=7))
    end(ledger, run(request=7), RELEASED)
    assert reserve(ledger, run(request=8)) is None


def test_run_that_was_not_reserved_cannot_be_settled(ledger: Ledger) -> None:
    with pytest.raises(LookupError, match="run R-7/1/1 was not reserved"):
        ledger.settle(run(), Outcome(RunState.FAILED, {}))


def test_interrupted_run_starts_again_under_one_charge(site: Open) -> None:
    ledger = site.ledger
    for _ in range(MAXIMUM_STARTS):
        assert reserve(ledger, run(), 1) is None
        ledger = site.reopen()  # the site died and is started again
        assert interrupt_all(ledger) == [run()]
        assert ledger.used(7) == 1
    assert sentences(lambda: reserve(ledger, run(), 1)) == [
        f"run.interrupted: run R-7/1/1 was interrupted {MAXIMUM_STARTS} times; allowed: at most "
        f"{MAXIMUM_STARTS} starts. To do: raise `attempt`."
    ]
    assert ledger.used(7) == 1


def test_interrupted_run_that_ends_is_answered_the_same(site: Open) -> None:
    reserve(site.ledger, run())
    ledger = site.reopen()
    interrupt_all(ledger)
    assert reserve(ledger, run()) is None
    end(ledger, run(), RELEASED)
    assert reserve(ledger, run()) == RELEASED


def test_interrupted_run_with_other_arguments_is_refused(ledger: Ledger) -> None:
    reserve(ledger, run())
    interrupt_all(ledger)
    (sentence,) = sentences(lambda: reserve(ledger, run(), arguments="b" * 64))
    assert sentence.startswith("run.id: ")


def test_only_unfinished_runs_are_interrupted(ledger: Ledger) -> None:
    for attempt in (1, 2, 3):
        reserve(ledger, run(1, attempt))
    end(ledger, run(1, 1), RELEASED)
    end(ledger, run(1, 2), Outcome(RunState.FAILED, {"findings": []}))
    assert interrupt_all(ledger) == [run(1, 3)]
    assert interrupt_all(ledger) == []
    assert reserve(ledger, run(1, 1)) == RELEASED


@pytest.mark.parametrize("limit", [1, 7, 19, 20])
def test_twenty_callers_at_once_never_get_more_than_the_limit(ledger: Ledger, limit: int) -> None:
    def attempt(number: int) -> bool:
        try:
            return reserve(ledger, run(1, number), limit) is None
        except RunRefused:
            return False

    with ThreadPoolExecutor(20) as pool:
        started = list(pool.map(attempt, range(1, 21)))
    assert sum(started) == limit
    assert ledger.used(7) == limit


def test_one_run_asked_for_by_twenty_callers_is_charged_once(ledger: Ledger) -> None:
    def attempt(_: int) -> None:
        try:
            reserve(ledger, run(), 5)
        except RunRefused as refused:
            assert refused.findings[0].rule == "run.interrupted"  # noqa: PT017

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(attempt, range(20)))
    assert ledger.used(7) == 1


def test_run_that_was_charged_and_could_not_start_may_be_asked_for_without_end(site: Open) -> None:
    for _ in range(3 * MAXIMUM_STARTS):  # the log's disk is full each time
        assert reserve(site.ledger, run(), 1) is None
    assert site.reopen().unsettled() == [run()]
    for _ in range(3 * MAXIMUM_STARTS):
        assert reserve(site.ledger, run(), 1) is None
    assert site.ledger.used(7) == 1


def test_run_that_started_and_lost_its_end_has_so_many_starts(ledger: Ledger) -> None:
    for _ in range(MAXIMUM_STARTS):
        assert reserve(ledger, run()) is None
        ledger.started(run())
    assert sentences(lambda: reserve(ledger, run()))[0].startswith("run.interrupted: ")


def test_end_that_the_database_did_not_take_is_recorded_when_the_run_is_asked_for(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(site.ledger, run())
    site.ledger.keep(run(), RELEASED)
    with monkeypatch.context() as full:
        full.setattr(site.records, "write", refuse_to_write)
        with pytest.raises(RecordError):
            site.ledger.settle(run(), RELEASED)
        with pytest.raises(RecordError):
            site.ledger.find(run())
    assert site.ledger.find(run()) == RELEASED
    assert reserve(site.reopen(), run()) == RELEASED


def refuse_to_write() -> None:
    raise RecordError("the disk is full")


def test_outcome_that_was_kept_is_found_whole_or_not_at_all(ledger: Ledger, tmp_path: Path) -> None:
    ledger.keep(run(), RELEASED)
    (path,) = (tmp_path / "results").iterdir()
    whole = path.read_bytes()
    assert ledger.kept(run()) == RELEASED
    for cut in range(len(whole) - len(RELEASED.payload)):
        path.write_bytes(whole[:cut])
        assert ledger.kept(run()) is None
    ledger.clear()
    assert ledger.kept(run()) is None
    assert results(tmp_path) == []


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "results").iterdir())


def test_results_of_older_rounds_are_deleted(ledger: Ledger, tmp_path: Path) -> None:
    kept = [run(1, 1, request=70), run(9, 1, request=8)]  # of other requests
    for one in (*kept, run(1), run(1, 2), run(2)):
        reserve(ledger, one)
        end(ledger, one, RELEASED)
    assert results(tmp_path) == [
        "R-70_1_1.outcome", "R-7_2_1.outcome", "R-8_9_1.outcome",
    ]  # fmt: skip
    assert reserve(ledger, run(2)) == RELEASED
    assert sentences(lambda: reserve(ledger, run(1))) == [
        "run.id: the result of run R-7/1/1 is no longer kept; allowed: results of the latest "
        "round. To do: use the update that was sent then, or run another round."
    ]
    assert ledger.used(7) == 3


def test_results_of_one_round_are_kept_together(ledger: Ledger) -> None:
    for attempt in (1, 2):
        reserve(ledger, run(3, attempt))
        end(ledger, run(3, attempt), Outcome(RunState.RELEASED, {"n": attempt}, b"%d" % attempt))
    for attempt in (1, 2):
        found = reserve(ledger, run(3, attempt))
        assert found is not None
        assert found.payload == b"%d" % attempt


def test_refused_run_of_a_new_round_deletes_the_old_result_too(
    ledger: Ledger, tmp_path: Path
) -> None:
    reserve(ledger, run(1))
    end(ledger, run(1), RELEASED)
    reserve(ledger, run(2))
    end(ledger, run(2), Outcome(RunState.REFUSED, {"findings": []}))
    assert results(tmp_path) == []


def test_ledger_survives_reopening(site: Open) -> None:
    reserve(site.ledger, run(1), 2)
    end(site.ledger, run(1), RELEASED)
    reserve(site.ledger, run(2), 2)
    ledger = site.reopen()
    assert ledger.used(7) == 2
    assert reserve(ledger, run(1), 2) == RELEASED
    assert len(sentences(lambda: reserve(ledger, run(3), 2))) == 1


def test_results_are_for_the_site_only(ledger: Ledger, tmp_path: Path) -> None:
    reserve(ledger, run())
    end(ledger, run(), RELEASED)
    (path,) = (tmp_path / "results").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
