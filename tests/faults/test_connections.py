"""Connections that are cut before, during and after the call and the answer, at a real site."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import factories
import federation.sites
from datasites.trial import roster
from federation.errors import ConnectionLostError, FederationError
from federation.rounds import BelowQuorumError
from federation.submission import Federation, Study
from hospitals import Hospital
from policies.contract import ArrayContract
from tests.faults.cutting_proxy import Cut, CuttingProxy, Way
from tests.faults.jobs import (
    SLOW_JOB,
    events_of,
    many_weights,
    one_round,
    runs_used,
    through,
)

CONFIG = {"rate": 0.5}
HANDSHAKE = (1, 300, 517, 600)
"""Bytes into the greeting and keys of TLS.

Before the first byte, a connection is closed only: of one that is reset there, `ssl` of Python 3.11
leaves the socket to the collector, which warns.
"""
PARTS = (0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
"""Parts of all bytes that go in one direction."""
SPREAD = 100
"""Bytes by which one answer may be shorter than another: it tells seconds."""
AT_ONCE = 4


def cuts(sent: int, answered: int) -> list[Cut]:
    """Where a call is cut that sends and is answered with so many bytes."""
    found = []
    for is_answer, total in ((False, sent), (True, answered - SPREAD)):
        places = {*HANDSHAKE, *(int(part * total) for part in PARTS)}
        found += [Cut(is_answer, at, way) for at in places for way in (Way.CLOSED, Way.RESET)]
        found += [Cut(is_answer, 0, Way.CLOSED)]
        found += [Cut(is_answer, at, Way.HANGS) for at in (300, total // 2, total - 1)]
    return found


def test_a_call_whose_connection_is_cut_is_answered_the_same_and_charged_once(
    hospital: Hospital,
    rita: Federation,
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[[int], None],
) -> None:
    monkeypatch.setattr(federation.sites, "ANSWER_S", 8)
    monkeypatch.setattr(federation.sites, "CONNECT_S", 8)
    wide = ArrayContract(shape=(50_000,), dtype="float32")
    studies = [
        hospital.submit(
            rita, factories.DOUBLE_JOB, runs=100, contract=factories.contract(weights={"w": wide})
        )
        for _ in range(AT_ONCE)
    ]
    weights = many_weights()
    proxies = [CuttingProxy(hospital.trial.site.config.port) for _ in studies]
    ways = [through(hospital, s, p.port) for s, p in zip(studies, proxies, strict=True)]
    one_round(ways[0], weights, 1, CONFIG)
    faults = cuts(proxies[0].sent, proxies[0].answered)

    def attempt(one: int) -> list[str]:
        study, proxy, wrong = ways[one], proxies[one], []
        for number, fault in enumerate(faults[one::AT_ONCE], 2):
            before = proxy.cuts
            proxy.cut_next(fault)
            after, record = one_round(study, weights, number, CONFIG)
            events = events_of(hospital, study, number)
            if not np.array_equal(after["w"], weights["w"] * 2) or record.state != "contributed":
                wrong.append(f"{fault}: {record}")
            if events.count("run started") != 1 or events.count("update released") != 1:
                wrong.append(f"{fault}: {events}")
            if set(events) - {"run started", "update released", "update repeated"}:
                wrong.append(f"{fault}: {events}")
            if proxy.cuts != before + 1:
                wrong.append(f"{fault}: {proxy.cuts - before} connections were cut")
        return wrong

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            wrong = list(itertools.chain(*pool.map(attempt, range(AT_ONCE))))
    finally:
        for proxy in proxies:
            proxy.close()
    tried(len(faults))
    assert not wrong, "\n".join(wrong)
    assert len(faults) >= 48
    assert sum(runs_used(study) for study in studies) == len(faults) + 1
    assert hospital.trial.verify_audit().intact


def test_a_long_run_goes_on_behind_a_proxy_that_cuts_idle_connections(
    hospital: Hospital, rita: Federation, fragile: Hospital, tried: Callable[[int], None]
) -> None:
    """The fragile site says in time that a run is under way; the other waits for it too long."""
    seen: dict[str, Study] = {}
    for one in (fragile, hospital):
        proxy = CuttingProxy(one.trial.site.config.port)
        study = through(one, one.submit(one.connect(), SLOW_JOB), proxy.port)
        proxy.idle_s = 2.5
        seen[one.trial.name] = study
        if one is fragile:
            after, record = one_round(study, factories.weights(), 1, {"rate": 0.9}, 0.5)
            assert record.seconds > 2.5
            np.testing.assert_array_equal(after["w"], [0, 2, 4, 6])
            assert proxy.cuts <= 1  # one that lay idle after the study was taken up
        else:
            with pytest.raises(BelowQuorumError, match="does not answer"):
                one_round(study, factories.weights(), 1, {"rate": 0.9}, 0.5)
            after, _ = one_round(study, factories.weights(), 1, {"rate": 0.9})
            np.testing.assert_array_equal(after["w"], [0, 2, 4, 6])
            assert proxy.cuts >= 1
        assert runs_used(study) == 1
        assert events_of(one, study, 1).count("update released") == 1
        proxy.close()
    tried(2)


def test_a_connection_that_is_cut_while_a_run_is_under_way_costs_nothing(
    fragile: Hospital, tried: Callable[[int], None]
) -> None:
    proxy = CuttingProxy(fragile.trial.site.config.port)
    direct = fragile.submit(fragile.connect(), SLOW_JOB)
    study = through(fragile, direct, proxy.port)
    lengths = []
    for number in (1, 2):
        one_round(study, factories.weights(), number, {"rate": 0.16})
        lengths.append(proxy.answered)
    parts = (0.4, 0.6, 0.7, 0.8, 0.9, 0.95)
    for part in parts:
        way = Way.RESET if number % 2 else Way.CLOSED
        before = proxy.cuts
        proxy.cut_next(Cut(True, int(part * min(lengths)), way))
        tries = 0
        while proxy.cuts == before:  # a quicker run is answered less often; the cut waits
            tries, number = tries + 1, number + 1
            assert tries <= 5, f"no run was answered {part} of {min(lengths)} bytes"
            after, record = one_round(study, factories.weights(), number, {"rate": 0.16})
            np.testing.assert_array_equal(after["w"], [0, 2, 4, 6])
            assert record.state == "contributed"
            events = events_of(fragile, study, number)
            assert events.count("run started") == events.count("update released") == 1
    proxy.close()
    tried(len(parts))
    assert runs_used(direct) == number


def test_a_connection_that_is_cut_after_the_answer_is_made_again(
    hospital: Hospital, rita: Federation, tried: Callable[[int], None]
) -> None:
    proxy = CuttingProxy(hospital.trial.site.config.port)
    direct = hospital.submit(rita, factories.DOUBLE_JOB)
    study = through(hospital, direct, proxy.port)
    proxy.idle_s = 2.0
    for number in range(1, 5):
        before = proxy.cuts
        try:
            update = hospital.run(study, round_number=number)
        except ConnectionLostError:
            update = hospital.run(study, round_number=number)
        np.testing.assert_array_equal(update.weights["w"], [0, 2, 4, 6])
        while proxy.cuts == before:
            time.sleep(0.05)
        assert events_of(hospital, direct, number).count("update released") == 1
    proxy.close()
    tried(4)
    assert runs_used(direct) == 4


@pytest.mark.parametrize("off_s", [-3600, -301, 301, 86_400])
def test_a_researchers_clock_that_is_off_is_refused_in_a_sentence(
    hospital: Hospital,
    rita: Federation,
    off_s: int,
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[[int], None],
) -> None:
    study = hospital.submit(rita, factories.DOUBLE_JOB, approve=False)
    true = federation.sites.time.time
    with monkeypatch.context() as patch:
        patch.setattr(federation.sites.time, "time", lambda: true() + off_s)
        with pytest.raises(FederationError, match="Set this computer's clock"):
            hospital.run(study)
    assert study.states() == {hospital.trial.name: "pending"}
    assert events_of(hospital, study, 1) == []
    tried(1)


def test_a_site_with_another_certificate_is_not_taken_for_a_lost_connection(
    hospital: Hospital, fragile: Hospital
) -> None:
    sites = roster([hospital.trial])
    sites["sites"][0]["authority"] = str(fragile.trial.authority)
    with pytest.raises(FederationError, match="the authority in the roster did not sign"):
        federation.connect(sites, email="rita@uni.example", password=factories.PASSWORD)
