"""AUC by subgroup as points with their intervals, a row per value and site."""

from __future__ import annotations

from collections.abc import Mapping

from federation.evaluation_figures import ACCENT, GREY, INK, RULE, Picture
from federation.measures import Measures


def subgroup_figure(by: str, rows: Mapping[str, Mapping[str, Measures]]) -> Picture:
    """A figure of one attribute; over all sites in colour, each site in grey below it.

    Args:
        by: The attribute.
        rows: Value -> title of a site, or `all` -> measures; those without images are named
            suppressed.
    """
    lines = [
        (value if title == "all" else title, title == "all", measures)
        for value, sites in rows.items()
        for title, measures in sorted(sites.items(), key=lambda pair: pair[0] != "all")
    ]
    figure = Picture(figsize=(6.4, 0.28 * len(lines) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    for k, (_, whole, measures) in enumerate(lines):
        colour, auc = (ACCENT if whole else GREY), measures.auc
        if measures.images is None or not auc.known:
            word = "suppressed: too few images" if measures.images is None else "one class only"
            axes.text(0.02, k, word, ha="left", va="center", fontsize=8, color=GREY)
            continue
        axes.plot([auc.low, auc.high], [k, k], color=colour, linewidth=2.2 if whole else 1.2)
        axes.plot(auc.value, k, "o", color=colour, markersize=6 if whole else 4)
        axes.annotate(
            f"{auc.value:.3f}", (auc.value, k), (0, 5), textcoords="offset points",
            ha="center", fontsize=7.5, color=INK,
        )  # fmt: skip
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(0, 1), ylim=(len(lines) - 0.4, -0.8), xlabel="AUC, 95 % interval")
    axes.set_yticks(range(len(lines)))
    labels = axes.set_yticklabels(
        [name if len(name) <= 32 else f"{name[:31]}…" for name, *_ in lines]
    )
    for label, (_, whole, _measures) in zip(labels, lines, strict=True):
        label.set(fontsize=9 if whole else 8, color=INK if whole else GREY, parse_math=False)
    axes.set_title(f"by {by}", fontsize=10, color=INK, loc="left")
    axes.tick_params(color=RULE, labelsize=8)
    axes.xaxis.label.set(fontsize=8.5, color=GREY)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    return figure
