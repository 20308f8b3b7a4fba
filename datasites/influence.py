"""How single images move a result: a cheap sign of memorising, taken on the mock.

A job is run once as it is, once again (a job may be random), and once per changed image. Training
spreads an image thinly over all parameters, and every image moves the result about alike. Code that
stores images shows: one image that moves the result alone, or the very pixels in the returned
numbers. It is a sign for a reader, no proof: code can behave on the mock, and the gradient of a
linear model is a multiple of the very image that was changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.arrays import Arrays
from policies.update_rules import Update

FOUND = 0.98
"""Correlation with consecutive returned numbers from which a changed image counts as found."""
LONGEST = 1e100
"""Larger numbers are cut to this before they are compared, so that none overflows."""
FEWEST_PIXELS = 32
"""Images of fewer pixels are not looked for: chance finds them."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What changing single mock images did to a result.

    Attributes:
        probed: Images that were changed, one at a time.
        moved: How many of them moved the result.
        largest_share: The largest part of all movement that comes from one image; alike is
            1 / probed.
        found: Images whose changed pixels stand, in order, in the returned numbers.
        repeatable: Whether the same run gives the same result.
    """

    probed: int
    moved: int
    largest_share: float
    found: int
    repeatable: bool

    @property
    def suspicious_share(self) -> float:
        """Part of all movement above which one image moves the result alone; of few, none does."""
        return max(0.5, min(0.9, 4 / self.probed)) if self.probed > 3 else 1.0

    @property
    def suspicious(self) -> bool:
        """Whether a reader should not approve this without understanding it."""
        return self.found > 0 or self.largest_share > self.suspicious_share

    def in_words(self) -> str:
        """The sentence on the review sheet."""
        if not self.probed:
            return "no image was changed to see what it moves"
        if self.found:
            return (
                f"the pixels of {self.found} of {self.probed} changed images stand in the returned "
                "numbers"
            )
        if not self.moved:
            return f"none of {self.probed} changed images moves the result"
        if self.suspicious:
            return (
                f"{self.moved} of {self.probed} changed images move the result, and one of them "
                f"makes {self.largest_share:.0%} of all movement"
            )
        share = self.suspicious_share
        doubt = f"suspicious: more than {share:.0%}" if share < 1 else "too few images to suspect"
        words = (
            f"{self.moved} of {self.probed} changed images move the result, one of them at most "
            f"{self.largest_share:.0%} of all movement (if all moved it alike: "
            f"{1 / self.probed:.0%}; {doubt})"
        )
        return words if self.repeatable else f"{words}; the job is random"


@dataclass(frozen=True, slots=True)
class Probe:
    """A run with one changed image: the change of its pixels, flat, and what the run returned."""

    change: NDArray[np.float64]
    update: Update


def measure_influence(first: Update, again: Update, probes: list[Probe]) -> Influence:
    """What the changed images did, beside what chance does between two equal runs."""
    base = numbers(first)
    noise = _padded(numbers(again), len(base)) - base
    moves = [_padded(numbers(probe.update), len(base)) - base for probe in probes]
    lengths = np.array([min(float(np.linalg.norm(move)), LONGEST) for move in moves])
    floor = max(2 * float(np.linalg.norm(noise)), 1e-12 * float(np.linalg.norm(base)))
    moved = lengths > floor
    total = float(lengths.sum())
    return Influence(
        probed=len(probes),
        moved=int(moved.sum()),
        largest_share=float(lengths.max() / total) if total > 0 else 0.0,
        found=sum(
            _is_found(probe.change, move)
            for probe, move, real in zip(probes, moves, moved, strict=True)
            if real
        ),
        repeatable=not noise.any(),
    )  # fmt: skip


def numbers(update: Update) -> NDArray[np.float64]:
    """Everything that a run returned, as one flat array."""
    groups: list[Arrays] = [update.weights, update.counts]
    flat = [group[name].astype(np.float64).ravel() for group in groups for name in sorted(group)]
    scalars = [*(update.metrics[name] for name in sorted(update.metrics)), update.examples]
    together: NDArray[np.float64] = np.concatenate([*flat, np.array(scalars, np.float64)])
    return np.clip(np.nan_to_num(together), -LONGEST, LONGEST)


def _padded(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """A result whose size depends on an image, cut or filled so that it can be compared."""
    return np.pad(values[:length], (0, max(0, length - len(values))))


def _is_found(change: NDArray[np.float64], move: NDArray[np.float64]) -> bool:
    """Whether some stretch of `move` is the pixels' change, times a number and plus another."""
    n = len(change)
    if n < FEWEST_PIXELS or n > len(move) or change.std() == 0:
        return False
    pattern = (change - change.mean()) / change.std()
    size = 1 << (len(move) + n).bit_length()
    product = np.fft.irfft(np.fft.rfft(move, size) * np.conj(np.fft.rfft(pattern, size)), size)
    count = len(move) - n + 1
    ends = np.cumsum(np.concatenate([[0.0], move]))
    squares = np.cumsum(np.concatenate([[0.0], move**2]))
    mean = (ends[n:] - ends[:-n]) / n
    variance = (squares[n:] - squares[:-n]) / n - mean**2
    # Where almost nothing moved, rounding would correlate with anything.
    real = variance > 1e-9 * max(float(variance.max()), 1e-300)
    correlation = np.zeros(count)
    correlation[real] = product[:count][real] / (n * np.sqrt(variance[real]))
    return bool((np.abs(correlation) > FOUND).any())
