"""What a site tells researchers about itself and about their own requests, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from datasites.catalogue import Card, last_published, read_card
from datasites.lineage import retired_because
from datasites.open_site import OpenSite
from datasites.privacy_standing import privacy_standing
from datasites.records import PublishedDataset, RequestRow
from datasites.requests import find_requests, requester
from datasites.review import summarise
from datasites.signed_decisions import read_decisions
from policies.findings import Finding, Severity


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A dataset version that was published.

    Attributes:
        row: Its record.
        card: What researchers know of it.
        retired: Why nothing runs on it any more; None while it does.
    """

    row: PublishedDataset
    card: Card
    retired: str | None


def published_versions(site: OpenSite) -> list[PublishedVersion]:
    """Every version that was published, the one published last at the end."""
    with site.records.read() as session:
        rows = session.scalars(select(PublishedDataset)).all()
    rows = sorted(rows, key=lambda row: last_published(site.site.datasets, row.version))
    return [
        PublishedVersion(
            row,
            read_card(site.site.datasets, row.version),
            retired_because(site.site.lineages, row.version),
        )
        for row in rows
    ]


def describe_site(site: OpenSite, server_uid: str, account: str) -> str:
    """Name, public key, policy, dataset cards, and the account's institution on record."""
    return json.dumps(
        {
            "name": site.config.name,
            "title": site.config.title,
            "server_uid": server_uid,
            "public_key": site.key.public_hex,
            "policy": site.policy.model_dump(mode="json"),
            "policy_sha256": site.policy.sha256,
            "institution": requester(site, account).institution,
            "datasets": [
                {
                    "name": version.row.name,
                    "version": version.row.version,
                    "published_at": version.row.published_at,
                    "asset": version.row.syft_asset,
                    "card": version.card.model_dump(mode="json"),
                }
                for version in published_versions(site)
                if version.retired is None
            ],
        }
    )


def describe_requests(site: OpenSite, account: str) -> str:
    """The account's own requests, newest first, with findings, decision and budget."""
    return json.dumps([_request(site, row) for row in find_requests(site, account)])


def describe_request(site: OpenSite, row: RequestRow) -> str:
    """One request, as `describe_requests` describes it."""
    return json.dumps(_request(site, row))


def _request(site: OpenSite, row: RequestRow) -> dict[str, Any]:
    summary = summarise(site, row, listed=True)
    comments = [
        {"line": comment.line, "text": comment.text, "at": decision.at.isoformat()}
        for decision, _ in read_decisions(site, row.id)
        for comment in decision.comments
    ]
    return {
        "request": row.id,
        "code": row.syft_code,
        "title": summary.terms.title,
        "state": row.state,
        "state_in_words": summary.state_in_words,
        "stopped": summary.stopped,
        "reason": row.reason,
        "comments": comments,
        "follows": row.follows or None,
        "decided_at": row.decided_at,
        "submitted_at": row.submitted_at,
        "dataset": summary.terms.dataset,
        "runs": summary.terms.runs,
        "runs_used": summary.runs_used,
        "expires_at": summary.expires_at,
        "text_sha256": row.text_sha256,
        "privacy": privacy_standing(
            site.records, summary.terms, site.policy.privacy, row.id
        ).as_dict(),
        "needed": summary.needed.in_words(),
        "findings": [_for_researcher(f).as_dict() for f in summary.findings],
    }


def _for_researcher(finding: Finding) -> Finding:
    """A finding without the hospital's exact numbers, which the card suppresses where small."""
    if not finding.rule.startswith(("examples.", "dominance.")):
        return finding
    kept = "enough" if finding.severity is Severity.PASS else "not as the policy wants"
    return replace(finding, seen=f"{kept}, as the hospital counts")
