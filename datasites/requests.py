"""Requests: what researchers submitted, and where each stands."""

from __future__ import annotations

import hashlib
import logging
from enum import StrEnum

from pydantic import ValidationError
from sqlalchemy import func, select

from datasites.audit_log import Event
from datasites.catalogue import read_card, training_images
from datasites.errors import DecisionError, RunRefused
from datasites.lineage import retired_because
from datasites.open_site import OpenSite, SyftSide
from datasites.records import PublishedDataset, RequestRow, utc_now
from policies.contract import Terms
from policies.findings import Finding, refuse
from policies.job_rules import MAXIMUM_BYTES, job_sha256
from policies.request_rules import check_request
from policies.strict import canonical_json, model_sha256, validation_sentences

MAXIMUM_PENDING = 20
MAXIMUM_TERMS_BYTES = 1_000_000

logger = logging.getLogger(__name__)


class RequestState(StrEnum):
    """Where a request stands; the value is the word that people read."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"


def submit_request(
    site: OpenSite, syft: SyftSide, account: str, job: str, terms: str
) -> RequestRow:
    """Take in a request; a person decides about it later.

    Raises:
        RunRefused: It cannot be a request at all: malformed terms, an unknown dataset version, a
            text that is too long, or too many undecided requests of this account.
    """
    with site.deciding:
        try:
            wanted = _parse_submission(site, account, job, terms)
        except RunRefused as refused:
            _log_refusal(site, account, "request", refused)
            raise
        with site.records.read() as session:
            number = (session.scalar(select(func.max(RequestRow.id))) or 0) + 1
        text_sha256, terms_sha256 = job_sha256(job), model_sha256(wanted)
        site.audit.append(
            Event.REQUEST_SUBMITTED,
            account,
            f"R-{number}",
            text_sha256=text_sha256,
            terms_sha256=terms_sha256,
            dataset=wanted.dataset,
            version=wanted.version,
            runs=wanted.runs,
        )
        try:
            syft_request, syft_code = syft.submit_code(account, job, wanted, number)
        except RunRefused as refused:
            _log_refusal(site, account, f"R-{number}", refused)
            raise
        row = RequestRow(
            id=number,
            account=account,
            submitted_at=utc_now(),
            text=job,
            text_sha256=text_sha256,
            terms=canonical_json(wanted.model_dump(mode="json")).decode(),
            terms_sha256=terms_sha256,
            state=RequestState.PENDING,
            reason="",
            decided_by="",
            decided_at="",
            syft_request=syft_request,
            syft_code=syft_code,
        )
        with site.records.write() as session:
            session.add(row)
    return row


def find_requests(site: OpenSite, account: str | None = None) -> list[RequestRow]:
    """The requests of an account, or of everyone, newest first."""
    query = select(RequestRow).order_by(RequestRow.id.desc())
    if account is not None:
        query = query.where(RequestRow.account == account)
    with site.records.read() as session:
        return list(session.scalars(query))


def get_request(site: OpenSite, number: int) -> RequestRow:
    """A request by its number; a `DecisionError` if there is none."""
    with site.records.read() as session:
        row = session.get(RequestRow, number)
    if row is None:
        raise DecisionError(f"there is no request R-{number} here; see `sitegate request list`")
    return row


def request_terms(row: RequestRow) -> Terms:
    """The terms of a request."""
    return Terms.model_validate_json(row.terms)


def request_findings(site: OpenSite, row: RequestRow) -> list[Finding]:
    """What the policy in force says about a request."""
    name = (row.id, job_sha256(row.text), hashlib.sha256(row.terms.encode()).hexdigest())
    if name not in site.findings:
        terms = request_terms(row)
        images = training_images(site.site.datasets, terms.version)
        methods = read_card(site.site.datasets, terms.version).deidentification
        site.findings[name] = check_request(row.text, terms, site.policy, images, methods)
    return site.findings[name]


def _log_refusal(site: OpenSite, account: str, subject: str, refused: RunRefused) -> None:
    rules = [f.rule for f in refused.findings]
    site.audit.append(Event.REQUEST_REFUSED, account, subject, rules=rules)


def _parse_submission(site: OpenSite, account: str, text: str, terms_json: str) -> Terms:
    if len(text) > MAXIMUM_BYTES or len(terms_json) > MAXIMUM_TERMS_BYTES:
        raise RunRefused(
            [
                refuse(
                    "request.size",
                    f"a job of {len(text):,} and terms of {len(terms_json):,} characters",
                    f"at most {MAXIMUM_BYTES:,} and {MAXIMUM_TERMS_BYTES:,}",
                    "send the job alone, without data",
                )
            ]
        )
    try:
        terms = Terms.model_validate_json(terms_json)
    except ValidationError as error:
        raise RunRefused(
            [
                refuse("request.terms", sentence, "the fields of Terms", "correct it")
                for sentence in validation_sentences(error, Terms)[:10]
            ]
        ) from error
    with site.records.read() as session:
        published = session.get(PublishedDataset, terms.version)
        pending = session.scalar(
            select(func.count()).where(
                RequestRow.account == account, RequestRow.state == RequestState.PENDING
            )
        )
    retired = retired_because(site.site.lineages, terms.version) is not None
    if retired or published is None or published.name != terms.dataset:
        raise RunRefused(
            [
                refuse(
                    "dataset.version",
                    f"`{terms.dataset}` version {terms.version[:12]}",
                    "a version that this site publishes",
                    "look at the site's datasets again",
                )
            ]
        )
    if (pending or 0) >= MAXIMUM_PENDING:
        raise RunRefused(
            [
                refuse(
                    "request.pending",
                    f"{pending} undecided requests",
                    f"at most {MAXIMUM_PENDING}",
                    "wait for a decision",
                )
            ]
        )
    return terms
