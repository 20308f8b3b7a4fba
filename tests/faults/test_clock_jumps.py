"""The site's clock jumps in the middle of a run, forwards past its approval's end, or backwards."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import datasites.runs
import factories
from datasites.carrying_out import carry_out
from datasites.config import Site
from datasites.ledger import Outcome
from datasites.open_site import OpenSite
from datasites.recovery import recover
from tests.faults.durable_steps import Steps
from tests.faults.hospital_acts import Tell, ask, look, make
from tests.faults.site_processes import Act, SiteProcesses
from tests.faults.states import copy_of

RUN = "R-1/1/1"


REAL = datetime.datetime


def ask_while_the_clock_jumps(
    site: Site, steps: Steps, tell: Tell, *, code: str, within: float, after: float
) -> None:
    """Ask for a run, for the same run again and for the next; the clock is off by so many days."""
    opened = OpenSite(site)
    recover(opened)

    def show(days: float) -> None:
        off = datetime.timedelta(days=days)

        class Off(REAL):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return REAL.now(tz) + off

        datetime.datetime = Off  # type: ignore[misc]

    def jump_and_carry_out(*arguments: Any) -> Outcome:
        show(within)
        return carry_out(*arguments)

    datasites.runs.carry_out = jump_and_carry_out
    tell(ask(opened, code, 1))
    show(after)
    tell(ask(opened, code, 1))
    tell(ask(opened, code, 2))
    opened.close()
    tell(look(site))


@pytest.mark.parametrize("within", [0.01, 1.0, 31.0, -0.01, -1.0, -400.0])
@pytest.mark.parametrize("after", [0.0, 31.0, -400.0])
def test_a_run_is_finished_or_refused_and_told_once_when_the_clock_jumps(
    within: float,
    after: float,
    processes: SiteProcesses,
    tmp_path: Path,
    tried: Callable[[int], None],
) -> None:
    """An approval is for 30 days: with `after` it is over for the next call, not for the run."""
    _, code = make(tmp_path / "made", factories.DOUBLE_JOB)
    jumps = {"code": code, "within": within, "after": after}
    first, again, following, seen = processes.do(
        Act(ask_while_the_clock_jumps, copy_of(tmp_path / "made"), jumps)
    ).told
    assert first.sha256
    for answer in (again, following):
        assert bool(answer.sha256) != bool(answer.words)
        assert answer.sha256 in ("", first.sha256)
        assert after <= 30 or answer.words.startswith("approval.expired: ")
    told = [event for event in seen.of(RUN) if event != "update repeated"]
    assert told[:2] == ["run started", "update released"]
    assert set(told[2:]) <= {"run refused"}
    assert list(seen.runs) == [RUN, "R-1/2/1"][: len(seen.runs)]
    assert seen.runs[RUN] == ("released", 1)
    assert seen.intact
    tried(1)
