"""ROC curves and reliability diagrams as small multiples, one column per site."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from federation.measures import Measures

INK, GREY, RULE, ACCENT = "#1c2127", "#5d6670", "#e3e6e9", "#1f4e79"
COLUMNS = 5
"""Columns before a new pair of rows begins."""


class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def evaluation_figure(rows: Mapping[str, Measures]) -> Figure:
    """A figure of one evaluation, 2.5 inches wide for each site."""
    columns, blocks = min(len(rows), COLUMNS), -(-len(rows) // COLUMNS)
    figure = Picture(figsize=(2.5 * columns + 0.6, 5.2 * blocks))
    draw_evaluation(figure, rows)
    return figure


def draw_evaluation(figure: Figure, rows: Mapping[str, Measures]) -> None:
    """Draw ROC curves and reliability diagrams into a figure.

    Args:
        figure: An empty figure.
        rows: Title -> measures; those without images are drawn empty, with the word for it.
    """
    columns, blocks = min(len(rows), COLUMNS), -(-len(rows) // COLUMNS)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(2 * blocks, columns, squeeze=False)
    for k, (title, measures) in enumerate(rows.items()):
        block, column = divmod(k, columns)
        _draw_roc(grid[2 * block, column], title, measures, first=column == 0)
        _draw_reliability(grid[2 * block + 1, column], measures, first=column == 0)
    for k in range(len(rows), blocks * columns):
        block, column = divmod(k, columns)
        grid[2 * block, column].axis("off")
        grid[2 * block + 1, column].axis("off")


def _draw_roc(axes: Axes, title: str, measures: Measures, *, first: bool) -> None:
    _frame(axes, "1 − specificity", "sensitivity" if first else "")
    axes.set_title(title if len(title) <= 24 else f"{title[:23]}…", fontsize=10, color=INK)
    if measures.images is None:
        _say(axes, "suppressed:\ntoo few images")
        return
    if not len(measures.roc):
        _say(axes, "one class only")
        return
    false, true = measures.roc.T
    axes.plot(false, true, color=ACCENT, linewidth=1.8)
    axes.fill_between(false, true, color=ACCENT, alpha=0.08)
    if measures.sensitivity.known and measures.specificity.known:
        point = (1 - measures.specificity.value, measures.sensitivity.value)
        axes.plot(*point, "o", color=ACCENT, markersize=5)
    auc = measures.auc
    interval = f"\n({auc.low:.3f} to {auc.high:.3f})" if auc.low == auc.low else ""
    axes.text(0.97, 0.05, f"AUC {auc.value:.3f}{interval}", ha="right", fontsize=8.5, color=INK)


def _draw_reliability(axes: Axes, measures: Measures, *, first: bool) -> None:
    _frame(axes, "predicted probability", "observed share" if first else "")
    if measures.images is None or not len(measures.reliability):
        return
    predicted, observed, images = measures.reliability.T
    axes.plot(predicted, observed, color=ACCENT, linewidth=1, alpha=0.6)
    axes.scatter(predicted, observed, s=12 + 90 * images / images.sum(), color=ACCENT, alpha=0.85)
    axes.text(
        0.03, 0.93, f"calibration error {measures.calibration_error.value:.3f}",
        fontsize=8.5, color=INK,
    )  # fmt: skip


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=8, labelcolor=GREY, color=RULE)
    axes.xaxis.label.set(fontsize=8.5, color=GREY)
    axes.yaxis.label.set(fontsize=8.5, color=GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, color=GREY)
