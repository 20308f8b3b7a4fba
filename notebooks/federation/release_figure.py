"""ROC curves of attacks on log-log axes, where few false alarms can be seen; one panel per site."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from federation.evaluation_figures import COLUMNS, GREY, INK, RULE, Picture
from federation.leakage import ATTACKS, LOW_FPRS, Leakage
from policies.release_rule import ReleaseRule

LEAST = 5e-4
"""Where both axes begin; what is lower is drawn there."""
LOOKS = (("#1f4e79", "solid"), ("#c8782a", (0, (5, 2))), ("#5b8c5a", (0, (1.5, 1.5))))
LIMIT = "#9c2f1f"


def release_figure(rows: Mapping[str, tuple[Leakage | None, ReleaseRule]]) -> Figure:
    """A figure of one release test, 2.6 inches wide for each site."""
    columns = min(len(rows), COLUMNS)
    figure = Picture(figsize=(2.6 * columns + 0.6, 3.0 * -(-len(rows) // columns) + 0.3))
    draw_release(figure, rows)
    return figure


def draw_release(figure: Figure, rows: Mapping[str, tuple[Leakage | None, ReleaseRule]]) -> None:
    """Draw into an empty figure.

    Args:
        figure: The figure.
        rows: Title of a site -> what was found there, None where nothing was, and its limits.
    """
    columns = min(len(rows), COLUMNS)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(-(-len(rows) // columns), columns, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.axis("off")
    for k, (axes, (title, (leakage, rule))) in enumerate(
        zip(grid.flat, rows.items(), strict=False)
    ):
        _panel(axes, title, first=k % columns == 0)
        if leakage is None or not leakage.is_known:
            axes.text(0.03, 0.03, "not tested", ha="center", va="center", fontsize=9, color=GREY)
            continue
        _curves(axes, leakage)
        for fpr, limit in zip(
            LOW_FPRS, (rule.maximum_tpr_at_0_1_percent, rule.maximum_tpr_at_1_percent), strict=True
        ):
            if limit is not None:
                axes.plot([fpr], [limit], marker="v", color=LIMIT, markersize=6, clip_on=False,
                          linestyle="none")  # fmt: skip
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False
        )


def _panel(axes: Axes, title: str, *, first: bool) -> None:
    axes.plot([LEAST, 1], [LEAST, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xscale="log", yscale="log", xlim=(LEAST, 1), ylim=(LEAST, 1), aspect="equal")
    axes.set_xlabel("false positive rate", fontsize=8.5, color=GREY)
    axes.set_ylabel("true positive rate" if first else "", fontsize=8.5, color=GREY)
    shown = title if len(title) <= 24 else f"{title[:23]}…"
    axes.set_title(shown, fontsize=10, color=INK, loc="left", parse_math=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8, labelcolor=GREY, color=RULE)
    axes.grid(color=RULE, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)


def _curves(axes: Axes, leakage: Leakage) -> None:
    for attack, (colour, dashes) in zip(ATTACKS, LOOKS, strict=True):
        false, true = np.maximum(leakage.roc(attack), LEAST).T
        axes.plot(
            false, true, color=colour, linestyle=dashes, linewidth=1.8, label=attack,
            marker="o", markersize=3, clip_on=False,
        )  # fmt: skip
