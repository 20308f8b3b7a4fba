"""The files of one audit log: `audit.jsonl`, which is written, and older ones beside it.

An older file is named by the number of its first line: `audit-000000001.jsonl`. The last
checkpoint lies beside them: `audit.checkpoint.json`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from datasites.audit_lines import Chain, parse_content, split_line
from datasites.errors import RecordError


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a log, open for reading."""

    name: str
    lines: BufferedReader

    @property
    def start(self) -> Chain:
        """The chain before this file, as its first line claims; ask before reading."""
        line = split_line(self.lines.readline())
        self.lines.seek(0)
        return Chain(line.n - 1, line.previous) if line else Chain()


def segment_path(log: Path, first_line: int) -> Path:
    """Where the older file of a log that begins with this line lies."""
    return log.with_name(f"{log.stem}-{first_line:09d}{log.suffix}")


def checkpoint_path(log: Path) -> Path:
    """Where the last checkpoint of a log lies."""
    return log.with_name(f"{log.stem}.checkpoint.json")


def is_segment(path: Path) -> bool:
    """Whether a file is an older file of a log, by its name."""
    return _SEGMENT.fullmatch(path.stem) is not None


@contextmanager
def opened(log: Path, *, alone: bool = False) -> Iterator[list[Segment]]:
    """The files of a log in the order of their lines, open for reading.

    The file that is written is opened before the older ones are listed, so that a rotation at the
    same time hides none. While a log is rotated, and after a crash at that moment, its newest file
    has both names; it is read once.

    Args:
        log: The file that is written, or an older one, which is then read alone.
        alone: Leave out the older files.

    Raises:
        RecordError: There is no such file.
    """
    with ExitStack() as files:
        try:
            newest = files.enter_context(log.open("rb"))
            older = [] if alone or is_segment(log) else _older(log, os.fstat(newest.fileno()))
            found = [Segment(path.name, files.enter_context(path.open("rb"))) for path in older]
        except OSError as error:
            raise RecordError(f"there is no audit log at {log}") from error
        yield [*found, Segment(log.name, newest)]


def has_traces(log: Path) -> bool:
    """Whether older files or a checkpoint say that there was a log here."""
    return checkpoint_path(log).exists() or bool(_older(log, None))


def read_events(log: Path) -> Iterator[dict[str, Any]]:
    """The events of a log that can be read, oldest first; `verify_log` says if they are true.

    Each is a dict of `n`, `previous`, `hash` and the fields of the record (`CONTENT_FIELDS`).
    """
    with opened(log) as files:
        for file in files:
            for raw in file.lines:
                line = split_line(raw)
                content = parse_content(line.content) if line else None
                if line and content:
                    yield {"n": line.n, "previous": line.previous, "hash": line.hash, **content}


_SEGMENT = re.compile(r"(.+)-([0-9]{9,})")


def _older(log: Path, newest: os.stat_result | None) -> list[Path]:
    found: dict[int, Path] = {}
    for path in log.parent.glob(f"*{log.suffix}"):
        name = _SEGMENT.fullmatch(path.stem)
        if name is None or name[1] != log.stem or path.suffix != log.suffix:
            continue
        if newest is None or not os.path.samestat(path.stat(), newest):
            found[int(name[2])] = path
    return [found[first] for first in sorted(found)]
