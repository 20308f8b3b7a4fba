"""Requests: what researchers submitted, and where each stands."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select

from datasites.audit_log import Event
from datasites.dataset_facts import dataset_facts
from datasites.errors import DecisionError, RunRefused
from datasites.lineage import retired_because
from datasites.open_site import OpenSite, SyftSide
from datasites.privacy_ledger import spent_on
from datasites.records import PublishedDataset, RequestRow, a_day_ago, utc_now
from datasites.request_states import UNDECIDED, WITHDRAWABLE, RequestState
from datasites.researchers import find_researcher
from policies.contract import Terms
from policies.findings import Finding, refuse
from policies.job_rules import MAXIMUM_BYTES, job_sha256
from policies.privacy.request_rule import check_budget
from policies.request_rules import Ask, Requester, check_request
from policies.strict import canonical_json, model_sha256, validation_sentences

MAXIMUM_PENDING = 20
"""Requests of one account in 24 hours: they are kept for ever."""
MAXIMUM_TERMS_BYTES = 1_000_000
MAXIMUM_REASON = 1000

logger = logging.getLogger(__name__)


def submit_request(
    site: OpenSite, syft: SyftSide, account: str, job: str, terms: str, follows: int = 0
) -> RequestRow:
    """Take in a request; a person decides about it later.

    Args:
        site: The site.
        syft: Its syft side.
        account: Who asks.
        job: The job's text.
        terms: The terms as JSON.
        follows: Number of the account's own request that this one takes the place of, 0 for none;
            one that was still undecided is withdrawn by this.

    Raises:
        RunRefused: It cannot be a request at all: malformed terms, an unknown dataset version, a
            text that is too long, or too many undecided requests of this account.
    """
    with site.deciding:
        try:
            earlier = _own(site, account, follows) if follows else None
            wanted = _parse_submission(site, account, job, terms, follows)
        except RunRefused as refused:
            _log_refusal(site, account, "request", refused)
            raise
        number = site.next_request()
        text_sha256, terms_sha256 = job_sha256(job), model_sha256(wanted)
        more: dict[str, Any] = {"follows": f"R-{follows}"} if follows else {}
        site.audit.append(
            Event.REQUEST_SUBMITTED,
            account,
            f"R-{number}",
            text_sha256=text_sha256,
            terms_sha256=terms_sha256,
            dataset=wanted.dataset,
            version=wanted.version,
            runs=wanted.runs,
            **more,
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
            follows=follows,
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
        if earlier is not None and earlier.state in UNDECIDED:
            _withdraw(site, syft, earlier, f"replaced by R-{number}")
    return row


def withdraw_request(
    site: OpenSite, syft: SyftSide, account: str, number: int, reason: str
) -> RequestRow:
    """Take a request of one's own back: nobody decides about it any more, nothing more runs on it.

    Raises:
        RunRefused: It is not a request of this account, it is over already, or there is no reason.
    """
    with site.deciding:
        row = _own(site, account, number)
        reason = " ".join(reason.split())
        if not 0 < len(reason) <= MAXIMUM_REASON:
            raise _refused(
                "request.reason",
                f"a reason of {len(reason)} characters",
                f"1 to {MAXIMUM_REASON}",
                "say why, for the hospital's log",
            )
        if row.state not in WITHDRAWABLE:
            raise _refused(
                "request.state",
                f"R-{number} is {row.state}",
                "a request that waits or runs",
                "nothing has to be done",
            )
        _withdraw(site, syft, row, reason)
        return get_request(site, number)


def _withdraw(site: OpenSite, syft: SyftSide, row: RequestRow, reason: str) -> None:
    if row.id not in site.ended:  # else the log has it, and the records not yet
        site.audit.append(
            Event.REQUEST_WITHDRAWN, row.account, f"R-{row.id}", reason=reason, decision="withdraw"
        )
        site.ended[row.id] = Event.REQUEST_WITHDRAWN
    with site.records.write() as session:
        fresh = session.get_one(RequestRow, row.id)
        fresh.state, fresh.decided_by, fresh.reason = (
            RequestState.WITHDRAWN, row.account, reason,
        )  # fmt: skip
        fresh.decided_at = utc_now()
    syft.mirror_decision(row.syft_request, False, reason)


def _own(site: OpenSite, account: str, number: int) -> RequestRow:
    with site.records.read() as session:
        row = session.get(RequestRow, number)
    if row is None or row.account != account:
        raise _refused(
            "request.number",
            f"R-{number}",
            "a request of your own",
            "look at your requests again",
        )
    return row


def find_requests(
    site: OpenSite, account: str | None = None, states: Collection[RequestState] | None = None
) -> list[RequestRow]:
    """The requests of an account or of everyone, in some states or in all, newest first."""
    query = select(RequestRow).order_by(RequestRow.id.desc())
    if account is not None:
        query = query.where(RequestRow.account == account)
    if states is not None:
        query = query.where(RequestRow.state.in_(states))
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
    policy = site.policy
    terms_sha256 = hashlib.sha256(row.terms.encode()).hexdigest()
    name = (row.id, job_sha256(row.text), terms_sha256, policy.sha256)
    if name not in site.findings:
        terms = request_terms(row)
        facts = dataset_facts(site.site.datasets, terms.version)
        ask = Ask(row.text, terms, facts, requester(site, row.account))
        site.findings[name] = check_request(ask, policy)
    return [*site.findings[name], *_budget_findings(site, row)]


def _budget_findings(site: OpenSite, row: RequestRow) -> list[Finding]:
    """What the ledger of privacy says about it now, which changes with every run."""
    rule = site.policy.privacy
    if rule.mode == "none":
        return []
    terms = request_terms(row)
    spent = spent_on(site.records, terms.dataset, rule.period_days)
    return list(check_budget(terms, rule, spent, site.ledger.used(row.id)))


def requester(site: OpenSite, account: str) -> Requester:
    """Who an account is, as the hospital wrote it down."""
    known = find_researcher(site.records, account)
    return Requester(account, known.institution if known else "")


def _log_refusal(site: OpenSite, account: str, subject: str, refused: RunRefused) -> None:
    rules = [f.rule for f in refused.findings]
    site.audit.append(Event.REQUEST_REFUSED, account, subject, rules=rules)


def _parse_submission(
    site: OpenSite, account: str, text: str, terms_json: str, follows: int
) -> Terms:
    size, terms_size = len(text.encode()), len(terms_json.encode())
    if size > MAXIMUM_BYTES or terms_size > MAXIMUM_TERMS_BYTES:
        raise RunRefused(
            [
                refuse(
                    "request.size",
                    f"a job of {size:,} and terms of {terms_size:,} bytes",
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
                RequestRow.account == account,
                RequestRow.state.in_(UNDECIDED),
                RequestRow.id != follows,
            )
        )
        today = session.scalar(
            select(func.count()).where(
                RequestRow.account == account, RequestRow.submitted_at > a_day_ago()
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
                    "wait for a decision, or withdraw one",
                )
            ]
        )
    if (today or 0) >= site.config.requests_per_day:
        raise _refused(
            "request.per_day",
            f"{today} requests in the last 24 hours",
            f"at most {site.config.requests_per_day}",
            "go on tomorrow",
        )
    return terms


def _refused(rule: str, seen: str, allowed: str, do: str) -> RunRefused:
    return RunRefused([refuse(rule, seen, allowed, do)])
