"""The site's side of a cage: starts it, sends runs in, checks what comes out, ends it in time.

One cage holds one dataset version and runs one job at a time, each in a fresh child process that
the cage itself ends when its time is over. A cage that does not, breaks, or answers nonsense is
ended and replaced by a new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.errors import SandboxError
from datasites.sandbox.bubblewrap import ALLOCATOR, Bubblewrap, wall_in
from datasites.sandbox.seccomp import cage_filter, run_filter
from datasites.sandbox.worker import ERRORS, PIPE_BYTES
from policies.arrays import Arrays, MalformedArraysError, unpack
from policies.contract import Contract
from policies.sections import SandboxRule
from policies.update_rules import Update

WORKER = {"/worker.py": Path(__file__).with_name("worker.py")}
"""The program of a cage for foreign code: name inside -> file. The first one is started."""
START_S = 120
GRACE_S = 3.0
"""How much longer than a run's time a cage may take to end it and to clean up."""
SCRATCH_MB = 64
HEADER_BYTES = 200_000
KINDS = frozenset(
    {
        *ERRORS,
        "Exception",
        "TimeLimit",
        "Crashed",
        "NoResult",
        "OutputTooLarge",
        "NotAnUpdate",
        "ResourceLimit",
    }
)
MAXIMUM_EXAMPLES = 2**53
MAXIMUM_KEYS = 1000


class RunFailed(Exception):
    """A run ended without an update; `kind` may be told to the researcher, the log may not."""

    def __init__(self, kind: str, log: str = "", trace: RunTrace | None = None) -> None:
        super().__init__(kind)
        self.kind, self.log, self.trace = kind, log, trace


@dataclass(frozen=True, slots=True)
class RunTrace:
    """What a run did, as it says itself: for readers, not for rules.

    Attributes:
        calls: What the text called, and how often; told by a run that is watched.
        attempts: What it tried that honest training does not: files, sockets, processes.
        memory_mb: Memory used at most, beside the libraries, MiB; told by a run that is watched.
    """

    calls: tuple[tuple[str, int], ...] = ()
    attempts: tuple[tuple[str, int], ...] = ()
    memory_mb: int = 0


@dataclass(frozen=True, slots=True)
class RunText:
    """What goes into a run beside the data."""

    text: str
    entry: str
    config: dict[str, Any]
    weights: bytes


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came out of a run, as yet unchecked against contract and policy."""

    update: Update
    undeclared: int
    log: str
    seconds: float
    trace: RunTrace = RunTrace()


class Cage:
    """A running cage for one dataset version.

    Args:
        dataset: Directory of the version.
        bwrap: What builds the walls; None for a process without any.
        threads: Threads that a run computes with.
        idle_s: Seconds without a run after which its process ends, to start again when it is
            needed: a warm one holds some 300 MB. None for never.
        program: The files of the program inside.
    """

    def __init__(
        self,
        dataset: Path,
        bwrap: Bubblewrap | None,
        threads: int,
        idle_s: float | None = None,
        program: Mapping[str, Path] = WORKER,
    ) -> None:
        self._dataset, self._bwrap, self._threads = dataset, bwrap, threads
        self._idle_s, self._program = idle_s, program
        self._rest: threading.Timer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        # bubblewrap ends its program when the thread that started it ends, so one thread does it.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="cage")
        self._turn = threading.Lock()

    def start(self) -> None:
        """Start the cage and let it import its libraries; runs then start at once."""
        self._keeper.submit(self._ensure_started)

    def run(
        self, job: RunText, contract: Contract, limits: SandboxRule, *, watched: bool = False
    ) -> RunResult:
        """Run a job and give what it returned; a watched run also tells what it did.

        Raises:
            RunFailed: It raised, exceeded a limit, or returned something else than an update.
            SandboxError: The cage cannot be started.
        """
        with self._turn:
            self._keep_awake()
            try:
                return self._keeper.submit(self._run, job, contract, limits, watched).result()
            finally:
                self._rest_later()

    def close(self) -> None:
        """End the cage and whatever runs in it."""
        self._closed = True
        self._keep_awake()
        if self._process is not None:
            _kill(self._process)  # its pipes end, so that the keeper stops waiting for it
        self._keeper.submit(self._end)
        self._keeper.shutdown(wait=True)

    def _keep_awake(self) -> None:
        if self._rest is not None:
            self._rest.cancel()

    def _rest_later(self) -> None:
        if self._idle_s is None or self._closed:
            return
        self._rest = threading.Timer(self._idle_s, self._end_if_idle)
        self._rest.daemon = True
        self._rest.start()

    def _end_if_idle(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                if not self._closed:
                    self._keeper.submit(self._end).result()
            finally:
                self._turn.release()

    def _run(
        self, job: RunText, contract: Contract, limits: SandboxRule, watched: bool
    ) -> RunResult:
        process = self._ensure_started()
        output_bytes = contract.size_bytes + HEADER_BYTES + 16
        header = {
            "text": job.text,
            "entry": job.entry,
            "config": job.config,
            "trace": watched,
            "limits": {
                "memory_mb": limits.memory_mb,
                "time_s": limits.time_s,
                "processes": limits.processes,
                "threads": self._threads,
                "output_bytes": output_bytes,
            },
        }
        deadline = time.monotonic() + limits.time_s + (GRACE_S if self._bwrap else 0)
        try:
            _send(process, header, job.weights, deadline)
            answer, payload = _receive(process, 2 * output_bytes + 2 * 65_536, deadline)
        except TimeoutError as error:
            self._end()
            raise RunFailed("TimeLimit") from error
        except (OSError, ValueError, TypeError, RecursionError, struct.error) as error:
            self._end()
            raise RunFailed("Crashed") from error
        log, trace = str(answer.get("log", "")), _trace(answer)
        if "error" in answer:
            raise RunFailed(_kind(answer["error"]), log, trace)
        try:
            undeclared, seconds = _keys(answer["undeclared"]), float(answer["seconds"])
            return RunResult(_update(answer, payload), undeclared, log, seconds, trace)
        except (MalformedArraysError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise RunFailed("NotAnUpdate", log, trace) from error

    def _ensure_started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        if self._closed:
            raise SandboxError("the site is stopping")
        arguments = ["-I", "-B", "-X", "utf8"]
        with _readable(cage_filter()) as seccomp:
            if self._bwrap is None:
                started = str(next(iter(self._program.values())))
                command = [sys.executable, *arguments, started, str(self._dataset)]
            else:
                walls = wall_in(self._bwrap, self._dataset, self._program, SCRATCH_MB, seccomp)
                started = next(iter(self._program))
                command = [*walls, sys.executable, *arguments, started, "/data"]
            refused = run_filter().hex() if self._bwrap else ""
            process = subprocess.Popen(
                [*command, str(self._threads), refused],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={} if self._bwrap else ALLOCATOR,
                cwd="/",
                pass_fds=() if self._bwrap is None else (seccomp,),
                start_new_session=True,
            )
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # a user may have only so much in pipes
                fcntl.fcntl(_descriptor(pipe), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._process = process
        if self._closed:  # it was closed while this process was made
            _kill(process)
        threading.Thread(target=_drain, args=(process,), daemon=True).start()
        try:
            ready, _ = _receive(process, HEADER_BYTES, time.monotonic() + START_S)
        except (OSError, ValueError, struct.error) as error:
            self._end()
            raise SandboxError(
                "the sandbox did not start; is bubblewrap allowed to make user namespaces here?"
            ) from error
        if ready != {"ready": True}:
            raise SandboxError("the sandbox answered something else than that it is ready")
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def _readable(content: bytes) -> Iterator[int]:
    """A descriptor that gives `content` when it is read."""
    descriptor = os.memfd_create("seccomp")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End bubblewrap, and with it everything inside its process namespace."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _trace(answer: dict[str, Any]) -> RunTrace:
    """The trace in an answer; what does not look like one is left out."""

    def counted(told: Any) -> tuple[tuple[str, int], ...]:
        pairs = told if isinstance(told, list) else []
        return tuple(
            (pair[0][:200], pair[1])
            for pair in pairs[:100]
            if isinstance(pair, list) and [type(x) for x in pair] == [str, int]
        )

    memory = answer.get("memory_mb")
    return RunTrace(
        counted(answer.get("calls")),
        counted(answer.get("attempts")),
        memory if type(memory) is int and 0 <= memory < 2**31 else 0,
    )


def _keys(told: Any) -> int:
    if isinstance(told, bool) or not isinstance(told, int) or not 0 <= told <= MAXIMUM_KEYS:
        raise ValueError("the number of keys is out of range")
    return told


def _kind(told: object) -> str:
    """A word of the closed list: what a run says of itself may hold data."""
    return told if isinstance(told, str) and told in KINDS else "Exception"


def _update(answer: dict[str, Any], payload: bytes) -> Update:
    weights: Arrays = {}
    counts: Arrays = {}
    for name, array in unpack(payload).items():
        group, _, key = name.partition("/")
        {"weights": weights, "counts": counts}[group][key] = array
    metrics, examples = answer["metrics"], answer["examples"]
    if not isinstance(metrics, dict) or len(metrics) > 1000:
        raise ValueError("metrics are not a mapping")
    if isinstance(examples, bool) or not isinstance(examples, int):
        raise TypeError("examples is not a whole number")
    if not 0 <= examples <= MAXIMUM_EXAMPLES:
        raise ValueError("examples is out of range")
    return Update(
        weights=weights,
        metrics={str(name): float(value) for name, value in metrics.items()},
        examples=examples,
        counts=counts,
    )


def _send(
    process: subprocess.Popen[bytes], header: dict[str, Any], payload: bytes, deadline: float
) -> None:
    """Write a frame; a cage that does not read it in time is out of time."""
    encoded = json.dumps(header).encode()
    frame = struct.pack(">Q", len(encoded)) + encoded + struct.pack(">Q", len(payload)) + payload
    descriptor = _descriptor(process.stdin)
    os.set_blocking(descriptor, False)
    view = memoryview(frame)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        while view:
            _wait(selector, deadline)
            view = view[os.write(descriptor, view[:PIPE_BYTES]) :]


def _receive(
    process: subprocess.Popen[bytes], limit: int, deadline: float
) -> tuple[dict[str, Any], bytes]:
    """Read a frame of at most `limit` bytes."""
    descriptor = _descriptor(process.stdout)
    os.set_blocking(descriptor, False)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)

        def read(size: int) -> bytes:
            if size > limit:
                raise ValueError("the answer is larger than what was declared")
            parts = bytearray()
            while len(parts) < size:
                _wait(selector, deadline)
                chunk = os.read(descriptor, min(size - len(parts), PIPE_BYTES))
                if not chunk:
                    raise OSError("the sandbox ended")
                parts += chunk
            return bytes(parts)

        header = json.loads(read(struct.unpack(">Q", read(8))[0]))
        payload = read(struct.unpack(">Q", read(8))[0])
    if not isinstance(header, dict):
        raise TypeError("the answer's header is not a mapping")
    return header, payload


def _wait(selector: selectors.BaseSelector, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not selector.select(left):
        raise TimeoutError("the run is out of time")


def _descriptor(pipe: Any) -> int:
    if pipe is None:
        raise OSError("the sandbox has no pipe")
    return int(pipe.fileno())


def _drain(process: subprocess.Popen[bytes]) -> None:
    """Read and drop what the cage's own program says, so that it never waits for a reader."""
    if process.stderr is not None:
        with process.stderr as pipe:
            while pipe.read(65_536):
                continue
