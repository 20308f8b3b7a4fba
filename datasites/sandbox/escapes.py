"""What must fail inside a cage: a job's text. `datasites.sandbox.proof` sends it.

Each function in `ESCAPES` tries one thing. It returns how that worked, in words; where the wall
stands it returns nothing or raises OSError. What works does no harm: files are opened and not
written, made under a new name and deleted, and given the mode that they have.

It imports the standard library only, and is given what there is to find outside in `config`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Config = dict[str, Any]
Action = Callable[[], object]

SEIZE = 0x4206  # PTRACE_SEIZE
HARMLESS_DEVICES = frozenset(
    {"console", "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
     "stdout", "tty", "urandom", "zero"}
)  # fmt: skip
OWN_VARIABLES = frozenset({"PWD", "LC_CTYPE", "TORCHINDUCTOR_CACHE_DIR", "KMP_INIT_AT_FORK"})
LIMITS = ("AS", "CORE", "CPU", "FSIZE", "MSGQUEUE", "NOFILE", "NPROC")


def attempt(data: Any, weights: Any, config: Config) -> dict[str, Any]:
    """Try everything; how each went is the last line printed, as JSON: name -> (ok, detail)."""
    went = {name: _tried(escape, config) for name, escape in ESCAPES.items()}
    sys.stdout.write("\n" + json.dumps(went))
    return {"weights": {}, "metrics": {}, "examples": 0}


def _tried(escape: Callable[[Config], str], config: Config) -> tuple[bool, str]:
    """Whether an attempt failed, and how it went."""
    try:
        worked = escape(config)
    except OSError as error:
        return True, error.strerror or "refused"
    return not worked, worked or "nothing to be had"


# --- the network


def _tcp(config: Config) -> str:
    with socket.create_connection(("127.0.0.1", config["tcp"]), timeout=2):
        return "a listener of this machine answers"


def _udp(config: Config) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"sitegate", ("127.0.0.1", config["udp"]))
        return "a packet can be sent"


def _names(config: Config) -> str:
    socket.getaddrinfo("localhost", 80)
    return "a name is resolved"


def _unix_socket(config: Config) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(config["unix"])
        return "a listener of this machine answers"


def _abstract_socket(config: Config) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + config["abstract"])
        return "a listener of this machine answers"


# --- files


def _files_outside(config: Config) -> str:
    seen = [path for path in config["hidden"] if os.path.exists(path)]
    return f"{len(seen)} of {len(config['hidden'])} can be seen: {seen[0]}" if seen else ""


def _dataset(config: Config) -> str:
    folder = config["dataset"]
    card = f"{folder}/card.json"
    return _ways(
        lambda: os.close(os.open(card, os.O_RDWR)),
        lambda: os.rename(card, card),
        lambda: _create(folder),
    )


def _libraries(config: Config) -> str:
    packages = [path for path in sys.path if path.endswith("-packages")]
    folders = (sys.prefix, *packages, *(f"{path}/numpy" for path in packages))
    return _ways(
        lambda: os.close(os.open(json.__file__, os.O_RDWR)),
        *(lambda folder=folder: _create(folder) for folder in folders),
    )


def _system_folders(config: Config) -> str:
    folders = ("/", "/usr", "/dev", "/dev/shm", "/tmp", "/var/tmp", "/run", "/etc")  # noqa: S108
    return _ways(*(lambda folder=folder: _create(folder) for folder in folders))


def _kernel_settings(config: Config) -> str:
    files = ("self/oom_score_adj", "sys/kernel/core_pattern", "sys/kernel/hostname")
    return _ways(
        *(lambda name=name: os.close(os.open(f"/proc/{name}", os.O_WRONLY)) for name in files)
    )


def _devices(config: Config) -> str:
    more = sorted(set(os.listdir("/dev")) - HARMLESS_DEVICES)
    more += ["/sys/kernel"] if os.path.exists("/sys/kernel") else []
    path = f"{config['scratch']}/device"
    with contextlib.suppress(OSError):
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.unlink(path)
        more.append("a new one")
    return f"{len(more)} beside the harmless ones, such as {more[0]}" if more else ""


def _file_attributes(config: Config) -> str:
    path = f"{config['scratch']}/own"
    Path(path).touch()
    return _ways(
        lambda: os.chmod(path, 0o600), lambda: os.utime(path), lambda: os.chown(path, -1, -1)
    )


# --- other processes


def _processes(config: Config) -> str:
    others = _other_processes()
    return f"{len(others)} can be seen" if others else ""


def _signals(config: Config) -> str:
    if config["victim"] in (os.getpid(), os.getppid()):
        return ""  # the cage gave the number of that process to another one
    os.kill(config["victim"], 0)
    return "a process of this machine can be ended"


def _tracing(config: Config) -> str:
    if (child := os.fork()) == 0:
        time.sleep(5)
        os._exit(0)
    libc = ctypes.CDLL(None, use_errno=True)
    seized = libc.ptrace(SEIZE, child, None, None)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "a process can be traced" if seized == 0 else ""


def _memory_of_others(config: Config) -> str:
    pids = {os.getppid(), config["victim"]} - {os.getpid()}
    return _ways(
        *(
            lambda pid=pid, name=name: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
            for pid in pids
            for name in ("mem", "environ", "maps")
        )
    )


def _environment(config: Config) -> str:
    more = [x for x in os.environ if x not in OWN_VARIABLES and not x.startswith("OMP_")]
    return f"{len(more)} variables can be read" if more else ""


def _descriptors(config: Config) -> str:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    more = [path for path in found if path != "/dev/null" and not path.startswith("pipe:")]
    return f"{len(more)} are open beside a run's own pipes" if more else ""


def _modules(config: Config) -> str:
    found = []
    for name in ("syft", "datasites", "policies", "federation"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found.append(name)
    return f"{', '.join(found)} can be imported" if found else ""


# --- rights


def _capabilities(config: Config) -> str:
    status = _status()
    kept = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
            if int(status[name], 16)]  # fmt: skip
    return f"there are some in {', '.join(kept)}" if kept else ""


def _privileges(config: Config) -> str:
    return "" if _status()["NoNewPrivs"] == "1" else "a program that it starts may gain some"


def _system_calls(config: Config) -> str:
    """Each call is made with nonsense; the filter refuses it before the kernel looks at that."""
    if _status()["Seccomp"] != "2":
        return "they are not filtered"
    libc = ctypes.CDLL(None, use_errno=True)
    made = []
    for name, number in config["refused"].items():
        ctypes.set_errno(0)
        if libc.syscall(number, -1, -1, -1, -1) != -1 or ctypes.get_errno() != 1:  # EPERM
            made.append(name)
    return f"{', '.join(made)} can be made" if made else ""


def _user(config: Config) -> str:
    who = (os.getuid(), os.getgid())
    return "" if who == (65534, 65534) else "it is one that owns files of this machine"


def _namespaces(config: Config) -> str:
    shared = [
        name
        for name, link in config["namespaces"].items()
        if os.readlink(f"/proc/self/ns/{name}") == link
    ]
    return f"{', '.join(shared)} shared with the site" if shared else ""


# --- limits


def _open_files(config: Config) -> str:
    opened: list[int] = []
    try:
        for _ in range(200):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return f"{len(opened)} files can be open"


def _file_size(config: Config) -> str:
    with open(f"{config['scratch']}/long", "wb") as file:
        try:
            os.ftruncate(file.fileno(), (config["memory_mb"] << 20) + 1)
        finally:
            os.unlink(file.name)
    return "a file can be longer than a run's memory"


def _disk(config: Config) -> str:
    path = f"{config['scratch']}/much"
    try:
        with open(path, "wb") as file:
            for _ in range(config["scratch_mb"] + 1):
                file.write(bytes(1 << 20))
    finally:
        os.unlink(path)
    return f"{config['scratch_mb'] + 1} MiB can be written"


def _limits(config: Config) -> str:
    endless = [
        name
        for name in LIMITS
        if resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] == resource.RLIM_INFINITY
    ]
    return f"{', '.join(endless)} without a limit" if endless else ""


def _ways(*actions: Action) -> str:
    """How many of some actions work; else the last one's OSError."""
    worked, last = 0, None
    for action in actions:
        try:
            action()
            worked += 1
        except OSError as error:
            last = error
    if last is not None and not worked:
        raise last
    return f"{worked} of {len(actions)} ways work"


def _create(folder: str) -> None:
    path = f"{folder}/.sitegate-{os.getpid()}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: line.split(":")[1].strip() for line in lines}


def _other_processes() -> set[str]:
    """All but this one and the one that started it."""
    return {x for x in os.listdir("/proc") if x.isdigit()} - {str(os.getpid()), str(os.getppid())}


ESCAPES = {
    "TCP": _tcp,
    "UDP": _udp,
    "names (DNS)": _names,
    "Unix sockets": _unix_socket,
    "abstract sockets": _abstract_socket,
    "files outside": _files_outside,
    "writing to the dataset": _dataset,
    "writing to libraries": _libraries,
    "writing elsewhere": _system_folders,
    "kernel settings": _kernel_settings,
    "devices": _devices,
    "modes, times, owners of files": _file_attributes,
    "other processes": _processes,
    "signals": _signals,
    "tracing": _tracing,
    "memory of other processes": _memory_of_others,
    "environment": _environment,
    "open descriptors": _descriptors,
    "the site's own modules": _modules,
    "capabilities": _capabilities,
    "new privileges": _privileges,
    "system calls": _system_calls,
    "another user": _user,
    "namespaces": _namespaces,
    "many open files": _open_files,
    "long files": _file_size,
    "disk space": _disk,
    "endless limits": _limits,
}
"""What is tried, by the name that `sitegate doctor` shows."""
