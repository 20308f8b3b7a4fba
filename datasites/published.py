"""What a site tells researchers about itself and about their own requests, as JSON."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select

from datasites.catalogue import last_published, read_card
from datasites.lineage import retired_because
from datasites.open_site import OpenSite
from datasites.records import PublishedDataset, RequestRow
from datasites.requests import find_requests
from datasites.review import ReviewSheet, review_row


def describe_site(site: OpenSite, server_uid: str) -> str:
    """Name, public key, policy and dataset cards."""
    with site.records.read() as session:
        published = session.scalars(select(PublishedDataset)).all()
    published = sorted(published, key=lambda row: last_published(site.site.datasets, row.version))
    return json.dumps(
        {
            "name": site.config.name,
            "title": site.config.title,
            "server_uid": server_uid,
            "public_key": site.key.public_hex,
            "policy": site.policy.model_dump(mode="json"),
            "policy_sha256": site.policy.sha256,
            "datasets": [
                _dataset(site, row)
                for row in published
                if retired_because(site.site.lineages, row.version) is None
            ],
        }
    )


def describe_requests(site: OpenSite, account: str) -> str:
    """The account's own requests, newest first, with findings, decision and budget."""
    return json.dumps([_request(site, row) for row in find_requests(site, account)])


def describe_request(site: OpenSite, row: RequestRow) -> str:
    """One request, as `describe_requests` describes it."""
    return json.dumps(_request(site, row))


def _dataset(site: OpenSite, row: PublishedDataset) -> dict[str, Any]:
    card = read_card(site.site.datasets, row.version)
    return {
        "name": row.name,
        "version": row.version,
        "published_at": row.published_at,
        "asset": row.syft_asset,
        "card": card.model_dump(mode="json"),
    }


def _request(site: OpenSite, row: RequestRow) -> dict[str, Any]:
    sheet: ReviewSheet = review_row(site, row)
    return {
        "request": row.id,
        "code": row.syft_code,
        "title": sheet.terms.title,
        "state": row.state,
        "reason": row.reason,
        "decided_at": row.decided_at,
        "submitted_at": row.submitted_at,
        "dataset": sheet.terms.dataset,
        "runs": sheet.terms.runs,
        "runs_used": sheet.runs_used,
        "expires_at": sheet.expires_at,
        "text_sha256": row.text_sha256,
        "findings": [f.as_dict() for f in sheet.findings],
    }
