"""Shamir's secret sharing of 32 bytes: any `threshold` shares give them back, fewer tell nothing.

References:
    Shamir: How to Share a Secret, Communications of the ACM 22 (11), 1979.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

PRIME = 2**521 - 1
"""A Mersenne prime; secrets of 256 bits lie well below it."""


def split(secret: bytes, threshold: int, points: Iterable[int]) -> dict[int, int]:
    """Point -> share: values of a random polynomial of degree `threshold` - 1, the secret at 0.

    Args:
        secret: 32 bytes.
        threshold: How many shares give it back.
        points: Where shares are: different whole numbers from 1.
    """
    rest = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "big"), *rest]
    return {point: _value(coefficients, point) for point in points}


def combine(shares: Mapping[int, int]) -> bytes:
    """The 32 bytes that were split, from at least `threshold` shares (point -> share).

    Raises:
        ValueError: The shares do not belong together: what they give is no secret of 32 bytes.
    """
    total = 0
    for point, share in shares.items():
        above = below = 1
        for other in shares:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        total = (total + share * above * pow(below, -1, PRIME)) % PRIME
    if total >= 1 << 256:
        raise ValueError("the shares of a secret do not belong together")
    return total.to_bytes(32, "big")


def _value(coefficients: list[int], point: int) -> int:
    found = 0
    for coefficient in reversed(coefficients):
        found = (found * point + coefficient) % PRIME
    return found
