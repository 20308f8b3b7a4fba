"""The events of the audit log, and the record that is kept of one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from datasites.people import STRANGER

CONTENT_FIELDS = (
    "actor", "decision", "detail", "event", "objects", "reason",
    "role", "run", "salt", "subject", "time",
)  # fmt: skip
"""What is kept of every event, no more and no less, in the order in which canonical JSON has it."""


class Event(StrEnum):
    """What can happen at a site; the value is the word in the log."""

    SITE_CREATED = "site created"
    SITE_STARTED = "site started"
    SITE_STOPPED = "site stopped"
    SITE_RECOVERED = "site recovered"
    LOG_RECOVERED = "log recovered"
    LOG_ROTATED = "log rotated"
    LOG_COUNTERSIGNED = "log countersigned"
    POLICY_IN_FORCE = "policy in force"
    POLICY_CHANGED = "policy changed"
    ACCOUNT_CREATED = "account created"
    PERSON_CHANGED = "person changed"
    PASSWORD_CHANGED = "password changed"  # noqa: S105 (the name of an event)
    SANDBOX_PROVED = "sandbox proved"
    SANDBOX_FAILED = "sandbox failed"
    DATASET_PUBLISHED = "dataset published"
    DATASET_WITHDRAWN = "dataset withdrawn"
    LOGIN = "login"
    LOGIN_REFUSED = "login refused"
    SESSION_ENDED = "session ended"
    CALL_REFUSED = "call refused"
    ACT_REFUSED = "act refused"
    REQUEST_SUBMITTED = "request submitted"
    REQUEST_REFUSED = "request refused"
    REQUEST_REHEARSED = "request rehearsed"
    REQUEST_CONSENTED = "request consented"
    REQUEST_APPROVED = "request approved"
    APPROVAL_CONFIRMED = "approval confirmed"
    CHANGES_REQUESTED = "changes requested"
    REQUEST_DENIED = "request denied"
    REQUEST_REVOKED = "request revoked"
    REQUEST_WITHDRAWN = "request withdrawn"
    REQUEST_EXPIRED = "request expired"
    RUN_STARTED = "run started"
    RUN_REFUSED = "run refused"
    RUN_FAILED = "run failed"
    RUN_INTERRUPTED = "run interrupted"
    UPDATE_RELEASED = "update released"
    UPDATE_REPEATED = "update repeated"
    UPDATE_REFUSED = "update refused"
    EVIDENCE_EXPORTED = "evidence exported"
    CHECKPOINT = "checkpoint"


DECISIONS = {
    Event.LOGIN_REFUSED: "refused",
    Event.CALL_REFUSED: "refused",
    Event.ACT_REFUSED: "refused",
    Event.REQUEST_REFUSED: "refused",
    Event.REQUEST_CONSENTED: "consented",
    Event.REQUEST_APPROVED: "approved",
    Event.APPROVAL_CONFIRMED: "confirmed",
    Event.CHANGES_REQUESTED: "changes requested",
    Event.REQUEST_DENIED: "denied",
    Event.REQUEST_REVOKED: "revoked",
    Event.RUN_REFUSED: "refused",
    Event.UPDATE_RELEASED: "released",
    Event.UPDATE_REPEATED: "released",
    Event.UPDATE_REFUSED: "refused",
}
"""Events that are decisions in themselves, of a person or of a rule."""


def event_content(
    event: Event,
    actor: str,
    subject: str,
    time: str,
    *,
    role: str | None = None,
    run: str = "",
    decision: str = "",
    reason: str = "",
    objects: Mapping[str, str] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of an event; what the caller left out is filled in where the event says it.

    The salt keeps the digest of a record from being guessed, where an excerpt of the log shows the
    digest in place of the record.

    Args:
        event: What happened.
        actor: Who did it: an e-mail address, `site`, or `STRANGER`.
        subject: What it was done to, such as `R-7` or `R-7/3/1`.
        time: When, UTC.
        role: In which role the actor did it; None finds the usual one.
        run: Id of the run; empty takes it from a subject that is one.
        decision: What was decided; empty takes what the event itself decides.
        reason: Why.
        objects: Hashes of the things it was about, by name.
        detail: All else; hashes and dataset versions in it are moved to the objects.
    """
    told = detail or {}
    hashes = {k: v for k, v in told.items() if k.endswith("sha256") or k == "version"}
    return {
        "time": time,
        "event": event.value,
        "actor": actor,
        "role": _usual_role(actor) if role is None else role,
        "subject": subject,
        "run": run or (subject if _RUN.fullmatch(subject) else ""),
        "decision": decision or DECISIONS.get(event, ""),
        "reason": reason,
        "objects": {**hashes, **(objects or {})},
        "detail": {k: v for k, v in told.items() if k not in hashes},
        "salt": secrets.token_hex(8),
    }


_RUN = re.compile(r"R-[0-9]+/[0-9]+/[0-9]+")


def _usual_role(actor: str) -> str:
    return {"site": "site", STRANGER: "unknown"}.get(actor, "researcher")
