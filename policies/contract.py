"""What a request asks for and promises: its terms, and the contract of what leaves the site.

Both are part of what the hospital approves. `Terms` travel as JSON with the job text; the
approval binds their digest, and every run is checked against them.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, StringConstraints, model_validator

from policies.privacy.asked import PrivacyAsked
from policies.strict import Strict

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,119}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[
    str,
    # No control, format, surrogate, private or separator character but the space: a reviewer's
    # terminal shows the line as it is.
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$"),
]
DType = Literal["float32", "float64", "float16", "int64", "int32"]
"""numpy's name of an element type."""
Use = Literal["research", "quality improvement", "teaching", "product development"]
"""What results may be used for. The first three serve care and knowledge; the last a product."""
Access = Literal["arrays", "trainer"]
"""How a job sees images: `arrays` gives approved code memory-mapped arrays; with `trainer` the
hospital's own loop trains a model that the job describes, and no foreign code sees an image."""
Value = bool | int | float | Annotated[str, StringConstraints(max_length=200)]


class ArrayContract(Strict):
    """Shape and dtype of one array."""

    shape: tuple[Annotated[int, Field(ge=0, le=2**31)], ...] = Field(max_length=8)
    """Length of each axis."""
    dtype: DType
    """Type of the entries."""

    @property
    def elements(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the entries."""
        return self.elements * np.dtype(self.dtype).itemsize


class Contract(Strict):
    """Exactly what one run returns, key by key; anything more or other is refused by the site."""

    weights: dict[Name, ArrayContract] = Field(default={}, max_length=5000)
    """Model parameters that leave."""
    inputs: dict[Name, ArrayContract] | None = Field(default=None, max_length=5000)
    """Arrays that are sent into a run; without it, the same names, shapes and dtypes as leave."""
    counts: dict[Name, ArrayContract] = Field(default={}, max_length=50)
    """Tables of how many images; every cell is 0 or at least the policy's `counts.minimum`."""
    metrics: tuple[Name, ...] = Field(default=(), max_length=20)
    """Names of single numbers, such as the mean loss."""
    examples: Literal[True] = True
    """The number of images used always leaves: aggregation needs it."""

    @model_validator(mode="after")
    def _counts_are_whole_numbers(self) -> Self:
        for name, table in self.counts.items():
            if table.dtype not in ("int64", "int32"):
                raise ValueError(f"counts `{name}` must have dtype int64 or int32")
        return self

    @property
    def sent(self) -> dict[str, ArrayContract]:
        """The arrays that are sent into a run."""
        return self.weights if self.inputs is None else self.inputs

    @property
    def weight_elements(self) -> int:
        """Number of model parameters."""
        return sum(a.elements for a in self.weights.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all arrays of one run."""
        return sum(a.size_bytes for a in (*self.weights.values(), *self.counts.values()))

    def in_words(self) -> str:
        """What leaves per run, for a person."""
        parts = []
        if self.weights:
            size = in_megabytes(sum(a.size_bytes for a in self.weights.values()))
            parts.append(
                f"{_counted(len(self.weights), 'weight array')} of "
                f"{_counted(self.weight_elements, 'number')} ({size})"
            )
        parts.extend(
            f"table `{name}` of {table.elements:,} counts" for name, table in self.counts.items()
        )
        if self.metrics:
            parts.append(f"{_counted(len(self.metrics), 'metric')} ({', '.join(self.metrics)})")
        return ", ".join([*parts, "the number of images used"])


def in_megabytes(size_bytes: int) -> str:
    """`1.68 MB`, or `16 bytes` where megabytes would say nothing."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 10_000 else f"{size_bytes} bytes"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


class Bound(Strict):
    """What an argument of the job may be: one fixed value, a range, or one of some choices."""

    value: Value | None = None
    """Fixed: the argument always has this value."""
    low: int | float | None = None
    """Smallest value of an open argument."""
    high: int | float | None = None
    """Largest value of an open argument. With two whole numbers only whole numbers are allowed."""
    choices: tuple[Value, ...] | None = Field(default=None, min_length=1, max_length=50)
    """The values of an open argument, listed."""

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        is_range = self.low is not None or self.high is not None
        if sum((self.value is not None, is_range, self.choices is not None)) != 1:
            raise ValueError("give exactly one of `value`, `low` with `high`, `choices`")
        if is_range:
            if self.low is None or self.high is None:
                raise ValueError("a range needs both `low` and `high`")
            if self.low > self.high:
                raise ValueError("`low` is above `high`")
        return self

    @property
    def whole(self) -> bool:
        """Whether a range allows whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def allows(self, value: object) -> bool:
        """Whether `value` is within this bound; True, 1 and 1.0 are different values."""
        if self.low is not None and self.high is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            if self.whole and not isinstance(value, int):
                return False
            return self.low <= value <= self.high  # False for NaN
        allowed = self.choices if self.choices is not None else (self.value,)
        return any(_is(value, a) for a in allowed)

    def contains(self, inner: Bound) -> bool:
        """Whether everything that `inner` allows is allowed here too."""
        if inner.low is not None and inner.high is not None:
            if self.low is None or self.high is None or (self.whole and not inner.whole):
                return False
            return self.low <= inner.low and inner.high <= self.high
        values = inner.choices if inner.choices is not None else (inner.value,)
        return all(self.allows(v) for v in values)

    def in_words(self) -> str:
        """`0.001 to 0.1`, `exactly 32`, `one of a, b`."""
        if self.low is not None:
            return f"{self.low} to {self.high}" + (" (whole numbers)" if self.whole else "")
        if self.choices is not None:
            return "one of " + ", ".join(str(c) or "''" for c in self.choices)
        return f"exactly {self.value}"


def _is(value: object, allowed: object) -> bool:
    """Whether a value is the allowed one: no number is a boolean, and 2.0 is no whole number."""
    if isinstance(value, bool) != isinstance(allowed, bool):
        return False
    if isinstance(value, float) and isinstance(allowed, int):
        return False
    return value == allowed


class Terms(Strict):
    """What a request asks for, beside the job text itself."""

    title: Line
    """What the job does, in one line."""
    purpose: Line
    """Why the researcher wants it, in one line."""
    use: Use = "research"
    """What the results are for."""
    entry: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,59}$")]
    """Name of the job's entry function."""
    dataset: Name
    """Name of the dataset at the site."""
    version: Digest
    """The dataset version: hash of its content."""
    access: Access
    """How the job sees the images."""
    runs: int = Field(ge=1, le=10_000)
    """How many runs are asked for; failed ones count."""
    expires_in_days: int = Field(ge=1, le=730)
    """How long the approval shall hold, in days."""
    arguments: dict[Name, Bound] = Field(default={}, max_length=50)
    """Every key of `config`, and what it may be."""
    contract: Contract | None = None
    """What leaves; a request without it is refused."""
    privacy: PrivacyAsked | None = Field(default=None, exclude_if=lambda asked: asked is None)
    """What the runs may cost of the patients' privacy, where the hospital's policy keeps account.

    Left out where it is not asked for, so that terms without it keep their digest."""

    @property
    def total_mb(self) -> float:
        """Megabytes of arrays that leave over all runs."""
        return self.runs * (self.contract.size_bytes if self.contract else 0) / 1e6
