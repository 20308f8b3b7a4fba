"""Hyperparameters in their ranges; one that is not is refused in a sentence."""

from __future__ import annotations

import math


def check_above(algorithm: str, name: str, value: float, least: float) -> None:
    """Refuse what is not a finite number above `least`.

    Raises:
        ValueError: In a sentence that names the algorithm, the value and what is allowed.
    """
    if not _is_number(value) or value <= least:
        raise _refusal(algorithm, name, value, f"a number above {least:g}")


def check_at_least(algorithm: str, name: str, value: float, least: float) -> None:
    """Refuse what is not a finite number of at least `least`.

    Raises:
        ValueError: As for `check_above`.
    """
    if not _is_number(value) or value < least:
        raise _refusal(algorithm, name, value, f"a number of at least {least:g}")


def check_share(algorithm: str, name: str, value: float) -> None:
    """Refuse what is not a number from 0 to below 1.

    Raises:
        ValueError: As for `check_above`.
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise _refusal(algorithm, name, value, "a number from 0 to below 1")


def check_count(algorithm: str, name: str, value: int, least: int) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
        ValueError: As for `check_above`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _refusal(algorithm, name, value, f"a whole number of at least {least}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refusal(algorithm: str, name: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"{algorithm} cannot have `{name}` = {value!r}; give {allowed}")
