"""What can be said about a request: statements, each with the lines of the log that prove it.

A pure function of the lines that are shown and the documents beside them. What stands in no line is
said only with the place where it stands instead: a document, or the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasites.audit_events import Event
from datasites.evidence.claims import Basis, Line, Safe, Statement, numbers, of_kind
from datasites.evidence.data import data_statements
from datasites.evidence.documents import JOB, TERMS, Documents, policy_files
from datasites.evidence.outputs import output_statements
from datasites.evidence.sentences import listed, sentence
from datasites.evidence.settings import setting_statements
from datasites.request_states import RequestState

_SECTIONS = {
    Event.ACCOUNT_CREATED: Safe.PEOPLE,
    Event.LOGIN_REFUSED: Safe.PEOPLE,
    Event.ACT_REFUSED: Safe.PEOPLE,
    Event.DATASET_PUBLISHED: Safe.DATA,
    Event.DATASET_WITHDRAWN: Safe.DATA,
    Event.REQUEST_REHEARSED: Safe.SETTINGS,
    Event.EVIDENCE_EXPORTED: Safe.RECORD,
}
"""Where the sentence of a line stands; all others belong to the project."""

_DECISIONS = (
    Event.REQUEST_CONSENTED, Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED,
    Event.CHANGES_REQUESTED, Event.REQUEST_DENIED, Event.REQUEST_REVOKED,
)  # fmt: skip
"""Events that are a decision of a person of the hospital."""

_STATES = {
    Event.REQUEST_SUBMITTED: RequestState.PENDING,
    Event.REQUEST_CONSENTED: RequestState.PARTLY_APPROVED,
    Event.REQUEST_APPROVED: RequestState.APPROVED,
    Event.APPROVAL_CONFIRMED: RequestState.APPROVED,
    Event.CHANGES_REQUESTED: RequestState.CHANGES_REQUESTED,
    Event.REQUEST_DENIED: RequestState.DENIED,
    Event.REQUEST_REVOKED: RequestState.REVOKED,
    Event.REQUEST_WITHDRAWN: RequestState.WITHDRAWN,
    Event.REQUEST_EXPIRED: RequestState.EXPIRED,
}
"""Where a line leaves a request."""


def make_statements(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    """All statements about a request, section by section.

    Args:
        lines: The lines that are shown, in the order of the log.
        documents: The documents beside them.
    """
    titles = {digest: policy.title for digest, policy in documents.policies.items()}
    found = [
        Statement(_SECTIONS.get(Event(line["event"]), Safe.PROJECTS), text, Basis.LOG, (line["n"],))
        for line in lines
        if (text := sentence(line, titles))
    ]
    found += [
        *_people(lines, documents),
        *_project(lines, documents),
        *data_statements(lines, documents),
        *setting_statements(lines, documents),
        *output_statements(lines, documents),
    ]
    order = list(Safe)
    return sorted(found, key=lambda statement: order.index(statement.safe))


def final_state(lines: Sequence[Line]) -> tuple[RequestState | None, tuple[int, ...]]:
    """Where the lines leave a request, and the line that does."""
    last = [line for line in lines if line["event"] in _STATES]
    if not last:
        return None, ()
    state = _STATES[Event(last[-1]["event"])]
    if state is RequestState.PARTLY_APPROVED and _was_approved(lines):
        state = RequestState.APPROVED  # one of several who confirm a standing approval
    return state, (last[-1]["n"],)


def is_stopped(lines: Sequence[Line]) -> bool:
    """Whether the policy was changed after the last approval, so that nothing runs on it."""
    approved = adopted = ""
    for line in lines:
        policy = line["objects"].get("policy_sha256", "")
        if line["event"] in (Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED):
            approved = adopted = policy
        elif line["event"] == Event.POLICY_CHANGED:
            adopted = policy
    return bool(approved) and approved != adopted


def _was_approved(lines: Sequence[Line]) -> bool:
    return bool(of_kind(lines, Event.REQUEST_APPROVED))


def _people(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    account = documents.settings.researcher
    asked = of_kind(lines, Event.REQUEST_SUBMITTED)
    decided = of_kind(lines, *_DECISIONS)
    found = (
        [Statement(Safe.PEOPLE, f"{account} asked.", Basis.LOG, numbers(asked))] if asked else []
    )
    if not decided:
        text = "Nobody of the hospital decided about it."
        return [*found, Statement(Safe.PEOPLE, text, Basis.ABSENCE)]
    people = sorted({f"{line['actor']} ({line['role']})" for line in decided})
    text = f"{listed(people)} decided about it."
    return [*found, Statement(Safe.PEOPLE, text, Basis.LOG, numbers(decided))]


def _project(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    terms = documents.terms
    asked = numbers(of_kind(lines, Event.REQUEST_SUBMITTED))
    found = [
        Statement(
            Safe.PROJECTS,
            f"The terms give it the title “{terms.title}”, the purpose “{terms.purpose}” and the "
            f"use {terms.use}.",
            Basis.DOCUMENT,
            asked,
            (TERMS,),
        ),
        Statement(
            Safe.PROJECTS,
            f"The text that was asked for has {len(documents.job.splitlines())} lines; its entry "
            f"is “{terms.entry}”, and it asks for {terms.access} access to the images.",
            Basis.DOCUMENT,
            asked,
            (JOB, TERMS),
        ),
    ]
    files = policy_files(list(documents.policies))
    for line in of_kind(lines, *_DECISIONS):
        digest = line["objects"].get("policy_sha256", "")
        if digest and digest not in files:
            text = f"The site has not kept the policy {digest[:12]}… of line {line['n']}."
            found.append(Statement(Safe.PROJECTS, text, Basis.ABSENCE, (line["n"],)))
    return [*found, *_stopped(lines)]


def _stopped(lines: Sequence[Line]) -> list[Statement]:
    """Where the policy changed under a standing approval, and whether that was confirmed."""
    standing: Line | None = None
    found = []
    for line in lines:
        kind, policy = line["event"], line["objects"].get("policy_sha256")
        if kind in (Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED):
            standing = line
        elif kind in _STATES and kind != Event.REQUEST_CONSENTED:
            standing = None
        elif kind == Event.POLICY_CHANGED and standing is not None:
            if policy == standing["objects"].get("policy_sha256"):
                continue
            text = (
                "Another policy was adopted while an approval stood, which names the policy before "
                "it and no longer held unless it was confirmed."
            )
            both = (standing["n"], line["n"])
            found.append(Statement(Safe.PROJECTS, text, Basis.LOG, both))
    return found
