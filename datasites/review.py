"""The review sheet: everything about a request that a person needs in order to decide."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from datasites.approvals import Approval
from datasites.catalogue import Card, read_card
from datasites.certificate import Certificate, find_certificate
from datasites.earlier_texts import Comparison, compare_with_earlier
from datasites.errors import DatasetError
from datasites.open_site import OpenSite
from datasites.people import Role, list_people
from datasites.privacy_standing import PrivacyStanding, privacy_standing
from datasites.records import RequestRow
from datasites.rehearsal import Rehearsal, latest_rehearsal
from datasites.request_states import UNDECIDED, RequestState
from datasites.requests import find_requests, get_request, request_findings, request_terms
from datasites.researchers import find_researcher
from datasites.signed_decisions import SignedDecision, read_decisions
from datasites.standing import agreements, is_stopped, latest_approval, needed_for
from policies.contract import Terms
from policies.findings import Finding, verdict
from policies.review_rule import ReviewNeeded


@dataclass(frozen=True, slots=True)
class Summary:
    """One request in a list.

    Attributes:
        row: The request as submitted, and where it stands.
        terms: What it asks for.
        findings: What the policy in force says, rule by rule.
        runs_used: Runs charged to it so far.
        expires_at: When its approval ends, empty without one.
        stopped: Whether its approval stands under a policy that is no longer in force.
        needed: Who has to agree.
        agreed: Who agreed so far, under the policy in force.
        rehearsal: What happened on the mock, if it ran there.
    """

    row: RequestRow
    terms: Terms
    findings: list[Finding]
    runs_used: int
    expires_at: str
    stopped: bool
    needed: ReviewNeeded
    agreed: list[SignedDecision]
    rehearsal: Rehearsal | None

    @property
    def verdict(self) -> str:
        """What rules and rehearsal say, in a few words; `over` for what is not judged any more."""
        if not self.findings:
            return "over"
        words, report = verdict(self.findings), self.rehearsal
        if report is None or (report.succeeded and not report.suspicious and not report.attempts):
            return words
        return f"{words}, odd on the mock"

    @property
    def state_in_words(self) -> str:
        """Such as `pending`, `approved by 1 of 2`, `approved, 2 of 5 runs used`."""
        state = RequestState(self.row.state)
        if state is RequestState.PARTLY_APPROVED:
            return f"approved by {len(self.agreed)} of {self.needed.approvers}"
        if state is RequestState.APPROVED:
            used = f"approved, {self.runs_used} of {self.terms.runs} runs used"
            return f"{used}; stopped: the policy changed" if self.stopped else used
        return state.value

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON types."""
        row = self.row
        return {
            "request": row.id,
            "title": self.terms.title,
            "state": row.state,
            "state_in_words": self.state_in_words,
            "researcher": row.account,
            "submitted_at": row.submitted_at,
            "follows": row.follows or None,
            "decided_by": row.decided_by,
            "decided_at": row.decided_at,
            "reason": row.reason,
            "verdict": self.verdict,
            "dataset": {"name": self.terms.dataset, "version": self.terms.version},
            "runs": {
                "asked": self.terms.runs,
                "used": self.runs_used,
                "left": max(0, self.terms.runs - self.runs_used),
            },
            "leaves_bytes": self.terms.contract.size_bytes if self.terms.contract else None,
            "expires_at": self.expires_at,
            "stopped": self.stopped,
            "text_sha256": row.text_sha256,
            "agreed": [
                {"person": d.person, "role": d.role, "at": d.at.isoformat()} for d in self.agreed
            ],
        }


@dataclass(frozen=True, slots=True)
class ReviewSheet:
    """One request, as its reviewer sees it.

    Attributes:
        summary: The request in a list.
        policy: Name and version of the policy in force.
        policy_sha256: Its digest.
        card: What researchers know of the dataset version; None when it cannot be read.
        certificate: How the dataset version was de-identified; None when there is no certificate
            that this site signed.
        decisions: Every decision about it, oldest first.
        comparisons: The earlier texts that it is shown beside, an approved one first.
        requester: Who asks, and what they ran here.
        earlier: The account's other requests, newest first.
        earliest: From when on the last agreement may be given; empty where there is no wait.
        lacking: Who has to agree and has no account here; empty where nobody is lacking.
        privacy: What it asks of the privacy budget.
    """

    summary: Summary
    policy: str
    policy_sha256: str
    card: Card | None
    certificate: Certificate | None
    decisions: list[SignedDecision]
    comparisons: list[Comparison]
    requester: dict[str, Any]
    earlier: list[Summary]
    earliest: str
    lacking: str
    privacy: PrivacyStanding

    @property
    def number(self) -> str:
        """`R-7`."""
        return f"R-{self.summary.row.id}"

    def as_dict(self) -> dict[str, Any]:
        """The sheet as JSON types."""
        row, terms, contract = self.summary.row, self.summary.terms, self.summary.terms.contract
        plain = self.summary.as_dict()
        plain["dataset"] |= {
            "training_images": self.card.images("train") if self.card else None,
            "card": self.card.model_dump(mode="json") if self.card else None,
            "certificate": self.certificate.model_dump(mode="json") if self.certificate else None,
        }
        return plain | {
            "purpose": terms.purpose,
            "use": terms.use,
            "policy": self.policy,
            "policy_sha256": self.policy_sha256,
            "findings": [f.as_dict() for f in self.summary.findings],
            "terms": terms.model_dump(mode="json"),
            "terms_sha256": row.terms_sha256,
            "leaves": contract.in_words() if contract else "not declared",
            "leaving": _leaving(terms),
            "total_bytes": contract.size_bytes * terms.runs if contract else None,
            "arguments": _arguments(terms),
            "needed": asdict(self.summary.needed)
            | {
                "in_words": self.summary.needed.in_words(),
                "earliest": self.earliest,
                "lacking": self.lacking,
            },
            "decisions": [d.model_dump(mode="json") for d in self.decisions],
            "privacy": self.privacy.as_dict(),
            "rehearsal": _rehearsal(self.summary.rehearsal),
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "requester": self.requester,
            "earlier": [summary.as_dict() for summary in self.earlier],
            "text": row.text,
        }


def review(site: OpenSite, number: int) -> ReviewSheet:
    """The sheet of a request."""
    policy, row = site.policy, get_request(site, number)
    summary = summarise(site, row)
    terms = summary.terms
    theirs = [r for r in find_requests(site, row.account) if r.id != row.id]
    return ReviewSheet(
        summary=summary,
        policy=policy.title,
        policy_sha256=policy.sha256,
        card=_card(site, terms.version),
        certificate=find_certificate(site.site.datasets, terms.version, site.key.public_hex),
        decisions=[decision for decision, _ in read_decisions(site, row.id)],
        comparisons=compare_with_earlier(site, row),
        requester=_requester(site, row.account, theirs),
        earliest=_earliest(row, summary.needed),
        lacking=_lacking(site, row, summary.needed),
        privacy=privacy_standing(site.records, terms, policy.privacy, row.id),
        earlier=[summarise(site, other, listed=True) for other in theirs[:20]],
    )


def summarise(site: OpenSite, row: RequestRow, *, listed: bool = False) -> Summary:
    """A request in short; in a list, what is over is not judged again."""
    over = listed and row.state not in (*UNDECIDED, RequestState.APPROVED)
    approval = latest_approval(site, row.id)
    return Summary(
        row=row,
        terms=request_terms(row),
        findings=[] if over else request_findings(site, row),
        runs_used=site.ledger.used(row.id),
        expires_at=Approval.model_validate_json(approval.document).expires_at.isoformat()
        if approval
        else "",
        stopped=is_stopped(site, row),
        needed=ReviewNeeded(0, (), 0) if over else needed_for(site, row),
        agreed=[decision for decision, _ in agreements(site, row)],
        rehearsal=latest_rehearsal(site, row.id),
    )


def _requester(site: OpenSite, account: str, theirs: list[RequestRow]) -> dict[str, Any]:
    known = find_researcher(site.records, account)
    states = [row.state for row in theirs]
    runs, released = site.ledger.counts([row.id for row in theirs])
    return {
        "account": account,
        "name": known.name if known else "",
        "institution": known.institution if known else "",
        "since": known.created_at if known else "",
        "requests": len(theirs),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "runs": runs,
        "released": released,
    }


def _rehearsal(report: Rehearsal | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return report.model_dump(mode="json") | {"succeeded": report.succeeded, "sha256": report.sha256}


def _earliest(row: RequestRow, needed: ReviewNeeded) -> str:
    if not needed.waiting_hours:
        return ""
    end = dt.datetime.fromisoformat(row.submitted_at) + dt.timedelta(hours=needed.waiting_hours)
    return end.isoformat(timespec="seconds")


def _lacking(site: OpenSite, row: RequestRow, needed: ReviewNeeded) -> str:
    """What would still be missing if everyone who may decide about a request agreed."""
    everyone = [
        (person.email, person.role)
        for person in list_people(site.records)
        if Role(person.role).decides and person.email.casefold() != row.account.casefold()
    ]
    missing = needed.missing(everyone)
    return f"nobody here could complete it: {missing}" if missing else ""


def _leaving(terms: Terms) -> list[dict[str, Any]]:
    """Everything that one run returns, a line each."""
    if terms.contract is None:
        return []
    groups = (("weights", terms.contract.weights), ("counts", terms.contract.counts))
    arrays = [
        {
            "name": name,
            "kind": kind,
            "shape": list(array.shape),
            "dtype": array.dtype,
            "bytes": array.size_bytes,
        }
        for kind, group in groups
        for name, array in group.items()
    ]
    numbers = [
        {"name": name, "kind": kind, "shape": [], "dtype": dtype, "bytes": 8}
        for kind, dtype, names in (
            ("metric", "float64", terms.contract.metrics),
            ("examples", "int64", ("examples",)),
        )
        for name in names
    ]
    return arrays + numbers


def _arguments(terms: Terms) -> dict[str, str]:
    """Every argument of the job, and how it is bound."""
    return {
        "data": f"bound: {terms.dataset} version {terms.version[:12]}",
        "weights": "open: the arrays of the contract, new values in each run",
        **{
            f"config.{name}": ("bound: " if bound.value is not None else "open: ")
            + bound.in_words()
            for name, bound in sorted(terms.arguments.items())
        },
    }


def _card(site: OpenSite, version: str) -> Card | None:
    try:
        return read_card(site.site.datasets, version)
    except DatasetError:
        return None
