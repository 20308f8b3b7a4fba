"""Takes an answer of WADO-RS apart while it arrives, holding one part at a time.

References:
    DICOM PS3.18 8.6.1 (multipart payloads); RFC 2046 5.1.1 (boundaries).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MAXIMUM_HEADER_BYTES = 16 * 1024
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)


class BrokenAnswerError(Exception):
    """The parts cannot be told from each other."""


def read_boundary(content_type: str) -> bytes | None:
    """The boundary that a `Content-Type` header names, or nothing if it is not multipart."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/related") or found is None:
        return None
    return (found[1] or found[2]).encode("latin-1", "replace")


def read_parts(chunks: Iterable[bytes], boundary: bytes, maximum_bytes: int) -> Iterator[bytes]:
    """The content of each part, without its headers.

    A part of more than `maximum_bytes` is left out; its bytes are not kept.

    Raises:
        BrokenAnswerError: The answer ends without its last boundary, or has no part at all.
    """
    delimiter = b"\r\n--" + boundary
    held = bytearray(b"\r\n")  # the first boundary needs no line end before it
    inside, too_long, searched = False, False, 0
    for chunk in chunks:
        held += chunk
        while True:
            end = held.find(delimiter, searched)
            after = end + len(delimiter)
            if end < 0 or len(held) < after + 2:
                break
            next_two = bytes(held[after : after + 2])
            if next_two not in (b"\r\n", b"--"):
                searched = after
                continue
            if inside and not too_long:
                yield _content(held, end)
            if next_two == b"--":
                return
            del held[:after]
            inside, too_long, searched = True, False, 0
        searched = max(searched, len(held) - len(delimiter) - 2)
        if not inside or too_long or len(held) > maximum_bytes + MAXIMUM_HEADER_BYTES:
            too_long = inside
            del held[:searched]
            searched = 0
    raise BrokenAnswerError


def _content(held: bytearray, end: int) -> bytes:
    """What stands behind the headers of the first part; nothing if they do not end."""
    headers = held.find(b"\r\n\r\n", 0, min(end, MAXIMUM_HEADER_BYTES))
    if headers < 0:
        return b""
    with memoryview(held) as view:
        return bytes(view[headers + 4 : end])
