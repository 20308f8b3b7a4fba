"""What a new policy would do to what stands: approvals, undecided requests, dataset versions.

It reads the records of a site, also while the site runs, and changes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from datasites.adopted_policy import last_adopted
from datasites.approvals import Approval
from datasites.catalogue import Card, SplitArrays, read_card, versions_on_disk
from datasites.certificate import read_certificate
from datasites.config import Site
from datasites.dataset_facts import dataset_facts
from datasites.errors import DatasetError
from datasites.lineage import retired_because
from datasites.minimums import check_minimums
from datasites.records import ApprovalRow, Records, RequestRow
from datasites.request_states import UNDECIDED, RequestState
from datasites.researchers import find_researcher
from datasites.track_record import track_record
from policies.contract import Terms
from policies.document import Policy, parse_policy
from policies.findings import Finding, refusals
from policies.request_rules import Ask, Requester, check_dataset, check_request
from policies.review_rule import review_needed


@dataclass(frozen=True, slots=True)
class RequestImpact:
    """An approval that stands, or a request that waits, under the new policy.

    Attributes:
        request: Its number.
        researcher: Who asked.
        title: What for.
        state: Where it stands now.
        refused: What the new policy refuses about it.
        refused_already: Whether the policy in force refuses it too.
        needs: Who would have to agree to it, in words.
    """

    request: int
    researcher: str
    title: str
    state: str
    refused: tuple[Finding, ...]
    refused_already: bool
    needs: str

    @property
    def is_approved(self) -> bool:
        """Whether it is an approval that stands."""
        return self.state == RequestState.APPROVED

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON types."""
        return {
            "request": self.request,
            "researcher": self.researcher,
            "title": self.title,
            "state": self.state,
            "refused": [finding.as_dict() for finding in self.refused],
            "refused_already": self.refused_already,
            "needs": self.needs,
        }


@dataclass(frozen=True, slots=True)
class DatasetImpact:
    """A dataset version under the new policy.

    Attributes:
        name: The dataset.
        version: The version.
        problems: Why it could not be asked for, or not be published again; a sentence each.
    """

    name: str
    version: str
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON types."""
        return {"name": self.name, "version": self.version, "problems": list(self.problems)}


@dataclass(frozen=True, slots=True)
class Impact:
    """Everything that a new policy would touch."""

    old: Policy
    new: Policy
    requests: tuple[RequestImpact, ...]
    datasets: tuple[DatasetImpact, ...]

    @property
    def same(self) -> bool:
        """Whether both policies say the same, so that approvals go on."""
        return self.old.sha256 == self.new.sha256

    def as_dict(self) -> dict[str, Any]:
        """The whole as JSON types."""
        return {
            "old": {"title": self.old.title, "sha256": self.old.sha256},
            "new": {"title": self.new.title, "sha256": self.new.sha256},
            "approvals_stop_until_confirmed": not self.same,
            "requests": [row.as_dict() for row in self.requests],
            "datasets": [row.as_dict() for row in self.datasets],
        }


def policy_impact(site: Site, new: Policy, now: dt.datetime) -> Impact:
    """What would change for a site if it adopted `new`.

    Args:
        site: The site.
        new: The policy that it may adopt.
        now: The time, UTC: approvals that ended are not looked at.
    """
    records = Records(site.database_url)
    try:
        adopted = last_adopted(records)
        old = parse_policy(adopted.text) if adopted else site.policy()
        return Impact(
            old=old,
            new=new,
            requests=tuple(
                _request_impact(site, records, row, old, new) for row in _standing(records, now)
            ),
            datasets=tuple(_dataset_impacts(site, new)),
        )
    finally:
        records.close()


def _standing(records: Records, now: dt.datetime) -> Iterator[RequestRow]:
    """Approvals that hold, and requests that wait, by number."""
    with records.read() as session:
        rows = session.scalars(select(RequestRow).order_by(RequestRow.id)).all()
        approvals = {
            a.request: a for a in session.scalars(select(ApprovalRow).order_by(ApprovalRow.id))
        }
    for row in rows:
        if row.state in UNDECIDED:
            yield row
        elif row.state == RequestState.APPROVED and row.id in approvals:
            approval = approvals[row.id]
            ends = Approval.model_validate_json(approval.document).expires_at
            if not approval.revoked and now < ends:
                yield row


def _request_impact(
    site: Site, records: Records, row: RequestRow, old: Policy, new: Policy
) -> RequestImpact:
    terms = Terms.model_validate_json(row.terms)
    known = find_researcher(records, row.account)
    ask = Ask(
        text=row.text,
        terms=terms,
        dataset=dataset_facts(site.datasets, terms.version),
        requester=Requester(row.account, known.institution if known else ""),
    )
    findings = check_request(ask, new)
    needed = review_needed(terms, findings, track_record(records, row), new.review)
    refused = refusals(findings)
    return RequestImpact(
        request=row.id,
        researcher=row.account,
        title=terms.title,
        state=row.state,
        refused=tuple(refused),
        refused_already=bool(refused) and bool(refusals(check_request(ask, old))),
        needs=needed.in_words(),
    )


def _dataset_impacts(site: Site, new: Policy) -> Iterator[DatasetImpact]:
    """The versions that are not retired: nothing runs on those anyway."""
    for version in versions_on_disk(site.datasets):
        if retired_because(site.lineages, version) is None:
            card = read_card(site.datasets, version)
            yield DatasetImpact(card.name, version, tuple(_problems(site, card, version, new)))


def _problems(site: Site, card: Card, version: str, new: Policy) -> Iterator[str]:
    facts = dataset_facts(site.datasets, version)
    for finding in refusals(check_dataset(card.name, version, facts, new)):
        yield f"{finding.rule}: {finding.seen}; allowed: {finding.allowed}"
    try:
        check_minimums(new, *_arrays(site.datasets / version, card))
    except DatasetError as error:
        yield f"could not be published again: {error}"
    if card.recognisable and new.publishing.recognisable_heads == "refuse":
        yield "publishing.recognisable_heads: may show faces; allowed: no such images"
    if new.publishing.text_search == "required" and not _is_free_of_text(site, card, version):
        yield "publishing.text_search: pixels were not searched for text; allowed: searched ones"


def _arrays(folder: Path, card: Card) -> tuple[dict[str, SplitArrays], tuple[str, ...], int | None]:
    """What `check_minimums` looks at: images, labels, class names and the number of patients."""
    splits: dict[str, SplitArrays] = {}
    patients: set[int] = set()
    for split in card.counts:
        images = np.load(folder / f"{split}_images.npy", mmap_mode="r")
        splits[split] = (images, np.load(folder / f"{split}_labels.npy"))
        if card.patients:
            patients |= set(np.load(folder / f"{split}_patients.npy").tolist())
    return splits, card.classes, len(patients) if card.patients else None


def _is_free_of_text(site: Site, card: Card, version: str) -> bool:
    """Whether pixels were searched; small arrays that came without files hold no text."""
    if not card.patients and min(card.shape[:2]) < 64:
        return True
    try:
        return read_certificate(site.datasets, version).text_search.tool is not None
    except DatasetError:
        return False
