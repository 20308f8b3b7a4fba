"""Decisions of the hospital's people: approve, deny, revoke; each is logged before its effect."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import select

from datasites.approvals import Approval, sign_approval
from datasites.audit_log import Event
from datasites.errors import DecisionError
from datasites.open_site import OpenSite, SyftSide
from datasites.records import ApprovalRow, RequestRow, utc_now
from datasites.requests import RequestState, get_request, request_findings, request_terms
from policies.findings import refusals

MAXIMUM_REASON = 1000


def approve(site: OpenSite, syft: SyftSide, number: int, approver: str, reason: str) -> Approval:
    """Approve a pending request as asked for: one signed document, a budget of runs, an end.

    Raises:
        DecisionError: It is not pending, or the policy refuses it.
    """
    with site.deciding:
        row = _in_state(site, number, RequestState.PENDING, "approved")
        if refused := refusals(request_findings(site, row)):
            rules = "; ".join(f"{f.rule}: {f.seen}, allowed: {f.allowed}" for f in refused)
            raise DecisionError(
                f"R-{number} cannot be approved under policy {site.policy.title}: {rules}. "
                f'Deny it with a reason: sitegate request deny {number} --reason "…"'
            )
        terms, now = request_terms(row), dt.datetime.now(dt.UTC)
        approval = Approval(
            site=site.config.name,
            request=number,
            researcher=row.account,
            text_sha256=row.text_sha256,
            terms=terms,
            policy_sha256=site.policy.sha256,
            approver=approver,
            reason=_checked_reason(reason),
            approved_at=now,
            expires_at=now + dt.timedelta(days=terms.expires_in_days),
        )
        document, signature = sign_approval(approval, site.key)
        site.audit.append(
            Event.REQUEST_APPROVED,
            approver,
            f"R-{number}",
            reason=approval.reason,
            text_sha256=row.text_sha256,
            terms_sha256=row.terms_sha256,
            policy_sha256=approval.policy_sha256,
            runs=terms.runs,
            expires_at=approval.expires_at.isoformat(),
            signature=signature,
        )
        with site.records.write() as session:
            session.add(
                ApprovalRow(request=number, document=document, signature=signature, revoked="")
            )
            _decide(session.get_one(RequestRow, number), RequestState.APPROVED, approver, reason)
        syft.mirror_decision(row.syft_request, True, reason)
        return approval


def deny(site: OpenSite, syft: SyftSide, number: int, person: str, reason: str) -> None:
    """Deny a pending request; the researcher reads the reason."""
    with site.deciding:
        row = _in_state(site, number, RequestState.PENDING, "denied")
        reason = _checked_reason(reason)
        site.audit.append(Event.REQUEST_DENIED, person, f"R-{number}", reason=reason)
        with site.records.write() as session:
            _decide(session.get_one(RequestRow, number), RequestState.DENIED, person, reason)
        syft.mirror_decision(row.syft_request, False, reason)


def revoke(site: OpenSite, syft: SyftSide, number: int, person: str, reason: str) -> None:
    """Take an approval back; the next call is refused. What left before stays where it is."""
    with site.deciding:
        row = _in_state(site, number, RequestState.APPROVED, "revoked")
        reason = _checked_reason(reason)
        site.audit.append(Event.REQUEST_REVOKED, person, f"R-{number}", reason=reason)
        site.revoked.add(number)
        with site.records.write() as session:
            for approval in session.scalars(
                select(ApprovalRow).where(ApprovalRow.request == number)
            ):
                approval.revoked = utc_now()
            _decide(session.get_one(RequestRow, number), RequestState.REVOKED, person, reason)
        syft.mirror_decision(row.syft_request, False, reason)


def _in_state(site: OpenSite, number: int, state: RequestState, verb: str) -> RequestRow:
    row = get_request(site, number)
    if row.state != state:
        raise DecisionError(
            f"R-{number} is {row.state}; only a request that is {state} can be {verb}"
        )
    return row


def _checked_reason(reason: str) -> str:
    reason = reason.strip()
    if not reason or len(reason) > MAXIMUM_REASON:
        raise DecisionError(
            f"the reason has {len(reason)} characters; give 1 to {MAXIMUM_REASON}, for the log and "
            "for the researcher"
        )
    return reason


def _decide(row: RequestRow, state: RequestState, person: str, reason: str) -> None:
    row.state, row.decided_by, row.reason = state, person, reason.strip()
    row.decided_at = utc_now()
