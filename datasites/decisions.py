"""Decisions of the hospital's people about requests. Each is signed, and logged before its effect.

What a decision needs is decided by pure rules: `policies.request_rules` says what may be approved,
`policies.review_rule` who has to agree, `datasites.request_states` what is possible when.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasites.approvals import PURPOSE as APPROVAL
from datasites.approvals import Approval, Consent, sign_approval
from datasites.audit_log import Event
from datasites.errors import DecisionError
from datasites.kept_decisions import KeptDecision, make, record_waiting
from datasites.keys import is_signed
from datasites.open_site import ENDS, OpenSite, SyftSide
from datasites.people import Acting
from datasites.records import RequestRow
from datasites.rehearsal import Rehearsal, latest_rehearsal
from datasites.request_states import DECIDABLE, PAST, RequestState, Verb
from datasites.requests import MAXIMUM_REASON, get_request, request_findings, request_terms
from datasites.signed_decisions import (
    MAXIMUM_COMMENTS,
    LineComment,
    SignedDecision,
    sign_decision,
)
from datasites.standing import agreements, is_stopped, latest_approval, needed_for
from policies.findings import refusals
from policies.text_lines import lines_of


@dataclass(frozen=True, slots=True)
class Shown:
    """What the sheet showed on which somebody agrees: digests of the policy and the rehearsal."""

    policy_sha256: str
    rehearsal_sha256: str


def approve(
    site: OpenSite, syft: SyftSide, number: int, acting: Acting, reason: str, shown: Shown
) -> Approval | None:
    """Agree to a request; the last agreement that is needed makes the signed approval.

    An approval that stopped because the policy changed is confirmed in the same way: under the
    policy of now, with what is left of its budget and time.

    Returns:
        The approval, or None while more people have to agree.

    Raises:
        DecisionError: The person may not, the policy refuses it, it was not rehearsed, its waiting
            time is not over, it is not in a state to be approved, or something else was shown than
            what is so now.
    """
    with site.deciding:
        record_waiting(site, syft)
        row = get_request(site, number)
        stopped = is_stopped(site, row)
        if not stopped:
            _check_state(row, Verb.APPROVE)
        _check_may_decide(row, acting)
        _check_policy(site, row)
        rehearsal = _rehearsed(site, row)
        _check_shown(row, shown, Shown(site.policy.sha256, rehearsal.sha256))
        consents = _consents(site, row)
        if acting.email in {consent.person for consent in consents}:
            raise DecisionError(
                f"{acting.email} agreed to R-{number} already; another person has to"
            )
        now = dt.datetime.now(dt.UTC)
        decision, document, signature = _signed(
            site, row, acting, Verb.APPROVE, reason, now, rehearsal=rehearsal
        )
        consents.append(
            Consent(
                person=acting.email,
                role=acting.role,
                reason=decision.reason,
                at=now,
                signature=signature,
            )
        )
        needed = needed_for(site, row)
        missing = needed.missing([(consent.person, consent.role) for consent in consents])
        if not missing:
            _check_waited(row, needed.waiting_hours, now)
        approval = None if missing else _approval(site, row, consents, now, stopped)
        event = Event.REQUEST_CONSENTED
        if approval:
            event = Event.APPROVAL_CONFIRMED if stopped else Event.REQUEST_APPROVED
        signed = sign_approval(approval, site.key) if approval else ("", "")
        kept = KeptDecision(
            event=event, document=document, signature=signature,
            approval=signed[0], approval_signature=signed[1],
        )  # fmt: skip
        still = missing or "everyone who has to agree did"
        make(site, kept, lambda: _log(site, event, decision, signature, approval, still))
        if approval and not stopped:
            syft.mirror_decision(row.syft_request, True, reason)
        return approval


def deny(site: OpenSite, syft: SyftSide, number: int, acting: Acting, reason: str) -> None:
    """Deny a request; the researcher reads the reason."""
    with site.deciding:
        record_waiting(site, syft)
        row = _end(site, number, acting, reason, Verb.DENY)
        syft.mirror_decision(row.syft_request, False, reason)


def revoke(site: OpenSite, syft: SyftSide, number: int, acting: Acting, reason: str) -> None:
    """Take an approval back; the next call is refused. What left before stays where it is."""
    with site.deciding:
        record_waiting(site, syft)
        row = _end(site, number, acting, reason, Verb.REVOKE)
        syft.mirror_decision(row.syft_request, False, reason)


def request_changes(
    site: OpenSite,
    number: int,
    acting: Acting,
    reason: str,
    comments: Sequence[LineComment] = (),
) -> None:
    """Send a request back with remarks on lines; the researcher submits a new text.

    Raises:
        DecisionError: A remark is about a line that the text does not have, among others.
    """
    with site.deciding:
        record_waiting(site)
        lines = len(lines_of(get_request(site, number).text))
        if wrong := [c.line for c in comments if c.line > lines]:
            raise DecisionError(
                f"R-{number} has {lines} lines; there is no line {min(wrong)} to comment on"
            )
        if len(comments) > MAXIMUM_COMMENTS:
            raise DecisionError(
                f"{len(comments)} comments; give at most {MAXIMUM_COMMENTS}, or deny the request"
            )
        _end(site, number, acting, reason, Verb.CHANGES, tuple(comments))


def _end(
    site: OpenSite,
    number: int,
    acting: Acting,
    reason: str,
    verb: Verb,
    comments: tuple[LineComment, ...] = (),
) -> RequestRow:
    """Take a request out of the states in which it waits or runs, as one person decided."""
    row = get_request(site, number)
    _check_state(row, verb)
    _check_may_decide(row, acting)
    decision, document, signature = _signed(
        site, row, acting, verb, reason, dt.datetime.now(dt.UTC), comments,
        latest_rehearsal(site, row.id),
    )  # fmt: skip
    event = _EVENTS[verb]

    def log() -> None:
        _log(site, event, decision, signature, None, "")
        if event in ENDS:
            site.ended[number] = event

    make(site, KeptDecision(event=event, document=document, signature=signature), log)
    return row


_EVENTS = {
    Verb.DENY: Event.REQUEST_DENIED,
    Verb.REVOKE: Event.REQUEST_REVOKED,
    Verb.CHANGES: Event.CHANGES_REQUESTED,
}


def _check_state(row: RequestRow, verb: Verb) -> None:
    state = RequestState(row.state)
    if state not in DECIDABLE[verb]:
        possible = " or ".join(sorted(DECIDABLE[verb]))
        raise DecisionError(
            f"R-{row.id} is {state} ({state.meaning}); only a request that is {possible} can be "
            f"{PAST[verb]}"
        )


def _check_may_decide(row: RequestRow, acting: Acting) -> None:
    if not acting.role.decides:
        raise DecisionError(
            f"{acting.email} has the role {acting.role}: it {acting.role.meaning}. An owner or a "
            "second approver decides"
        )
    if acting.email.casefold() == row.account.casefold():
        raise DecisionError(f"{acting.email} wrote R-{row.id}; another person decides about it")


def _check_policy(site: OpenSite, row: RequestRow) -> None:
    if refused := refusals(request_findings(site, row)):
        rules = "; ".join(f"{f.rule}: {f.seen}, allowed: {f.allowed}" for f in refused)
        raise DecisionError(
            f"R-{row.id} cannot be approved under policy {site.policy.title}: {rules}. "
            f'Deny it with a reason: sitegate request deny {row.id} --reason "…"'
        )


def _rehearsed(site: OpenSite, row: RequestRow) -> Rehearsal:
    rehearsal = latest_rehearsal(site, row.id)
    wanted = (row.text_sha256, site.policy.sha256)
    if rehearsal is None or (rehearsal.text_sha256, rehearsal.policy_sha256) != wanted:
        raise DecisionError(
            f"R-{row.id} was not rehearsed yet under the policy in force; `sitegate request "
            f"rehearse R-{row.id}` runs it on the mock first"
        )
    if site.policy.review.rehearsal.must_succeed and not rehearsal.succeeded:
        raise DecisionError(
            f"the rehearsal of R-{row.id} ended with `{rehearsal.outcome}` and "
            f"{len(rehearsal.refused)} refusals; policy {site.policy.title} wants one that returns "
            "what was declared. Request changes, or deny it"
        )
    return rehearsal


def _check_shown(row: RequestRow, shown: Shown, now: Shown) -> None:
    """What somebody agrees to is what they saw."""
    if shown.policy_sha256 != now.policy_sha256:
        raise DecisionError(
            f"the sheet of R-{row.id} was shown under another policy than the one in force now; "
            "look at it again"
        )
    if shown.rehearsal_sha256 != now.rehearsal_sha256:
        raise DecisionError(
            f"R-{row.id} was rehearsed again since its sheet was shown; look at it again"
        )


def _check_waited(row: RequestRow, hours: float, now: dt.datetime) -> None:
    earliest = dt.datetime.fromisoformat(row.submitted_at) + dt.timedelta(hours=hours)
    if now < earliest:
        raise DecisionError(
            f"R-{row.id} waits {hours:g} h after it was submitted; the last agreement can be given "
            f"from {earliest:%Y-%m-%d %H:%M} UTC on"
        )


def _consents(site: OpenSite, row: RequestRow) -> list[Consent]:
    return [
        Consent(
            person=decision.person,
            role=decision.role,
            reason=decision.reason,
            at=decision.at,
            signature=signature,
        )
        for decision, signature in agreements(site, row)
    ]


def _signed(
    site: OpenSite,
    row: RequestRow,
    acting: Acting,
    verb: Verb,
    reason: str,
    now: dt.datetime,
    comments: tuple[LineComment, ...] = (),
    rehearsal: Rehearsal | None = None,
) -> tuple[SignedDecision, str, str]:
    decision = SignedDecision(
        site=site.config.name,
        request=row.id,
        verb=verb,
        person=acting.email,
        role=acting.role,
        reason=checked_reason(reason),
        comments=comments,
        text_sha256=row.text_sha256,
        terms_sha256=row.terms_sha256,
        policy_sha256=site.policy.sha256,
        policy_adoption=site.adoption,
        rehearsal_sha256=rehearsal.sha256 if rehearsal else None,
        at=now,
    )
    return decision, *sign_decision(decision, site.key)


def checked_reason(reason: str) -> str:
    """A reason of a length that fits the log; one is always asked for.

    Raises:
        DecisionError: There is none, or it is too long.
    """
    reason = reason.strip()
    if not reason or len(reason) > MAXIMUM_REASON:
        raise DecisionError(
            f"the reason has {len(reason)} characters; give 1 to {MAXIMUM_REASON}, for the log and "
            "for the researcher"
        )
    return reason


def _approval(
    site: OpenSite,
    row: RequestRow,
    consents: list[Consent],
    now: dt.datetime,
    stopped: bool,
) -> Approval:
    """The document that runs are checked against; a confirmed one keeps the end that it had."""
    terms, earlier = request_terms(row), latest_approval(site, row.id)
    expires_at = now + dt.timedelta(days=terms.expires_in_days)
    if stopped and earlier is not None:
        if not is_signed(
            site.key.public_hex, APPROVAL, earlier.document.encode(), earlier.signature
        ):
            raise DecisionError(
                f"the stored approval of R-{row.id} is not as it was signed; it cannot be "
                "confirmed. Revoke it, and look into it"
            )
        expires_at = Approval.model_validate_json(earlier.document).expires_at
    return Approval(
        site=site.config.name,
        request=row.id,
        researcher=row.account,
        text_sha256=row.text_sha256,
        terms=terms,
        policy_sha256=site.policy.sha256,
        policy_adoption=site.adoption,
        consents=tuple(consents),
        approved_at=now,
        expires_at=expires_at,
    )


def _log(
    site: OpenSite,
    event: Event,
    decision: SignedDecision,
    signature: str,
    approval: Approval | None,
    still_missing: str,
) -> None:
    more: dict[str, Any] = {}
    if still_missing:
        more["agreement"] = still_missing
    if decision.comments:
        more["comments"] = len(decision.comments)
    if approval:
        more |= {
            "runs": approval.terms.runs,
            "expires_at": approval.expires_at.isoformat(),
            "approval_signature": sign_approval(approval, site.key)[1],
        }
    hashes = {
        "text_sha256": decision.text_sha256,
        "terms_sha256": decision.terms_sha256,
        "policy_sha256": decision.policy_sha256,
    }
    if decision.rehearsal_sha256:
        hashes["rehearsal_sha256"] = decision.rehearsal_sha256
    site.audit.append(
        event,
        decision.person,
        f"R-{decision.request}",
        role=decision.role,
        decision=decision.verb,
        reason=decision.reason,
        objects=hashes,
        signature=signature,
        **more,
    )
