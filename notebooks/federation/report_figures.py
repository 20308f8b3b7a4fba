"""The figures of a report: inline SVG whose text is the page's own typeface, drawn off screen.

The same numbers give the same bytes. Drawing changes matplotlib's settings for its time, for the
whole process: draw from one thread at a time.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from federation.comparison import LOCAL
from federation.evaluation_figures import COLUMNS, draw_evaluation
from federation.history import History, SiteRound
from federation.measures import Measures
from federation.release import Release
from federation.release_figure import draw_release

ALL = "all"
"""Column of what holds over all sites."""

Points = list[tuple[int, float]]

_INK, _GREY, _RULE, _ACCENT = "#1c2127", "#5d6670", "#e3e6e9", "#1f4e79"
# Told apart without colour by their dashes too, and each line carries its name.
_LINES: Sequence[tuple[str, Any]] = (
    ("#b4500f", "solid"),
    ("#00785a", (0, (5, 2))),
    ("#93407a", (0, (1.5, 1.5))),
    ("#8a6500", (0, (6, 2, 1.5, 2))),
    ("#3a7ca8", (0, (9, 3))),
    ("#6b7280", (0, (3, 3))),
)
_MARKERS = ("o", "D", "s", "^", "v", "P")
_WIDTH = 480  # px at which a figure's text has the size of the page's small text
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a `$` in a title is a `$`
    "font.family": ["DejaVu Sans"],
    "font.size": 12.5,
    "text.color": _INK,
    "axes.edgecolor": "#aab1b8",
    "axes.labelcolor": _GREY,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _RULE,
    "grid.linewidth": 1,
    "xtick.color": "#aab1b8",
    "xtick.labelcolor": _GREY,
    "ytick.color": "#aab1b8",
    "ytick.labelcolor": _GREY,
    "ytick.major.size": 0,
    "hatch.color": "#8b949d",
    "hatch.linewidth": 1,
}


def points(pairs: Iterable[tuple[Any, Any]]) -> Points:
    """Pairs of a round and a value, as plain numbers."""
    return [(int(number), float(value)) for number, value in pairs]


def rounded(value: float | None) -> str:
    """A measure with three decimals, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def auc_figure(aucs: Mapping[str, Points], titles: Sequence[str]) -> Drawing | None:
    """AUC per round: a thin line per site, a thick one over all; None without rounds."""
    lines = {title: aucs[title] for title in [*titles, *aucs] if title in aucs and title != ALL}
    return _line_figure(
        "AUC per round",
        "On the images of each site, and over all of them (thick).",
        lines,
        ("all", aucs.get(ALL, [])),
    )


def loss_figure(records: Sequence[SiteRound], names: Mapping[str, str]) -> Drawing | None:
    """Training loss per round: a thin line per site, a thick mean; None without rounds."""
    sites = dict.fromkeys([*names, *(record.site for record in records)])
    lines = {
        names.get(site, site): points((r.round, r.loss) for r in records if r.site == site)
        for site in sites
    }
    mean: Points = []
    if any(record.state == "contributed" for record in records):
        mean = points(History(list(records)).mean_loss().items())
    return _line_figure(
        "Training loss per round",
        "At each site, and their mean weighted by images (thick). A gap is a missing site.",
        lines,
        ("mean", mean),
    )


def _line_figure(
    title: str, says: str, lines: Mapping[str, Points], bold: tuple[str, Points]
) -> Drawing | None:
    """Thin lines and a thick one, each named at its end."""
    drawn = [*lines.items(), bold]
    values = [y for _, points in drawn for _, y in points if math.isfinite(y)]
    if not values:
        return None
    rounds = sorted({x for _, points in drawn for x, _ in points})
    labels = {}
    height = max(280, 17 * len(drawn) + 70)

    def draw(figure: Figure) -> None:
        axes = _axes(figure, left=46, right=_room([*lines, f"{bold[0]} 0.000"]), bottom=44)
        space = (max(values) - min(values) or 0.1) * 0.06
        axes.set_ylim(min(values) - space, max(values) + space)
        axes.set_xlim(rounds[0] - 0.3, rounds[-1] + 0.3)
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_xlabel("round")
        for number, (name, points) in enumerate(drawn):
            is_bold = number == len(lines)
            colour, dash = (_ACCENT, "solid") if is_bold else _line(number)
            known = [(x, y) for x, y in points if math.isfinite(y)]
            if not known:
                continue
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                linestyle=dash,
                linewidth=3.2 if is_bold else 1.4,
                marker="o",
                markersize=(5 if is_bold else 3) if len(rounds) <= 20 else 1.5,
                zorder=3 if is_bold else 4,
            )
            label = f"{name} {known[-1][1]:.3f}" if is_bold else _short(name)
            labels[number] = (known[-1], label, colour, is_bold)
        _name_lines(axes, list(labels.values()))

    ends = [
        f"{name} from {known[0][1]:.3f} to {known[-1][1]:.3f}"
        for name, points in drawn
        if (known := [(x, y) for x, y in points if math.isfinite(y)])
    ]
    return Drawing(title, says, "; ".join(ends), height, draw)


def _line(number: int) -> tuple[str, Any]:
    """Colour and dash; the colours come again after six lines, with other dashes."""
    count = len(_LINES)
    return _LINES[number % count][0], _LINES[(number + number // count) % count][1]


def _name_lines(
    axes: Axes, labels: Sequence[tuple[tuple[int, float], str, str, bool]], gap: float = 17
) -> None:
    """Write each line's name at the right edge, moved apart where lines end close together."""
    low, high = axes.get_ylim()
    pixels = axes.get_window_extent().height / (high - low)
    at: list[float] = []
    ordered = sorted(labels, key=lambda label: label[0][1])
    for (_, y), *_ in ordered:
        at.append(max((y - low) * pixels, at[-1] + gap if at else 0))
    over = max(0.0, at[-1] - (high - low) * pixels) if at else 0.0
    for index in range(len(at) - 1, -1, -1):
        above = at[index + 1] - gap if index + 1 < len(at) else at[index] - over
        at[index] = min(at[index], above)
    edge = axes.get_xlim()[1]
    for position, ((x, y), label, colour, is_bold) in zip(at, ordered, strict=True):
        to = low + position / pixels
        axes.plot([x, edge], [y, to], color=colour, linewidth=0.7, alpha=0.6, clip_on=False)
        axes.annotate(
            label,
            (edge, to),
            xytext=(5, 0),
            textcoords="offset points",
            va="center_baseline",
            color=colour,
            fontweight="bold" if is_bold else "normal",
            annotation_clip=False,
        )


def measures_figure(
    aucs: Mapping[str, Mapping[str, float]], columns: Sequence[str]
) -> Drawing | None:
    """One row per column of the table; a site's own model is joined to the first shared one."""
    shared = [model for model in aucs if not model.startswith(LOCAL)]
    values = [v for row in aucs.values() for v in row.values() if math.isfinite(v)]
    if not values:
        return None
    keys: list[tuple[str, dict[str, Any]]] = []
    if len(shared) < len(aucs):
        keys.append(("the site’s own", {"marker": "o", "mfc": "white", "mec": _INK, "ms": 8}))
        keys.append(("other local", {"marker": "|", "mec": "#8b949d", "ms": 10, "mew": 1.5}))
    keys += [(_short(model), _shared(number)) for number, model in enumerate(shared)]
    widths = [20 + _room([label]) for label, _ in keys]
    fits = sum(widths) <= _WIDTH
    per_line = len(keys) if fits else max(1, int(_WIDTH / max(widths)))
    top = 22 + 22 * math.ceil(len(keys) / per_line)

    def draw(figure: Figure) -> None:
        axes = _axes(figure, left=_room(columns), right=18, top=top, bottom=44)
        space = (max(values) - min(values) or 0.1) * 0.08
        axes.set_xlim(min(values) - space, max(values) + space)
        axes.set_ylim(len(columns) - 0.5, -0.5)
        axes.set_yticks(range(len(columns)), [_short(column) for column in columns])
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
        axes.set_xlabel("AUC")
        axes.axhspan(len(columns) - 1.5, len(columns) - 0.5, color="#f1f4f7", zorder=0)
        for y, column in enumerate(columns):
            own = aucs.get(LOCAL + column, {}).get(column, math.nan)
            first = aucs[shared[0]].get(column, math.nan) if shared else math.nan
            axes.plot([own, first], [y, y], color="#9fb3c6", linewidth=3, zorder=2)
            others = [
                row.get(column, math.nan)
                for model, row in aucs.items()
                if model.startswith(LOCAL) and model != LOCAL + column
            ]
            axes.plot(others, [y] * len(others), "|", color="#8b949d", ms=10, mew=1.5, zorder=3)
            axes.plot([own], [y], "o", mfc="white", mec=_INK, ms=9, mew=1.6, zorder=4)
            for number, model in enumerate(shared):
                axes.plot([aucs[model].get(column, math.nan)], [y], **_shared(number), zorder=5)
        _legend(figure, axes, keys, per_line)

    says = "The table above as a picture."
    if shared and len(shared) < len(aucs):
        says += f" A bar joins a site’s own model and “{shared[0]}”."
    ends = [
        f"{column}: " + ", ".join(f"{model} {rounded(aucs[model].get(column))}" for model in aucs)
        for column in columns
    ]
    return Drawing("AUC by model", says, "; ".join(ends), 64 + top + 38 * len(columns), draw)


def _shared(number: int) -> dict[str, Any]:
    face = _ACCENT if number == 0 else "white"
    marker = _MARKERS[number % len(_MARKERS)]
    return {"marker": marker, "mfc": face, "mec": _ACCENT, "ms": 9 - number % 2 * 2, "mew": 1.6}


def _legend(
    figure: Figure, axes: Axes, keys: Sequence[tuple[str, Mapping[str, Any]]], per_line: int
) -> None:
    handles = [
        axes.plot([], [], linestyle="none", label=label, **marker)[0] for label, marker in keys
    ]
    axes.legend(
        handles=handles,
        ncols=per_line,
        handletextpad=0.2,
        **_above(figure),
    )


def _above(figure: Figure) -> dict[str, Any]:
    """Where a figure's legend stands: its top left corner."""
    return {
        "loc": "upper left",
        "bbox_to_anchor": (0, 0.99),
        "bbox_transform": figure.transFigure,
        "frameon": False,
        "borderaxespad": 0,
        "borderpad": 0,
        "columnspacing": 1.2,
    }


def contributions_figure(records: Sequence[SiteRound], names: Mapping[str, str]) -> Drawing | None:
    """A cell per site and round: darker for more images, struck out when the site is missing."""
    if not records:
        return None
    sites = list(dict.fromkeys([*names, *(record.site for record in records)]))
    titles = [names.get(site, site) for site in sites]
    rounds = sorted({record.round for record in records})
    most = max(record.examples for record in records) or 1
    counts = {s: [r.examples for r in records if r.site == s and r.examples] for s in sites}
    spans = {
        s: f"{min(c):,}" + (f"–{max(c):,}" if min(c) != max(c) else "") if c else "–"
        for s, c in counts.items()
    }

    def draw(figure: Figure) -> None:
        axes = _axes(figure, left=_room(titles), right=_room(spans.values()) + 4, top=44, bottom=44)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlim(rounds[0] - 0.5, rounds[-1] + 0.5)
        axes.set_ylim(len(sites) - 0.5, -0.5)
        axes.set_yticks(range(len(sites)), [_short(title) for title in titles])
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.tick_params(axis="x", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_xlabel("round")
        for record in records:
            _cell(axes, record.round, sites.index(record.site), record, most)
        edge = rounds[-1] + 0.5
        offset: Any = {"xytext": (6, 0), "textcoords": "offset points", "annotation_clip": False}
        for y, site in enumerate(sites):
            axes.annotate(spans[site], (edge, y), va="center_baseline", color=_GREY, **offset)
        axes.annotate("images", (edge, -0.72), va="center_baseline", color=_GREY, **offset)
        missing = Rectangle((0, 0), 1, 1, hatch="////", fc="white", ec="#8b949d", lw=1)
        took = Rectangle((0, 0), 1, 1, fc=_shade(0.8), ec="white", lw=0)
        axes.legend(
            [took, missing],
            ["contributed, darker: more images", "missing"],
            ncols=2,
            handlelength=1.2,
            handleheight=1.1,
            **_above(figure),
        )

    ends = [
        f"{title} {len(counts[site])} of {len(rounds)} rounds, {spans[site]} images each"
        for site, title in zip(sites, titles, strict=True)
    ]
    says = "Images behind each update, per site and round."
    return Drawing("Contributions", says, "; ".join(ends), 96 + 44 * len(sites), draw)


def _cell(axes: Axes, x: float, y: float, record: SiteRound, most: int) -> None:
    corner, width, height = (x - 0.45, y - 0.38), 0.9, 0.76
    if record.state == "contributed":
        colour = _shade(record.examples / most)
        axes.add_patch(Rectangle(corner, width, height, facecolor=colour, linewidth=0))
        return
    axes.add_patch(
        Rectangle(corner, width, height, fc="white", ec="#8b949d", hatch="////", linewidth=1)
    )
    axes.plot([x], [y], "x", color=_INK, markersize=9, markeredgewidth=2)


def _shade(share: float) -> str:
    """The accent colour on white, from 0.18 of it for nothing to 0.9 for the most."""
    part = 0.18 + 0.72 * share
    channels = [int(_ACCENT[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - c) * part):02x}" for c in channels)


def _axes(figure: Figure, *, left: float, right: float, bottom: float, top: float = 14) -> Axes:
    """Axes with margins in px."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )


def _short(text: str, length: int = 20) -> str:
    """On one line, and cut when it does not fit; the page has the whole title."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _room(texts: Iterable[str]) -> float:
    return 14 + 6.6 * max((len(_short(text)) for text in texts), default=0)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure of the report, drawn in a fixed style, whatever the caller's matplotlib is set to.

    Attributes:
        title: Its heading.
        says: What it shows.
        alternative: Its numbers in words, for who cannot see it.
        height: In px.
        draw: Draws it.
        width: In px; a wide figure has a row of its own.
    """

    title: str
    says: str
    alternative: str
    height: float
    draw: Callable[[Figure], None]
    width: float = _WIDTH

    @property
    def is_wide(self) -> bool:
        """Whether it needs a row of its own."""
        return self.width > _WIDTH

    @property
    def svg(self) -> Markup:
        """Inline SVG; its text is the page's own typeface."""
        svg = self._saved("svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
        text = svg.decode()
        text = text[text.index("<svg") :]
        text = re.sub(r'<g id="[^"]*"', "<g", text)  # figures in one page would repeat them
        text = re.sub(r' (width|height)="[0-9.]+pt"', "", text, count=2)
        label = escape(f"{self.title}. {self.alternative}")
        # Made by matplotlib, which escapes the texts that it draws.
        return Markup(  # noqa: S704
            text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        )

    @property
    def png(self) -> bytes:
        """The same as pixels, 216 to the inch."""
        return self._saved("png", metadata={"Software": None}, dpi=216)

    def _saved(self, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        with matplotlib.rc_context(), warnings.catch_warnings():
            # Text is drawn by the browser; matplotlib's font only measures it.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            matplotlib.rcdefaults()
            matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": self.title})
            figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
            self.draw(figure)
            figure.savefig(file, format=kind, transparent=kind == "svg", **options)
        return file.getvalue()


def release_drawing(release: Release | None) -> Drawing | None:
    """ROC curves of the attacks of a leakage test; None where none found anything to draw."""
    if release is None or all(site.leakage is None for site in release.sites.values()):
        return None
    rows = {site.title: (site.leakage, site.limits) for site in release.sites.values()}
    blocks = -(-len(rows) // COLUMNS)
    return Drawing(
        "What attacks find of the training images",
        "Share of members found, at each share of hold-outs taken for members; a guess lies on the "
        "dashed line. Triangles are the hospitals' limits.",
        release.sentence,
        270 * blocks,
        lambda figure: draw_release(figure, rows),
        width=max(_WIDTH, min(len(rows), COLUMNS) * _WIDTH * 2 / COLUMNS),
    )


def evaluation_drawing(rows: Mapping[str, Measures], model: str) -> Drawing | None:
    """ROC curves and reliability diagrams of a model; None where nothing was measured."""
    if all(measures.images is None for measures in rows.values()):
        return None
    blocks = -(-len(rows) // COLUMNS)
    ends = [f"{title}: AUC {measures.auc}" for title, measures in rows.items()]
    return Drawing(
        f"How well “{model}” does",
        "Above, ROC curves; a dot is the operating point. Below, what was predicted against what "
        "was; larger dots stand for more images.",
        "; ".join(ends),
        420 * blocks,
        lambda figure: draw_evaluation(figure, rows),
        width=max(_WIDTH, min(len(rows), COLUMNS) * _WIDTH * 2 / COLUMNS),
    )
