"""The sites that are attacked, and what the hospital sees of it.

Three sites: `hospital` (shared with the other rooms), `open_house`, whose policy lets every job
text through so that only the cage stands in the way, and `fortress`, which may be flooded, killed
and started again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import yaml

import factories
from federation.submission import Study
from hospitals import Hospital, make_hospital, start
from tests.attacks.attacker import Call, close_clients, post
from tests.attacks.victim import Victim

MODULES = [
    *("math", "numpy", "torch", "os", "socket", "subprocess", "ctypes", "time", "sys", "signal"),
    *("pathlib", "json", "resource", "struct", "threading"),
]
SECRET = "ATTACKS_SECRET_TOKEN"
"""Name of an environment variable that the site's process has and no job may see."""


@pytest.fixture(scope="session", autouse=True)
def _connections_are_closed() -> Iterator[None]:
    yield
    close_clients()


@pytest.fixture(autouse=True)
def _nothing_stays_undecided(request: pytest.FixtureRequest) -> Iterator[None]:
    """Deny what a test has left pending at the shared hospital, of which there may be twenty."""
    yield
    if "victim" in request.fixturenames:
        request.getfixturevalue("victim").deny_pending()


@pytest.fixture(scope="session")
def victim(hospital: Hospital) -> Victim:
    """The shared hospital, seen by an attacker."""
    return Victim(hospital)


@pytest.fixture(scope="session")
def _sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Hospital]]:
    """Two sites of this room, started at the same time."""
    lenient = make_hospital(
        tmp_path_factory.mktemp("open-house") / "site",
        runs={"maximum": 1000},
        job={"imports": MODULES, "forbidden_calls": ["never.used"]},
        update={"maximum_mb": 20, "maximum_change_norm": 1e9},
        sandbox={"memory_mb": 256, "time_s": 2, "processes": 16},
    )
    strict = make_hospital(tmp_path_factory.mktemp("fortress") / "site")
    file = strict.trial.site.path / "site.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "max_body_mb": 1}))
    os.environ[SECRET] = "s3cret"
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(start, (lenient, strict)))
        yield lenient, strict
    finally:
        os.environ.pop(SECRET)
        for made in (lenient, strict):
            made.trial.kill()


@pytest.fixture(scope="session")
def open_house(_sites: tuple[Hospital, Hospital]) -> Victim:
    """A site that approves every text; runs have 2 s, 256 MiB and 16 processes."""
    return Victim(_sites[0])


@pytest.fixture(scope="session")
def _fortress(_sites: tuple[Hospital, Hospital]) -> Victim:
    return Victim(_sites[1])


@pytest.fixture
def fortress(_fortress: Victim) -> Victim:
    """A site that reads 1 MB per call; started again when the test before has ended it."""
    process = _fortress.trial._process
    if process is None or process.poll() is not None:
        _fortress.trial.kill()
        _fortress.relaunch()
    return _fortress


@dataclass
class Restarted:
    """What was there before a site died and was started again."""

    victim: Victim
    recorded: bytes
    """A call that was answered before."""
    revoked: Study
    """A request whose revocation somebody has undone in the database."""


@pytest.fixture(scope="session")
def restarted(_fortress: Victim) -> Restarted:
    """The fortress after a `kill -9` and a new start."""
    recorded = Call("sitegate.describe").body(_fortress.rita)
    assert post(_fortress.rita, recorded).value
    revoked = _fortress.submit(factories.DOUBLE_JOB)
    _fortress.run(revoked)
    _fortress.hospital.decide(revoked, "revoke")
    number = revoked.requests["st-marys"]
    _fortress.sql("UPDATE requests SET state = 'approved' WHERE id = ?", number)
    _fortress.sql("UPDATE approvals SET revoked = '' WHERE request = ?", number)
    refused = _fortress.refused(revoked, round_number=2)
    assert [f.rule for f in refused.findings] == ["approval.state"]
    _fortress.trial.kill()
    _fortress.relaunch()
    return Restarted(_fortress, recorded, revoked)
