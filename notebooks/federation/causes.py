"""Why a site is missing in a round, as a word that programs can rely on."""

from __future__ import annotations

import re
from enum import StrEnum

from federation.errors import ConnectionLostError, FederationError, RefusedError, UntrustedError


class Cause(StrEnum):
    """Why a site is missing; the value stands in the history."""

    NO_ANSWER = "no answer"
    LATE = "late"
    NOT_APPROVED = "not approved"
    REVOKED = "revoked"
    EXPIRED = "expired"
    OVER_BUDGET = "over budget"
    REFUSED = "refused"
    FAILED = "failed"
    DOES_NOT_FIT = "does not fit"
    NOT_TRUSTED = "not trusted"

    @property
    def meaning(self) -> str:
        """The sentence that explains the word."""
        return {
            Cause.NO_ANSWER: "the site could not be reached, or stopped answering",
            Cause.LATE: "the site had not sent its update when the round's time was over",
            Cause.NOT_APPROVED: "the request waits for a decision, was denied or withdrawn, or has "
            "to be confirmed under a new policy",
            Cause.REVOKED: "the hospital took its approval back",
            Cause.EXPIRED: "the time of the approval is over",
            Cause.OVER_BUDGET: "the approved runs are used, in all or for one day",
            Cause.REFUSED: "a rule of the hospital refused the run or its update",
            Cause.FAILED: "the run ended with an error, or the site could not carry it out",
            Cause.DOES_NOT_FIT: "the update came, and does not fit the model",
            Cause.NOT_TRUSTED: "what answered could not show that it is the site",
        }[self]


_BY_RULE = {
    "approval.expired": Cause.EXPIRED,
    "approval.policy": Cause.NOT_APPROVED,
    "run.request": Cause.NOT_APPROVED,
    "runs.maximum": Cause.OVER_BUDGET,
    "runs.per_day": Cause.OVER_BUDGET,
    "run.failed": Cause.FAILED,
    "run.interrupted": Cause.FAILED,
    "site.trouble": Cause.FAILED,
}
_BY_STATE = {
    "expired": Cause.EXPIRED,
    **dict.fromkeys(
        ("pending", "partly approved", "changes requested", "denied", "withdrawn"),
        Cause.NOT_APPROVED,
    ),
}
"""State of a request, as `approval.state` quotes it; any other end of one is a revocation."""


def cause_of(error: FederationError) -> Cause:
    """The cause for which a site is missing when it was asked and this came of it."""
    if isinstance(error, ConnectionLostError):
        return Cause.NO_ANSWER
    if isinstance(error, UntrustedError):
        return Cause.NOT_TRUSTED
    if not isinstance(error, RefusedError):
        return Cause.REFUSED
    for finding in error.findings:
        if finding.rule == "approval.state":
            state = re.match(r"R-\d+ is ([a-z ]+)", finding.seen)
            return _BY_STATE.get(state[1].strip() if state else "", Cause.REVOKED)
        if finding.rule in _BY_RULE:
            return _BY_RULE[finding.rule]
    return Cause.REFUSED


def is_busy(error: FederationError) -> bool:
    """Whether a site refused only because a run of the same request is still under way there."""
    return isinstance(error, RefusedError) and [f.rule for f in error.findings] == ["run.busy"]
