"""Reads which instance and series some bytes say they are, before anybody parses them.

What a PACS sends is a stranger's bytes. This walks over the elements up to (0020,000E) and looks at
nothing else: it does not decode, does not follow lengths beyond the end, and inflates a deflated
file only up to a limit.

References:
    DICOM PS3.5 7.1 (data elements), 7.5 (sequences), A (transfer syntaxes); PS3.10 7.1 (file meta).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"
MAXIMUM_INFLATED_BYTES = 1 << 20
MAXIMUM_DEPTH = 32

_META_LENGTH, _SYNTAX = 0x00020000, 0x00020010
_SOP_INSTANCE, _SERIES = 0x00080018, 0x0020000E
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


@dataclass(frozen=True, slots=True)
class InstanceUids:
    """SOP Instance UID and Series Instance UID of the data set (not of the file meta)."""

    sop_instance: str
    series: str


def read_instance_uids(content: bytes) -> InstanceUids | None:
    """What a PS3.10 file says it is, or nothing if it is no such file or does not say."""
    if content[128:132] != b"DICM":
        return None
    try:
        return _read(content)
    except (struct.error, zlib.error, _NotDicomError):
        return None


class _NotDicomError(Exception):
    """The elements do not follow each other as they should."""


def _read(content: bytes) -> InstanceUids | None:
    walk = _Walk(content, 132, implicit=False, big_endian=False)
    syntax, end = "", len(content)
    while walk.position < end and content[walk.position : walk.position + 2] == b"\x02\0":
        tag, _, length = walk.header()
        value = walk.value(length)
        if tag == _META_LENGTH and length == 4:
            end = walk.position + int.from_bytes(value, "little")
        elif tag == _SYNTAX:
            syntax = _text(value)
    position = walk.position
    if not syntax:
        return None
    if syntax == DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(
            content[position:], MAXIMUM_INFLATED_BYTES
        )
        position = 0
    walk = _Walk(content, position, syntax == IMPLICIT, syntax == BIG_ENDIAN)
    found: dict[int, str] = {}
    while walk.position < len(content):
        tag, vr, length = walk.header()
        if tag > _SERIES:
            break
        if length == _UNDEFINED:
            walk.skip_items(implicit=walk.implicit or vr == b"UN", depth=0)
        elif tag in (_SOP_INSTANCE, _SERIES):
            found[tag] = _text(walk.value(length))
        else:
            walk.skip(length)
    if len(found) < 2:
        return None
    return InstanceUids(found[_SOP_INSTANCE], found[_SERIES])


class _Walk:
    """A position among data elements that only moves forward."""

    def __init__(self, content: bytes, position: int, implicit: bool, big_endian: bool) -> None:
        self._content, self.position, self.implicit = content, position, implicit
        order = ">" if big_endian else "<"
        self._tag, self._short = struct.Struct(f"{order}HH"), struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}L")

    def header(self, *, implicit: bool | None = None) -> tuple[int, bytes, int]:
        """Tag, VR (empty if implicit) and length of the next element; moves to its value."""
        group, element = self._tag.unpack_from(self._content, self.position)
        tag, start = group << 16 | element, self.position + 4
        if (self.implicit if implicit is None else implicit) or group == 0xFFFE:
            self.position = start + 4
            return tag, b"", int(self._long.unpack_from(self._content, start)[0])
        vr = bytes(self._content[start : start + 2])
        if not (vr.isalpha() and vr.isupper()):
            raise _NotDicomError
        if vr in _LONG_VRS:
            self.position = start + 8
            return tag, vr, int(self._long.unpack_from(self._content, start + 4)[0])
        self.position = start + 4
        return tag, vr, int(self._short.unpack_from(self._content, start + 2)[0])

    def value(self, length: int) -> bytes:
        """The bytes of a value; moves behind it."""
        start = self.position
        self.skip(length)
        return self._content[start : self.position]

    def skip(self, length: int) -> None:
        """Moves behind a value."""
        if length > len(self._content) - self.position:
            raise _NotDicomError
        self.position += length

    def skip_items(self, *, implicit: bool, depth: int) -> None:
        """Moves behind a sequence of undefined length."""
        if depth > MAXIMUM_DEPTH:
            raise _NotDicomError
        while True:
            tag, _, length = self.header(implicit=implicit)
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise _NotDicomError
            if length == _UNDEFINED:
                self._skip_elements(implicit=implicit, depth=depth + 1)
            else:
                self.skip(length)

    def _skip_elements(self, *, implicit: bool, depth: int) -> None:
        while True:
            tag, vr, length = self.header(implicit=implicit)
            if tag == _ITEM_END:
                return
            if length == _UNDEFINED:
                self.skip_items(implicit=implicit or vr == b"UN", depth=depth)
            else:
                self.skip(length)


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")
