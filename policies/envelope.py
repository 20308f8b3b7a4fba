"""How calls and answers travel: who, signature, message; and when, so that a call works only once.

An envelope is the Ed25519 verify key (32 bytes), the signature (64 bytes) and the message. What is
signed is the purpose and the SHA-256 of the message: Ed25519 itself would read arrays of 100 MB
twice, with a slower digest. A message is a head with its length before it (4 bytes, big-endian),
and a payload for arrays.

The head of a call is JSON, not syft's own serialisation: that builds objects of the sender's
choice, and its parser can be crashed by a few bytes. The site makes the syft API call from the
plain values. The head of an answer is what syft answers, as syft writes it.
"""

from __future__ import annotations

import hashlib
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

CALL, ANSWER = b"sitegate call\n", b"sitegate answer\n"
"""What a signature is for; one for the other is not valid."""

_FIELDS = {"site", "path", "arguments", "sent_at", "nonce"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """One signed message, as bytes."""

    key: bytes
    signature: bytes
    message: bytes

    def to_bytes(self) -> bytes:
        """The envelope as it is sent."""
        return b"".join((self.key, self.signature, self.message))


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
        return join_message(header, self.payload)


def signed_part(purpose: bytes, message: bytes) -> bytes:
    """What is signed of a message: `CALL` or `ANSWER`, and the message's digest."""
    return purpose + hashlib.sha256(message).digest()


def join_message(head: bytes, payload: bytes = b"") -> bytes:
    """A message of a head and a payload."""
    return b"".join((struct.pack(">I", len(head)), head, payload))


def split_message(message: bytes) -> tuple[bytes, bytes] | None:
    """Head and payload of a message, None if it is cut off."""
    if len(message) < 4:
        return None
    end = 4 + struct.unpack_from(">I", message)[0]
    return (message[4:end], message[end:]) if end <= len(message) else None


def open_envelope(body: bytes) -> Envelope | None:
    """The envelope in `body`, None if it is too short to be one."""
    start = KEY_BYTES + SIGNATURE_BYTES
    if len(body) <= start:
        return None
    return Envelope(body[:KEY_BYTES], body[KEY_BYTES:start], body[start:])


def read_call(message: bytes) -> Call | None:
    """The call in a message, None if it is not one."""
    parts = split_message(message)
    if parts is None or len(parts[0]) > HEADER_BYTES:
        return None
    try:
        header = json.loads(parts[0])
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
    return Call(payload=parts[1], **header)


def _is_text(value: object) -> bool:
    """Whether a value is a text that can be written as UTF-8: no half characters."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _is_whole(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63
