"""The program inside the cage: imports the libraries once, then forks one child per run.

It is started as `python -I worker.py DATA THREADS [FILTER]` and speaks frames over its standard
input and output; FILTER is a seccomp filter for runs, in hex. It imports nothing of this project.
The parent process in the cage never touches foreign code; each run is a child of its own, and
everything it leaves behind is ended and wiped away.

A frame is two parts, each an 8-byte big-endian length and that many bytes: a JSON header and a
binary payload. A request's payload is the weights, an answer's the returned arrays (safetensors).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import importlib.util
import json
import os
import resource
import selectors
import shutil
import signal
import struct
import sys
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

SCRATCH = Path("/scratch")
"""All that can be written in a cage: a few megabytes, wiped after each run."""
LOG_BYTES = 65_536
PIPE_BYTES = 1 << 20
"""What a pipe for arrays holds, and most that is read at once: a megabyte at a time, not 64 kB."""
LOOK_S = 0.05
"""How often what a run takes is looked at."""
ATTEMPTS_BYTES = 131_072
RESULT, ATTEMPTS = 3, 4
"""The descriptors that a run's answer, and what it tries, are written to."""
ERRORS = (
    "ArithmeticError", "AssertionError", "AttributeError", "FileNotFoundError", "ImportError",
    "IndexError", "KeyError", "MemoryError", "ModuleNotFoundError", "NameError", "OSError",
    "OverflowError", "PermissionError", "RecursionError", "RuntimeError", "SystemExit", "TypeError",
    "ValueError", "ZeroDivisionError",
)  # fmt: skip
"""Kinds of error that are told; others are `Exception`, for a class name can hold data."""
JOB = "job.py"
"""Name of the job's text in tracebacks and traces."""
TRACED = 60
"""Calls and attempts that a trace tells at most."""
WATCHED = (
    "open", "import", "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
    "os.spawn", "os.kill", "os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink",
    "os.truncate", "os.listdir", "os.scandir", "shutil.", "ctypes.", "pickle.", "pty.",
    "os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr", "os.rmdir", "os.chdir",
    "os.fchdir", "os.putenv", "os.chflags", "os.lockf", "fcntl.", "resource.", "signal.", "syslog.",
    "sys.settrace", "glob.", "tempfile.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.",
    "setopencodehook", "sys.addaudithook",
)  # fmt: skip
"""Audit events (Python's audit events table) that an honest training job does not raise."""
PLAIN = (
    "builtins.len", "builtins.range", "builtins.int", "builtins.float", "builtins.min",
    "builtins.max", "builtins.sum", "builtins.abs", "builtins.all", "builtins.any",
    "builtins.round", "builtins.zip", "builtins.sorted", "builtins.isinstance", "list.", "dict.",
    "str.", "tuple.", "set.", "int.", "float.", "__main__.",
)  # fmt: skip
"""Calls that tell a reader nothing."""
LIBRARIES = frozenset({"numpy", "torch", "torchvision", "safetensors", "scipy", "sklearn"})
GPU_LIBRARY = "libcublasLt.so"
READABLE = (sys.prefix, sys.base_prefix, "/usr/lib", "/proc/self/", "/sys/devices/system/cpu")
"""Where libraries read files of their own."""


class Data:
    """What a job gets as `data`: the card and the arrays of the approved dataset version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.card = json.loads((directory / "card.json").read_bytes())

    def arrays(self, split: str) -> tuple[Any, Any]:
        """Memory-mapped images (N, H, W[, C]) uint8 and labels (N,) int64 of a split."""
        import numpy as np

        if split not in self.card["counts"]:
            raise ValueError("there is no such split in the card's counts")
        images = np.load(self.directory / f"{split}_images.npy", mmap_mode="r")
        return images, np.load(self.directory / f"{split}_labels.npy", mmap_mode="r")

    def groups(self, split: str) -> dict[str, Any]:
        """Attribute -> (N,) int8 places of values in the card's `groups`, -1 for none."""
        import numpy as np

        if split not in self.card["counts"]:
            raise ValueError("there is no such split in the card's counts")
        names = self.card.get("groups", ())
        return {n: np.load(self.directory / f"{split}_group_{n}.npy", mmap_mode="r") for n in names}


Call = Callable[[Data, dict[str, Any], bytes], tuple[dict[str, Any], bytes]]
"""What a run does: data, header and payload of the request -> header and payload of the answer."""


def serve(call: Call, warm_up: Callable[[int], None]) -> None:
    """Serve runs until the input ends, each in a child of its own.

    Args:
        call: What a run does.
        warm_up: Imports what runs need, given the threads that they may use.
    """
    directory, threads = Path(sys.argv[1]), int(sys.argv[2])
    refused = bytes.fromhex("".join(sys.argv[3:]))
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: no run can look into this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nor end it
    requests, answers = os.fdopen(0, "rb", closefd=False), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.pop("GLIBC_TUNABLES", None)  # it was for the start of this process
    _keep_memory()
    warm_up(threads)
    if os.getpid() == 1:
        _forget_tables_of(GPU_LIBRARY)
    _make_pages_large()
    _send(answers, {"ready": True}, b"")
    while (request := _receive(requests)) is not None:
        header, answer = _run_in_child(call, Data(directory), refused, *request)
        _clean_up()
        _send(answers, header, answer)
    os._exit(0)  # what libraries do at the end of a process needs tables that are forgotten


COMPILER = ("torch._dynamo", "torch._dynamo.utils")


class NoCompiler(types.ModuleType):
    """Stands for a module of the compiler, until something asks for more than this.

    Every optimizer (torch 2.14) imports it to tell it where not to compile, and torchvision 0.29 to
    ask what it can: 80 MB and a second per process, for nothing where nothing is compiled.
    """

    @staticmethod
    def graph_break(msg: str = "") -> None:
        """Say that compiled code ends here; nothing is compiled."""

    @staticmethod
    def disable(fn: Any = None, recursive: bool = True, **_: Any) -> Any:
        """The function, not compiled."""
        return fn

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        """Nothing is compiled for any device."""
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (self.__name__, name) != (COMPILER[0], "__path__"):
            raise AttributeError(name)
        for module in COMPILER:
            if isinstance(sys.modules.get(module), NoCompiler):
                del sys.modules[module]
        return getattr(importlib.import_module(self.__name__), name)


def warm_up(threads: int) -> None:
    """Import what runs need, once, so that a run starts in milliseconds."""
    import numpy  # noqa: F401
    import safetensors.numpy  # noqa: F401

    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if COMPILER[0] not in sys.modules:
        sys.modules |= {module: NoCompiler(module) for module in COMPILER}
        torch._dynamo = sys.modules[COMPILER[0]]
    import torchvision.models  # noqa: F401

    torch.set_num_threads(threads)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def _keep_memory() -> None:
    """Let the allocator keep what is freed, in this process and the runs that it forks.

    Training frees and takes the same few megabytes thousands of times. Given back to the kernel
    each time, they cost a tenth of the run in page faults (29,000 instead of 3,000 for 16 batches).
    """
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 32 << 20), (-1, 1 << 30), (-2, 16 << 20)):
        # M_MMAP_THRESHOLD (32 MiB is the most), M_TRIM_THRESHOLD, M_TOP_PAD; elsewhere than in
        # glibc there is no such function, or it says no.
        with contextlib.suppress(AttributeError):
            libc.mallopt(option, value)


def _forget_tables_of(library: str) -> None:
    """Give back the 80 MB of tables that a library of code for GPUs fills when it is loaded.

    PyTorch's usual build loads it, and nothing calls it in a cage: there is no GPU among its
    devices. The tables are its zero-initialised data, the memory that follows its file's.
    """
    libc, end_of_file = ctypes.CDLL(None), 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split()
        first, end = (int(x, 16) for x in span.split("-"))
        if name and Path(name[0]).name.startswith(library):
            end_of_file = end
        elif not name and rights == "rw-p" and first == end_of_file:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), 4)  # MADV_DONTNEED


def _make_pages_large() -> None:
    """Gather this process's memory in pages of 2 MiB: forking it takes 2 ms instead of 9.

    A kernel that does not (before Linux 6.1, or switched off) says so, and all stays as it was.
    """
    libc, large = ctypes.CDLL(None), 2 << 20
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split()
        if rights != "rw-p" or name not in ([], ["[heap]"]):
            continue
        first, end = (int(x, 16) for x in span.split("-"))
        first, end = -(-first // large) * large, end // large * large
        if first < end:
            for advice in (14, 25):  # MADV_HUGEPAGE, MADV_COLLAPSE
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), advice)


def _run_in_child(
    call: Call, data: Data, refused: bytes, header: dict[str, Any], payload: bytes
) -> tuple[dict[str, Any], bytes]:
    started = time.monotonic()
    pipes = [os.pipe() for _ in range(3)]  # result, log, attempts
    with contextlib.suppress(OSError):  # a user may have only so much in pipes
        fcntl.fcntl(pipes[0][1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    child = os.fork()
    if child == 0:
        try:
            _become_run([write for _, write in pipes], header["limits"], refused)
            answer, arrays = call(data, header, payload)
            with os.fdopen(RESULT, "wb") as file:
                _send(file, answer, arrays)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()  # what it printed is for the site's log
            os._exit(0)
    for _, write in pipes:
        os.close(write)
    told, killed = _collect(child, [read for read, _ in pipes], header["limits"])
    output, log, attempts = told
    status = os.waitpid(child, 0)[1]
    answer, arrays = _parse(output, killed, status)
    answer["log"] = log.decode(errors="replace")
    answer["attempts"] = Counter(attempts.decode(errors="replace").splitlines()).most_common(TRACED)
    answer["seconds"] = round(time.monotonic() - started, 3)
    return answer, arrays


def _become_run(pipes: list[int], limits: dict[str, int], refused: bytes) -> None:
    """Turn a forked child into a run: three pipes to write to, no more than its limits."""
    result, log, attempts = pipes
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    moved = os.dup(attempts)  # it may be the number that the result's is to have
    os.dup2(result, RESULT)
    os.dup2(moved, ATTEMPTS)
    os.closerange(ATTEMPTS + 1, 65_536)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + limits["memory_mb"] * 2**20
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits["time_s"] * limits["threads"] + 5),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, limits["memory_mb"] * 2**20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _limit(what, value)
    if os.getppid() == 1:  # in a cage; elsewhere the user's other processes would count too
        _limit(resource.RLIMIT_NPROC, limits["processes"])
    if refused:
        _refuse(refused)


def _refuse(seccomp_filter: bytes) -> None:
    """Put a filter of system calls on this process and all that it starts, for good."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    program = Program(len(seccomp_filter) // 8, seccomp_filter)
    if ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP, by filter
        raise OSError("the kernel does not take the filter of a run")


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (_least(value, hard), _least(value, hard)))


def _least(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _call(data: Data, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Run the text's entry function and turn what it returns into a header and arrays."""
    from safetensors.numpy import load, save

    attempts, trace = Attempts(data.directory), Trace() if header.get("trace") else None
    try:
        names: dict[str, Any] = {"__name__": "job", "__builtins__": __builtins__}
        code, weights = compile(header["text"], JOB, "exec"), load(payload)
        attempts.start()
        if trace:
            trace.start()
        try:
            exec(code, names)  # noqa: S102  what the cage is for
            result = names[header["entry"]](data, weights, header["config"])
        finally:
            if trace:
                trace.stop()
            attempts.stop()
        arrays = {
            # safetensors reads a view's memory as if it were contiguous, past its end if need be.
            f"{group}/{name}": array if array.flags.c_contiguous else array.copy(order="C")
            for group in ("weights", "counts")
            for name, array in result.get(group, {}).items()
        }
        return {
            "undeclared": len(set(result) - {"weights", "counts", "metrics", "examples"}),
            "metrics": {str(k): float(v) for k, v in result.get("metrics", {}).items()},
            "examples": int(result["examples"]),
            **(trace.told() if trace else {}),
        }, save(arrays)
    except BaseException as error:
        told = trace.told() if trace else {}
        return {"error": kind_of(error), **told}, b""


def kind_of(error: BaseException) -> str:
    """The kind of an error, which may be told; the error itself is for the site's log."""
    traceback.print_exception(error)
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS]
    return kinds[0] if kinds else "Exception"


class Attempts:
    """Tells what a run tries that honest training does not, as it happens.

    So a run that is ended has told it too. It is for a reader: code that wants to hide from it can;
    code in the cage has nothing to reach.
    """

    def __init__(self, dataset: Path) -> None:
        self._readable = (f"{dataset}/", *READABLE)
        self._on, self._left = False, 10 * TRACED
        self._is_watched: dict[str, bool] = {}

    def start(self) -> None:
        """Tell what happens from here on."""
        sys.addaudithook(self._audit)
        self._on = True

    def stop(self) -> None:
        """Tell no more."""
        self._on = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        watched = self._is_watched.get(event)
        if watched is None:
            watched = self._is_watched[event] = event.startswith(WATCHED)
        if watched and self._left and (what := self._in_words(event, arguments)):
            self._left -= 1
            with contextlib.suppress(OSError):  # it may have closed the descriptor
                os.write(ATTEMPTS, what[:120].encode(errors="backslashreplace") + b"\n")

    def _in_words(self, event: str, arguments: tuple[Any, ...]) -> str:
        """An audit event in words; empty for what libraries do by themselves."""
        if event == "import":
            name = str(arguments[0])
            known = sys.stdlib_module_names | LIBRARIES
            return "" if name.split(".")[0] in known else f"import {name!r}"
        if event in ("open", "os.listdir", "os.scandir"):
            path = str(arguments[0])[:200]
            writes = event == "open" and set(str(arguments[1])) & set("wax+")
            is_own = path.startswith(self._readable) and not writes
            return "" if is_own else f"{event} {path!r}"
        told = [x[:80] if isinstance(x, str | bytes) else x for x in arguments if _is_plain(x)]
        return " ".join([event, *map(repr, told)])


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(x, str | bytes | int) for x in value[:4]) and len(str(value)) < 200
    return isinstance(value, str | bytes | int)


class Trace:
    """What a rehearsed job did, seen from inside: what it called, for a reader."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._memory_kb = _memory_kb("self")

    def start(self) -> None:
        """Watch from here on."""
        sys.setprofile(self._profile)

    def stop(self) -> None:
        """Watch no longer."""
        sys.setprofile(None)

    def told(self) -> dict[str, Any]:
        """The most frequent calls, and the memory that was used at most, MiB."""
        most_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "calls": self._calls.most_common(TRACED),
            "memory_mb": max(0, most_kb - self._memory_kb) // 1024,
        }

    def _profile(self, frame: Any, event: str, called: Any) -> None:
        if event == "c_call" and frame.f_code.co_filename == JOB:
            name = f"{getattr(called, '__module__', None) or ''}.{called.__qualname__}"
        elif event == "call" and frame.f_back and frame.f_back.f_code.co_filename == JOB:
            if frame.f_code.co_filename == JOB:
                return  # its own helpers stand in the text
            name = f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}"
            if name.endswith("public_api"):  # numpy's functions are all called through this one
                name = f"numpy.{getattr(frame.f_locals.get('implementation'), '__name__', '?')}"
        else:
            return
        name = name.strip(".").removesuffix(".__init__")[:120]
        if not name.startswith(PLAIN) and "<locals>" not in name:
            self._calls[name] += name in self._calls or len(self._calls) < 10 * TRACED


def _collect(child: int, descriptors: list[int], limits: dict[str, int]) -> tuple[list[bytes], str]:
    """Read the pipes until the child is gone; one that takes too much of anything is ended."""
    result = descriptors[0]
    parts = {descriptor: bytearray() for descriptor in descriptors}
    most = dict(zip(descriptors, (limits["output_bytes"], LOG_BYTES, ATTEMPTS_BYTES), strict=True))
    memory_mb, processes, before = limits["memory_mb"], limits["processes"], _memory_kb("self")
    end, killed = time.monotonic() + limits["time_s"], ""
    with selectors.DefaultSelector() as selector:
        for descriptor in parts:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        running, next_look = True, 0.0
        while selector.get_map() and running:
            running = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            now = time.monotonic()
            if now >= next_look:
                next_look = now + LOOK_S
                if _takes_too_much(before, memory_mb, processes):
                    killed = killed or "ResourceLimit"
            if not killed and os.getpid() == 1 and now > end:  # elsewhere the site ends all
                killed = "TimeLimit"
            if killed in ("ResourceLimit", "TimeLimit"):
                os.kill(-1, signal.SIGKILL)
            for key, _ in selector.select(LOOK_S if running else 0):
                chunk = os.read(key.fd, PIPE_BYTES)
                room = most[key.fd] - len(parts[key.fd])
                parts[key.fd] += chunk[:room]
                if not chunk:
                    selector.unregister(key.fd)
                elif key.fd == result and len(chunk) > room:
                    os.kill(child, signal.SIGKILL)
                    killed = "OutputTooLarge"
    for descriptor in parts:
        os.close(descriptor)
    return [bytes(part) for part in parts.values()], killed


def _takes_too_much(before: int, memory_mb: int, processes: int) -> bool:
    """Whether a run's processes together are too many, or have too much memory of their own.

    Limits of the kernel hold per process, and the one on their number not for root. Outside a cage
    other processes are not ours to count.
    """
    if os.getpid() != 1:
        return False
    pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    if len(pids) > processes:
        return True
    if len(pids) < 2:
        return False  # one process is within RLIMIT_AS
    own = sum(max(0, _memory_kb(pid) - before) for pid in pids)
    return own > memory_mb * 1024


def _memory_kb(pid: str) -> int:
    """Resident memory of a process that is no file's, KiB; 0 if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon:", "RssShmem:")))
    return 0


def _parse(output: bytes, killed: str, status: int) -> tuple[dict[str, Any], bytes]:
    """What the child sent, if it is one whole frame; else the kind of its end."""
    if killed:
        return {"error": killed}, b""
    with contextlib.suppress(struct.error, ValueError, RecursionError):
        length = struct.unpack_from(">Q", output)[0]
        header = json.loads(output[8 : 8 + length])
        size = struct.unpack_from(">Q", output, 8 + length)[0]
        payload = output[16 + length :]
        if isinstance(header, dict) and len(payload) == size:
            return header, payload
    if os.WIFSIGNALED(status):
        end = os.WTERMSIG(status)
        return {"error": "TimeLimit" if end == signal.SIGXCPU else "Crashed"}, b""
    return {"error": "NoResult"}, b""


def _clean_up() -> None:
    """End what a run left running and wipe what it left lying. Only as the cage's first process."""
    if os.getpid() != 1:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            continue
    SCRATCH.chmod(0o700)
    for name in os.listxattr(SCRATCH):
        os.removexattr(SCRATCH, name)
    for folder, folders, _ in os.walk(SCRATCH):  # top down: what is closed is opened first
        for name in folders:
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o700)
    for path in SCRATCH.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.utime(SCRATCH, (0, 0))


def _send(file: BinaryIO, header: dict[str, Any], payload: bytes) -> None:
    encoded = json.dumps(header).encode()
    file.write(struct.pack(">Q", len(encoded)) + encoded + struct.pack(">Q", len(payload)))
    file.write(payload)
    file.flush()


def _receive(file: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    parts = []
    for _ in range(2):
        length = file.read(8)
        if len(length) < 8:
            return None
        parts.append(file.read(struct.unpack(">Q", length)[0]))
    return json.loads(parts[0]), parts[1]


if __name__ == "__main__":
    serve(_call, warm_up)
