"""What a person can decide about a request now, and why not where they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasites.control import needs_rehearsal
from datasites.people import Role
from datasites.request_states import DECIDABLE, RequestState, Verb
from policies.findings import Severity

LABELS = {
    Verb.APPROVE: "Approve",
    Verb.CHANGES: "Request changes",
    Verb.DENY: "Deny",
    Verb.REVOKE: "Revoke",
}
EFFECTS = {
    Verb.APPROVE: "The job may run here as asked for, once everyone who has to agree did so.",
    Verb.CHANGES: "The researcher reads your reason and your remarks, and submits a new text.",
    Verb.DENY: "The researcher reads your reason. Nothing runs; this cannot be taken back.",
    Verb.REVOKE: "Nothing more runs from this moment on. What left before is with the researcher; "
    "this cannot be taken back.",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One button.

    Attributes:
        verb: What it decides.
        label: What stands on it.
        why_not: Why it cannot be pressed; empty where it can.
    """

    verb: Verb
    label: str
    why_not: str


def choices(sheet: Mapping[str, Any], email: str, role: Role) -> list[Choice]:
    """The buttons of a sheet for one person; none for who decides nothing."""
    if not role.decides:
        return []
    label = dict(LABELS)
    if sheet["stopped"]:
        label[Verb.APPROVE] = "Confirm approval"
    return [Choice(verb, label[verb], _why_not(verb, sheet, email)) for verb in label]


def waits_for(summary: Mapping[str, Any], email: str, role: Role) -> bool:
    """Whether a request in a list waits for this person's decision."""
    if not role.decides or summary["researcher"].casefold() == email.casefold():
        return False
    if email in {agreed["person"] for agreed in summary["agreed"]}:
        return False
    if summary["stopped"]:
        return True
    return summary["state"] in (RequestState.PENDING, RequestState.PARTLY_APPROVED)


def _why_not(verb: Verb, sheet: Mapping[str, Any], email: str) -> str:
    state = RequestState(sheet["state"])
    confirms = verb is Verb.APPROVE and sheet["stopped"]
    if sheet["researcher"].casefold() == email.casefold():
        return "you wrote it; another person decides"
    if state not in DECIDABLE[verb] and not confirms:
        return f"it is {state}"
    if verb is not Verb.APPROVE:
        return ""
    rules = {f["rule"] for f in sheet["findings"] if f["severity"] == Severity.REFUSE}
    if rules:
        return f"the policy refuses it ({', '.join(sorted(rules))})"
    if needs_rehearsal(sheet):
        return "rehearse it first"
    if any(agreed["person"] == email for agreed in sheet["agreed"]):
        return "you agreed already; another person has to"
    return ""
