"""A running review page, and the people who log in to it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from datasites.people import Role
from datasites.trial import TrialSite, free_port

OWNER, SECOND, COMPLIANCE = (
    "owner@st-marys.example",
    "ben@st-marys.example",
    "cleo@st-marys.example",
)
PASSWORD = "correct horse battery staple"
START_S = 30


class RunningPage:
    """`sitegate page` in a process of its own."""

    def __init__(self, site: Path, *options: str) -> None:
        self.port = free_port()
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed when the page has ended
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "datasites.cli", "page"),
                *("--site", str(site), "--port", str(self.port), *options),
            ],
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        self.scheme = "https" if "--tls" in options else "http"

    @property
    def url(self) -> str:
        """Where browsers reach it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def wait_until_up(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                httpx.get(f"{self.url}/page.css", verify=False)
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the page did not start: {self.stop()}")

    def stop(self) -> tuple[int, str]:
        """End it as an operator would; exit code, and what it said."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(START_S)
        self._said.seek(0)
        with self._said as said:
            return code, said.read()


class Visit:
    """A person at the page, without a browser: follows no redirect, sends what it is told."""

    def __init__(self, page: RunningPage, address: str = "127.0.0.1") -> None:
        self.page = page
        transport = httpx.HTTPTransport(local_address=address)
        self.client = httpx.Client(transport=transport, base_url=page.url)
        self.headers = {"Origin": page.url, "Sec-Fetch-Site": "same-origin"}

    def log_in(self, person: str, password: str) -> httpx.Response:
        """Post the login form."""
        form = {"email": person, "password": password}
        return self.client.post("/login", data=form, headers=self.headers)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Load a page."""
        return self.client.get(path, headers=headers)

    def csrf(self) -> str:
        """The secret of the session, as its forms carry it."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/people").text)
        assert found is not None
        return found[1]

    def post(self, path: str, **form: str) -> httpx.Response:
        """Send a form as the page's own forms do."""
        return self.client.post(path, data={"csrf": self.csrf(), **form}, headers=self.headers)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def add_people(trial: TrialSite) -> None:
    """A second approver and a compliance reviewer beside the owner."""
    for email, name, role in (
        (SECOND, "Ben", Role.SECOND),
        (COMPLIANCE, "Cleo", Role.COMPLIANCE),
    ):
        trial.control.add_person(email, name, role, PASSWORD, trial.owner, trial.owner_password)
