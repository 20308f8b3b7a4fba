"""A decision on its way into the records, so that it is made once or not at all.

It is made in three steps, each on the disk before the next: the signed documents are kept as a
file, the audit log tells the decision, the records take the documents and the file goes. After a
crash, or with a full disk, between two of them the log decides: a decision that it tells is
recorded from the file, with every signature that was given; one that it does not tell was not made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import select

from datasites.audit_log import Event, read_events
from datasites.errors import RecordError
from datasites.files import write_private
from datasites.open_site import OpenSite, SyftSide
from datasites.records import ApprovalRow, DecisionRow, RequestRow, utc_now
from datasites.request_states import RequestState, Verb
from datasites.signed_decisions import SignedDecision
from policies.strict import Strict

STATES = {
    Event.REQUEST_CONSENTED: RequestState.PARTLY_APPROVED,
    Event.REQUEST_APPROVED: RequestState.APPROVED,
    Event.REQUEST_DENIED: RequestState.DENIED,
    Event.REQUEST_REVOKED: RequestState.REVOKED,
    Event.CHANGES_REQUESTED: RequestState.CHANGES_REQUESTED,
}
"""Event -> the state that it leads to; a confirmation leaves a request as it is, and so does the
consent to one."""

logger = logging.getLogger(__name__)


class KeptDecision(Strict):
    """A decision and what it makes, exactly as signed."""

    event: Event
    """What the log says of it."""
    document: str
    """The decision."""
    signature: str
    """The site's signature over it."""
    approval: str = ""
    """The approval that it makes; empty if it makes none."""
    approval_signature: str = ""
    """The site's signature over that."""

    @property
    def decision(self) -> SignedDecision:
        """What was decided."""
        return SignedDecision.model_validate_json(self.document)


def make(site: OpenSite, kept: KeptDecision, log: Callable[[], None]) -> None:
    """Keep a decision, log it, record it.

    Raises:
        RecordError: It was not made; or it was made, and is recorded as soon as that can be.
    """
    number = kept.decision.request
    file = _file(site, number)
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(file, kept.model_dump_json().encode())
    except OSError as error:
        raise RecordError(
            "the decision cannot be kept, so it was not made; is the disk full?"
        ) from error
    try:
        log()
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    try:
        _record(site, kept)
    except RecordError as error:
        raise RecordError(
            f"the decision about R-{number} is made and logged, and the records cannot be written; "
            "is the disk full? The site records it as soon as there is room"
        ) from error
    file.unlink(missing_ok=True)


def waiting(site: OpenSite) -> list[KeptDecision]:
    """Decisions that the log tells and the records may not have; others are forgotten."""
    found: list[KeptDecision] = []
    for half in _folder(site).glob(".*.tmp"):
        half.unlink(missing_ok=True)
    for file in sorted(_folder(site).glob("R-*.json")):
        try:
            found.append(KeptDecision.model_validate_json(file.read_bytes()))
        except (OSError, ValidationError):
            logger.exception("the file %s holds no decision", file.name)
    if not found:
        return []
    events = {kept.event for kept in found}
    told = {
        line["detail"].get("signature")
        for line in read_events(site.site.audit)
        if line["event"] in events
    }
    for kept in found:
        if kept.signature not in told:
            _file(site, kept.decision.request).unlink(missing_ok=True)
    return [kept for kept in found if kept.signature in told]


def record_waiting(site: OpenSite, syft: SyftSide | None = None) -> list[int]:
    """Record what the log tells and the records could not take. The numbers of the requests.

    Args:
        site: The site.
        syft: Told, too; at the start of a site everything is told to it anyway.

    Raises:
        RecordError: The records still cannot be written.
    """
    with site.deciding:
        found = waiting(site)
        for kept in found:
            number = kept.decision.request
            _record(site, kept)
            _file(site, number).unlink(missing_ok=True)
            if syft is not None:
                with site.records.read() as session:
                    row = session.get_one(RequestRow, number)
                approved = row.state == RequestState.APPROVED
                try:
                    syft.mirror_decision(row.syft_request, approved, kept.decision.reason)
                except Exception:  # syft's own state is mended at the next start; ours decides
                    logger.exception("request=R-%s is decided here and not in syft", number)
        return [kept.decision.request for kept in found]


def _record(site: OpenSite, kept: KeptDecision) -> None:
    """Let the records say what was decided; again makes no difference."""
    decision = kept.decision
    with site.records.write() as session:
        same = select(DecisionRow.id).where(DecisionRow.signature == kept.signature)
        if session.scalar(same) is not None:
            return
        session.add(
            DecisionRow(
                request=decision.request, document=kept.document, signature=kept.signature
            )
        )  # fmt: skip
        if kept.approval:
            session.add(
                ApprovalRow(
                    request=decision.request, document=kept.approval,
                    signature=kept.approval_signature, revoked="",
                )
            )  # fmt: skip
        if decision.verb is Verb.REVOKE:
            standing = select(ApprovalRow).where(ApprovalRow.request == decision.request)
            for approval in session.scalars(standing):
                approval.revoked = utc_now()
        row = session.get_one(RequestRow, decision.request)
        confirms = decision.verb is Verb.APPROVE and row.state == RequestState.APPROVED
        if kept.event in STATES and not confirms:
            row.state, row.reason = STATES[kept.event], decision.reason
            row.decided_by, row.decided_at = decision.person, utc_now()


def _folder(site: OpenSite) -> Path:
    return site.site.state / "decisions"


def _file(site: OpenSite, number: int) -> Path:
    return _folder(site) / f"R-{number}.json"
