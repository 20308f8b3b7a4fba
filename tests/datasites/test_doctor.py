"""`sitegate doctor`: each check passes in a cage, and fails where its wall is missing."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import factories
from datasites.audit_log import AuditLog, Event, read_events, verify_log
from datasites.cli import app
from datasites.config import Site
from datasites.doctor import proof_in, proof_in_words, record
from datasites.keys import load_site_key
from datasites.new_site import example_config, example_policy, make_site
from datasites.sandbox import escapes
from datasites.sandbox.bubblewrap import find_bubblewrap
from datasites.sandbox.cage import Cage
from datasites.sandbox.proof import (
    LIMITS,
    Check,
    Excess,
    excesses_of,
    make_dataset,
    outside,
    prove,
    try_escapes,
    try_excess,
    try_traces,
)
from policies.proof_rules import Proof

OWNER = "owner@st-marys.example"
TRY_ALL = """
import json, sys
text, config = sys.argv[1:]
names = {"__name__": "job"}
exec(compile(open(text).read(), text, "exec"), names)
names["attempt"](None, None, json.loads(config))
"""


def doctor(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["doctor", *map(str, arguments)])


def site_at(path: Path, **changes: Any) -> Site:
    config = example_config("st-marys").model_copy(update=changes)
    return make_site(path, config, example_policy(), OWNER, OWNER, factories.PASSWORD)


@pytest.fixture(scope="module")
def proved() -> list[Check]:
    """A cage with all its walls."""
    return prove(find_bubblewrap(), [Path(__file__)])


@pytest.fixture(scope="module")
def wide_open(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, str]]:
    """How each attempt goes in a program with no walls at all."""
    folder = tmp_path_factory.mktemp("open")
    with outside(folder) as found, (folder / "open").open("w") as kept:
        here = {"dataset": str(make_dataset(folder / "dataset")), "scratch": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", TRY_ALL, escapes.__file__, json.dumps({**found.told, **here})],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            pass_fds=[kept.fileno()],
            env={**os.environ, "A_SECRET": "of the site"},
        )
    went: dict[str, tuple[bool, str]] = json.loads(done.stdout.splitlines()[-1])
    return went


@pytest.fixture(scope="module")
def unwalled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cage]:
    """A process without walls in the place of a cage."""
    cage = Cage(make_dataset(tmp_path_factory.mktemp("unwalled") / "dataset"), None, threads=1)
    yield cage
    cage.close()


@pytest.mark.parametrize("name", [*escapes.ESCAPES, *(e.name for e in excesses_of(LIMITS))])
def test_in_a_cage_it_fails(proved: list[Check], name: str) -> None:
    (check,) = (check for check in proved if check.name == name)
    assert check.ok, check


def test_a_proof_has_more_than_thirty_checks_with_names_of_their_own(proved: list[Check]) -> None:
    assert len({check.name for check in proved}) == len(proved) > 30
    assert all(check.detail for check in proved)


@pytest.mark.parametrize("name", escapes.ESCAPES)
def test_where_there_is_no_wall_it_works(wide_open: dict[str, tuple[bool, str]], name: str) -> None:
    failed, how = wide_open[name]
    assert not failed, how


def test_what_arrives_outside_counts_whatever_the_run_says(unwalled: Cage, tmp_path: Path) -> None:
    with outside(tmp_path) as found:
        here = {"dataset": "/nowhere", "scratch": str(tmp_path)}
        checks = {check.name: check for check in try_escapes(unwalled, found, here)}
        assert checks["UDP"] == Check("UDP", False, "a packet arrived")
        found.victim.kill()
        found.victim.wait()
        assert found.reached() == {"signals": "a process of this machine was ended"}


def test_traces_of_an_earlier_run_are_found_where_nothing_wipes_them(
    unwalled: Cage, tmp_path: Path
) -> None:
    found = try_traces(unwalled, str(tmp_path), sleep_s=1)
    assert (found.ok, found.detail) == (False, "a file, a process")


@pytest.mark.parametrize("excess", excesses_of(LIMITS), ids=lambda excess: excess.name)
def test_a_limit_that_does_not_hold_is_found(unwalled: Cage, excess: Excess) -> None:
    """What a run takes is within the limit here, as it would seem if there were none."""
    less = {name: 1 for name in excess.config} if excess.entry != "return_much" else {"mb": 0}
    modest = Excess(excess.name, excess.entry, less, excess.ends)
    assert try_excess(unwalled, modest) == Check(excess.name, False, "the run was not ended")


def test_a_run_that_ends_for_another_reason_is_no_proof(unwalled: Cage) -> None:
    wrong = Excess("memory of a run", "no_such_entry", {}, frozenset({"MemoryError"}))
    assert try_excess(unwalled, wrong) == Check("memory of a run", False, "ended with KeyError")


# ------------------------------------------------------------------------------------- the log


@pytest.mark.parametrize(
    ("checks", "event", "failed"),
    [
        ([Check("TCP", True, "")], Event.SANDBOX_PROVED, []),
        ([Check("TCP", True, ""), Check("UDP", False, "")], Event.SANDBOX_FAILED, ["UDP"]),
    ],
)
def test_what_was_found_is_an_event_and_read_back_as_a_proof(
    tmp_path: Path, checks: list[Check], event: Event, failed: list[str]
) -> None:
    site = site_at(tmp_path / "site")
    log = AuditLog(site.audit, load_site_key(site.keys), "st-marys")
    made = record(log, checks, "ab" * 32)
    log.close()
    *_, line = read_events(site.audit)
    assert (line["event"], line["actor"], line["subject"]) == (event, "site", "sandbox")
    assert line["detail"] == {"tried": len(checks), "failed": failed}
    assert line["objects"] == {"bubblewrap_sha256": "ab" * 32}
    read = proof_in(line)
    assert (read.passed, read.bubblewrap_sha256) == (not failed, "ab" * 32)
    assert abs(read.at - made.at) < dt.timedelta(seconds=2)


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (None, "not proved yet; run `sitegate doctor`"),
        (Proof(dt.datetime(2026, 11, 26, 9, 5, tzinfo=dt.UTC), True, ""),
         "proved 2026-11-26 09:05 UTC"),
        (Proof(dt.datetime(2026, 11, 26, 9, 5, tzinfo=dt.UTC), False, ""),
         "FAILED when it was tried, 2026-11-26 09:05 UTC"),
    ],
)  # fmt: skip
def test_proof_in_words(proof: Proof | None, words: str) -> None:
    assert proof_in_words(proof) == words


# ------------------------------------------------------------------------------------- command


def test_doctor_without_a_site_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SITEGATE_SITE", raising=False)
    said = doctor("--json")
    assert said.exit_code == 0, said.output
    checks = json.loads(said.stdout)
    assert all(set(check) == {"name", "ok", "detail"} and check["ok"] is True for check in checks)
    assert list(tmp_path.iterdir()) == []


def test_doctor_of_a_stopped_site_writes_its_log(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    said = doctor("--site", tmp_path / "site")
    assert said.exit_code == 0, said.output
    assert "checks pass" in said.output
    assert "It is in the site's audit log." in said.output
    assert max(map(len, said.output.splitlines())) <= 100
    *_, line = read_events(site.audit)
    assert line["event"] == "sandbox proved"
    assert verify_log(site.audit, load_site_key(site.keys).public_hex).intact


def test_a_site_that_is_configured_without_walls_fails(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site", sandbox="process")
    said = doctor("--site", tmp_path / "site")
    assert said.exit_code == 4
    assert "The cage does NOT hold here: 1 of 1 checks fail." in said.output
    *_, line = read_events(site.audit)
    assert (line["event"], line["detail"]["failed"]) == ("sandbox failed", ["walls"])


def test_without_bubblewrap_doctor_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasites.sandbox import bubblewrap

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SITEGATE_SITE", raising=False)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(bubblewrap.importlib.util, "find_spec", lambda _: None)
    said = doctor("--json")
    assert said.exit_code == 4
    (check,) = json.loads(said.stdout)
    assert not check["ok"]
    assert "install Debian's package `bubblewrap`" in check["detail"]
