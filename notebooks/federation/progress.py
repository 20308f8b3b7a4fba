"""What a researcher sees while rounds run: in a notebook, in a terminal, in a plain log.

A notebook has a bar over the rounds, a line per site and curves that grow. A terminal has the bar
and the lines, of which nothing is left at the end but the bar. A file or a pipe gets one line per
round. All of it goes to stderr; what is said about missing sites stands there at the end.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from federation.curves import curves

if TYPE_CHECKING:
    from federation.rounds_result import RoundsResult

REDRAW_S = 0.3
"""The lines of the sites are drawn again after so many seconds at the earliest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rounds are to run.

    Attributes:
        first: Number of the first round.
        done: Number of the last round that is over already; one less than the first if none is.
        last: Number of the last round.
        titles: Site -> its title.
    """

    first: int
    done: int
    last: int
    titles: Mapping[str, str]


class Progress:
    """Somebody who is told how rounds go on, from one thread only; this one shows nothing."""

    def show_sites(self, number: int, doing: Mapping[str, str]) -> None:
        """Show what each site is doing in a round, in words."""

    def show_round(self, number: int, result: RoundsResult) -> None:
        """Show that a round is over."""

    def close(self, said: str) -> None:
        """End, with a sentence about the rounds if it is not empty."""


def progress_for(plan: Plan, shown: bool) -> Progress:
    """The form that fits the place where this runs."""
    if not shown:
        return Progress()
    if in_notebook():
        return InNotebook(plan)
    return InTerminal(plan) if sys.stderr.isatty() else InLog(plan)


def in_notebook() -> bool:
    """Whether a kernel of a notebook runs this; IPython is not imported to find out."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


class InLog(Progress):
    """One line per round, without control characters."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._began = plan, time.monotonic()
        self._round_began = self._began

    def show_round(self, number: int, result: RoundsResult) -> None:
        """Write the round's line."""
        now = time.monotonic()
        took, self._round_began = now - self._round_began, now
        left = (now - self._began) / (number - self._plan.done) * (self._plan.last - number)
        missing = "; ".join(
            f"{self._plan.titles[r.site]} is missing ({r.cause})"
            for r in result.history.missing
            if r.round == number
        )
        told = ", ".join(f"{name} {value}" for name, value in figures(number, result).items())
        time_left = f", about {duration(left)} left" if number < self._plan.last else ""
        _say(
            f"round {number} of {self._plan.last}: {told}, {took:.1f} s{time_left}"
            + (f"; {missing}" if missing else "")
        )

    def close(self, said: str) -> None:
        """Write the sentence."""
        if said:
            _say(said)


class InTerminal(Progress):
    """A bar over the rounds and a line per site; the lines are gone at the end."""

    def __init__(self, plan: Plan) -> None:
        width = max((len(title) for title in plan.titles.values()), default=0)
        self._titles = {name: f"{title:<{width}}" for name, title in plan.titles.items()}
        with whole_lines():
            self._bar = _bar(plan)
            self._lines = {
                name: tqdm(
                    total=0, desc=f"  {title}", bar_format="{desc}", position=k, leave=False,
                    dynamic_ncols=True,
                )
                for k, (name, title) in enumerate(self._titles.items(), 1)
            }  # fmt: skip
        self._drawn_at = 0.0

    def show_sites(self, number: int, doing: Mapping[str, str]) -> None:
        """Draw the lines of the sites that say something new."""
        now = time.monotonic()
        if now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = now
        with whole_lines():
            self._bar.refresh()  # the seconds go on within a round too
            for name, words in doing.items():
                told = f"  {self._titles[name]}  {words}"
                if self._lines[name].desc != told:
                    self._lines[name].set_description_str(told)

    def show_round(self, number: int, result: RoundsResult) -> None:
        """Move the bar on, and draw what the round came to."""
        with whole_lines():
            self._bar.update()
            self._bar.set_postfix(figures(number, result))

    def close(self, said: str) -> None:
        """Take the lines away and leave the bar."""
        with whole_lines():
            for line in reversed(self._lines.values()):
                line.close()
            self._bar.close()
        if said:
            _say(said)


@contextmanager
def whole_lines() -> Iterator[None]:
    """Let Ctrl-C wait until lines are drawn: half of one would leave the cursor elsewhere."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        before(*pressed[0])


class InNotebook(Progress):
    """The bar of a notebook, and under it a line per site and curves that grow."""

    def __init__(self, plan: Plan) -> None:
        display: Any = import_module("IPython.display")  # a kernel has loaded it

        self._plan, self._html = plan, display.HTML
        self._bar = _bar(plan)
        self._curves, self._sites = "", ""
        self._handle: Any = display.display(self._html(""), display_id=True)
        self._drawn_at = 0.0

    def show_sites(self, number: int, doing: Mapping[str, str]) -> None:
        """Draw the lines of the sites."""
        self._sites = self._lines(number, doing)
        if time.monotonic() - self._drawn_at >= REDRAW_S:
            self._bar.refresh()
            self._draw("")

    def show_round(self, number: int, result: RoundsResult) -> None:
        """Move the bar on, and draw what the round came to."""
        self._bar.update()
        self._bar.set_postfix(figures(number, result))
        over = {
            r.site: "sent" if r.state == "contributed" else f"missing: {r.cause}"
            for r in result.history
            if r.round == number
        }
        self._sites = self._lines(number, over)
        self._curves = curves(
            result.history,
            {n: measured.auc for n, measured in result.measured.items()},
            min(result.history.first, self._plan.first),
            self._plan.last,
        )

    def close(self, said: str) -> None:
        """Leave the bar, the curves and the lines, as they are at the end."""
        self._bar.close()
        self._draw(said)

    def _lines(self, number: int, doing: Mapping[str, str]) -> str:
        rows = "".join(
            f'<tr><td style="text-align: left">{escape(self._plan.titles[name])}</td>'
            f'<td style="text-align: left{_colour(words)}">{escape(words)}</td></tr>'
            for name, words in doing.items()
        )
        return f"<table><caption>round {number}</caption>{rows}</table>"

    def _draw(self, said: str) -> None:
        self._drawn_at = time.monotonic()
        sentence = f'<p style="{_colour("missing")[2:]}">{escape(said)}</p>' if said else ""
        self._handle.update(self._html(f"<div>{self._curves}</div>{self._sites}{sentence}"))


def figures(number: int, result: RoundsResult) -> dict[str, str]:
    """What a round came to, for its line: `loss`, `AUC`."""
    found = {"loss": f"{result.history.mean_loss()[number]:.3f}"}
    if number in result.measured:
        auc = result.measured[number].auc.get("all", float("nan"))
        found["AUC"] = "not measured" if auc != auc else f"{auc:.3f}"
    return found


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _bar(plan: Plan) -> Any:
    return tqdm(
        total=plan.last - plan.first + 1, initial=plan.done - plan.first + 1, desc="rounds",
        unit="round", dynamic_ncols=True,
    )  # fmt: skip


def _colour(words: str) -> str:
    return "; color: #9c2f1f" if words.startswith("missing") else ""


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
