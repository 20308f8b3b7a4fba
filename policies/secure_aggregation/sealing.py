"""Shares, sealed by one site for another: who passes them on can neither read nor change them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from policies.secure_aggregation.masks import key_for
from policies.secure_aggregation.messages import Advert, Sealed, Session
from policies.secure_aggregation.step_refused import StepRefused

ONCE = bytes(12)
"""Nonce: the key is for one message, of one sender to one receiver in one session."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of one site's two secrets, 131 hex digits each.

    Attributes:
        own_mask: Of the key of the mask that it adds for itself.
        mask_key: Of the secret key of its masks with others.
    """

    own_mask: str
    mask_key: str


def shares_of(own_mask: int, mask_key: int) -> Shares:
    """Two shares as they are sent: all of one length, which tells nothing."""
    return Shares(f"{own_mask:0131x}", f"{mask_key:0131x}")


def seal(secret: bytes, session: Session, sender: str, receiver: Advert, shares: Shares) -> Sealed:
    """Shares for a receiver, by the sender's X25519 secret; HKDF and ChaCha20-Poly1305.

    Raises:
        StepRefused: The receiver's key is none.
    """
    try:
        key = _key(secret, receiver, session, sender, receiver.site)
    except ValueError as error:
        seen = f"a key of `{receiver.site}` that is none"
        raise StepRefused("keys", seen, "X25519 keys") from error
    box = ChaCha20Poly1305(key).encrypt(ONCE, json.dumps(asdict(shares)).encode(), None)
    return Sealed(sender=sender, receiver=receiver.site, box=box.hex())


def open_sealed(
    secret: bytes, session: Session, receiver: str, sender: Advert, message: Sealed
) -> Shares | None:
    """The shares in a message, None if it is not as the sender sealed it for this receiver."""
    if message.receiver != receiver:
        return None
    try:
        key = _key(secret, sender, session, sender.site, receiver)
        plain = json.loads(ChaCha20Poly1305(key).decrypt(ONCE, bytes.fromhex(message.box), None))
        return shares_of(int(plain["own_mask"], 16), int(plain["mask_key"], 16))
    except (InvalidTag, ValueError, TypeError, KeyError):
        return None


def _key(secret: bytes, other: Advert, session: Session, sender: str, receiver: str) -> bytes:
    return key_for(secret, other.share_key, "shares", session.sha256, sender, receiver)
