"""A site dies, or its disk is full, at every durable step of a person's decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import factories
from tests.faults.durable_steps import Fault
from tests.faults.hospital_acts import decide, make, start_again
from tests.faults.site_processes import Act, SiteProcesses
from tests.faults.states import copy_of

VERBS = {
    "approve": ("request approved", "pending", "approved"),
    "deny": ("request denied", "pending", "denied"),
    "changes": ("changes requested", "pending", "changes requested"),
    "revoke": ("request revoked", "approved", "revoked"),
    "withdraw": ("request withdrawn", "approved", "withdrawn"),
    "expire": ("request expired", "approved", "expired"),
}
"""Decision -> its event, and the state of the request before and after it."""
SIGNED = ("approve", "deny", "changes", "revoke")
"""Decisions of the hospital's people: each is a signed document."""
TRIED = (Fault.KILLED_BEFORE, Fault.KILLED_HALFWAY, Fault.FULL)


@pytest.mark.parametrize("verb", VERBS)
def test_a_decision_is_made_once_or_not_at_all_whatever_step_goes_wrong(
    verb: str, processes: SiteProcesses, tmp_path: Path, tried: Callable[[int], None]
) -> None:
    event, before, after = VERBS[verb]
    number, code = make(tmp_path / "made", factories.DOUBLE_JOB, approved=before == "approved")
    subject, asked = f"R-{number}", {"code": code}
    setting = {"number": number, "verb": verb}
    done, steps = processes.do(Act(decide, copy_of(tmp_path / "made"), setting)).told
    assert done == "done"
    wrong: list[str] = []
    faults = [
        (fault, at)
        for fault in TRIED
        for at, step in enumerate(steps)
        if fault is not Fault.KILLED_HALFWAY or step.startswith("write")
    ]
    for fault, at in faults:
        site = copy_of(tmp_path / "made")
        during = processes.do(Act(decide, site, setting, fault, at)).told
        said = [told for told in during if isinstance(told, str)]
        _, crashed, mended = processes.do(Act(start_again, site, {**asked, "asked": False})).told
        again = processes.do(Act(decide, site, setting)).told[0]
        *_, ran, _, last = processes.do(Act(start_again, site, asked)).told
        made = crashed.of(subject).count(event)
        documents = len(mended.decisions) - (before == "approved")
        problems = []
        if made > 1 or (made == 0 and "done" in said):
            problems.append(f"logged {made} times, and {said} was said")
        if mended.requests[number] != (after if made else before):
            problems.append(f"logged {made} times, and is {mended.requests[number]}")
        if documents != (made if verb in SIGNED else 0):
            problems.append(f"logged {made} times, and {documents} documents are kept")
        if len(mended.approvals) != (made if verb == "approve" else before == "approved"):
            problems.append(f"logged {made} times, {len(mended.approvals)} approvals are kept")
        if again != "done" and f"{subject} is {after}" not in again and verb != "expire":
            problems.append(f"decided again, the answer is {again!r}")
        if last.of(subject).count(event) != 1 or last.requests[number] != after:
            problems.append(f"ended {last.requests[number]}, with {last.of(subject)}")
        if bool(ran.sha256) != (verb == "approve") or bool(ran.words) == (verb == "approve"):
            problems.append(f"a run was answered {ran}")
        if not last.intact:
            problems.append("the log does not verify")
        if last.under_decision:
            problems.append(f"left lying: {last.under_decision}")
        wrong += [f"{fault} (step {at}, {steps[at]}): {problem}" for problem in problems]
    tried(len(faults))
    assert len(faults) >= 8
    assert not wrong, "\n".join(wrong)
