"""Standing approvals: which document is in force, whether it stopped, and what a request needs."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import select

from datasites.approvals import Approval
from datasites.audit_log import Event
from datasites.open_site import OpenSite, SyftSide
from datasites.records import ApprovalRow, RequestRow, utc_now
from datasites.request_states import UNDECIDED, RequestState, Verb
from datasites.requests import find_requests, request_findings, request_terms
from datasites.signed_decisions import SignedDecision, read_decisions
from datasites.track_record import track_record
from policies.review_rule import ReviewNeeded, review_needed


def latest_approval(site: OpenSite, number: int) -> ApprovalRow | None:
    """The last approval of a request, if there is one."""
    query = select(ApprovalRow).where(ApprovalRow.request == number).order_by(ApprovalRow.id.desc())
    with site.records.read() as session:
        return session.scalars(query).first()


def is_stopped(site: OpenSite, row: RequestRow) -> bool:
    """Whether an approval stands under another policy than the one in force: nothing runs on it."""
    if row.state != RequestState.APPROVED:
        return False
    approval = latest_approval(site, row.id)
    return (
        approval is not None
        and Approval.model_validate_json(approval.document).policy_sha256 != site.policy.sha256
    )


def agreements(site: OpenSite, row: RequestRow) -> list[tuple[SignedDecision, str]]:
    """Who agreed to a request under the policy in force, since somebody last decided otherwise."""
    agreed: list[tuple[SignedDecision, str]] = []
    for decision, signature in read_decisions(site, row.id):
        if decision.verb is not Verb.APPROVE:
            agreed = []
        elif decision.policy_sha256 == site.policy.sha256:
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
        for row in find_requests(site):
            why = _over(site, row, now)
            if why is None:
                continue
            site.audit.append(Event.REQUEST_EXPIRED, "site", f"R-{row.id}", reason=why)
            with site.records.write() as session:
                fresh = session.get_one(RequestRow, row.id)
                fresh.state, fresh.reason, fresh.decided_at = RequestState.EXPIRED, why, utc_now()
                fresh.decided_by = "site"
            syft.mirror_decision(row.syft_request, False, why)
            ended.append(row.id)
    return ended


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
