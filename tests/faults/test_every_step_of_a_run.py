"""A site dies, or its disk is full, before, in and after every durable step of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import factories
from tests.faults.durable_steps import Fault
from tests.faults.hospital_acts import Answer, Seen, call, make, start_again
from tests.faults.site_processes import Act, SiteProcesses
from tests.faults.states import copy_of

ENDS = ("update released", "update refused", "run failed")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of run.

    Attributes:
        text: The job.
        end: The event that ends it.
        least: Faults that are tried on it at least.
        round: Its round; those before it were run.
        made: More arguments of `make`.
        called: More arguments of `call`.
        faults: What is tried at each step.
    """

    text: str
    end: str
    least: int
    round: int = 1
    made: dict[str, Any] = field(default_factory=dict)
    called: dict[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = (Fault.KILLED_BEFORE, Fault.FULL, Fault.FULL_FROM_THEN_ON)


FAILS = "# Fails.\ndef train(data, weights, config):\n    return 1 / 0\n"
TELLS_MORE = factories.DOUBLE_JOB.replace('"examples"', '"more": 1, "examples"')

KINDS = {
    "released": Kind(factories.DOUBLE_JOB, "update released", 45, faults=tuple(Fault)),
    "released in a later round": Kind(
        factories.DOUBLE_JOB, "update released", 20, 3, faults=(Fault.KILLED_AFTER, Fault.FULL)
    ),
    "refused": Kind(TELLS_MORE, "update refused", 30),
    "failed": Kind(FAILS, "run failed", 30),
    "released when the log is signed": Kind(
        factories.DOUBLE_JOB, "update released", 45, made={"nearly_signed": True}
    ),
    "released when the log is put aside": Kind(
        factories.DOUBLE_JOB, "update released", 50, called={"rotate": True},
        faults=(Fault.KILLED_BEFORE, Fault.FULL),
    ),
}  # fmt: skip


def test_faults_of_runs_are_two_hundred_at_least() -> None:
    """Each kind of run asserts its part of them; other files of this folder try as many again."""
    assert sum(kind.least for kind in KINDS.values()) >= 200


@pytest.mark.parametrize("name", KINDS)
def test_a_run_is_finished_or_refused_whatever_step_goes_wrong(
    name: str, processes: SiteProcesses, tmp_path: Path, tried: Callable[[int], None]
) -> None:
    kind = KINDS[name]
    number, code = make(tmp_path / "made", kind.text, **kind.made)
    for earlier in range(1, kind.round):
        processes.do(Act(call, tmp_path / "made" / "site", {"code": code, "round": earlier}))
    run = f"R-{number}/{kind.round}/1"
    asked = {"code": code, "round": kind.round}
    setting = {**asked, **kind.called}
    site = copy_of(tmp_path / "made")
    told = processes.do(Act(call, site, setting)).told
    undisturbed: Answer = told[0]
    steps: list[str] = told[1]
    wrong: list[str] = []
    faults = [
        (fault, at)
        for fault in kind.faults
        for at, step in enumerate(steps)
        if "WAY" not in fault.name or step.startswith("write")
    ]
    for fault, at in faults:
        site = copy_of(tmp_path / "made")
        during = processes.do(Act(call, site, setting, fault, at)).told
        again = processes.do(Act(start_again, site, asked)).told
        problems = _problems(run, kind, undisturbed, during, again)
        wrong += [f"{fault} (step {at}, {steps[at]}): {problem}" for problem in problems]
    tried(len(faults))
    assert len(faults) >= kind.least, steps
    assert not wrong, "\n".join(wrong)


def _problems(
    run: str, kind: Kind, undisturbed: Answer, during: list[Any], afterwards: list[Any]
) -> list[str]:
    """What is not as it has to be, in words."""
    answers = [told for told in during if isinstance(told, Answer)]
    _, before, outcome, again, once_more, after = afterwards
    problems = _problems_of_the_log(run, kind, before, after)
    request = int(run.split("/")[0].removeprefix("R-"))
    if before.requests != {request: "approved"} or len(before.approvals) != 1:
        problems.append(f"approvals are {before.requests}, {len(before.approvals)} documents")
    if (after.approvals, after.decisions) != (before.approvals, before.decisions):
        problems.append("approvals or decisions changed")
    for answer in (*answers, again, once_more):
        if answer.sha256 and answer.sha256 != undisturbed.sha256:
            problems.append("another update left")
        if not answer.sha256 and not answer.words:
            problems.append(f"neither an update nor a sentence: {answer}")
    for answer in (again, once_more):
        if (answer.sha256, answer.words) != (undisturbed.sha256, undisturbed.words):
            problems.append(f"asked for again, it is answered {answer}")
    if any(a.sha256 for a in answers) and "update released" not in before.of(run):
        problems.append("an update left without its event")
    if outcome.state not in ("unknown", "released") and outcome.words != undisturbed.words:
        problems.append(f"its outcome was told as {outcome}")
    if after.runs[run][0] not in ("released", "refused", "failed"):
        problems.append(f"it is charged as {after.runs[run]}")
    kept = [f"{run.replace('/', '_')}.outcome"] if undisturbed.sha256 else []
    if after.results != kept:
        problems.append(f"files of outcomes: {after.results}")
    return problems


def _problems_of_the_log(run: str, kind: Kind, before: Seen, after: Seen) -> list[str]:
    problems = []
    if not (before.intact and after.intact):
        problems.append("the log does not verify")
    of_run = after.of(run)
    ends = [event for event in of_run if event in ENDS]
    if ends != [kind.end]:
        problems.append(f"ended with {ends}")
    open_starts = of_run.count("run started") - of_run.count("run interrupted")
    if open_starts != 1:
        problems.append(f"{open_starts} starts without an end or interruption: {of_run}")
    if of_run.index("run started") > of_run.index(kind.end):
        problems.append("ended before it started")
    if list(after.runs).count(run) != 1 or after.runs[run][1] > 2:
        problems.append(f"charged as {after.runs}")
    return problems
