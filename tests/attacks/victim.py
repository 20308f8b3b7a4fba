"""A hospital under attack: what its people see of it, and two researchers who are logged in."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import factories
from federation.errors import RefusedError
from federation.sites import Site
from federation.submission import Study
from hospitals import Hospital


class Victim:
    """A running site, its files and log, and rita and mallory logged in."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital, self.trial = hospital, hospital.trial
        self.state = hospital.trial.site.state
        self.rita_federation = hospital.connect("rita@uni.example")
        self.rita: Site = self.rita_federation["st-marys"]
        self.mallory_federation = hospital.connect("mallory@uni.example")
        self.mallory: Site = self.mallory_federation["st-marys"]

    def submit(self, text: str, **changes: Any) -> Study:
        """Submit as rita, and approve."""
        return self.hospital.submit(self.rita_federation, text, **changes)

    def run(self, study: Study, **changes: Any) -> Any:
        """One run with valid arguments, changed where the test says so."""
        return self.hospital.run(study, **changes)

    def refused(self, study: Study, **changes: Any) -> RefusedError:
        """The refusal of a run that must be refused."""
        with pytest.raises(RefusedError) as caught:
            self.run(study, **changes)
        return caught.value

    def still_serves(self) -> None:
        """Fail unless a new job is taken, approved, run and released."""
        study = self.submit(factories.DOUBLE_JOB)
        assert list(self.run(study).weights["w"]) == [0, 2, 4, 6]

    def deny_pending(self) -> list[str]:
        """Deny every undecided request; whose they were."""
        rows = self.sql("SELECT id, account FROM requests WHERE state = 'pending'")
        for number, _ in rows:
            self.trial.decide(number, "deny", "not decided by its test")
        return [account for _, account in rows]

    @contextlib.contextmanager
    def logged(self) -> Iterator[list[dict[str, Any]]]:
        """A list that holds, after the block, the audit log's events that came in it.

        Without the checkpoints, which come every hundred lines.
        """
        log = self.trial.site.audit
        before = log.stat().st_size
        found: list[dict[str, Any]] = []
        yield found
        with log.open("rb") as file:
            file.seek(before)
            lines = [json.loads(line)["content"] for line in file]
        found += [line for line in lines if line["event"] != "checkpoint"]

    def sql(self, statement: str, *values: Any, file: str = "site.db") -> list[Any]:
        """What someone with access to the database can do."""
        database = sqlite3.connect(self.state / file, timeout=10)
        with contextlib.closing(database), database:
            return database.execute(statement, values).fetchall()

    def process(self) -> int:
        """Process id of the site."""
        assert self.trial._process is not None
        return self.trial._process.pid

    def peak_mb(self) -> float:
        """Most memory that the site's process ever had, in megabytes."""
        status = Path(f"/proc/{self.process()}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def relaunch(self) -> None:
        """Start the site's process again on the state that it left."""
        self.trial.launch()
        self.trial.wait_until_up()
        for site in (self.rita, self.mallory):
            site._session.close()  # their connections went with the old process
