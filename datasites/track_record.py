"""What was approved here before and not revoked: of an account, and of a text."""

from __future__ import annotations

from sqlalchemy import select

from datasites.records import ApprovalRow, Records, RequestRow
from policies.review_rule import TrackRecord


def track_record(records: Records, row: RequestRow) -> TrackRecord:
    """What was approved before, other than this request itself."""
    with records.read() as session:
        earlier = session.scalars(
            select(RequestRow)
            .join(ApprovalRow, ApprovalRow.request == RequestRow.id)
            .where(RequestRow.id != row.id, ApprovalRow.revoked == "")
        ).all()
    return TrackRecord(
        text_approved=any(r.text_sha256 == row.text_sha256 for r in earlier),
        account_approved=len({r.id for r in earlier if r.account == row.account}),
    )
