"""Sites on this machine, each in a process of its own: for the demonstration and for tests.

The sites are real: made by the same functions as `sitegate init`, served by `sitegate serve`,
reached over TLS. They stop when the program that started them ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datasites.audit_log import Verification, verify_log
from datasites.catalogue import Card, SplitArrays, write_version
from datasites.config import SiteConfig
from datasites.control import Control
from datasites.desk import Desk
from datasites.errors import ConfigurationError, SiteError
from datasites.imaging.subgroups import Subgroups
from datasites.keys import load_site_key
from datasites.new_site import make_site
from datasites.people import generate_password

START_S = 120
STOP_S = 20


class TrialSite:
    """One site of a trial, and its people's passwords."""

    def __init__(self, path: Path, config: SiteConfig, policy: Path) -> None:
        self.owner = f"owner@{config.name}.example"
        self.owner_password = generate_password()
        self.site = make_site(path, config, policy, self.owner, self.owner, self.owner_password)
        self.control = Control(self.site.control_socket)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """The site's short name."""
        return self.site.config.name

    @property
    def authority(self) -> Path:
        """PEM file of the certificate authority that researchers need."""
        return self.site.keys / "tls_authority.pem"

    @property
    def public_key(self) -> str:
        """The site's public key, hex."""
        return load_site_key(self.site.keys).public_hex

    @property
    def process_id(self) -> int | None:
        """The process that serves the site, None when it is not running."""
        return self._process.pid if self._process else None

    def write_dataset(
        self,
        splits: Mapping[str, SplitArrays],
        *,
        name: str,
        classes: tuple[str, ...],
        subgroups: Subgroups | None = None,
        patients: Mapping[str, NDArray[np.int32]] | None = None,
        **about: str,
    ) -> tuple[str, Card]:
        """Write a dataset version to the store; `publish` or the next start makes it visible."""
        return write_version(
            self.site.datasets,
            splits,
            name=name,
            classes=classes,
            source=about.get("source", "trial"),
            licence=about.get("licence", "none"),
            description=about.get("description", ""),
            minimum_count=self.site.policy().counts.minimum,
            subgroups=subgroups,
            patients=patients,
        )

    def launch(self) -> None:
        """Start the site's process; `wait_until_up` waits for it."""
        self.kill()  # what is left of an earlier one
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("SYFT_", "SERVER_"))
        }
        with (self.site.state / "console.log").open("ab") as console:
            self._process = self._start(environment, console)

    def _start(self, environment: dict[str, str], console: BinaryIO) -> subprocess.Popen[bytes]:
        """The process, which writes what it says to `console` and ends when its input does."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "datasites.cli", "serve"),
                *("--site", str(self.site.path), "--until-stdin-closes"),
            ],
            stdin=subprocess.PIPE,
            stdout=console,
            stderr=console,
            env=environment,
            start_new_session=True,
        )

    def wait_until_up(self) -> None:
        """Wait until the site answers.

        Raises:
            SiteError: It ended or did not answer in time; the message has its last words.
        """
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                said = (self.site.state / "console.log").read_text(errors="replace")[-600:]
                raise SiteError(f"{self.name} did not start: {said.strip()}")
            with contextlib.suppress(ConfigurationError, OSError):
                self.control.status()
                address = (self.site.config.host, self.site.config.port)
                with socket.create_connection(address, timeout=1):
                    return
            time.sleep(0.1)
        raise SiteError(f"{self.name} did not answer within {START_S} s")

    def stop(self) -> None:
        """Stop the site as an operator would, with SIGTERM; force it after a while."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        self._end(process)

    def kill(self) -> None:
        """End the site's process at once, as a power cut would (`kill -9`)."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    def decide(self, number: int, verb: str, reason: str) -> dict[str, Any]:
        """Decide about a request as the site's owner, who looks at it first."""
        return Desk(self.site.path, self.owner, self.owner_password).decide(number, verb, reason)

    def adopt_policy(self, text: str, reason: str) -> None:
        """Let another policy be in force, as the site's owner."""
        self.control.adopt_policy(text, self.owner, self.owner_password, reason)

    def add_account(self, email: str, name: str, password: str, institution: str = "") -> str:
        """Make a researcher's account as the site's owner; the address to log in with."""
        return self.control.add_account(
            email, name, institution, password, self.owner, self.owner_password
        )

    def verify_audit(self) -> Verification:
        """Check the site's audit log."""
        return verify_log(self.site.audit, self.public_key)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def free_port() -> int:
    """A TCP port on loopback that nothing listens on.

    It lies below the ports that Linux gives to outgoing connections, so that a site that is killed
    and started again finds it free.
    """
    for port in random.SystemRandom().sample(range(15_000, 32_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("no TCP port from 15000 to 31999 is free on this machine")


def roster(sites: list[TrialSite]) -> dict[str, Any]:
    """The roster that researchers connect with."""
    return {
        "sites": [{"name": s.name, "url": s.site.url, "authority": str(s.authority)} for s in sites]
    }
