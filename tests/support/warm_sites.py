"""Sites in processes of their own, forked from one that has imported PySyft already.

A start then takes a second instead of eight. Everything after the imports is the start that
`sitegate serve` makes; `test_readme.py`, the demonstration and the benchmarks start sites cold.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from datasites.trial import TrialSite

LARGEST_ORDER = 1 << 17


class WarmSite(TrialSite):
    """A trial site that is forked; cold where the test gives Python an environment of its own."""

    def _start(self, environment: dict[str, str], console: BinaryIO) -> Any:
        if environment.get("PYTHONPATH") != _PYTHONPATH:
            return super()._start(environment, console)
        return _nursery().fork(self.site.path, environment, console)


_PYTHONPATH = os.environ.get("PYTHONPATH")


class Forked:
    """A site's process, with what `TrialSite` and tests use of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int, stdin: BinaryIO) -> None:
        self._nursery, self.pid, self.stdin = nursery, pid, stdin
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask({"reap": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("a forked site", timeout or 0.0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that has imported PySyft and forks sites; it ends with this one."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()
        places = [str(Path(__file__).parent), *filter(None, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import warm_sites; warm_sites.nurse()", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self.close)

    def ask(self, order: dict[str, Any], *descriptors: int) -> Any:
        """Let the nursery do something, and wait for its answer."""
        with self._asking:
            socket.send_fds(self._ours, [json.dumps(order).encode()], descriptors)
            return json.loads(self._ours.recv(LARGEST_ORDER))

    def fork(self, site: Path, environment: dict[str, str], console: BinaryIO) -> Forked:
        """A new site process, which ends when its standard input does."""
        theirs, ours = os.pipe()
        try:
            order = {"site": str(site), "environment": environment}
            pid = self.ask(order, theirs, console.fileno())
        finally:
            os.close(theirs)
        return Forked(self, pid, os.fdopen(ours, "wb", buffering=0))

    def close(self) -> None:
        """End the nursery; its sites end with their standard input."""
        self._ours.close()
        self._process.wait(10)


@functools.cache
def _nursery() -> Nursery:
    return Nursery()


def nurse() -> None:
    """Import what a site imports, then fork a site for each order until the other side is gone."""
    from datasites.server import _without_torch

    orders = socket.socket(fileno=int(sys.argv[1]))
    warnings.simplefilter("ignore")
    with _without_torch():
        import datasites.cli
        import datasites.control_app
        import datasites.syft_gate  # noqa: F401
    gc.collect()
    gc.freeze()  # a collection in a site would copy what it shares with this process
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER, 2)
        if not message:
            return
        order = json.loads(message)
        if "reap" in order:
            pid, status = os.waitpid(order["reap"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            orders.close()
            os._exit(_serve(order, *descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(json.dumps(answer).encode())


def _serve(order: dict[str, Any], stdin: int, console: int) -> int:
    """What `python -m datasites.cli serve` does, and the exit code with which it ends."""
    import syft.server.server

    from datasites.cli import app
    from datasites.config import load_site
    from datasites.keys import load_identity

    os.setsid()
    for number, descriptor in enumerate((stdin, console, console)):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(order["environment"])
    path = Path(order["site"])
    # PySyft reads these from the environment when it is imported.
    identity = load_identity(load_site(path).state)
    syft.server.server.signing_key_env = identity.key
    syft.server.server.server_uid_env = identity.uid
    code = 0
    try:
        app(["serve", "--site", str(path), "--until-stdin-closes"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code
