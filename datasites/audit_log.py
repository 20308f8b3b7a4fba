"""The site's tamper-evident record: JSON Lines, each with the hash of the one before.

One line is one event, written and flushed to disk before the effect it records: what is not in the
log did not happen. Every `CHECKPOINT_EVERY` lines, and at shutdown, a checkpoint signs the chain
so far with the site's Ed25519 key. Anyone with the file and the public key can verify it.

Line: {"n", "time", "event", "actor", "subject", "detail", "previous", "hash"}, where `hash` is the
SHA-256 of the canonical JSON of the other fields and `previous` the hash of the line before.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from datasites.errors import RecordError
from datasites.keys import SiteKey, is_signed
from datasites.records import utc_now
from policies.strict import canonical_json

CHECKPOINT_EVERY = 100
FIRST = "0" * 64
PURPOSE = "audit checkpoint"


class Event(StrEnum):
    """What can happen at a site; the value is the word in the log."""

    SITE_CREATED = "site created"
    SITE_STARTED = "site started"
    SITE_STOPPED = "site stopped"
    LOG_RECOVERED = "log recovered"
    POLICY_IN_FORCE = "policy in force"
    ACCOUNT_CREATED = "account created"
    DATASET_PUBLISHED = "dataset published"
    DATASET_WITHDRAWN = "dataset withdrawn"
    LOGIN = "login"
    LOGIN_REFUSED = "login refused"
    CALL_REFUSED = "call refused"
    REQUEST_SUBMITTED = "request submitted"
    REQUEST_REFUSED = "request refused"
    REQUEST_APPROVED = "request approved"
    REQUEST_DENIED = "request denied"
    REQUEST_REVOKED = "request revoked"
    RUN_STARTED = "run started"
    RUN_REFUSED = "run refused"
    RUN_FAILED = "run failed"
    RUN_INTERRUPTED = "run interrupted"
    UPDATE_RELEASED = "update released"
    UPDATE_REPEATED = "update repeated"
    UPDATE_REFUSED = "update refused"
    CHECKPOINT = "checkpoint"


class AuditLog:
    """The open log of a running site; safe to use from several threads."""

    def __init__(self, path: Path, key: SiteKey) -> None:
        self._key = key
        self._turn = threading.Lock()
        self._lines, self._head, self._since_checkpoint, dropped = _recover(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if dropped:
            self.append(Event.LOG_RECOVERED, "site", "audit log", unfinished_bytes=dropped)

    def append(self, event: Event, actor: str, subject: str, **detail: Any) -> None:
        """Write one event and wait until it is on the disk.

        Raises:
            RecordError: It cannot be written; the caller must not go on.
        """
        with self._turn:
            self._write(event, actor, subject, detail)
            self._since_checkpoint += 1
            if self._since_checkpoint >= CHECKPOINT_EVERY:
                self._checkpoint()

    def checkpoint(self) -> None:
        """Sign the chain so far."""
        with self._turn:
            self._checkpoint()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _checkpoint(self) -> None:
        statement = checkpoint_statement(self._lines, self._head)
        signature = self._key.sign(PURPOSE, statement)
        detail = {"signature": signature, "public_key": self._key.public_hex}
        self._write(Event.CHECKPOINT, "site", "audit log", detail)
        self._since_checkpoint = 0

    def _write(self, event: Event, actor: str, subject: str, detail: Mapping[str, Any]) -> None:
        line: dict[str, Any] = {
            "n": self._lines + 1,
            "time": utc_now(),
            "event": event.value,
            "actor": actor,
            "subject": subject,
            "detail": dict(detail),
            "previous": self._head,
        }
        line["hash"] = _hash(line)
        content = canonical_json(line) + b"\n"
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            if os.write(self._file, content) != len(content):
                raise OSError("short write")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, start)
            raise RecordError(
                "the audit log cannot be written, so nothing was done; is the disk full?"
            ) from error
        self._lines += 1
        self._head = line["hash"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a log found.

    Attributes:
        lines: Lines read, up to the first bad one.
        bad_line: Number of the first line that does not verify, None when all do.
        problem: What is wrong with it.
        checkpoints: Signed checkpoints that verify.
        unsigned_lines: Lines after the last checkpoint; the chain covers them, a signature not yet.
    """

    lines: int
    checkpoints: int
    unsigned_lines: int
    bad_line: int | None = None
    problem: str = ""

    @property
    def intact(self) -> bool:
        """Whether every line verifies."""
        return self.bad_line is None


def verify_log(path: Path, public_hex: str) -> Verification:
    """Check the chain and every checkpoint of a log, with nothing but the site's public key."""
    head, number, checkpoints, unsigned = FIRST, 0, 0, 0
    for raw in _raw_lines(path):
        number += 1
        problem = ""
        line = _parse(raw)
        if line is None:
            problem = "is not a whole line of the log"
        elif line["n"] != number:
            problem = f"says it is line {line['n']}: lines were removed, added or swapped"
        elif line["previous"] != head:
            problem = "does not follow from the line before it"
        elif _hash(line) != line["hash"]:
            problem = "was changed after it was written"
        elif line["event"] == Event.CHECKPOINT.value:
            statement = checkpoint_statement(number - 1, head)
            if is_signed(public_hex, PURPOSE, statement, str(line["detail"].get("signature"))):
                checkpoints, unsigned = checkpoints + 1, -1
            else:
                problem = "is a checkpoint that this site's key did not sign"
        if problem or line is None:
            return Verification(number, checkpoints, max(unsigned, 0), number, problem)
        head = line["hash"]
        unsigned += 1
    return Verification(number, checkpoints, unsigned)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log that can be read, oldest first; `verify_log` says if they are true."""
    for raw in _raw_lines(path):
        line = _parse(raw)
        if line is not None:
            yield line


def checkpoint_statement(lines: int, head: str) -> bytes:
    """What a checkpoint signs: the number of lines and the hash of the last."""
    return f"{lines} {head}".encode()


def _hash(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(
        canonical_json({k: v for k, v in line.items() if k != "hash"})
    ).hexdigest()


_FIELDS = {"n", "time", "event", "actor", "subject", "detail", "previous", "hash"}


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
        if not raw.endswith(b"\n") or canonical_json(line) != raw[:-1]:
            return None
    except (ValueError, RecursionError):  # also NaN and half characters, which json reads
        return None
    if not isinstance(line, dict) or set(line) != _FIELDS:
        return None
    return line if isinstance(line["detail"], dict) else None


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise RecordError(f"there is no audit log at {path}") from error


def _recover(path: Path) -> tuple[int, str, int, int]:
    """Lines, head, lines not yet signed and dropped bytes of a log; a torn last line is cut off.

    A line is flushed before its effect, so an unfinished one, left by a crash, had none.
    """
    if not path.exists():
        return 0, FIRST, 0, 0
    lines, head, unsigned, whole = 0, FIRST, 0, 0
    with path.open("rb") as file:
        for raw in file:
            line = _parse(raw)
            if line is None:
                break
            lines, head, whole = lines + 1, line["hash"], whole + len(raw)
            unsigned = 0 if line["event"] == Event.CHECKPOINT else unsigned + 1
        rest = path.stat().st_size - whole
    if rest:
        with path.open("rb+") as file:
            file.seek(whole)
            if b"\n" in file.read():
                raise RecordError(
                    f"line {lines + 1} of the audit log is damaged; the site does not start on it. "
                    "See `sitegate audit verify`"
                )
            file.truncate(whole)
    return lines, head, unsigned, rest
