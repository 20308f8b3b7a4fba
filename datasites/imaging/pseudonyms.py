"""Pseudonyms: what replaces identifiers, always the same at one site and unlike any other site's.

A keyed hash (HMAC-SHA256, RFC 2104) with a secret that never leaves the site: whoever does not hold
the secret can neither compute a pseudonym nor try out names against it.
"""

from __future__ import annotations

import hashlib
import hmac

LONGEST_SHIFT_DAYS = 3650


class Pseudonyms:
    """Makes pseudonyms with one site's secret."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("a pseudonym secret has at least 32 bytes")
        self.secret = secret

    def key(self, kind: str, value: str) -> str:
        """32 hex digits for a value of a kind (`patient`, `series`, `item`, …)."""
        return self._hash(kind, value)[:16].hex()

    def patient(self, patient_id: str) -> str:
        """The key of a patient, by Patient ID (0010,0020) alone.

        Two patients of two issuers with one ID are taken for one: they stay in one split.
        """
        return self.key("patient", patient_id.strip())

    def uid(self, uid: str) -> str:
        """A UID for a UID: a UUIDv4-shaped number below 2.25 (PS3.5 B.2)."""
        shaped = bytearray(self._hash("uid", uid)[:16])
        shaped[6] = shaped[6] & 0x0F | 0x40
        shaped[8] = shaped[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(shaped, 'big')}"

    def days(self, patient_key: str) -> int:
        """Days to shift a patient's dates by: -3650 to -1, the same for all dates of a patient."""
        drawn = int.from_bytes(self._hash("days", patient_key)[:8], "big")
        return -1 - drawn % LONGEST_SHIFT_DAYS

    def _hash(self, kind: str, value: str) -> bytes:
        message = f"{kind}\0{value}".encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret, message, hashlib.sha256)
