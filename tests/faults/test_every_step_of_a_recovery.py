"""A site dies at a step of a run, and again at every step of the start after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import factories
from tests.faults.durable_steps import Fault
from tests.faults.hospital_acts import Seen, call, make, start_again
from tests.faults.site_processes import Act, SiteProcesses
from tests.faults.states import copy_of

RUN = "R-1/1/1"


def moments(steps: list[str]) -> dict[str, tuple[Fault, int]]:
    """Where the site dies first: the four states in which a start finds a run."""
    logged = [at for at, step in enumerate(steps) if step == "write audit.jsonl"]
    commits = [at for at, step in enumerate(steps) if step == "commit site.db"]
    return {
        "charged": (Fault.KILLED_BEFORE, logged[0]),
        "half a line in the log": (Fault.KILLED_HALFWAY, logged[0]),
        "started": (Fault.KILLED_BEFORE, logged[1]),
        "half the end in the log": (Fault.KILLED_HALFWAY, logged[1]),
        "ended in the log": (Fault.KILLED_BEFORE, commits[-1]),
    }


STORIES = {
    "charged": ("not_started", []),
    "half a line in the log": ("not_started", []),
    "started": ("interrupted", ["run started", "run interrupted"]),
    "half the end in the log": ("interrupted", ["run started", "run interrupted"]),
    "ended in the log": ("settled", ["run started", "update released"]),
}
"""What a start makes of each state, and what the log then tells of the run."""

STEPS = {
    Fault.KILLED_BEFORE: "",
    Fault.KILLED_HALFWAY: "write",
    Fault.FULL: ("make", "write", "fsync", "commit"),
}
"""Steps that a fault can fall on; a full disk lets files be deleted and cut."""


@pytest.mark.parametrize("moment", STORIES)
@pytest.mark.parametrize("fault", STEPS)
def test_a_start_that_fails_at_any_step_is_made_good_by_the_next(
    moment: str,
    fault: Fault,
    processes: SiteProcesses,
    tmp_path: Path,
    tried: Callable[[int], None],
) -> None:
    _, code = make(tmp_path / "made", factories.DOUBLE_JOB)
    steps = processes.do(Act(call, copy_of(tmp_path / "made"), {"code": code})).told[1]
    crashed = copy_of(tmp_path / "made", "crashed")
    processes.do(Act(call, crashed, {"code": code}, *moments(steps)[moment]))
    fate, story = STORIES[moment]

    look = {"code": code, "asked": False}
    undisturbed = processes.do(Act(start_again, copy_of(crashed), look, from_opening=True)).told
    assert undisturbed[1].of(RUN) == story
    assert undisturbed[1].of("st-marys")[-1] == "site recovered"
    wrong: list[str] = []
    faults = [at for at, step in enumerate(undisturbed[0]) if step.startswith(STEPS[fault])]
    for at in faults:
        site = copy_of(crashed)
        ended = processes.do(Act(start_again, site, look, fault, at, from_opening=True))
        again = processes.do(Act(start_again, site, {"code": code}))
        _, before, _, first, second, after = again.told
        problems = []
        if ended.signal == 0 and not str(ended.told[0]).startswith("refused: the "):
            problems.append(f"the site started all the same, or said {ended.told[:1]}")
        if before.of(RUN) != story:
            problems.append(f"the log tells {before.of(RUN)}")
        if not after.intact:
            problems.append("the log does not verify")
        if len({first.sha256, second.sha256}) != 1 or not first.sha256:
            problems.append(f"asked for again, it is answered {first}, {second}")
        if after.runs[RUN][0] != "released" or len(after.runs) != 1:
            problems.append(f"charged as {after.runs}")
        if (count := after.of(RUN).count("update released")) != 1:
            problems.append(f"released {count} times")
        if not _is_told(before, fate):
            problems.append("no event says what the site did at its start")
        if after.results != ["R-1_1_1.outcome"]:
            problems.append(f"files of outcomes: {after.results}")
        wrong += [f"{fault} (step {at}, {undisturbed[0][at]}): {p}" for p in problems]
    tried(len(faults))
    assert len(faults) >= 1
    assert not wrong, "\n".join(wrong)


def _is_told(seen: Seen, fate: str) -> bool:
    """Whether some start said what became of the run."""
    return any(RUN in told.get(f"runs_{fate}", ()) for told in seen.recoveries)
