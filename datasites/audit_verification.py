"""Is an audit log what its site wrote? The check needs the file and the site's public key only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from datasites.audit_checkpoint import Checkpoint, is_checkpoint_of, read_checkpoint
from datasites.audit_events import Event
from datasites.audit_lines import FIRST, BrokenLineError, Chain, split_line
from datasites.audit_segments import Segment, checkpoint_path, has_traces, is_segment, opened
from datasites.errors import RecordError


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a log found.

    Attributes:
        first_line: Number of the line where the check began: 1 but for an older file alone.
        last_line: Number of the last line that verifies.
        head: Hash of that line.
        checkpoints: Signed checkpoints that verify.
        unsigned_lines: Lines after the last checkpoint; the chain covers them, a signature not yet.
        covered_lines: Lines that a checkpoint outside of the log covers, 0 without one.
        bad_line: Number of the first line that does not verify, None when all do.
        problem: What is wrong with it, as the end of a sentence.
        unfinished_bytes: Size of a last line without an end, as a crash leaves it.
    """

    first_line: int
    last_line: int
    head: str
    checkpoints: int = 0
    unsigned_lines: int = 0
    covered_lines: int = 0
    bad_line: int | None = None
    problem: str = ""
    unfinished_bytes: int = 0

    @property
    def intact(self) -> bool:
        """Whether every line verifies."""
        return self.bad_line is None

    @property
    def lines(self) -> int:
        """How many lines verify."""
        return self.last_line - self.first_line + 1


def verify_log(
    log: Path, public_hex: str, *, checkpoints: Sequence[Checkpoint] = (), alone: bool = False
) -> Verification:
    """Check the chain and every checkpoint of a log.

    Older files beside the log are checked with it, and so is the last checkpoint beside it. An
    older file that is named itself is checked alone, from its first line on.

    Args:
        log: The file that is written, `audit.jsonl`, or an older one.
        public_hex: The public key of the log's site.
        checkpoints: More checkpoints that the log has to agree with, kept elsewhere.
        alone: Check this file only, and take its first line on trust.

    Raises:
        RecordError: There is no such log, or the checkpoint beside it cannot be read.
    """
    alone = alone or is_segment(log)
    beside = checkpoint_path(log)
    if not alone and beside.exists():  # before the log, which only grows
        checkpoints = [read_checkpoint(beside), *checkpoints]
    with opened(log, alone=alone) as files:
        walk = _Walk(public_hex, checkpoints, files[0].start if alone else Chain())
        walk.read(files)
    return walk.found(alone=alone)


def check_log(log: Path, public_hex: str) -> Verification:
    """What a site finds that starts on this log; a log that was not begun yet is empty.

    A line is flushed before its effect, so an unfinished last one, left by a crash, had none: it
    does not keep a site from starting.

    Raises:
        RecordError: The log does not verify; nothing was written to it.
    """
    if not log.exists() or log.stat().st_size == 0:
        if has_traces(log):
            raise RecordError(
                f"the audit log {log.name} is missing, and what lies beside it says that there "
                "was one. The site does not start without it; take it from a backup"
            )
        return Verification(1, 0, FIRST)
    found = verify_log(log, public_hex)
    if not found.intact and not found.unfinished_bytes:
        raise RecordError(
            f"the audit log does not verify: line {found.bad_line} {found.problem}. The site does "
            "not start on it; keep the files and look into it: sitegate audit verify"
        )
    return found


class _Walk:
    """One pass over the files of a log, up to the first line that does not verify."""

    def __init__(self, key: str, outside: Sequence[Checkpoint], start: Chain) -> None:
        self._key, self._outside = key, outside
        self._first = start.lines + 1
        self._chain = start
        self._signed = self._unsigned = 0
        self._problem, self._unfinished = "", 0
        self._heads = {checkpoint.lines: "" for checkpoint in outside}
        if start.lines in self._heads:
            self._heads[start.lines] = start.head

    def read(self, files: Sequence[Segment]) -> None:
        """Follow the chain through the files."""
        for file in files:
            before = self._chain.lines
            try:
                self._read(file)
            except BrokenLineError as broken:
                self._problem = str(broken)
                line = split_line(broken.raw)
                if self._chain.lines == before and line and line.n > before + 1:
                    self._problem = f"is missing: {file.name} begins with line {line.n}"
                if file is files[-1] and broken.raw and not broken.raw.endswith(b"\n"):
                    self._unfinished = len(broken.raw)
                return

    def _read(self, file: Segment) -> None:
        chain, heads, checkpoint = self._chain, self._heads, Event.CHECKPOINT.value
        head = chain.head
        for content in chain.follow_all(file.lines):
            if content["event"] == checkpoint:
                if not is_checkpoint_of(content["detail"], self._key, chain.lines - 1, head):
                    chain.lines, chain.head = chain.lines - 1, head
                    raise BrokenLineError("is a checkpoint that this site's key did not sign")
                self._signed, self._unsigned = self._signed + 1, 0
            else:
                self._unsigned += 1
            head = chain.head
            if chain.lines in heads:
                heads[chain.lines] = head

    def found(self, *, alone: bool) -> Verification:
        """What the pass found, compared with the checkpoints from outside of the log."""
        last = self._chain.lines
        problems = [(last + 1, self._problem)] if self._problem else []
        for checkpoint in self._outside:
            if problem := self._contradiction(checkpoint):
                problems.append((checkpoint.lines, problem))
            elif checkpoint.lines > last and not alone:
                problems.append((last + 1, f"is missing: {_words(checkpoint)}"))
        bad_line, problem = min(problems, key=itemgetter(0), default=(None, ""))
        return Verification(
            first_line=self._first,
            last_line=last,
            head=self._chain.head,
            checkpoints=self._signed,
            unsigned_lines=self._unsigned,
            covered_lines=max((c.lines for c in self._outside if c.lines <= last), default=0),
            bad_line=bad_line,
            problem=problem,
            # A crash tears off only what no checkpoint covers yet.
            unfinished_bytes=self._unfinished if len(problems) == 1 else 0,
        )

    def _contradiction(self, checkpoint: Checkpoint) -> str:
        if checkpoint.public_key != self._key or not checkpoint.is_signed:
            return "is vouched for by a checkpoint that this site's key did not sign"
        head = self._heads[checkpoint.lines]
        if head and head != checkpoint.head:
            return f"is not what the site signed: {_words(checkpoint)}"
        return ""


def _words(checkpoint: Checkpoint) -> str:
    return f"its checkpoint of {checkpoint.at} covers {checkpoint.lines} lines"
