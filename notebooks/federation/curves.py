"""The curves that grow while rounds run: inline SVG, a millisecond to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from federation.history import History

Points = Sequence[tuple[int, float]]

_WIDTH, _HEIGHT = 360, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 52, 26, 24
_INK, _GREY, _RULE, _ACCENT, _PALE = "#1c2127", "#5d6670", "#e3e6e9", "#1f4e79", "#a9bccd"


def curves(history: History, auc: Mapping[int, Mapping[str, float]], first: int, last: int) -> str:
    """The loss, and the AUC where it was measured, over the rounds from first to last.

    Args:
        history: The rounds so far.
        auc: Round -> site, or `all` for over all sites -> AUC.
        first: Number of the first round.
        last: Number of the last round asked for; the axis ends there.
    """
    mean = [(int(n), float(v)) for n, v in history.mean_loss().items()]  # type: ignore[call-overload]
    sites = [
        [(r.round, r.loss) for r in history if r.site == name and r.state == "contributed"]
        for name in history.sites
    ]
    drawn = [_chart("Training loss", mean, sites, first, last)]
    if auc:
        over_all = [(number, values.get("all", math.nan)) for number, values in auc.items()]
        names = dict.fromkeys(name for values in auc.values() for name in values if name != "all")
        each = [[(n, values.get(name, math.nan)) for n, values in auc.items()] for name in names]
        drawn.append(_chart("AUC", over_all, each, first, last))
    return "".join(drawn)


def _chart(title: str, mean: Points, sites: Sequence[Points], first: int, last: int) -> str:
    """One chart: the sites pale, what holds over all of them dark, its last value in figures."""
    mean = [point for point in mean if math.isfinite(point[1])]
    sites = [[point for point in points if math.isfinite(point[1])] for points in sites]
    values = [value for points in (mean, *sites) for _, value in points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-3:
        low, high = low - 5e-4, high + 5e-4
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(number: float) -> float:
        return _LEFT + inner_w * (number - first) / max(last - first, 1)

    def y(value: float) -> float:
        return _TOP + inner_h * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11" role="img" '
        f'aria-label="{escape(title)} per round" style="background: #fff">',
        f'<text x="{_LEFT}" y="15" font-size="12.5" fill="{_INK}">{escape(title)}</text>',
    ]
    for value in (low, (low + high) / 2, high):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="{_RULE}"/><text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" fill="{_GREY}" '
            f'text-anchor="end">{value:.3f}</text>'
        )
    for number in dict.fromkeys((first, (first + last) // 2, last)):
        parts.append(
            f'<text x="{x(number):.1f}" y="{_HEIGHT - 7}" fill="{_GREY}" text-anchor="middle">'
            f"{'round ' if number == first else ''}{number}</text>"
        )
    for points, colour, width in (*((p, _PALE, 1) for p in sites), (mean, _ACCENT, 2)):
        for stretch in _stretches(points):
            parts.append(_line([(x(n), y(v)) for n, v in stretch], colour, width))
    if mean:
        number, value = mean[-1]
        parts.append(
            f'<circle cx="{x(number):.1f}" cy="{y(value):.1f}" r="3" fill="{_ACCENT}"/>'
            f'<text x="{x(number) + 7:.1f}" y="{y(value) + 4:.1f}" fill="{_ACCENT}" '
            f'font-weight="bold">{value:.3f}</text>'
        )
    return "".join(parts) + "</svg>"


def _stretches(points: Points) -> list[list[tuple[int, float]]]:
    """The points in runs of rounds that follow each other: a round without a value is a gap."""
    found: list[list[tuple[int, float]]] = []
    for number, value in points:
        if found and found[-1][-1][0] == number - 1:
            found[-1].append((number, value))
        else:
            found.append([(number, value)])
    return found


def _line(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    told = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*points, points[-1]))  # a dot for one point
    return (
        f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="{width}" '
        'stroke-linecap="round"/>'
    )
