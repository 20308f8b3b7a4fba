"""Estimates with 95 % intervals, from tables of counts.

Images are taken as independent. Where patients have several images each, intervals are too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure and its 95 % interval; not numbers where there is nothing to measure.

    Attributes:
        value: The measure.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return math.isfinite(self.value)

    def __str__(self) -> str:
        if not self.known:
            return "–"
        if not math.isfinite(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


UNKNOWN = Estimate(math.nan)


def proportion(hits: float, count: float) -> Estimate:
    """A share of images, with Wilson's interval (JASA 1927, doi 10.1080/01621459.1927.10502953)."""
    if count <= 0:
        return UNKNOWN
    share = hits / count
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def mean_of_proportions(shares: list[Estimate], counts: list[float]) -> Estimate:
    """The mean of independent shares, with a normal interval of its standard error."""
    if not shares or not all(share.known for share in shares):
        return UNKNOWN
    variance = (
        sum(s.value * (1 - s.value) / n for s, n in zip(shares, counts, strict=True))
        / len(shares) ** 2
    )
    return around(sum(s.value for s in shares) / len(shares), math.sqrt(variance))


def around(value: float, error: float) -> Estimate:
    """A value from 0 to 1 with a normal interval of its standard error, cut to that range."""
    return Estimate(value, max(0.0, value - Z * error), min(1.0, value + Z * error))


def area_under_roc(table: Table) -> tuple[float, float]:
    """AUC of a (2, bins) table of others and members, and its standard error.

    DeLong, DeLong and Clarke-Pearson (Biometrics 1988, doi 10.2307/2531595): the variance of the
    placements of members among others, and of others among members; ties count one half. Not
    numbers where one of the two is missing; the error is not one where either is a single image.
    """
    others, members = table
    n, m = float(others.sum()), float(members.sum())
    if not n or not m:
        return math.nan, math.nan
    below = np.concatenate([[0.0], np.cumsum(others)[:-1]])
    above = m - np.cumsum(members)
    of_members = (below + others / 2) / n
    of_others = (above + members / 2) / m
    area = float((members * of_members).sum() / m)
    if n < 2 or m < 2:
        return area, math.nan
    spread = float((members * (of_members - area) ** 2).sum() / (m - 1)) / m
    spread += float((others * (of_others - area) ** 2).sum() / (n - 1)) / n
    return area, math.sqrt(spread)


def area_interval(area: float, error: float, fewest: float) -> Estimate:
    """An AUC with an interval on the scale of its log-odds, which keeps it between 0 and 1.

    Where classes are told apart without a mistake there is no spread to go by: the interval is then
    Wilson's, as if each of the `fewest` images of the smaller class were one trial.
    """
    if not math.isfinite(area):
        return UNKNOWN
    if not math.isfinite(error) or not 0 < area < 1 or error == 0:
        bounds = proportion(round(area * fewest), fewest)
        return Estimate(area, min(area, bounds.low), max(area, bounds.high))
    odds, reach = math.log(area / (1 - area)), Z * error / (area * (1 - area))
    return Estimate(area, _logistic(odds - reach), _logistic(odds + reach))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
