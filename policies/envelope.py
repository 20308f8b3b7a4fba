"""How a researcher's call travels: who, signature, message; and when, so that it works only once.

An envelope is the Ed25519 verify key (32 bytes), the signature of the message (64 bytes) and the
message: a serialised syft API call. The site checks the signature before it reads the message. The
call's arguments carry the time and a nonce, so a recorded call is refused when it is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SENT_AT = "sent_at"
"""Argument: when the call was made, milliseconds since 1970-01-01 UTC."""
NONCE = "nonce"
"""Argument: 32 hex digits, never used twice."""
MAXIMUM_SKEW_S = 300
"""How far the clocks of researcher and site may differ."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One signed call, as bytes."""

    key: bytes
    signature: bytes
    message: bytes

    def to_bytes(self) -> bytes:
        """The envelope as it is sent."""
        return self.key + self.signature + self.message


def open_envelope(body: bytes) -> Envelope | None:
    """The envelope in `body`, None if it is too short to be one."""
    start = KEY_BYTES + SIGNATURE_BYTES
    if len(body) <= start:
        return None
    return Envelope(body[:KEY_BYTES], body[KEY_BYTES:start], body[start:])
