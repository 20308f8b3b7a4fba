"""What runs cost the patients' privacy: charged once, with the run, up to the cap, never less."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from datasites.audit_events import Event, event_content
from datasites.errors import RunRefused
from datasites.ledger import Ledger, Outcome, RunId, RunState
from datasites.privacy_ledger import Charge, compare, entries, entry_in_log, restore, spent_on
from datasites.records import ChargeRow, Records
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Mechanism, Spent
from policies.privacy.rule import PrivacyRule

RULE = PrivacyRule(mode="update_noise", maximum_epsilon=2.0, delta=1e-5)
NOISE = Mechanism(noise_multiplier=8.0)
ARGUMENTS = "a" * 64


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(f"sqlite:///{tmp_path / 'site.db'}")
    yield opened
    opened.close()


@pytest.fixture
def ledger(records: Records, tmp_path: Path) -> Ledger:
    return Ledger(records, tmp_path / "results")


def reserve(
    ledger: Ledger, run: RunId, dataset: str = "chest-xray", mechanism: Mechanism = NOISE,
    rule: PrivacyRule = RULE, limit: int = 1000,
) -> Outcome | None:  # fmt: skip
    charge = Charge(dataset, mechanism, rule)
    return ledger.reserve(run, 1, limit, 1000, ARGUMENTS, charge)


def most_runs(rule: PrivacyRule = RULE) -> int:
    """How many runs with NOISE fit under the cap."""
    number = 0
    while epsilon(Spent({NOISE: number + 1}), 1e-5) <= rule.cap:
        number += 1
    return number


def test_runs_are_charged_up_to_the_cap_and_not_one_more(ledger: Ledger, records: Records) -> None:
    most = most_runs()
    assert most > 2
    for number in range(most):
        reserve(ledger, RunId(1, number, 1))
    assert epsilon(spent_on(records, "chest-xray"), 1e-5) <= 2.0
    with pytest.raises(RunRefused, match="per patient is spent on `chest-xray`") as refused:
        reserve(ledger, RunId(1, most, 1))
    assert "is left" in str(refused.value)
    assert ledger.used(1) == most  # the run was not charged either
    reserve(ledger, RunId(2, 1, 1), dataset="head-mr")  # another dataset has a budget of its own


def test_the_cap_holds_over_all_requests_and_versions_together(
    ledger: Ledger, records: Records
) -> None:
    for number in range(most_runs()):
        reserve(ledger, RunId(number + 1, 1, 1))
    with pytest.raises(RunRefused, match="spent"):
        reserve(ledger, RunId(500, 1, 1))


def test_a_run_is_charged_once_however_often_it_starts(ledger: Ledger, records: Records) -> None:
    run = RunId(1, 1, 1)
    reserve(ledger, run)
    for _ in range(2):
        ledger.started(run)
        ledger.interrupt(run)
        reserve(ledger, run)
    assert spent_on(records, "chest-xray") == Spent({NOISE: 1})


def test_a_run_that_failed_gives_nothing_back(ledger: Ledger, records: Records) -> None:
    run = RunId(1, 1, 1)
    reserve(ledger, run)
    outcome = Outcome(RunState.FAILED, {"findings": []})
    ledger.keep(run, outcome)
    ledger.settle(run, outcome)
    assert spent_on(records, "chest-xray") == Spent({NOISE: 1})


def test_a_run_that_starts_again_with_other_noise_is_refused(ledger: Ledger) -> None:
    run = RunId(1, 1, 1)
    reserve(ledger, run)
    with pytest.raises(RunRefused, match="charged under another policy"):
        reserve(ledger, run, mechanism=Mechanism(noise_multiplier=9.0))


def test_a_run_that_may_not_be_charged_for_lack_of_runs_costs_no_privacy(
    ledger: Ledger, records: Records
) -> None:
    reserve(ledger, RunId(1, 1, 1), limit=1)
    with pytest.raises(RunRefused, match="1 of 1 runs are used"):
        reserve(ledger, RunId(1, 2, 1), limit=1)
    assert spent_on(records, "chest-xray").total() == 1


def test_a_period_counts_what_was_charged_in_it(ledger: Ledger, records: Records) -> None:
    rule = RULE.model_copy(update={"period_days": 365})
    for number in range(most_runs()):
        reserve(ledger, RunId(1, number, 1))
    with records.write() as session:
        session.execute(update(ChargeRow).values(charged_at="2020-01-01T00:00:00.000000Z"))
    assert spent_on(records, "chest-xray", 365) == Spent()
    reserve(ledger, RunId(2, 1, 1), rule=rule)
    with pytest.raises(RunRefused, match="spent"):
        reserve(ledger, RunId(2, 2, 1))  # for ever


def test_a_charge_that_somebody_overwrote_stops_all_runs(ledger: Ledger, records: Records) -> None:
    reserve(ledger, RunId(1, 1, 1))
    with records.write() as session:
        session.execute(update(ChargeRow).values(mechanism='{"noise_multiplier": -1}'))
    with pytest.raises(RunRefused, match="the ledger of privacy is damaged"):
        reserve(ledger, RunId(1, 2, 1))


def line(run: str, charge: Charge) -> dict[str, object]:
    """The event of a run's start, as the log gives it."""
    return event_content(
        Event.RUN_STARTED, "rita@uni.example", run, "2026-01-02T03:04:05Z",
        detail={"privacy": charge.in_log()},
    )  # fmt: skip


def test_the_log_tells_every_charge_and_restores_one_that_is_lost(
    ledger: Ledger, records: Records
) -> None:
    for number in (1, 2, 3):
        reserve(ledger, RunId(1, number, 1))
    charge = Charge("chest-xray", NOISE, RULE)
    lines = [line(f"R-1/{number}/1", charge) for number in (1, 2, 3)]
    told = {e.run: e for one in lines if (e := entry_in_log(one)) is not None}
    assert compare(entries(records), told).holds
    with records.write() as session:
        session.execute(delete(ChargeRow).where(ChargeRow.run == "R-1/2/1"))
    found = compare(entries(records), told)
    assert (found.holds, found.only_in_log) == (False, ("R-1/2/1",))
    assert restore(records, told.values()) == ["R-1/2/1"]
    assert restore(records, told.values()) == []
    assert compare(entries(records), told).holds
    with records.write() as session:
        session.execute(
            update(ChargeRow)
            .where(ChargeRow.run == "R-1/3/1")
            .values(mechanism=Mechanism(noise_multiplier=80.0).model_dump_json())
        )
    found = compare(entries(records), told)
    assert (found.holds, found.different) == (False, ("R-1/3/1",))


def test_a_run_that_was_charged_and_did_not_start_is_told_and_stands(
    ledger: Ledger, records: Records
) -> None:
    reserve(ledger, RunId(1, 1, 1))
    found = compare(entries(records), {})
    assert (found.holds, found.only_in_records) == (True, ("R-1/1/1",))


KILLED = """
import os, sys, signal
from pathlib import Path
from datasites.ledger import Ledger, RunId
from datasites.privacy_ledger import Charge
from datasites.records import Records
from policies.privacy.mechanisms import Mechanism
from policies.privacy.rule import PrivacyRule

folder = Path(sys.argv[1])
ledger = Ledger(Records(f"sqlite:///{folder / 'site.db'}"), folder / "results")
rule = PrivacyRule(mode="update_noise", maximum_epsilon=50, delta=1e-5)
charge = Charge("chest-xray", Mechanism(noise_multiplier=8.0), rule)
for number in range(10_000):
    ledger.reserve(RunId(1, number, 1), 1, 10_000, 10_000, "a" * 64, charge)
    print(number, flush=True)
"""


def test_a_process_that_is_killed_has_charged_every_run_that_it_reserved(tmp_path: Path) -> None:
    for after in (1, 4, 9):
        folder = tmp_path / str(after)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.wait()
        process.stdout.close()
        records = Records(f"sqlite:///{folder / 'site.db'}")
        try:
            reserved = Ledger(records, folder / "results").used(1)
            assert reserved >= after
            assert [entry.run for entry in entries(records)] == [
                f"R-1/{number}/1" for number in range(reserved)
            ]
        finally:
            records.close()
