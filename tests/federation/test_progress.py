"""What is seen of rounds: in a log, on the screen of a terminal, and in a notebook."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import federation.progress
from federation.history import History, Measured, SiteRound
from federation.progress import InLog, InTerminal, Plan, Progress, duration
from federation.rounds_result import RoundsResult
from terminals import screen

PLAN = Plan(1, 0, 3, {"st-marys": "St Mary's", "seaside": "Seaside <clinic>"})


def after(rounds: int) -> RoundsResult:
    """Seaside is missing in round 2; the AUC could not be measured in it."""
    records = []
    for number in range(1, rounds + 1):
        records.append(
            SiteRound(number, "st-marys", "contributed", examples=100, loss=0.5 / number)
        )
        if number == 2:
            records.append(
                SiteRound(number, "seaside", "missing", "closed & dark", cause="no answer")
            )
        else:
            records.append(
                SiteRound(number, "seaside", "contributed", examples=100, loss=0.7 / number)
            )
    measured = {n: Measured({"all": 0.9, "st-marys": 0.8}) for n in range(1, rounds + 1)}
    if rounds >= 2:
        measured[2] = Measured({"all": float("nan")}, "no")
    return RoundsResult({}, History(records), measured=measured)


def play(shown: Progress) -> None:
    for number in (1, 2, 3):
        shown.show_sites(number, {"st-marys": "training 0 s", "seaside": "training 0 s"})
        shown.show_sites(number, {"st-marys": "sent", "seaside": "missing: no answer"})
        shown.show_round(number, after(number))
    shown.close(after(3).sentence)


def test_a_log_has_a_line_per_round_and_one_for_who_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    play(InLog(PLAN))
    out, told = capsys.readouterr()
    assert out == ""
    lines = [re.sub(r"\d+\.\d s", "T", line) for line in told.splitlines()]
    assert lines == [
        "round 1 of 3: loss 0.600, AUC 0.900, T, about 0 s left",
        "round 2 of 3: loss 0.250, AUC not measured, T, about 0 s left; "
        "Seaside <clinic> is missing (no answer)",
        "round 3 of 3: loss 0.200, AUC 0.900, T",
        "Not every site contributed to the 3 rounds: seaside is missing in round 2 (no answer). "
        "The AUC was not measured after round 2 (no).",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_bar_and_sites_and_keeps_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(federation.progress, "REDRAW_S", 0)
    shown = InTerminal(PLAN)
    shown.show_sites(1, {"st-marys": "training 12 s", "seaside": "waits for its turn"})
    shown.show_round(1, after(1))
    rows = screen(terminal.getvalue())
    assert rows[0].startswith("rounds:  33%")
    assert "loss=0.600, AUC=0.900" in rows[0]
    assert rows[1:3] == [
        "  St Mary's         training 12 s",
        "  Seaside <clinic>  waits for its turn",
    ]
    shown.show_sites(2, {"st-marys": "sent", "seaside": "missing: late"})
    assert "  Seaside <clinic>  missing: late" in screen(terminal.getvalue())
    shown.close("A sentence.")
    rows = [row for row in screen(terminal.getvalue()) if row]
    assert len(rows) == 2, rows
    assert rows[0].startswith("rounds:  33%")
    assert rows[1] == "A sentence."


class Interrupted(Terminal):
    """A terminal whose user presses Ctrl-C while the N-th piece is written to it."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.mark.parametrize("at", range(1, 16))
def test_ctrl_c_while_lines_are_drawn_leaves_none_of_them(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    terminal = Interrupted(at=10**9)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(federation.progress, "REDRAW_S", 0)
    shown = InTerminal(PLAN)
    terminal.left = at

    def train() -> None:
        for second in range(9):
            shown.show_sites(1, dict.fromkeys(PLAN.titles, f"training {second} s"))

    with pytest.raises(KeyboardInterrupt):
        train()
    shown.close("")
    rows = [row for row in screen(terminal.getvalue()) if row]
    assert len(rows) == 1, rows
    assert rows[0].startswith("rounds:   0%")


def test_where_it_runs_decides_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert type(federation.progress.progress_for(PLAN, False)) is Progress
    assert type(federation.progress.progress_for(PLAN, True)) is InLog
    monkeypatch.setattr(sys, "stderr", Terminal())
    federation.progress.progress_for(PLAN, True).close("")
    assert "rounds" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    notebook = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    assert federation.progress.in_notebook()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (7500, "2 h 5 min")],
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_lines_are_not_drawn_again_too_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(federation.progress, "REDRAW_S", 60)
    shown = InTerminal(PLAN)
    shown.show_sites(1, {"st-marys": "first", "seaside": "first"})
    shown.show_sites(1, {"st-marys": "second", "seaside": "second"})
    assert "first" in terminal.getvalue()
    assert "second" not in terminal.getvalue()
    shown.close("")


SHELL = '''
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.displaypub import CapturingDisplayPublisher

shell = InteractiveShell.instance(colors="NoColor")
shell.display_pub = CapturingDisplayPublisher(shell=shell)
shell.kernel = object()
shell.run_cell("""
import federation, sys
sys.path.insert(0, "tests/federation")
import test_progress
from federation.progress import in_notebook, progress_for
assert in_notebook()
test_progress.play(progress_for(test_progress.PLAN, True))
""").raise_error()
shell.run_cell("federation.connect({'sites': []}, email='rita@uni.example', password='x')")
shell.run_cell("federation.connect('nowhere.yaml', email='rita@uni.example', password='x')")
shell.run_cell(
    "raise federation.StoppedError(2, 10, test_progress.after(2), 'folder')"
)
json.dump([o["data"] for o in shell.display_pub.outputs], open(sys.argv[1], "w"))
'''


def test_a_notebook_has_curves_that_grow_and_sentences_for_errors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHELL, str(tmp_path / "shown.json")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
             "IPYTHONDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert told.splitlines() == [
        "FederationError: the roster names no site; it is a YAML file with `sites:`, a list of "
        "`name`, `url` and `authority`",
        "FederationError: the roster nowhere.yaml cannot be read (No such file or directory); it "
        "is a YAML file with `sites:`, a list of `name`, `url` and `authority`",
        "StoppedError: you stopped in round 3 of 10; what was before is saved in folder. Make the "
        "same call again to go on with round 3; a site that has trained for it answers with the "
        "same update, free of charge",
    ]
    pages = [data["text/html"] for data in json.loads((tmp_path / "shown.json").read_text())]
    last = pages[-1]
    assert last.count("<svg") == 2
    assert "Training loss" in last
    assert "Seaside &lt;clinic&gt;" in last
    assert "Not every site contributed to the 3 rounds" in last
