"""How bright the pixels of each class are: small histograms, one column per site."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from federation.evaluation_figures import ACCENT, GREY, INK, RULE, Picture

COLUMNS = 5
"""Columns before a new row begins."""
FEWEST_BINS = 8
"""Bins that a figure has at least, as far as the table has them."""
LINES = (
    (ACCENT, "solid"), ("#b4500f", (0, (5, 2))), ("#00785a", (0, (1.5, 1.5))),
    ("#93407a", (0, (6, 2, 1.5, 2))), ("#8a6500", (0, (9, 3))), ("#3a7ca8", (0, (3, 3))),
)  # fmt: skip
"""Colour and dashes of the classes, in their order; told apart without colour, too."""


def description_figure(
    rows: Mapping[str, Mapping[str, NDArray[np.float64]]], minimum_count: int
) -> Figure:
    """A figure of one description, with bins as wide as merged cells need to look smooth.

    Args:
        rows: Title -> class -> (bins,) images by the brightness of their pixels. Those without
            images are drawn empty, with the word for it.
        minimum_count: Fewest images of a cell.
    """
    rows = wider(rows, minimum_count)
    columns = min(len(rows), COLUMNS)
    lines = -(-len(rows) // COLUMNS)
    figure = Picture(figsize=(2.9 * columns + 0.5, 2.7 * lines + 0.6), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for k, (title, classes) in enumerate(rows.items()):
        _draw(grid[divmod(k, COLUMNS)], title, classes, first=k % COLUMNS == 0)
    for k in range(len(rows), lines * columns):
        grid[divmod(k, columns)].axis("off")
    shown: dict[str, Artist] = {}
    for axes in grid.ravel():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if shown:
        figure.legend(
            list(shown.values()), list(shown), loc="outside lower center", ncols=min(len(shown), 5),
            frameon=False, fontsize=8.5, labelcolor=INK,
        )  # fmt: skip
    return figure


def wider(
    rows: Mapping[str, Mapping[str, NDArray[np.float64]]], minimum_count: int
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """The same rows in fewer bins, the same for all: as many as the smallest class can fill.

    Where counts are small, cells were merged, which narrow bins would show as spikes and gaps. A
    bin is so wide that three times the minimum fall into it on average, unless that leaves fewer
    than `FEWEST_BINS`.

    Args:
        rows: As of `description_figure`.
        minimum_count: Fewest images of a cell.
    """
    known = [row for classes in rows.values() for row in classes.values() if row.any()]
    if not known:
        return {title: dict(classes) for title, classes in rows.items()}
    bins = len(known[0])
    most = min(row.sum() for row in known) / (3 * max(minimum_count, 1))
    factors = [k for k in range(1, bins // FEWEST_BINS + 1) if bins % k == 0] or [1]
    factor = next((k for k in factors if bins / k <= most), factors[-1])
    return {
        title: {name: row.reshape(-1, factor).sum(1) for name, row in classes.items()}
        for title, classes in rows.items()
    }


def spread(row: NDArray[np.int64], minimum_count: int) -> NDArray[np.float64]:
    """Small cells put back over the bins that they stand for, as far as that is known.

    A cell of fewer than twice the minimum may have been merged: it is spread evenly half of the way
    to the cells before and after it. Larger ones stay.

    Args:
        row: (bins,) images.
        minimum_count: Fewest images of a cell.

    Returns:
        (bins,) with the same sum.
    """
    at = np.flatnonzero(row)
    if len(at) < 2:
        return row.astype(np.float64)
    middle, edges = at + 0.5, np.arange(len(row) + 1.0)
    between = (middle[:-1] + middle[1:]) / 2
    lows = np.append(max(2 * middle[0] - between[0], 0.0), between)
    highs = np.append(between, min(2 * middle[-1] - between[-1], float(len(row))))
    stays = row[at] >= 2 * minimum_count
    lows, highs = np.where(stays, at, lows), np.where(stays, at + 1, highs)
    parts = np.diff(edges.clip(lows[:, None], highs[:, None]), axis=1) / (highs - lows)[:, None]
    return np.asarray(row[at] @ parts, np.float64)


def _draw(
    axes: Axes, title: str, classes: Mapping[str, NDArray[np.float64]], *, first: bool
) -> None:
    axes.set_title(
        title if len(title) <= 20 else f"{title[:19]}…", loc="left", fontsize=10, color=INK
    )
    axes.set(xlim=(0, 1), xlabel="brightness", ylabel="share of pixels" if first else "")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.tick_params(labelsize=8, labelcolor=GREY, color=RULE, labelbottom=True)
    axes.xaxis.label.set(fontsize=8.5, color=GREY)
    axes.yaxis.label.set(fontsize=8.5, color=GREY)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    images = round(sum(float(row.sum()) for row in classes.values()))
    if not images:
        axes.text(
            0.5, 0.5, "suppressed:\ntoo few images", ha="center", va="center", fontsize=9,
            color=GREY, transform=axes.transAxes,
        )  # fmt: skip
        return
    for k, (name, row) in enumerate(classes.items()):
        if row.any():
            color, dashes = LINES[k % len(LINES)]
            edges = np.linspace(0, 1, len(row) + 1)
            share = row / row.sum()
            axes.stairs(share, edges, fill=True, color=color, alpha=0.1)
            axes.stairs(share, edges, color=color, linewidth=1.5, linestyle=dashes, label=name)
    axes.set_title(f"{images:,} images", loc="right", fontsize=8.5, color=GREY)
