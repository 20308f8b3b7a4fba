"""Masks: words that look random to everybody who does not have the key, and keys for two.

A mask is the key stream of AES-256 in counter mode. Its key is used for one mask in one session, so
the counter may start at 0. Keys for two sites come from X25519 and HKDF-SHA256, bound to the
session and to the names, so that a key for one thing is no key for another.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from policies.secure_aggregation.fixed_point import Words
from policies.strict import canonical_json

AT_A_TIME = 1 << 14
"""Words that are made and added at a time: they stay in the cache of a core."""
_ZEROS = bytes(8 * AT_A_TIME)


def add_mask(words: Words, key: bytes, sign: int) -> None:
    """Add the mask of a key to words (n,) uint64 in place, or subtract it where `sign` is -1."""
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    change = np.add if sign > 0 else np.subtract
    buffer = bytearray(8 * AT_A_TIME + 15)  # `update_into` wants a block more
    mask = np.frombuffer(buffer, "<u8", AT_A_TIME)
    for start in range(0, words.size, AT_A_TIME):
        part = words[start : start + AT_A_TIME]
        stream.update_into(_ZEROS[: part.nbytes], buffer)
        change(part, mask[: part.size], out=part)


def key_for(secret: bytes, public: str, purpose: str, *about: str) -> bytes:
    """The key (32 bytes) that the holders of two X25519 keys have in common, for one purpose.

    Args:
        secret: One's own secret key, 32 bytes.
        public: The other's public key, hex.
        purpose: What it is for.
        about: Session and names, the same at both.

    Raises:
        ValueError: The public key is none.
    """
    private = X25519PrivateKey.from_private_bytes(secret)
    shared = private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    info = canonical_json(["sitegate secure aggregation v1", purpose, *about])
    return bytes(HKDF(SHA256(), 32, None, info).derive(shared))


def public_of(secret: bytes) -> str:
    """The public key of an X25519 secret key, hex."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def pair_key(secret: bytes, public: str, session: str, one: str, other: str) -> bytes:
    """The key of the mask between two sites, the same for both."""
    return key_for(secret, public, "mask", session, *sorted((one, other)))


def sign_of(site: str, other: str) -> int:
    """1 for the site of the two that adds their mask, -1 for the one that subtracts it."""
    return 1 if site < other else -1
