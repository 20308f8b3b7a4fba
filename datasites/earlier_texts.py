"""What a request's text is compared with: the text approved here that it is most like."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import Session

from datasites.open_site import OpenSite
from datasites.records import ApprovalRow, RequestRow
from datasites.requests import request_terms
from policies.text_diff import Change, DiffRow, diff_rows, likeness

ALIKE = 0.3
"""Texts with a smaller part of their lines in common are different jobs."""
LOOKED_AT = 20
"""So many of the texts approved last are compared; an equal one is found among all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A text beside an earlier one.

    Attributes:
        request: The earlier request, whoever made it.
        title: What it was.
        decided_at: When it was decided.
        approved: Whether it was approved; otherwise this request takes its place.
        same: Whether the texts are equal, byte for byte.
        changed: Lines of this text that are new or different.
        rows: Both texts, side by side.
    """

    request: int
    title: str
    decided_at: str
    approved: bool
    same: bool
    changed: int
    rows: list[DiffRow]


def compare_with_earlier(site: OpenSite, row: RequestRow) -> list[Comparison]:
    """The approved text most like this one, then that of the request whose place it takes.

    The approved one comes first, whatever a researcher says that a request follows: what nobody
    approved yet is marked. Empty when nothing was approved and nothing is followed.
    """
    with site.records.read() as session:
        approved = list(
            session.scalars(
                select(RequestRow)
                .join(ApprovalRow, ApprovalRow.request == RequestRow.id)
                .where(RequestRow.id != row.id, ApprovalRow.revoked == "", _before(session, row))
                .order_by(ApprovalRow.id.desc())
            ).unique()
        )
        followed = session.get(RequestRow, row.follows) if row.follows else None
    found = []
    if (closest := _closest(approved, row)) is not None:
        found.append(_comparison(closest, row, approved=True))
    if followed is not None and (closest is None or followed.id != closest.id):
        found.append(_comparison(followed, row, approved=False))
    return found


def _closest(approved: list[RequestRow], row: RequestRow) -> RequestRow | None:
    """The same text, else the one with the most lines in common, else none."""
    if equal := next((r for r in approved if r.text_sha256 == row.text_sha256), None):
        return equal
    closest = max(approved[:LOOKED_AT], key=lambda r: likeness(r.text, row.text), default=None)
    if closest is None or likeness(closest.text, row.text) < ALIKE:
        return None  # another job, which has to be read whole
    return closest


def _before(session: Session, row: RequestRow) -> ColumnElement[bool]:
    """Approvals that were there when this request was approved itself; all, until it is."""
    first = session.scalar(select(func.min(ApprovalRow.id)).where(ApprovalRow.request == row.id))
    return ApprovalRow.id < first if first is not None else true()


def _comparison(earlier: RequestRow, row: RequestRow, *, approved: bool) -> Comparison:
    rows = diff_rows(earlier.text, row.text)
    return Comparison(
        request=earlier.id,
        title=request_terms(earlier).title,
        decided_at=earlier.decided_at,
        approved=approved,
        same=earlier.text_sha256 == row.text_sha256,
        changed=sum(r.change is not Change.SAME for r in rows),
        rows=rows,
    )
