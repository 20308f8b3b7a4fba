"""A picture of what was spent: epsilon per patient over time, a line for each dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
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
    with matplotlib.rc_context({"date.converter": "concise"}):
        _draw(Figure(figsize=(7, 3.4), layout="constrained"), file, kept, rule)


def _draw(figure: Figure, file: Path, kept: Sequence[Entry], rule: PrivacyRule) -> None:
    axes = figure.add_subplot()
    names = sorted({entry.dataset for entry in kept})
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        spent: Spent = Spent()
        times, levels = [], []
        for entry in (e for e in kept if e.dataset == name):
            spent[entry.mechanism] += 1
            times.append(np.datetime64(entry.at.removesuffix("Z")))
            levels.append(epsilon(spent, rule.delta or DELTA, "rdp"))
        axes.step(times, levels, where="post", color=colour, lw=2)
        label = f"{name}: {levels[-1]:.3g} after {len(levels)} runs"
        axes.plot(times[-1:], levels[-1:], "o", color=colour, ms=5, label=label)
    if rule.maximum_epsilon is not None:
        axes.axhline(rule.maximum_epsilon, color="#a4201a", lw=1, ls="--")
        axes.text(
            0.01, rule.maximum_epsilon, f"cap {rule.maximum_epsilon:g}", va="bottom",
            transform=axes.get_yaxis_transform(), color="#a4201a",
        )  # fmt: skip
    if not names:
        axes.text(0.5, 0.4, "nothing was charged yet", ha="center", transform=axes.transAxes)
        axes.set_xticks([])
    else:
        axes.legend(loc="best", frameon=False)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set_ylabel(f"epsilon per patient (delta {rule.delta or DELTA:g})")
    axes.set_title("Privacy spent on each dataset, all versions, everyone's runs", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
