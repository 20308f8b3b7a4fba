"""Collects the documents of a request from a running site's records and dataset store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import select

from datasites.adopted_policy import adopted_policies, parsed
from datasites.approvals import Approval
from datasites.catalogue import read_card
from datasites.certificate import read_certificate
from datasites.errors import DatasetError
from datasites.evidence.documents import (
    APPROVALS,
    CARD,
    CERTIFICATE,
    DECISIONS,
    JOB,
    KEY,
    REHEARSALS,
    SETTINGS,
    TERMS,
    Settings,
    json_file,
    policy_files,
    signed_file,
)
from datasites.open_site import OpenSite
from datasites.records import ApprovalRow, DecisionRow, RehearsalRow, RequestRow, utc_now
from datasites.rehearsal import Rehearsal
from datasites.requests import request_terms
from datasites.signed_decisions import SignedDecision
from policies.strict import canonical_json


def collect_documents(site: OpenSite, row: RequestRow) -> dict[str, str]:
    """Every document about a request that the site has: name of the file -> text."""
    with site.records.read() as session:
        decisions = session.scalars(
            select(DecisionRow).where(DecisionRow.request == row.id).order_by(DecisionRow.id)
        ).all()
        approvals = session.scalars(
            select(ApprovalRow).where(ApprovalRow.request == row.id).order_by(ApprovalRow.id)
        ).all()
    files = {
        JOB: row.text,
        TERMS: row.terms,
        SETTINGS: json_file(_settings(site, row).model_dump(mode="json")),
        KEY: f"{site.key.public_hex}\n",
        DECISIONS: signed_file((d.document, d.signature) for d in decisions),
        APPROVALS: signed_file((a.document, a.signature) for a in approvals),
        REHEARSALS: _rehearsals(site, row, decisions),
        **_policies(site, approvals, decisions),
        **_dataset(site, request_terms(row).version),
    }
    return {name: text for name, text in files.items() if text}


def _settings(site: OpenSite, row: RequestRow) -> Settings:
    return Settings(
        site=site.config.name,
        title=site.config.title,
        url=site.site.url,
        public_key=site.key.public_hex,
        sandbox=site.sandbox_in_words,
        own_certificate=site.config.tls is not None,
        request=row.id,
        researcher=row.account,
        policy_in_force=site.policy.sha256,
        at=utc_now(),
    )


def _policies(
    site: OpenSite, approvals: Sequence[ApprovalRow], decisions: Sequence[DecisionRow]
) -> dict[str, str]:
    """The policies that somebody decided under, the last one first; else the one in force."""
    approved = [Approval.model_validate_json(a.document).policy_sha256 for a in approvals]
    decided = [SignedDecision.model_validate_json(d.document).policy_sha256 for d in decisions]
    kept = {policy.sha256: policy.text for policy in reversed(adopted_policies(site.records))}
    cited = [d for d in dict.fromkeys((*reversed(approved), *reversed(decided))) if d in kept]
    files = {}
    for digest, name in policy_files(cited or [site.policy.sha256]).items():
        plain = parsed(kept[digest]).model_dump(mode="json")
        files[name] = kept[digest]
        files[name.removesuffix(".yaml") + ".json"] = canonical_json(plain).decode()
    return files


def _rehearsals(site: OpenSite, row: RequestRow, decisions: Sequence[DecisionRow]) -> str:
    """The rehearsals that somebody decided on, and the last one."""
    with site.records.read() as session:
        rows = session.scalars(
            select(RehearsalRow).where(RehearsalRow.request == row.id).order_by(RehearsalRow.id)
        ).all()
    reports = [Rehearsal.model_validate_json(r.report) for r in rows]
    cited = {SignedDecision.model_validate_json(d.document).rehearsal_sha256 for d in decisions}
    shown = [r for r in reports if r.sha256 in cited or r is reports[-1]]
    return json_file([r.model_dump(mode="json") for r in shown]) if shown else ""


def _dataset(site: OpenSite, version: str) -> dict[str, str]:
    """Card and certificate of a version, byte for byte; the version's hash covers them."""
    datasets = site.site.datasets
    files = {}
    with suppress(DatasetError):
        read_card(datasets, version)
        files[CARD] = (datasets / version / CARD).read_bytes().decode()
    with suppress(DatasetError):
        read_certificate(datasets, version, site.key.public_hex)
        files[CERTIFICATE] = (datasets / version / CERTIFICATE).read_bytes().decode()
    return files
