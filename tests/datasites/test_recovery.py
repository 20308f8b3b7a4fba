"""What a site does at its start about what it was stopped in the middle of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasites.audit_log import Event, read_events
from datasites.config import Site
from datasites.decisions import revoke
from datasites.errors import RecordError
from datasites.kept_decisions import KeptDecision, waiting
from datasites.ledger import Ledger, Outcome, RunId, RunState
from datasites.open_site import OpenSite
from datasites.records import DecisionRow, RequestRow
from datasites.recovery import recover
from open_sites import OWNER, RITA, RecordedSyft, open_site, submit

RUN = RunId(1, 1, 1)
RELEASED = Outcome(RunState.RELEASED, {"sha256": "0" * 64}, b"arrays")
REFUSED = Outcome(RunState.REFUSED, {"findings": []})


class Stopped:
    """A site that stops and starts; between the two a test writes what a crash leaves."""

    def __init__(self, folder: Path) -> None:
        self.site: Site
        self.open = open_site(folder)
        self.site = self.open.site

    def charged(self, run: RunId = RUN) -> Ledger:
        assert self.open.ledger.reserve(run, 1, 10, 10, "a" * 64) is None
        return self.open.ledger

    def log(self, *events: Event, run: RunId = RUN) -> None:
        for event in events:
            self.open.audit.append(event, RITA, str(run))

    def start(self) -> list[dict[str, Any]]:
        """Stop and start the site; the lines that its start wrote."""
        before = len(self.lines())
        self.open.close()
        self.open = OpenSite(self.site)
        recover(self.open)
        return self.lines()[before:]

    def lines(self) -> list[dict[str, Any]]:
        return list(read_events(self.site.audit))

    def results(self) -> list[str]:
        return sorted(path.name for path in (self.site.state / "results").iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Stopped]:
    made = Stopped(tmp_path)
    yield made
    made.open.close()


def told(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


def test_a_site_that_was_stopped_in_good_order_writes_nothing(site: Stopped) -> None:
    ledger = site.charged()
    site.log(Event.RUN_STARTED)
    ledger.keep(RUN, RELEASED)
    site.log(Event.UPDATE_RELEASED)
    ledger.settle(RUN, RELEASED)
    assert site.start() == []
    assert site.results() == ["R-1_1_1.outcome"]


def test_a_run_that_was_charged_and_not_started_stays_charged_and_starts(site: Stopped) -> None:
    site.charged()
    (line,) = site.start()
    assert (line["event"], line["actor"], line["subject"]) == (
        "site recovered", "site", "st-marys",
    )  # fmt: skip
    assert line["detail"] == {
        "requests_decided": [], "requests_ended": [], "runs_settled": [], "runs_interrupted": [],
        "runs_not_started": ["R-1/1/1"],
    }  # fmt: skip
    assert site.open.ledger.used(1) == 1
    assert site.open.ledger.find(RUN) is None
    site.charged()
    assert site.open.ledger.used(1) == 1


def test_a_run_that_started_is_interrupted_after_the_site_says_so(site: Stopped) -> None:
    ledger = site.charged()
    site.log(Event.RUN_STARTED)
    ledger.keep(RUN, RELEASED)
    lines = site.start()
    assert told(lines) == ["site recovered", "run interrupted"]
    assert lines[0]["detail"]["runs_interrupted"] == ["R-1/1/1"]
    assert (lines[1]["subject"], lines[1]["reason"]) == ("R-1/1/1", "the site had stopped")
    assert site.results() == []  # nobody was told of it, and nobody will be
    assert site.start() == []
    site.charged()
    assert site.open.ledger.used(1) == 1


@pytest.mark.parametrize(
    ("event", "outcome"),
    [(Event.UPDATE_RELEASED, RELEASED), (Event.UPDATE_REFUSED, REFUSED)],
)
def test_a_run_whose_end_is_in_the_log_is_settled_with_what_was_kept(
    site: Stopped, event: Event, outcome: Outcome
) -> None:
    ledger = site.charged()
    site.log(Event.RUN_STARTED)
    ledger.keep(RUN, outcome)
    site.log(event)
    (line,) = site.start()
    assert line["detail"]["runs_settled"] == ["R-1/1/1"]
    assert site.open.ledger.find(RUN) == outcome
    assert site.start() == []


def test_a_run_whose_outcome_is_gone_is_refused_in_a_sentence(site: Stopped) -> None:
    site.charged()
    site.log(Event.RUN_STARTED, Event.UPDATE_RELEASED)
    site.start()
    found = site.open.ledger.find(RUN)
    assert found is not None
    assert found.state is RunState.FAILED
    (finding,) = found.answer["findings"]
    assert finding["seen"] == "run R-1/1/1 ended, and what came of it was lost"


def test_a_run_that_was_interrupted_and_charged_again_is_interrupted_once(site: Stopped) -> None:
    site.charged()
    site.log(Event.RUN_STARTED)
    site.start()
    site.charged()  # and the site stops before it starts
    site.log(Event.RUN_REFUSED)  # somebody asked for it with other weights
    (line,) = site.start()
    assert line["detail"]["runs_not_started"] == ["R-1/1/1"]
    assert told(site.lines()).count("run interrupted") == 1


def test_every_run_goes_its_own_way(site: Stopped) -> None:
    runs = [RunId(1, 1, attempt) for attempt in (1, 2, 3)]
    for run in runs:
        ledger = site.charged(run)
    site.log(Event.RUN_STARTED, run=runs[1])
    site.log(Event.RUN_STARTED, run=runs[2])
    ledger.keep(runs[2], RELEASED)
    site.log(Event.UPDATE_RELEASED, run=runs[2])
    detail = site.start()[0]["detail"]
    assert detail["runs_not_started"] == ["R-1/1/1"]
    assert detail["runs_interrupted"] == ["R-1/1/2"]
    assert detail["runs_settled"] == ["R-1/1/3"]


def test_outcomes_of_rounds_that_are_over_and_half_files_are_deleted(site: Stopped) -> None:
    for number in (1, 2):
        run = RunId(1, number, 1)
        ledger = site.charged(run)
        site.log(Event.RUN_STARTED, run=run)
        ledger.keep(run, RELEASED)
        site.log(Event.UPDATE_RELEASED, run=run)
        ledger.settle(run, RELEASED)
    ledger.keep(RUN, RELEASED)  # as if the site had died before it was deleted
    (site.site.state / "results" / ".R-1_3_1.outcome.99.tmp").write_bytes(b"half")
    assert site.start() == []
    assert site.results() == ["R-1_2_1.outcome"]


def test_a_request_that_the_log_ended_is_ended_in_the_records(site: Stopped) -> None:
    row = submit(site.open, RecordedSyft())
    site.open.audit.append(Event.REQUEST_WITHDRAWN, row.account, f"R-{row.id}")
    (line,) = site.start()
    assert line["detail"]["requests_ended"] == [f"R-{row.id}"]
    with site.open.records.read() as session:
        assert session.get_one(RequestRow, row.id).state == "withdrawn"
    assert site.start() == []


def test_a_decision_that_the_log_tells_is_recorded_with_its_signature(
    site: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = submit(site.open, RecordedSyft())
    with site.open.records.write() as session:
        session.get_one(RequestRow, row.id).state = "approved"

    def full() -> None:
        raise RecordError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(site.open.records, "write", full)
        with pytest.raises(RecordError, match=f"about R-{row.id} is made and logged, and the rec"):
            revoke(site.open, RecordedSyft(), row.id, OWNER, "no longer")
    (kept,) = waiting(site.open)
    lines = site.start()
    assert told(lines) == ["site recovered"]
    assert lines[0]["detail"]["requests_decided"] == [f"R-{row.id}"]
    with site.open.records.read() as session:
        (stored,) = session.query(DecisionRow).all()
        fresh = session.get_one(RequestRow, row.id)
    assert (stored.document, stored.signature) == (kept.document, kept.signature)
    assert (fresh.state, fresh.decided_by, fresh.reason) == ("revoked", OWNER.email, "no longer")
    assert told(site.lines()).count("request revoked") == 1
    assert site.start() == []


def test_a_decision_that_the_log_does_not_tell_was_not_made(
    site: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = submit(site.open, RecordedSyft())
    with site.open.records.write() as session:
        session.get_one(RequestRow, row.id).state = "approved"
    kept: list[KeptDecision] = []

    def die_before_the_log(*_: Any, **__: Any) -> None:
        (file,) = (site.site.state / "decisions").iterdir()
        kept.append(KeptDecision.model_validate_json(file.read_bytes()))
        raise RecordError("no")

    with monkeypatch.context() as patch:
        patch.setattr(site.open.audit, "append", die_before_the_log)
        with pytest.raises(RecordError, match="no"):
            revoke(site.open, RecordedSyft(), row.id, OWNER, "no longer")
    file = site.site.state / "decisions" / f"R-{row.id}.json"
    assert not file.exists()
    file.write_text(kept[0].model_dump_json())  # as if the site had died instead
    assert site.start() == []
    assert not file.exists()
    with site.open.records.read() as session:
        assert session.get_one(RequestRow, row.id).state == "approved"
