"""Exports the evidence for one request: a folder that verifies without the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasites.audit_checkpoint import sign_checkpoint
from datasites.audit_events import Event
from datasites.errors import RecordError
from datasites.evidence.claims import Line
from datasites.evidence.collection import collect_documents
from datasites.evidence.crate import make_crate
from datasites.evidence.documents import (
    CHECKPOINT,
    CRATE,
    EXCERPT,
    EXPORTED,
    MANIFEST,
    PAGE,
    RECORD,
    Documents,
    documents_sha256,
    json_file,
    read_documents,
)
from datasites.evidence.excerpt import make_excerpt, read_excerpt, verified_events
from datasites.evidence.manifest import manifest_file, sign_manifest
from datasites.evidence.page import render_page
from datasites.evidence.record import make_record
from datasites.evidence.selection import Matter, select_lines
from datasites.open_site import OpenSite
from datasites.people import Acting
from datasites.requests import get_request


def export_evidence(site: OpenSite, number: int, acting: Acting) -> dict[str, str]:
    """The files of a request's evidence: name -> text.

    The log says first that it is exported, and a checkpoint signs that line, with which the excerpt
    ends.

    Raises:
        DecisionError: There is no such request.
        RecordError: The log cannot be written, or does not verify; nothing is exported.
    """
    with site.deciding:
        files = collect_documents(site, get_request(site, number))
        documents = read_documents(files)
        digest = documents_sha256(files)
        site.audit.append(
            Event.EVIDENCE_EXPORTED,
            acting.email,
            f"R-{number}",
            role=acting.role,
            objects={EXPORTED: digest},
        )
        site.audit.checkpoint()
    excerpt = _excerpt(site, documents, digest)
    lines = read_excerpt(excerpt, site.key.public_hex)
    exported_at, last = lines[-1]["time"], lines[-1]
    signed = sign_checkpoint(site.key, site.config.name, last["n"], last["hash"], exported_at)
    files |= {EXCERPT: excerpt, CHECKPOINT: json_file(signed.model_dump(mode="json"))}
    files |= derived_files(files, documents, lines)
    manifest = sign_manifest(site.key, site.config.name, number, exported_at, files)
    return {**files, MANIFEST: manifest_file(manifest)}


def derived_files(
    files: Mapping[str, str], documents: Documents, lines: Sequence[Line]
) -> dict[str, str]:
    """The files that follow from documents and excerpt: the record, the page and the crate."""
    record = make_record(documents, lines)
    derived = {RECORD: json_file(record), PAGE: render_page(record, lines)}
    described = {k: v for k, v in files.items() if k not in (CRATE, MANIFEST)} | derived
    return {**derived, CRATE: make_crate(record, lines, described)}


def _excerpt(site: OpenSite, documents: Documents, digest: str) -> str:
    """The lines about the request, up to the checkpoint behind the export of these documents."""
    decided = (signed.document.policy_sha256 for signed in documents.decisions)
    matter = Matter(
        request=documents.settings.request,
        researcher=documents.settings.researcher,
        version=documents.terms.version,
        policies=frozenset((*documents.policies, *decided)),
    )
    shown = select_lines(verified_events(site.site.audit), matter)
    exported = [n for n, line in shown.items() if line["objects"].get(EXPORTED) == digest]
    if not exported:
        raise RecordError("the audit log no longer holds the line of this export; look into it")
    return make_excerpt(site.site.audit, shown, exported[0])
