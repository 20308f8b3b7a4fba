"""The site's tamper-evident record: JSON Lines, each with the hash of the one before.

One line is one event, written and flushed to disk before the effect it records: what is not in the
log did not happen. Every `CHECKPOINT_EVERY` lines, and at shutdown, a checkpoint signs the chain
so far with the site's Ed25519 key. A file that has grown large is put aside as it is, and the
chain goes on in a new one. Anyone with the files and the public key can verify them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasites.audit_checkpoint import sign_checkpoint
from datasites.audit_events import Event, event_content
from datasites.audit_lines import Chain
from datasites.audit_segments import checkpoint_path, opened, read_events, segment_path
from datasites.audit_verification import Verification, check_log, verify_log
from datasites.errors import RecordError
from datasites.files import sync_directory, write_private
from datasites.keys import SiteKey
from datasites.records import utc_now
from policies.strict import canonical_json

__all__ = ["AuditLog", "Event", "Verification", "check_log", "read_events", "verify_log"]

CHECKPOINT_EVERY = 100
ROTATE_BYTES = 64_000_000

logger = logging.getLogger(__name__)


class AuditLog:
    """The open log of a running site; safe to use from several threads.

    Args:
        path: The file; older ones and the last checkpoint lie beside it.
        key: The site's key, which signs checkpoints.
        site: The site's name, for checkpoints that others keep.
        rotate_bytes: Size from which on a file is put aside.

    Raises:
        RecordError: The log does not verify. An unfinished last line is cut off and recorded.
    """

    def __init__(
        self, path: Path, key: SiteKey, site: str = "", *, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self._path, self._key, self._site = path, key, site
        self._rotate_bytes = self._rotate_at = rotate_bytes
        self._turn = threading.Lock()
        found = check_log(path, key.public_hex)
        self._chain = Chain(found.last_line, found.head)
        self._since_checkpoint = found.unsigned_lines
        _finish_rotation(path)
        self._open(found.unfinished_bytes)
        if found.unfinished_bytes:
            self.append(
                Event.LOG_RECOVERED, "site", "audit log", unfinished_bytes=found.unfinished_bytes
            )

    def append(
        self,
        event: Event,
        actor: str,
        subject: str,
        *,
        role: str | None = None,
        run: str = "",
        decision: str = "",
        reason: str = "",
        objects: Mapping[str, str] | None = None,
        **detail: Any,
    ) -> None:
        """Write one event and wait until it is on the disk.

        `event_content` says what becomes of the arguments.

        Raises:
            RecordError: It cannot be written; the caller must not go on.
        """
        with self._turn:
            self._write(
                event, actor, subject, role=role, run=run, decision=decision, reason=reason,
                objects=objects, detail=detail,
            )  # fmt: skip
            self._since_checkpoint += 1
            # The event is on the disk, so what is done beside it must not make it fail.
            try:
                if self._since_checkpoint >= CHECKPOINT_EVERY:
                    self._checkpoint()
                if self._size >= self._rotate_at:
                    self._rotate()
            except (RecordError, OSError) as error:
                self._rotate_at = max(self._rotate_at, self._size + self._rotate_bytes // 10)
                logger.warning("audit log: checkpoint or rotation put off: %s", error)

    def checkpoint(self) -> None:
        """Sign the chain so far.

        Raises:
            RecordError: The checkpoint cannot be written.
        """
        with self._turn:
            try:
                self._checkpoint()
            except OSError as error:
                raise RecordError(
                    "the checkpoint cannot be written beside the audit log; is the disk full?"
                ) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _checkpoint(self) -> None:
        """Sign in the log; then, when that is on the disk, beside it."""
        self._write(Event.CHECKPOINT, "site", "audit log", detail=self._signed())
        self._since_checkpoint = 0
        write_private(checkpoint_path(self._path), canonical_json(self._signed()))

    def _signed(self) -> dict[str, Any]:
        chain = self._chain
        signed = sign_checkpoint(self._key, self._site, chain.lines, chain.head, utc_now())
        return signed.model_dump(mode="json")

    def _rotate(self) -> None:
        """Put the file aside under the number of its first line, and go on in a new one.

        After a crash between any two steps the log is whole: the new file is complete before it
        takes the name, and until then the old one has it.
        """
        if self._since_checkpoint:
            self._checkpoint()
        with opened(self._path, alone=True) as (old,):
            older = segment_path(self._path, old.start.lines + 1)
            digest = hashlib.file_digest(old.lines, "sha256").hexdigest()
        content = event_content(
            Event.LOG_ROTATED, "site", "audit log", utc_now(),
            objects={"older_file_sha256": digest}, detail={"older_file": older.name},
        )  # fmt: skip
        raw, chain = self._chain.extend(canonical_json(content))
        coming = _coming(self._path)
        write_private(coming, raw)
        os.link(self._path, older)
        try:
            os.replace(coming, self._path)
        except OSError:
            older.unlink()
            raise
        old_file = self._file
        self._open()
        os.close(old_file)
        self._chain, self._since_checkpoint = chain, 1
        self._rotate_at = self._rotate_bytes

    def _open(self, unfinished_bytes: int = 0) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size - unfinished_bytes
        self._half_a_line = unfinished_bytes > 0
        self._name_is_on_disk = False

    def _write(self, event: Event, actor: str, subject: str, **fields: Any) -> None:
        content = event_content(event, actor, subject, utc_now(), **fields)
        raw, chain = self._chain.extend(canonical_json(content))
        if not self._is_in_place():
            raise RecordError(
                f"the audit log {self._path.name} is no longer the file that the site writes, so "
                "nothing was done; put it back and start the site again"
            )
        try:
            if self._half_a_line:
                os.ftruncate(self._file, self._size)
            self._half_a_line = True
            if os.write(self._file, raw) != len(raw):
                raise OSError("short write")
            os.fsync(self._file)
            if not self._name_is_on_disk:
                sync_directory(self._path.parent)
                self._name_is_on_disk = True
        except OSError as error:
            with contextlib.suppress(OSError):  # else the next event does it
                os.ftruncate(self._file, self._size)
            raise RecordError(
                "the audit log cannot be written, so nothing was done; is the disk full?"
            ) from error
        self._chain, self._size, self._half_a_line = chain, self._size + len(raw), False

    def _is_in_place(self) -> bool:
        """Whether what is written can be read: the file was not moved, removed or replaced."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except OSError:
            return False


def _coming(path: Path) -> Path:
    return path.with_name(f".{path.name}.next")


def _finish_rotation(path: Path) -> None:
    """Take back what a crash left of a rotation: the coming file, and the second name."""
    _coming(path).unlink(missing_ok=True)
    if path.exists() and path.stat().st_nlink > 1:
        with opened(path, alone=True) as (newest,):
            older = segment_path(path, newest.start.lines + 1)
        if older.exists() and older.samefile(path):
            older.unlink()
