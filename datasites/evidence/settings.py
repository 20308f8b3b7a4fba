"""Safe settings: where and under which limits a request's text ran, and what was tried first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from datasites.audit_events import Event
from datasites.evidence.claims import Basis, Line, Safe, Statement, numbers, of_kind
from datasites.evidence.documents import POLICY, REHEARSALS, SETTINGS, Documents
from datasites.evidence.sentences import counted, short
from datasites.rehearsal import Rehearsal
from policies.document import Policy

_SANDBOXES = {
    "bubblewrap": "in the bubblewrap sandbox",
    "process": "without a sandbox, with the rights of the site's user",
}


def setting_statements(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    """How runs were set up: as the log says, as the policy says, as the site is configured."""
    found = _started(lines)
    policy = documents.policy
    if policy is not None:
        adopted = of_kind(lines, Event.POLICY_CHANGED, Event.POLICY_IN_FORCE)
        proving = [a for a in adopted if a["objects"].get("policy_sha256") == policy.sha256]
        text = _limits(policy)
        found.append(Statement(Safe.SETTINGS, text, Basis.DOCUMENT, numbers(proving), (POLICY,)))
    for digest, report in documents.rehearsals.items():
        naming = [a for a in lines if a["objects"].get("rehearsal_sha256") == digest]
        text = _rehearsal_in_words(report, digest)
        found.append(Statement(Safe.SETTINGS, text, Basis.DOCUMENT, numbers(naming), (REHEARSALS,)))
    settings = documents.settings
    whose = "the hospital's certificate" if settings.own_certificate else "a certificate for trials"
    found.append(
        Statement(
            Safe.SETTINGS,
            f"At the export the site answered researchers at {settings.url} over TLS, with "
            f"{whose}; its sandbox was: {settings.sandbox}.",
            Basis.CONFIGURATION,
            documents=(SETTINGS,),
        )
    )
    return found


def _started(lines: Sequence[Line]) -> list[Statement]:
    started: dict[str, list[Line]] = defaultdict(list)
    for line in of_kind(lines, Event.RUN_STARTED):
        started[line["detail"].get("sandbox", "")].append(line)
    if not started:
        return [Statement(Safe.SETTINGS, "No run started.", Basis.ABSENCE)]
    return [
        Statement(
            Safe.SETTINGS,
            f"{counted(len(group), 'run')} started "
            f"{_SANDBOXES.get(sandbox, 'in a sandbox that is not named')}.",
            Basis.LOG,
            numbers(group),
        )
        for sandbox, group in sorted(started.items())
    ]


def _limits(policy: Policy) -> str:
    limits = policy.sandbox
    return (
        f"Policy {policy.title} gives one run at most {limits.time_s:,} s, {limits.memory_mb:,} "
        f"MiB beside the libraries and {limits.processes:,} processes and threads, and one "
        f"approval at most {counted(policy.runs.maximum, 'run')}."
    )


def _rehearsal_in_words(report: Rehearsal, digest: str) -> str:
    tried = ", ".join(f"{name} ({times})" for name, times in report.attempts)
    attempts = f"It tried: {tried}" if tried else "It tried no file, socket or process"
    return (
        f"The rehearsal {short(digest)} ended with “{report.outcome}” and "
        f"{counted(len(report.refused), 'refusal')}. {attempts}. Influence of single mock images: "
        f"{report.influence}."
    )
