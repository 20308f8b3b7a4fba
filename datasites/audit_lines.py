"""One line of the audit log: a number, the hash of the line before, its own hash, the content.

    {"n":5,"previous":"<64 hex>","hash":"<64 hex>","content":{…canonical JSON…}}

`hash` is the SHA-256 of `n`, `previous` and the SHA-256 of the content's bytes. So a log can be
excerpted for someone who may not read all of it: other lines are replaced by the digest of their
content, and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from datasites.audit_events import CONTENT_FIELDS

FIRST = "0" * 64
"""What the first line has in place of the hash of the line before."""

_LINE = re.compile(
    rb'\{"n":([1-9][0-9]{0,17}),"previous":"([0-9a-f]{64})","hash":"([0-9a-f]{64})",'
    rb'"content":(\{.*\})\}\n'
)
_BETWEEN = len('{"n":,"previous":"","hash":"","content":') + 128
"""Bytes before the content of a line, without the digits of its number."""


class BrokenLineError(Exception):
    """A line does not continue the chain; the message says why, as the end of a sentence."""

    def __init__(self, problem: str, raw: bytes = b"") -> None:
        super().__init__(problem)
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Line:
    """The parts of a line, as it claims them."""

    n: int
    previous: str
    hash: str
    content: bytes


def line_hash(n: int, previous: str, content_sha256: str) -> str:
    """The hash of a line, from the digest of its content."""
    return hashlib.sha256(f"{n} {previous} {content_sha256}".encode()).hexdigest()


def split_line(raw: bytes) -> Line | None:
    """The parts of a line with its line feed, None if it does not have the form of one."""
    found = _LINE.fullmatch(raw)
    if found is None:
        return None
    n, previous, own, content = found.groups()
    return Line(int(n), previous.decode(), own.decode(), content)


def parse_content(content: bytes) -> dict[str, Any] | None:
    """The record of an event, None if it is not one."""
    try:
        plain = from_json(content, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    if not isinstance(plain, dict) or tuple(plain) != CONTENT_FIELDS:
        return None
    return plain if type(plain["objects"]) is type(plain["detail"]) is dict else None


class Chain:
    """The chain up to some line: how many lines, and the hash of the last."""

    def __init__(self, lines: int = 0, head: str = FIRST) -> None:
        self.lines, self.head = lines, head

    def extend(self, content: bytes) -> tuple[bytes, Chain]:
        """The next line with this content, and the chain with it."""
        n = self.lines + 1
        own = line_hash(n, self.head, hashlib.sha256(content).hexdigest())
        raw = _start(n, self.head, own) + content + b"}\n"
        return raw, Chain(n, own)

    def follow(self, raw: bytes) -> dict[str, Any]:
        """Take the next line into the chain; the record in it.

        Raises:
            BrokenLineError: It is not the next line of the chain.
        """
        return next(self.follow_all((raw,)))

    def follow_all(self, raws: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Take line after line into the chain; the records in them.

        Raises:
            BrokenLineError: A line is not the next one of the chain.
        """
        for raw in raws:
            n = self.lines + 1
            content = raw[_BETWEEN + len(str(n)) : -2]
            own = line_hash(n, self.head, hashlib.sha256(content).hexdigest())
            # One comparison of the start says everything; only a bad line is taken apart.
            if not raw.startswith(_start(n, self.head, own)) or raw[-2:] != b"}\n":
                raise BrokenLineError(self._why_not(raw), raw)
            plain = parse_content(content)
            if plain is None:
                raise BrokenLineError("is not a whole line of the log", raw)
            self.lines, self.head = n, own
            yield plain

    def _why_not(self, raw: bytes) -> str:
        if not raw.endswith(b"\n"):
            return "is not finished"
        line = split_line(raw)
        if line is None:
            return "is not a whole line of the log"
        if line.n != self.lines + 1:
            return f"says it is line {line.n}: lines were removed, added or swapped"
        if line.previous != self.head:
            return "does not follow from the line before it"
        return "was changed after it was written"


def _start(n: int, previous: str, own: str) -> bytes:
    return f'{{"n":{n},"previous":"{previous}","hash":"{own}","content":'.encode()
