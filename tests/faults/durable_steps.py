"""Counts the steps by which a process changes what is on its disk, and lets one of them go wrong.

A step is one call that a power cut can fall before or after: making a file, writing the log,
fsync, giving a file its name, deleting one, cutting one, and the commit of a database transaction.
Only files of one folder count.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect


class Fault(StrEnum):
    """What goes wrong at a step."""

    KILLED_BEFORE = "killed before it"
    KILLED_HALFWAY = "killed when half of it was written"
    KILLED_AFTER = "killed after it"
    FULL = "disk full"
    FULL_HALFWAY = "disk full when half of it was written"
    FULL_FROM_THEN_ON = "disk full from then on"


@dataclass(slots=True)
class Steps:
    """The steps that were taken since `watch`, by name; fault `fault` falls on number `at`."""

    folder: Path
    fault: Fault | None = None
    at: int = -1
    taken: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Watch this process for the rest of its life."""
        real_open, real_write, real_commit = os.open, os.write, DefaultDialect.do_commit

        def watched_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
            def create() -> int:
                return real_open(path, flags, *more, **named)

            makes = flags & os.O_CREAT and not os.path.exists(path)
            return self._step("make", path, create) if makes else create()

        def watched_write(descriptor: int, content: bytes) -> int:
            def write(size: int = len(content)) -> int:
                return real_write(descriptor, content[:size])

            return self._step("write", _path(descriptor), write, lambda: write(len(content) // 2))

        def watched_commit(dialect: Any, connection: Any) -> None:
            self._step("commit", self.folder / "site.db", lambda: real_commit(dialect, connection))

        os.open, os.write, DefaultDialect.do_commit = watched_open, watched_write, watched_commit
        os.fsync = self._on_descriptor("fsync", os.fsync)
        os.ftruncate = self._on_descriptor("cut", os.ftruncate)
        os.replace = self._on_path("name", os.replace)
        os.link = self._on_path("second name", os.link)
        os.unlink = self._on_path("delete", os.unlink)

    def _on_descriptor(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda descriptor, *more: self._step(
            name, _path(descriptor), lambda: real(descriptor, *more)
        )

    def _on_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda path, *more, **named: self._step(
            name, path, lambda: real(path, *more, **named)
        )

    def _step(
        self,
        name: str,
        path: Any,
        take: Callable[[], Any],
        half: Callable[[], Any] | None = None,
    ) -> Any:
        """Take a step, or let it go wrong; half of a step that cannot be halved is none of it."""
        if not Path(path).is_relative_to(self.folder):
            return take()
        number = len(self.taken)
        self.taken.append(f"{name} {Path(path).relative_to(self.folder)}")
        if number != self.at and not (self.fault is Fault.FULL_FROM_THEN_ON and number > self.at):
            return take()
        match self.fault:
            case Fault.KILLED_AFTER:
                take()
                _die()
            case Fault.KILLED_HALFWAY:
                if half:
                    half()
                _die()
            case Fault.KILLED_BEFORE:
                _die()
            case Fault.FULL_HALFWAY if half:
                return half()
            case Fault.FULL | Fault.FULL_HALFWAY | Fault.FULL_FROM_THEN_ON:
                if name in ("delete", "cut"):
                    return take()  # a full disk allows these
                if name == "commit":
                    raise sqlite3.OperationalError("database or disk is full")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            case None:
                return take()


def _path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
