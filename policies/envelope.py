"""How a researcher's call travels: who, signature, message; and when, so that it works only once.

An envelope is the Ed25519 verify key (32 bytes), the signature of the message (64 bytes) and the
message. A message is a JSON header with its length before it (4 bytes, big-endian), and a payload
for arrays. It is not syft's own serialisation: that builds objects of the sender's choice, and its
parser can be crashed by a few bytes. The site makes the syft API call from the plain values.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

from policies.strict import canonical_json

KEY_BYTES = 32
SIGNATURE_BYTES = 64
HEADER_BYTES = 2_000_000
"""Largest header: a job's text and its terms."""
MAXIMUM_SKEW_S = 300
"""How far the clocks of researcher and site may differ."""

_FIELDS = {"site", "path", "arguments", "sent_at", "nonce"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """One signed message, as bytes."""

    key: bytes
    signature: bytes
    message: bytes

    def to_bytes(self) -> bytes:
        """The envelope as it is sent."""
        return self.key + self.signature + self.message


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a researcher.

    Attributes:
        site: The syft server's id, 32 hex digits.
        path: The syft API path, such as `code.call`.
        arguments: Texts and whole numbers by name.
        payload: Arrays (safetensors), empty where there are none.
        sent_at: When the call was made, milliseconds since 1970-01-01 UTC.
        nonce: 32 hex digits, never used twice.
    """

    site: str
    path: str
    sent_at: int
    nonce: str
    arguments: dict[str, str | int] = field(default_factory=dict)
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """The message, as it is signed and sent."""
        header = canonical_json(
            {
                "site": self.site,
                "path": self.path,
                "arguments": self.arguments,
                "sent_at": self.sent_at,
                "nonce": self.nonce,
            }
        )
        return struct.pack(">I", len(header)) + header + self.payload


def open_envelope(body: bytes) -> Envelope | None:
    """The envelope in `body`, None if it is too short to be one."""
    start = KEY_BYTES + SIGNATURE_BYTES
    if len(body) <= start:
        return None
    return Envelope(body[:KEY_BYTES], body[KEY_BYTES:start], body[start:])


def read_call(message: bytes) -> Call | None:
    """The call in a message, None if it is not one."""
    if len(message) < 4:
        return None
    length = struct.unpack_from(">I", message)[0]
    if length > HEADER_BYTES or 4 + length > len(message):
        return None
    try:
        header = json.loads(message[4 : 4 + length])
    except (ValueError, RecursionError):  # also numbers of thousands of digits
        return None
    if not isinstance(header, dict) or set(header) != _FIELDS:
        return None
    arguments = header["arguments"]
    texts = [header["site"], header["path"], header["nonce"]]
    if not isinstance(arguments, dict) or not all(_is_text(t) for t in (*texts, *arguments)):
        return None
    if not all(_is_text(v) or _is_whole(v) for v in arguments.values()):
        return None
    if not _is_whole(header["sent_at"]):
        return None
    return Call(payload=message[4 + length :], **header)


def _is_text(value: object) -> bool:
    """Whether a value is a text that can be written as UTF-8: no half characters."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _is_whole(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63
