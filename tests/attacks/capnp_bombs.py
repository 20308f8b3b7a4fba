"""Cap'n Proto messages that are small on the wire and huge when read.

A pointer may be used many times. So a message can say `these bytes` a thousand times, or be a list
that holds one list ten times, which holds one list ten times, and so on.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

TEXT, POINTERS = 2, 6  # element sizes of a list: one byte, one pointer


class _Segment:
    """One segment of a message, in words of eight bytes."""

    def __init__(self) -> None:
        self._content = bytearray()

    def room(self, words: int) -> int:
        """Append empty words; the position of the first."""
        start = len(self._content) // 8
        self._content += bytes(8 * words)
        return start

    def data(self, content: bytes) -> int:
        """Append bytes, filled up to whole words."""
        start = len(self._content) // 8
        self._content += content + bytes(-len(content) % 8)
        return start

    def put(self, at: int, word: bytes) -> None:
        """Overwrite a word."""
        self._content[8 * at : 8 * at + 8] = word

    def list_pointer(self, at: int, target: int, element: int, count: int) -> None:
        """Let the word `at` point to a list."""
        self.put(at, struct.pack("<iI", ((target - at - 1) << 2) | 1, (count << 3) | element))

    def struct_pointer(self, at: int, target: int, data: int, pointers: int) -> None:
        """Let the word `at` point to a struct."""
        self.put(at, struct.pack("<iHH", (target - at - 1) << 2, data, pointers))

    def message(self) -> bytes:
        """The segment, framed as a message."""
        return struct.pack("<II", 0, len(self._content) // 8) + bytes(self._content)


def serialised(name: str, parts: Sequence[bytes], times: int = 1) -> bytes:
    """An object of a type that is one blob, which is `parts`, all of them `times` times over."""
    segment = _Segment()
    root, body = segment.room(1), segment.room(5)
    segment.struct_pointer(root, body, 1, 4)
    segment.put(body, struct.pack("<iI", 1, 0))  # the version of the type
    text = segment.data(name.encode() + b"\0")
    segment.list_pointer(body + 4, text, TEXT, len(name) + 1)
    blobs = [(segment.data(part), len(part)) for part in parts] * times
    pointers = segment.room(len(blobs))
    segment.list_pointer(body + 3, pointers, POINTERS, len(blobs))
    for at, (start, length) in enumerate(blobs, pointers):
        segment.list_pointer(at, start, TEXT, length)
    return segment.message()


def list_of(element: bytes, times: int) -> bytes:
    """A list that holds one serialised element many times, on the wire once."""
    segment = _Segment()
    root, body = segment.room(1), segment.room(1)
    segment.struct_pointer(root, body, 0, 1)
    blob = segment.data(element)
    inner = segment.room(1)
    segment.list_pointer(inner, blob, TEXT, len(element))
    outer = segment.room(times)
    segment.list_pointer(body, outer, POINTERS, times)
    for at in range(outer, outer + times):
        segment.list_pointer(at, inner, POINTERS, 1)
    return serialised("list", [segment.message()])


def many_bytes(length: int, times: int) -> bytes:
    """Bytes of `length * times`, in a message of little more than `length`."""
    return serialised("bytes", [bytes(length)], times)


def many_lists(width: int, depth: int) -> bytes:
    """A list of `width ** depth` zeros, in a message of a few thousand bytes."""
    message = serialised("int", [b"\0"])
    for _ in range(depth):
        message = list_of(message, width)
    return message
