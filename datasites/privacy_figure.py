"""A picture of what was spent: epsilon per patient over time, a line for each dataset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import matplotlib.dates as mdates
from matplotlib.figure import Figure

from datasites.errors import ConfigurationError
from datasites.privacy_ledger import Entry
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Spent
from policies.privacy.rule import PrivacyRule

COLOURS = ("#0b6e75", "#b4552d", "#5b4b9a", "#7a7a1f")
DELTA = 1e-5


def draw_spending(file: Path, kept: Sequence[Entry], rule: PrivacyRule) -> None:
    """Draw epsilon after each run of each dataset, with the cap, into a PNG, SVG or PDF file.

    Raises:
        ConfigurationError: The name of the file tells no such kind.
    """
    if file.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigurationError(f"{file} names no picture; give a .png, .svg or .pdf file")
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    names = sorted({entry.dataset for entry in kept})
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        spent: Spent = Spent()
        times, levels = [], []
        for entry in (e for e in kept if e.dataset == name):
            spent[entry.mechanism] += 1
            times.append(dt.datetime.fromisoformat(entry.at))
            levels.append(epsilon(spent, rule.delta or DELTA, "rdp"))
        x = [float(mdates.date2num(time)) for time in times]
        axes.step(x, levels, where="post", color=colour, lw=2, label=name)
        axes.plot(x[-1:], levels[-1:], "o", color=colour, ms=4)
        axes.annotate(
            f"{name}: {levels[-1]:.2f}", (x[-1], levels[-1]), xytext=(-6, 6),
            textcoords="offset points", ha="right", color=colour,
        )  # fmt: skip
    if rule.maximum_epsilon is not None:
        axes.axhline(rule.maximum_epsilon, color="#a4201a", lw=1, ls="--")
        axes.annotate(
            f"cap {rule.maximum_epsilon:g}", (0, rule.maximum_epsilon), xytext=(4, 4),
            xycoords=("axes fraction", "data"), textcoords="offset points", color="#a4201a",
        )  # fmt: skip
    if not names:
        axes.text(0.5, 0.4, "nothing was charged yet", ha="center", transform=axes.transAxes)
        axes.set_xticks([])
    else:
        axes.xaxis_date()
        locator = mdates.AutoDateLocator(minticks=3, maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set_ylabel(f"epsilon per patient (delta {rule.delta or DELTA:g})")
    axes.set_title("Privacy spent on each dataset, all versions, everyone's runs", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
