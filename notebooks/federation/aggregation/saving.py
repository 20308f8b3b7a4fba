"""An algorithm, and what it remembers, as plain values that a file can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from federation.aggregation.algorithm import Algorithm, Memory
from federation.aggregation.diagnostics import Diagnostics
from policies.arrays import Arrays


def described(algorithm: Algorithm) -> dict[str, Any]:
    """The algorithm by name and hyperparameters, as JSON gives them back.

    Raises:
        TypeError: It is not a dataclass.
    """
    if not is_dataclass(algorithm):
        raise TypeError("an algorithm is a dataclass, so that its hyperparameters can be saved")
    fields = {"name": type(algorithm).__name__, **asdict(algorithm)}
    plain: dict[str, Any] = json.loads(json.dumps(fields))
    return plain


def flattened(memory: Memory) -> Arrays:
    """All that is remembered as one set of arrays, `0/conv.weight`; groups by their number."""
    return {
        f"{number}/{name}": array
        for number, arrays in enumerate(memory.values())
        for name, array in arrays.items()
    }


def unflattened(arrays: Arrays, groups: Sequence[str]) -> Memory:
    """What was remembered, from what `flattened` made of it and the names of the groups."""
    memory: Memory = {group: {} for group in groups}
    for key, array in arrays.items():
        number, _, name = key.partition("/")
        memory[groups[int(number)]][name] = array
    return memory


def diagnostics_from_dict(plain: Mapping[str, Any]) -> Diagnostics:
    """The diagnostics that `dataclasses.asdict` and JSON made plain."""
    return Diagnostics(**{**plain, "left_out": tuple(plain["left_out"])})
