"""Proves a cage on this machine: starts a real one and tries from inside what must fail.

What is tried stands in `datasites.sandbox.escapes` and `datasites.sandbox.excesses`. Outside, there
is for each of it something to be had: listeners, a file, a process. The dataset is made for this.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from datasites.errors import SandboxError
from datasites.files import sync_directory
from datasites.sandbox import escapes, excesses
from datasites.sandbox.bubblewrap import Bubblewrap
from datasites.sandbox.cage import SCRATCH_MB, Cage, RunFailed, RunResult, RunText
from datasites.sandbox.seccomp import REFUSED
from policies.arrays import pack
from policies.contract import ArrayContract, Contract
from policies.sections import SandboxRule

LIMITS = SandboxRule(memory_mb=256, time_s=30, processes=8)
"""What the runs of a proof may use up."""
TRIED_CALLS = (
    "socket", "socketpair", "shmget", "semget", "msgget", "keyctl", "ptrace", "setpriority",
    "unshare", "bpf", "io_uring_setup", "userfaultfd",
)  # fmt: skip
"""Some of the refused system calls: those that do nothing when they are made with nonsense."""
NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: What.
        ok: Whether the wall stands.
        detail: How it went; nothing secret of the machine is in it.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Excess:
    """A run that takes too much of something, and the kinds of end that say that it was stopped."""

    name: str
    entry: str
    config: dict[str, int]
    ends: frozenset[str]
    limits: SandboxRule = LIMITS


def excesses_of(limits: SandboxRule) -> list[Excess]:
    """A run past each limit."""
    short = limits.model_copy(update={"time_s": 1})
    return [
        Excess("memory of a run", "take_memory", {"mb": 2 * limits.memory_mb},
               frozenset({"MemoryError", "ResourceLimit"}), limits),
        Excess("processes of a run", "take_processes", {"count": 2 * limits.processes},
               frozenset({"OSError", "ResourceLimit"}), limits),
        Excess("time of a run, asleep", "take_time", {"seconds": 20}, frozenset({"TimeLimit"}),
               short),
        Excess("time of a run, computing", "take_cpu", {"seconds": 20}, frozenset({"TimeLimit"}),
               short),
        Excess("size of an answer", "return_much", {"mb": 8}, frozenset({"OutputTooLarge"}),
               limits),
    ]  # fmt: skip


def prove(bwrap: Bubblewrap | None, secrets: Sequence[Path] = ()) -> list[Check]:
    """Try everything in a cage of its own; takes some ten seconds.

    Args:
        bwrap: What builds the walls; None tries a process without any, of which much fails.
        secrets: Files and folders that must not be seen inside, beside some of the system's.
    """
    with tempfile.TemporaryDirectory(prefix="sitegate-proof-") as folder:
        dataset = make_dataset(Path(folder, "dataset"))
        cage = Cage(dataset, bwrap, threads=1)
        try:
            with outside(Path(folder), secrets) as found:
                inside = {"dataset": "/data", "scratch": "/scratch"} if bwrap else {
                    "dataset": str(dataset), "scratch": folder
                }  # fmt: skip
                checks = try_escapes(cage, found, inside)
            checks.append(try_traces(cage, inside["scratch"]))
            checks += [try_excess(cage, one) for one in excesses_of(LIMITS)]
        except SandboxError as error:
            return [Check("the cage starts", False, str(error))]
        finally:
            cage.close()
    return [Check("the cage starts", True, "it does"), *checks]


def make_dataset(folder: Path) -> Path:
    """A dataset version of two drawn images."""
    folder.mkdir()
    np.save(folder / "train_images.npy", np.zeros((2, 8, 8), np.uint8))
    np.save(folder / "train_labels.npy", np.zeros(2, np.int64))
    (folder / "card.json").write_text(json.dumps({"counts": {"train": {"none": 2}}}))
    sync_directory(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Outside:
    """What there is to be had outside, and whether a cage reached it."""

    told: dict[str, Any]
    udp: socket.socket
    victim: subprocess.Popen[bytes]

    def reached(self) -> dict[str, str]:
        """What shows outside that an attempt worked, by its name."""
        found = {}
        with contextlib.suppress(BlockingIOError):
            self.udp.recv(100)
            found["UDP"] = "a packet arrived"
        if self.victim.poll() is not None:
            found["signals"] = "a process of this machine was ended"
        return found


@contextlib.contextmanager
def outside(folder: Path, hidden: Sequence[Path] = ()) -> Iterator[Outside]:
    """Listeners, a file and a process of this machine, for as long as they are tried."""
    abstract = f"sitegate-{token_hex(8)}"
    own = folder / "hidden"
    own.write_text("what a run must not see")
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        for address in (str(folder / "socket"), "\0" + abstract):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        victim = stack.enter_context(subprocess.Popen(["/bin/sleep", "600"], env={}))
        stack.callback(victim.kill)
        told = {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(folder / "socket"),
            "abstract": abstract,
            "hidden": [str(own), "/etc/passwd", "/var/lib", *map(str, hidden)],
            "victim": victim.pid,
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES},
            "refused": {name: REFUSED[name] for name in TRIED_CALLS},
            "memory_mb": LIMITS.memory_mb,
            "scratch_mb": SCRATCH_MB,
        }
        yield Outside(told, udp, victim)


def try_escapes(cage: Cage, found: Outside, inside: dict[str, str]) -> list[Check]:
    """Everything of `escapes`, in one run."""
    result = _run(cage, escapes, "attempt", {**found.told, **inside})
    went = _last_line(result)
    reached = found.reached()
    checks = []
    for name in escapes.ESCAPES:
        ok, detail = went.get(name, (False, "it was not tried"))
        checks.append(Check(name, bool(ok) and name not in reached, reached.get(name, detail)))
    return checks


def try_traces(cage: Cage, scratch: str, sleep_s: int = 30) -> Check:
    """What one run leaves is not there for the next."""
    config = {"scratch": scratch, "sleep_s": sleep_s}
    _run(cage, excesses, "leave", config)
    found = _last_line(_run(cage, excesses, "look", config))
    return Check(
        "traces of an earlier run", not found, f"{', '.join(found)}" if found else "none is left"
    )


def try_excess(cage: Cage, excess: Excess) -> Check:
    """A run that takes too much is ended, and the next one works."""
    try:
        _run(cage, excesses, excess.entry, excess.config, excess.limits)
    except RunFailed as failed:
        return Check(excess.name, failed.kind in excess.ends, f"ended with {failed.kind}")
    return Check(excess.name, False, "the run was not ended")


def _run(
    cage: Cage, text: Any, entry: str, config: dict[str, Any], limits: SandboxRule = LIMITS
) -> RunResult:
    weights = {"w": np.zeros(1, np.float32)}
    job = RunText(Path(text.__file__).read_text(), entry, config, pack(weights))
    contract = Contract(weights={"w": ArrayContract(shape=(1,), dtype="float32")})
    return cage.run(job, contract, limits)


def _last_line(result: RunResult) -> Any:
    return json.loads(result.log.strip().splitlines()[-1])
