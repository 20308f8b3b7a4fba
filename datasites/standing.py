"""Standing approvals: which document is in force, whether it stopped, and what a request needs."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence

from sqlalchemy import select

from datasites.approvals import Approval
from datasites.audit_log import Event
from datasites.kept_decisions import record_waiting
from datasites.open_site import OpenSite, SyftSide
from datasites.people import list_people
from datasites.records import ApprovalRow, RequestRow, utc_now
from datasites.request_states import UNDECIDED, RequestState, Verb
from datasites.requests import find_requests, request_findings, request_terms
from datasites.signed_decisions import SignedDecision, read_decisions
from datasites.track_record import track_record
from policies.review_rule import ReviewNeeded, review_needed

logger = logging.getLogger(__name__)


def latest_approval(site: OpenSite, number: int) -> ApprovalRow | None:
    """The last approval of a request, if there is one."""
    query = select(ApprovalRow).where(ApprovalRow.request == number).order_by(ApprovalRow.id.desc())
    with site.records.read() as session:
        return session.scalars(query).first()


def is_stopped(site: OpenSite, row: RequestRow) -> bool:
    """Whether a policy was adopted since a request was approved: nothing runs until confirmed."""
    if row.state != RequestState.APPROVED:
        return False
    approval = latest_approval(site, row.id)
    return (
        approval is not None
        and Approval.model_validate_json(approval.document).policy_adoption != site.adoption
    )


def agreements(site: OpenSite, row: RequestRow) -> list[tuple[SignedDecision, str]]:
    """Who agreed to a request since the policy was adopted and somebody last decided otherwise.

    People who have no account here any more, or another role, do not count.
    """
    roles = {person.email: person.role for person in list_people(site.records)}
    agreed: list[tuple[SignedDecision, str]] = []
    for decision, signature in read_decisions(site, row.id):
        if decision.verb is not Verb.APPROVE:
            agreed = []
        elif (
            decision.policy_adoption == site.adoption
            and roles.get(decision.person) == decision.role
        ):
            agreed.append((decision, signature))
    return agreed


def needed_for(site: OpenSite, row: RequestRow) -> ReviewNeeded:
    """Who has to agree to a request under the policy in force."""
    return review_needed(
        request_terms(row), request_findings(site, row), track_record(site.records, row),
        site.policy.review,
    )  # fmt: skip


def expire_due(site: OpenSite, syft: SyftSide, now: dt.datetime) -> list[int]:
    """End the requests whose time is over; each is logged first. Their numbers.

    Runs check the end of an approval themselves: this lets lists and syft say so too.
    """
    ended = []
    with site.deciding:
        record_waiting(site, syft)
        for row in find_requests(site, states=UNDECIDED | {RequestState.APPROVED}):
            why = _over(site, row, now)
            if why is None:
                continue
            if row.id not in site.ended:  # else the log has it, and the records not yet
                site.audit.append(Event.REQUEST_EXPIRED, "site", f"R-{row.id}", reason=why)
                site.ended[row.id] = Event.REQUEST_EXPIRED
            _settle(site, row.id, RequestState.EXPIRED, why)
            ended.append(row.id)
            try:
                syft.mirror_decision(row.syft_request, False, why)
            except Exception:  # syft's own state is mended at the next start; ours decides
                logger.exception("request=R-%s is expired here and not in syft", row.id)
    return ended


def ended_in_the_log(site: OpenSite) -> list[int]:
    """Requests that were ended as the log says it, and as the records do not yet.

    A site that dies between the line and the record comes back with a request that seems to wait.
    """
    waiting = find_requests(site, states=UNDECIDED | {RequestState.APPROVED})
    return [row.id for row in waiting if row.id in site.ended]


def settle_ended(site: OpenSite, numbers: Sequence[int]) -> None:
    """Let the records of some requests say what the log says of their end."""
    states = {
        Event.REQUEST_DENIED: RequestState.DENIED,
        Event.REQUEST_REVOKED: RequestState.REVOKED,
        Event.REQUEST_WITHDRAWN: RequestState.WITHDRAWN,
        Event.REQUEST_EXPIRED: RequestState.EXPIRED,
    }
    for number in numbers:
        _settle(site, number, states[site.ended[number]], "as the audit log says")


def _settle(site: OpenSite, number: int, state: RequestState, reason: str) -> None:
    with site.records.write() as session:
        row = session.get_one(RequestRow, number)
        row.state, row.reason, row.decided_at, row.decided_by = state, reason, utc_now(), "site"


def _over(site: OpenSite, row: RequestRow, now: dt.datetime) -> str | None:
    """Why a request's time is over; None while it is not."""
    if row.state == RequestState.APPROVED:
        approval = latest_approval(site, row.id)
        if approval is None:
            return None
        end = Approval.model_validate_json(approval.document).expires_at
        return f"the approval ended on {end:%Y-%m-%d %H:%M} UTC" if now >= end else None
    if row.state in UNDECIDED:
        days = site.policy.expiry.undecided_days
        if now >= dt.datetime.fromisoformat(row.submitted_at) + dt.timedelta(days=days):
            return f"nobody decided within {days} days"
    return None
