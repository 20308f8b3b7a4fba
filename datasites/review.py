"""The review sheet: everything about a request that a person needs in order to decide."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from datasites.approvals import Approval
from datasites.catalogue import read_card
from datasites.certificate import Certificate, read_certificate
from datasites.errors import DatasetError
from datasites.open_site import OpenSite
from datasites.records import ApprovalRow, RequestRow
from datasites.requests import get_request, request_findings, request_terms
from policies.contract import Terms
from policies.findings import Finding, verdict


@dataclass(frozen=True, slots=True)
class ReviewSheet:
    """One request, as its reviewer sees it.

    Attributes:
        row: The request as submitted, and what was decided.
        terms: What it asks for.
        findings: What the policy in force says, rule by rule.
        images: The card's training images, None when suppressed.
        runs_used: Runs charged to its approval so far.
        expires_at: When the approval ends, empty without one.
        policy: Name and version of the policy in force.
        certificate: How the dataset version was de-identified; None when there is no certificate
            that this site signed.
    """

    row: RequestRow
    terms: Terms
    findings: list[Finding]
    images: int | None
    runs_used: int
    expires_at: str
    policy: str
    certificate: Certificate | None

    @property
    def number(self) -> str:
        """`R-7`."""
        return f"R-{self.row.id}"

    def as_dict(self) -> dict[str, Any]:
        """The sheet as JSON types."""
        row = self.row
        return {
            "request": row.id,
            "state": row.state,
            "researcher": row.account,
            "submitted_at": row.submitted_at,
            "decided_by": row.decided_by,
            "decided_at": row.decided_at,
            "reason": row.reason,
            "policy": self.policy,
            "verdict": verdict(self.findings),
            "findings": [f.as_dict() for f in self.findings],
            "dataset": {
                "name": self.terms.dataset,
                "version": self.terms.version,
                "training_images": self.images,
                "certificate": self.certificate.model_dump(mode="json")
                if self.certificate
                else None,
            },
            "terms": self.terms.model_dump(mode="json"),
            "terms_sha256": row.terms_sha256,
            "leaves": self.terms.contract.in_words() if self.terms.contract else "not declared",
            "leaves_bytes": self.terms.contract.size_bytes if self.terms.contract else None,
            "arguments": self.arguments(),
            "runs": {"asked": self.terms.runs, "used": self.runs_used},
            "expires_at": self.expires_at,
            "text": row.text,
            "text_sha256": row.text_sha256,
        }

    def arguments(self) -> dict[str, str]:
        """Every argument of the job, and how it is bound."""
        return {
            "data": f"bound: {self.terms.dataset} version {self.terms.version[:12]}",
            "weights": "open: the arrays of the contract, new values in each run",
            **{
                f"config.{name}": ("bound: " if bound.value is not None else "open: ")
                + bound.in_words()
                for name, bound in sorted(self.terms.arguments.items())
            },
        }


def review(site: OpenSite, number: int) -> ReviewSheet:
    """The sheet of a request."""
    return review_row(site, get_request(site, number))


def review_row(site: OpenSite, row: RequestRow) -> ReviewSheet:
    """The sheet of a request that was read already."""
    terms = request_terms(row)
    approval = latest_approval(site, row.id)
    try:
        images = read_card(site.site.datasets, terms.version).images("train")
    except DatasetError:
        images = None
    return ReviewSheet(
        row=row,
        terms=terms,
        findings=request_findings(site, row),
        images=images,
        runs_used=site.ledger.used(approval.id) if approval else 0,
        expires_at=_expiry(approval),
        policy=site.policy.title,
        certificate=_certificate(site, terms.version),
    )


def _certificate(site: OpenSite, version: str) -> Certificate | None:
    try:
        return read_certificate(site.site.datasets, version, site.key.public_hex)
    except DatasetError:
        return None


def latest_approval(site: OpenSite, number: int) -> ApprovalRow | None:
    """The approval of a request, if there is one."""
    query = select(ApprovalRow).where(ApprovalRow.request == number).order_by(ApprovalRow.id.desc())
    with site.records.read() as session:
        return session.scalars(query).first()


def is_expired(sheet: ReviewSheet, now: dt.datetime) -> bool:
    """Whether an approved request may no longer run because its time is over."""
    return bool(sheet.expires_at) and dt.datetime.fromisoformat(sheet.expires_at) <= now


def _expiry(approval: ApprovalRow | None) -> str:
    if approval is None:
        return ""
    return Approval.model_validate_json(approval.document).expires_at.isoformat()
