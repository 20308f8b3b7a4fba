"""Where a request stands, what that means, and which decision is possible where."""

from __future__ import annotations

from enum import StrEnum


class RequestState(StrEnum):
    """Where a request stands; the value is the word that people read."""

    PENDING = "pending"
    CHANGES_REQUESTED = "changes requested"
    PARTLY_APPROVED = "partly approved"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    REVOKED = "revoked"

    @property
    def meaning(self) -> str:
        """The sentence that explains the word."""
        return {
            RequestState.PENDING: "nobody at the hospital has decided yet",
            RequestState.CHANGES_REQUESTED: "the hospital commented on it and waits for a new text",
            RequestState.PARTLY_APPROVED: "not all of the people who have to agree did so yet",
            RequestState.APPROVED: "the job may run, within its budget and until it expires",
            RequestState.DENIED: "the hospital said no",
            RequestState.WITHDRAWN: "the researcher took it back, or replaced it",
            RequestState.EXPIRED: "its time is over",
            RequestState.REVOKED: "the hospital took its approval back",
        }[self]


class Verb(StrEnum):
    """What a person at the hospital can do about a request."""

    APPROVE = "approve"
    DENY = "deny"
    CHANGES = "changes"
    REVOKE = "revoke"


UNDECIDED = frozenset(
    {RequestState.PENDING, RequestState.PARTLY_APPROVED, RequestState.CHANGES_REQUESTED}
)
"""States in which a request still waits for someone."""

DECIDABLE: dict[Verb, frozenset[RequestState]] = {
    Verb.APPROVE: frozenset({RequestState.PENDING, RequestState.PARTLY_APPROVED}),
    Verb.DENY: UNDECIDED,
    Verb.CHANGES: frozenset({RequestState.PENDING, RequestState.PARTLY_APPROVED}),
    Verb.REVOKE: frozenset({RequestState.APPROVED}),
}
"""Decision -> the states in which it is possible. An approval that stopped because the policy
changed is confirmed by approving it again."""

WITHDRAWABLE = UNDECIDED | {RequestState.APPROVED}
"""States in which the researcher can take a request back."""

PAST = {
    Verb.APPROVE: "approved",
    Verb.DENY: "denied",
    Verb.CHANGES: "sent back for changes",
    Verb.REVOKE: "revoked",
}
"""Decision -> how a sentence says that it was made."""
