"""Who can decide what, and the reason that is said where they cannot."""

from __future__ import annotations

import pytest

from datasites.page.choices import choices, waits_for
from datasites.people import Role
from datasites.request_states import RequestState, Verb
from tests.page.sheets import finding, sheet, summary

OWNER = "owner@st-marys.example"
POSSIBLE = {
    "pending": {"approve", "changes", "deny"},
    "partly approved": {"approve", "changes", "deny"},
    "changes requested": {"deny"},
    "approved": {"revoke"},
    "denied": set(),
    "withdrawn": set(),
    "expired": set(),
    "revoked": set(),
}


@pytest.mark.parametrize("state", list(RequestState))
def test_buttons_follow_the_state(state) -> None:
    offered = choices(sheet(state=state), OWNER, Role.OWNER)
    assert [c.verb for c in offered] == [Verb.APPROVE, Verb.CHANGES, Verb.DENY, Verb.REVOKE]
    assert {c.verb for c in offered if not c.why_not} == POSSIBLE[state]
    assert {c.why_not for c in offered} <= {"", f"it is {state}"}


def test_who_decides_nothing_is_offered_nothing() -> None:
    assert choices(sheet(), "cleo@st-marys.example", Role.COMPLIANCE) == []


@pytest.mark.parametrize(
    ("changes", "why_not"),
    [
        ({}, ""),
        ({"findings": [finding("runs.maximum", "refuse", "20", "12")]},
         "the policy refuses it (runs.maximum)"),
        ({"findings": [finding("job.flow", "warn", "x", "y")]}, ""),
        ({"researcher": OWNER.upper()}, "you wrote it; another person decides"),
        ({"state": "partly approved", "agreed": [{"person": OWNER}]},
         "you agreed already; another person has to"),
        ({"state": "partly approved", "agreed": [{"person": "ben@st-marys.example"}]}, ""),
        ({"state": "approved", "stopped": True}, ""),
        ({"state": "approved", "stopped": False}, "it is approved"),
    ],
)  # fmt: skip
def test_approving_is_offered_or_the_reason_said(changes, why_not) -> None:
    assert choices(sheet(**changes), OWNER, Role.OWNER)[0].why_not == why_not


def test_an_approval_that_stopped_is_confirmed() -> None:
    stopped = choices(sheet(state="approved", stopped=True), OWNER, Role.OWNER)
    assert stopped[0].label == "Confirm approval"


@pytest.mark.parametrize(
    ("changes", "role", "waits"),
    [
        ({}, Role.OWNER, True),
        ({}, Role.SECOND, True),
        ({}, Role.COMPLIANCE, False),
        ({"researcher": OWNER}, Role.OWNER, False),
        ({"state": "partly approved", "agreed": [{"person": OWNER}]}, Role.OWNER, False),
        ({"state": "partly approved", "agreed": [{"person": "ben@x.example"}]}, Role.OWNER, True),
        ({"state": "changes requested"}, Role.OWNER, False),
        ({"state": "approved"}, Role.OWNER, False),
        ({"state": "approved", "stopped": True}, Role.OWNER, True),
        ({"state": "denied"}, Role.OWNER, False),
    ],
)
def test_queue_knows_whom_a_request_waits_for(changes, role, waits) -> None:
    assert waits_for(summary(**changes), OWNER, role) is waits
