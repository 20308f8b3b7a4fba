"""What was approved here before and not revoked: of an account, and of a text."""

from __future__ import annotations

from sqlalchemy import func, select

from datasites.records import ApprovalRow, Records, RequestRow
from policies.review_rule import TrackRecord


def track_record(records: Records, row: RequestRow) -> TrackRecord:
    """What was approved before, other than this request itself."""
    approved = (
        select(func.count(RequestRow.id.distinct()))
        .join(ApprovalRow, ApprovalRow.request == RequestRow.id)
        .where(RequestRow.id != row.id, ApprovalRow.revoked == "")
    )
    with records.read() as session:
        texts = session.scalar(approved.where(RequestRow.text_sha256 == row.text_sha256))
        requests = session.scalar(approved.where(RequestRow.account == row.account))
    return TrackRecord(text_approved=bool(texts), account_approved=requests or 0)
