"""A site's Ed25519 signature, for one purpose each; both sides check it."""

from __future__ import annotations

from nacl.encoding import HexEncoder
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


def is_signed(public_hex: str, purpose: str, message: bytes, signature: str) -> bool:
    """Whether the holder of `public_hex` signed `message` for this purpose."""
    try:
        VerifyKey(public_hex.encode(), HexEncoder).verify(
            framed(purpose, message), bytes.fromhex(signature)
        )
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def framed(purpose: str, message: bytes) -> bytes:
    """What is signed: a signature for one purpose is not valid for another."""
    return f"sitegate {purpose} v1\n".encode() + message
