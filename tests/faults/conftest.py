"""Processes and sites that these tests let die, and the number of faults that were tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hospitals import Hospital, make_hospital, start
from tests.faults.site_processes import SiteProcesses


@pytest.fixture(scope="session")
def processes() -> Iterator[SiteProcesses]:
    """Forks the sites that die."""
    made = SiteProcesses()
    yield made
    made.close()


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running site that tests kill and start again; it says soon that a run is under way."""
    made = make_hospital(tmp_path_factory.mktemp("fragile") / "site", example="north-clinic")
    file = made.trial.site.path / "site.yaml"
    file.write_text(file.read_text() + "answer_within_s: 0.3\n")
    try:
        start(made)
        yield made
    finally:
        made.trial.stop()


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Says how many faults a test tried, for the line at the end."""
    return lambda number: record_property("faults", number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were tried."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    faults = sum(v for r in reports for name, v in r.user_properties if name == "faults")
    if faults:
        terminalreporter.write_line(f"faults tried: {faults}")
