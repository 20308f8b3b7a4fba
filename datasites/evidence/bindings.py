"""Whether the documents of a folder are those that its log lines speak of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasites import approvals, certificate, signed_decisions
from datasites.approvals import Approval
from datasites.audit_events import Event
from datasites.evidence.claims import Line, of_kind
from datasites.evidence.documents import (
    APPROVALS,
    CERTIFICATE,
    DECISIONS,
    EXPORTED,
    JOB,
    KEY,
    SETTINGS,
    TERMS,
    Documents,
    Signed,
    documents_sha256,
    sha256,
)
from datasites.keys import is_signed
from datasites.signed_decisions import SignedDecision

_DECISIONS = (
    Event.REQUEST_CONSENTED, Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED,
    Event.CHANGES_REQUESTED, Event.REQUEST_DENIED, Event.REQUEST_REVOKED,
)  # fmt: skip
_APPROVALS = (Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED)


def find_contradictions(
    files: Mapping[str, str], documents: Documents, lines: Sequence[Line], public_hex: str
) -> list[str]:
    """Where documents and lines do not say the same, a sentence each.

    Args:
        files: The files of the folder.
        documents: What they say.
        lines: The lines that the excerpt shows, verified.
        public_hex: The site's public key.
    """
    return [
        *_site(files, documents, public_hex),
        *_request(documents, lines),
        *_decisions(documents, lines, public_hex),
        *_approvals(documents, lines, public_hex),
        *_dataset(documents, public_hex),
        *_export(files, lines),
    ]


def _site(files: Mapping[str, str], documents: Documents, public_hex: str) -> Iterator[str]:
    if files[KEY].strip() != public_hex:
        yield f"{KEY} is not the key given"
    if documents.settings.public_key != public_hex:
        yield f"{SETTINGS} names another key than the one given"


def _request(documents: Documents, lines: Sequence[Line]) -> Iterator[str]:
    submitted = of_kind(lines, Event.REQUEST_SUBMITTED)
    subject = f"R-{documents.settings.request}"
    if len(submitted) != 1 or submitted[0]["subject"] != subject:
        yield f"the excerpt does not show one line that says that {subject} was submitted"
        return
    objects = submitted[0]["objects"]
    for started in (submitted[0], *of_kind(lines, Event.RUN_STARTED)):
        if started["objects"].get("text_sha256") != sha256(documents.job):
            yield f"{JOB} is not the text of line {started['n']}"
        if started["objects"].get("version") != documents.terms.version:
            yield f"{TERMS} names another dataset version than line {started['n']}"
    if objects.get("terms_sha256") != documents.terms_sha256:
        yield f"{TERMS} is not what line {submitted[0]['n']} speaks of"
    if submitted[0]["actor"] != documents.settings.researcher:
        yield f"{SETTINGS} names another researcher than line {submitted[0]['n']}"


def _decisions(documents: Documents, lines: Sequence[Line], public_hex: str) -> Iterator[str]:
    by_signature = {line["detail"].get("signature"): line for line in of_kind(lines, *_DECISIONS)}
    for signed in documents.decisions:
        decision, line = signed.document, by_signature.pop(signed.signature, None)
        what = f"the decision of {decision.person!r} in {DECISIONS}"
        if not is_signed(
            public_hex, signed_decisions.PURPOSE, signed.signed_bytes, signed.signature
        ):
            yield f"{what} is not signed by the site"
        if line is None:
            yield f"{what} stands in no line of the excerpt"
        elif wrong := _differing(_decided(decision), _logged(line)):
            yield f"{what} says another {wrong} than line {line['n']}"
        if decision.rehearsal_sha256 and decision.rehearsal_sha256 not in documents.rehearsals:
            yield f"{what} was made on a rehearsal that is not in the folder"
    for line in by_signature.values():
        yield f"the decision of line {line['n']} is missing in {DECISIONS}"


def _decided(decision: SignedDecision) -> dict[str, Any]:
    return {
        "person": decision.person,
        "role": decision.role,
        "decision": decision.verb.value,
        "reason": decision.reason,
        "subject": f"R-{decision.request}",
        "text_sha256": decision.text_sha256,
        "terms_sha256": decision.terms_sha256,
        "policy_sha256": decision.policy_sha256,
        "rehearsal_sha256": decision.rehearsal_sha256,
    }


def _logged(line: Line) -> dict[str, Any]:
    names = ("text_sha256", "terms_sha256", "policy_sha256", "rehearsal_sha256")
    return {
        "person": line["actor"],
        **{name: line[name] for name in ("role", "decision", "reason", "subject")},
        **{name: line["objects"].get(name) for name in names},
    }


def _approvals(documents: Documents, lines: Sequence[Line], public_hex: str) -> Iterator[str]:
    by_signature = {
        line["detail"].get("approval_signature"): line for line in of_kind(lines, *_APPROVALS)
    }
    decided = {signed.signature for signed in documents.decisions}
    for number, signed in enumerate(documents.approvals, start=1):
        approval, line = signed.document, by_signature.pop(signed.signature, None)
        what = f"approval {number} in {APPROVALS}"
        if not is_signed(public_hex, approvals.PURPOSE, signed.signed_bytes, signed.signature):
            yield f"{what} is not signed by the site"
        if line is None:
            yield f"{what} stands in no line of the excerpt"
        else:
            yield from _approved(what, signed, documents, line)
        if {consent.signature for consent in approval.consents} - decided:
            yield f"{what} names an agreement that is not in {DECISIONS}"
    for line in by_signature.values():
        yield f"the approval of line {line['n']} is missing in {APPROVALS}"


def _approved(
    what: str, signed: Signed[Approval], documents: Documents, line: Line
) -> Iterator[str]:
    approval = signed.document
    wanted = {
        "text_sha256": approval.text_sha256,
        "policy_sha256": approval.policy_sha256,
        "runs": approval.terms.runs,
        "expires_at": approval.expires_at.isoformat(),
    }
    told = {**line["objects"], **line["detail"]}
    if wrong := _differing(wanted, {name: told.get(name) for name in wanted}):
        yield f"{what} says another {wrong} than line {line['n']}"
    if approval.terms != documents.terms:
        yield f"{what} holds other terms than {TERMS}"
    if approval.researcher != documents.settings.researcher:
        yield f"{what} is for another account than {SETTINGS} names"
    if approval.request != documents.settings.request:
        yield f"{what} is for another request"


def _dataset(documents: Documents, public_hex: str) -> Iterator[str]:
    signed = documents.certificate
    if signed is None:
        return
    if not is_signed(public_hex, certificate.PURPOSE, signed.signed_bytes, signed.signature):
        yield f"{CERTIFICATE} is not signed by the site"
    if documents.version_sha256 not in ("", documents.terms.version):
        yield f"card and certificate are not those of the dataset version that {TERMS} names"


def _export(files: Mapping[str, str], lines: Sequence[Line]) -> Iterator[str]:
    exported = of_kind(lines, Event.EVIDENCE_EXPORTED)
    if not exported or exported[-1]["objects"].get(EXPORTED) != documents_sha256(files):
        yield "no line says that exactly these documents were exported"


def _differing(said: Mapping[str, Any], logged: Mapping[str, Any]) -> str:
    """The first thing that is not the same in both."""
    return next((name for name, value in said.items() if logged[name] != value), "")
