"""An excerpt of the audit log: some lines in full, the others beside them as digests.

The log lies between signed checkpoints in blocks. A block with a line that is to be shown stands in
the excerpt from its first line to its checkpoint; a block without one is left out. Three records:

    {"after":200,"head":"<64 hex>"}             a block begins behind line 200, whose hash this is
    {"n":201,"content_sha256":"<64 hex>"}       a line of which the digest alone is shown
    {"n":202,"previous":…,"hash":…,"content":…} a line in full, byte for byte as in the log

Every hash goes into the next and the last into a signature, so the checkpoint at a block's end
vouches for all of it, the hash at its beginning included. What nobody can see from an excerpt is
whether a hidden line, or a block that was left out, belongs to the matter as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from datasites.audit_checkpoint import is_checkpoint_of
from datasites.audit_events import Event
from datasites.audit_lines import BrokenLineError, Chain, line_hash, parse_content, split_line
from datasites.audit_segments import opened
from datasites.errors import RecordError

_GAP = re.compile(rb'\{"after":([0-9]{1,18}),"head":"([0-9a-f]{64})"\}\n')
_HIDDEN = re.compile(rb'\{"n":([1-9][0-9]{0,17}),"content_sha256":"([0-9a-f]{64})"\}\n')
_CHECKPOINT = f'"event":{json.dumps(Event.CHECKPOINT.value)}'.encode()


class ExcerptError(RecordError):
    """An excerpt does not verify; the message names the place."""


def verified_events(log: Path) -> Iterator[dict[str, Any]]:
    """The events of a log from its first line on, each verified against the chain.

    A last line without an end is left out: the site may be writing it.

    Raises:
        RecordError: A line does not follow from the one before it.
    """
    chain = Chain()
    for raw in _raw_lines(log):
        if not raw.endswith(b"\n"):
            break
        try:
            content = chain.follow(raw)
        except BrokenLineError as broken:
            raise RecordError(
                f"line {chain.lines + 1} of the audit log {broken}; no evidence is given from a "
                "log that does not verify. Look into it: sitegate audit verify"
            ) from broken
        yield {"n": chain.lines, "hash": chain.head, **content}


def make_excerpt(log: Path, shown: Collection[int], through: int) -> str:
    """The excerpt with these lines in full, up to the first checkpoint behind line `through`.

    Args:
        log: The file that is written; older ones beside it are read too.
        shown: Numbers of the lines to show.
        through: Number of the last line that has to be in it.
    """
    written: list[bytes] = []
    block: list[bytes] = []
    is_shown, written_up_to = False, 0
    for n, raw in enumerate(_raw_lines(log), start=1):
        line = split_line(raw)
        if line is None:
            break
        is_checkpoint = _CHECKPOINT in line.content and _is_checkpoint(line.content)
        if not block and n != written_up_to + 1:
            block.append(b'{"after":%d,"head":"%s"}\n' % (n - 1, line.previous.encode()))
        is_shown = is_shown or n in shown
        block.append(raw if n in shown or is_checkpoint else _hidden(n, line.content))
        if is_checkpoint:
            if is_shown:
                written += block
                written_up_to = n
            block, is_shown = [], False
            if n > through:
                break
    return b"".join(written).decode()


def read_excerpt(text: str, public_hex: str) -> list[dict[str, Any]]:
    """The events that an excerpt shows, verified; each with its number `n` and its `hash`.

    Args:
        text: The excerpt.
        public_hex: Public key of the log's site.

    Raises:
        ExcerptError: A block is not what the site signed.
    """
    events: list[dict[str, Any]] = []
    chain, is_closed = Chain(), True
    for number, raw in enumerate(text.encode().splitlines(keepends=True), start=1):
        if gap := _GAP.fullmatch(raw):
            after, head = int(gap[1]), gap[2].decode()
            if not is_closed or after <= chain.lines:
                raise ExcerptError(
                    f"record {number} begins a new block behind line {after}, and line "
                    f"{chain.lines} before it is not a signed checkpoint that comes earlier"
                )
            chain, is_closed = Chain(after, head), False
            continue
        lines, before = chain.lines, chain.head
        event = _follow(chain, raw, number)
        is_closed = event is not None and event["event"] == Event.CHECKPOINT
        if event is None:
            continue
        if is_closed and not is_checkpoint_of(event["detail"], public_hex, lines, before):
            raise ExcerptError(f"line {chain.lines} is a checkpoint that the key did not sign")
        events.append({"n": chain.lines, "hash": chain.head, **event})
    if not is_closed or not events:
        raise ExcerptError("the excerpt does not end with a signed checkpoint; it was cut")
    return events


def _follow(chain: Chain, raw: bytes, number: int) -> dict[str, Any] | None:
    """Take the next record into the chain; the event if it shows one."""
    n = chain.lines + 1
    if hidden := _HIDDEN.fullmatch(raw):
        if int(hidden[1]) != n:
            raise ExcerptError(
                f"record {number} says it is line {int(hidden[1])}, and line {n} is due: lines "
                "were removed, added or swapped"
            )
        chain.head = line_hash(n, chain.head, hidden[2].decode())
        chain.lines = n
        return None
    try:
        return chain.follow(raw)
    except BrokenLineError as broken:
        raise ExcerptError(f"line {n} {broken}") from broken


def _hidden(n: int, content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest().encode()
    return b'{"n":%d,"content_sha256":"%s"}\n' % (n, digest)


def _is_checkpoint(content: bytes) -> bool:
    plain = parse_content(content)
    return plain is not None and plain["event"] == Event.CHECKPOINT


def _raw_lines(log: Path) -> Iterator[bytes]:
    with opened(log) as files:
        for file in files:
            yield from file.lines
