"""Sites, cages and researchers that are killed in the middle of real runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import factories
import federation
from datasites.audit_log import read_events
from datasites.trial import roster
from federation.errors import RefusedError
from federation.submission import Federation, RunUpdate
from hospitals import Hospital
from tests.faults.jobs import SLOW_JOB, events_of, one_round, runs_used

LONG = {"rate": 0.32}


def pid_of(hospital: Hospital) -> int:
    return int((hospital.trial.site.state / "site.lock").read_text())


def cages_of(hospital: Hospital) -> list[int]:
    """The processes of bubblewrap that a site has started."""
    site = pid_of(hospital)
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        if name == "bwrap" and int(rest.split()[1]) == site:
            found.append(int(status.parent.name))
    return found


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("end", "after_s", "rate"), [("kill", 0.0, 0.1), ("kill", 1.0, 0.32), ("stop", 0.5, 0.7)]
)
def test_a_site_that_ends_in_the_middle_of_a_run_makes_it_again_under_one_charge(
    fragile: Hospital, end: str, after_s: float, rate: float, tried: Callable[[int], None]
) -> None:
    study = fragile.submit(fragile.connect(), SLOW_JOB)
    with ThreadPoolExecutor(1) as pool:
        round_ = pool.submit(one_round, study, factories.weights(), 1, {"rate": rate})
        wait_for(lambda: "run started" in events_of(fragile, study, 1))
        time.sleep(after_s)
        getattr(fragile.trial, end)()
        fragile.trial.launch()
        after, record = round_.result(120)
    fragile.trial.wait_until_up()
    np.testing.assert_array_equal(after["w"], [0, 2, 4, 6])
    assert record.state == "contributed"
    assert events_of(fragile, study, 1)[:4] == [
        "run started", "run interrupted", "run started", "update released",
    ]  # fmt: skip
    assert events_of(fragile, study, 1).count("update released") == 1
    assert (runs_used(study), study.states()) == (1, {"north-clinic": "approved"})
    told = [e for e in read_events(fragile.trial.site.audit) if e["event"] == "site recovered"][-1]
    run = f"R-{study.requests['north-clinic']}/1/1"
    assert told["detail"]["runs_interrupted"] == [run]
    assert fragile.trial.verify_audit().intact
    tried(1)


@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.8])
def test_a_cage_that_is_killed_ends_its_run_in_a_sentence_and_the_next_run_works(
    fragile: Hospital, after_s: float, tried: Callable[[int], None]
) -> None:
    study = fragile.submit(fragile.connect(), SLOW_JOB)
    fragile.run(study, config={"rate": 0.01})
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(fragile.run, study, round_number=2, config=LONG)
        wait_for(lambda: "run started" in events_of(fragile, study, 2))
        time.sleep(after_s)
        for cage in cages_of(fragile):
            os.kill(cage, signal.SIGKILL)
        with pytest.raises(RefusedError, match=r"run R-\d+/2/1 ended with Crashed") as refused:
            run.result(60)
    assert [finding.rule for finding in refused.value.findings] == ["run.failed"]
    assert events_of(fragile, study, 2) == ["run started", "run failed"]
    with pytest.raises(RefusedError, match="ended with Crashed"):
        fragile.run(study, round_number=2, config=LONG)
    again = fragile.run(study, round_number=2, attempt=2, config={"rate": 0.01})
    np.testing.assert_array_equal(again.weights["w"], [0, 2, 4, 6])
    assert runs_used(study) == 3
    tried(1)


def test_a_cage_that_is_killed_between_runs_is_replaced(
    fragile: Hospital, tried: Callable[[int], None]
) -> None:
    study = fragile.submit(fragile.connect(), factories.DOUBLE_JOB)
    for number in (1, 2, 3):
        fragile.run(study, round_number=number)
        killed = cages_of(fragile)
        assert killed
        for cage in killed:
            os.kill(cage, signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{cage}/root").exists() for cage in killed))  # noqa: B023
    assert fragile.run(study, round_number=4).examples == 120
    assert events_of(fragile, study, 4) == ["run started", "update released"]
    tried(3)


def test_two_researchers_with_one_id_at_once_get_the_same_update_and_one_is_charged(
    hospital: Hospital, rita: Federation, tried: Callable[[int], None]
) -> None:
    study = hospital.submit(rita, SLOW_JOB)
    again = hospital.connect().study(study.job, study.wanted, study.requests)
    config = {"rate": 0.01}
    for number in range(1, 7):
        together = threading.Barrier(2)

        def ask(
            one: federation.Study, number: int = number, together: threading.Barrier = together
        ) -> RunUpdate:
            together.wait()
            return hospital.run(one, round_number=number, config=config)

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(ask, (study, again))
        assert first.weights["w"].tobytes() == second.weights["w"].tobytes()
        assert (first.metrics, first.run) == (second.metrics, second.run)
        assert events_of(hospital, study, number) == [
            "run started", "update released", "update repeated",
        ]  # fmt: skip
        assert runs_used(study) == number
    tried(6)


def test_two_researchers_with_one_id_and_other_weights_get_one_update(
    hospital: Hospital, rita: Federation, tried: Callable[[int], None]
) -> None:
    study = hospital.submit(rita, SLOW_JOB)
    again = hospital.connect().study(study.job, study.wanted, study.requests)
    for number in range(1, 5):
        together = threading.Barrier(2)

        def ask(
            one: federation.Study, factor: int, number: int = number,
            together: threading.Barrier = together,
        ) -> object:  # fmt: skip
            together.wait()
            weights = {"w": factories.weights()["w"] * factor}
            try:
                found = hospital.run(
                    one, round_number=number, weights=weights, config={"rate": 0.01}
                )
            except RefusedError as refused:
                return [finding.rule for finding in refused.findings]
            return (found.weights["w"] / weights["w"].clip(1)).max()

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(ask, (study, again), (1, 3)))
        assert sorted(answers, key=str) == [2, ["run.id"]]
        events = events_of(hospital, study, number)
        assert sorted(events) == ["run refused", "run started", "update released"]
        assert runs_used(study) == number
    tried(4)


def test_the_federation_goes_on_without_a_killed_site_and_takes_it_back(
    hospital: Hospital, fragile: Hospital, tried: Callable[[int], None]
) -> None:
    sites = federation.connect(
        roster([hospital.trial, fragile.trial]),
        email="rita@uni.example",
        password=factories.PASSWORD,
    )
    study = hospital.submit(sites, SLOW_JOB, approve=False)
    for one in (hospital, fragile):
        one.decide(study, "approve")

    def kill() -> None:
        wait_for(lambda: "run started" in events_of(fragile, study, 2))
        fragile.trial.kill()

    def restart(number: int, _: federation.RoundsResult) -> None:
        if number == 1:
            killer.start()
        if number == 2:
            killer.join()
            fragile.trial.launch()
            fragile.trial.wait_until_up()

    killer = threading.Thread(target=kill)
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.12}, rounds=3, quorum=1, patience_s=2,
        after_round=restart, progress=False,
    )  # fmt: skip
    missing = [r for r in result.history.records if r.state == "missing"]
    assert [(r.round, r.site) for r in missing] == [(2, "north-clinic")]
    assert "does not answer" in missing[0].reason
    assert len(result.history.records) == 6
    np.testing.assert_array_equal(result.weights["w"], factories.weights()["w"] * 8)
    assert events_of(fragile, study, 2) == ["run started", "run interrupted"]
    assert fragile.trial.verify_audit().intact
    tried(1)
