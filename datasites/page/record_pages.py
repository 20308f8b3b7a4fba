"""What stands at the site: approvals, datasets, the policy, people, and the audit log."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from datasites.audit_events import Event
from datasites.page.rendering import render
from datasites.page.visitor import Person
from datasites.people import Role
from datasites.request_states import RequestState

SHOWN_AT_ONCE = (50, 200, 1000, 2000)
LONGEST_FILTER = 200

router = APIRouter()


@router.get("/approvals")
def approvals(who: Person) -> Response:
    """What may run now, what of it is used, and until when."""
    rows = [r for r in who.control.requests() if r["state"] == RequestState.APPROVED]
    return render("approvals.html", who=who, rows=rows)


@router.get("/datasets")
def datasets(who: Person) -> Response:
    """Every version that was published, the newest first."""
    return render("datasets.html", who=who, versions=who.control.datasets()[::-1])


@router.get("/policy")
def policy(who: Person) -> Response:
    """The policy in force in sentences, its text, and its history."""
    return render("policy.html", who=who, policy=who.control.policy())


@router.get("/people")
def people(who: Person) -> Response:
    """Who has an account at the hospital's side, and what each may do."""
    meanings = {role.value: role.meaning for role in Role}
    return render("people.html", who=who, people=who.control.people(), meanings=meanings)


@router.get("/audit")
def audit(
    who: Person, subject: str = "", event: str = "", actor: str = "", text: str = "", last: int = 50
) -> Response:
    """The audit log, newest first, and whether it verifies."""
    wanted = {"subject": subject, "event": event, "actor": actor, "text": text}
    wanted = {name: value.strip()[:LONGEST_FILTER] for name, value in wanted.items()}
    shown = min(SHOWN_AT_ONCE, key=lambda number: abs(number - last))
    found = who.control.audit(**wanted, last=shown)
    return render(
        "audit.html",
        who=who,
        found=found,
        events=[_told(line) for line in reversed(found["events"])],
        kinds=[kind.value for kind in Event],
        wanted=wanted,
        shown=shown,
        steps=SHOWN_AT_ONCE,
    )


def _told(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log with the number of the request that it is about, 0 for none."""
    digits = line["subject"].removeprefix("R-").partition("/")[0]
    is_request = line["subject"].startswith("R-") and digits.isdecimal() and digits.isascii()
    return line | {"request": int(digits) if is_request and len(digits) < 10 else 0}
