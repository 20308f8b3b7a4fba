"""What an outside observer sees of a tree of processes: memory, CPU time, foreign load. Linux."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

import psutil


def tree(root: int, without: Collection[int] = ()) -> list[psutil.Process]:
    """A process and all that descend from it; `without` some of them and their descendants."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(root)
        found = {p.pid: p for p in (process, *process.children(recursive=True))}
    for pid in without:
        for left_out in tree(pid):
            found.pop(left_out.pid, None)
    return list(found.values())


def cpu_seconds(processes: Collection[psutil.Process]) -> float:
    """User and system time of processes, and of the children that they waited for."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def machine_seconds() -> float:
    """CPU time that anything on this machine used since it was started."""
    with Path("/proc/stat").open() as file:
        ticks = [int(x) for x in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    """Memory of a process, MiB; pages that several share are counted in parts.

    Of a process that lets nobody look inside, pages that others share are counted whole.
    """
    with contextlib.suppress(OSError):
        return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), ("Pss:",)) / 1024
    with contextlib.suppress(OSError):
        return _kilobytes(Path(f"/proc/{pid}/status"), ("VmRSS:",)) / 1024
    return 0.0


def private_mb(pid: int) -> float:
    """Memory of a process that is no file's, MiB, now."""
    with contextlib.suppress(OSError):
        return _kilobytes(Path(f"/proc/{pid}/status"), ("RssAnon:", "RssShmem:")) / 1024
    return 0.0


def _kilobytes(file: Path, names: tuple[str, ...]) -> int:
    lines = file.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names))


class Sampler:
    """Watches this program's tree while a block runs, and keeps the highest numbers.

    Args:
        period_s: From one look to the next. A look costs each process some milliseconds.
    """

    def __init__(self, period_s: float = 0.2) -> None:
        self._period_s = period_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)
        self.pss_mb = 0.0
        """Highest sum of the memory of all processes."""
        self.below_pss_mb = 0.0
        """The same without this program itself."""
        self.processes = 0
        """Most processes at one time."""

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._period_s):
            memory = {process.pid: pss_mb(process.pid) for process in tree(os.getpid())}
            below = sum(memory.values()) - memory.get(os.getpid(), 0.0)
            self.processes = max(self.processes, len(memory))
            self.pss_mb = max(self.pss_mb, sum(memory.values()))
            self.below_pss_mb = max(self.below_pss_mb, below)
