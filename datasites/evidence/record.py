"""`evidence.json`: everything that evidence states, as plain data. Page and crate are made from it.

A pure function of documents and lines, so that a verifier can make it again and compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from datasites.audit_events import Event
from datasites.evidence.claims import Basis, Line, Safe, of_kind
from datasites.evidence.documents import Documents
from datasites.evidence.runs import RunEnd, RunRecord, run_records
from datasites.evidence.statements import final_state, is_stopped, make_statements
from datasites.evidence.trust import Column, Sight, trust_matrix
from datasites.request_states import RequestState

PROVES = (
    "The holder of the site's key wrote the lines that are shown, in this order, and signed them; "
    "nothing in them was changed since.",
    "Text, terms, policies, decisions and approvals in this folder are those whose hashes and "
    "signatures stand in the lines.",
    "Every sentence follows from the lines and documents that it names; Sitegate makes the same "
    "sentences from them again.",
)
DOES_NOT_PROVE = (
    "That things happened as the site wrote them down: the log is the site's own account.",
    "That no hidden line is about this request. Hidden lines show their digest alone; whoever may "
    "see the whole log checks it against checkpoint.json.",
    "That a person who is named, and not somebody with their password, decided.",
    "What became of an update after it left.",
)


def make_record(documents: Documents, lines: Sequence[Line]) -> dict[str, Any]:
    """Everything that is stated about a request.

    Args:
        documents: The documents.
        lines: The lines that are shown, in the order of the log; among them the export's own.
    """
    runs = run_records(lines)
    state, state_lines = final_state(lines)
    exported = of_kind(lines, Event.EVIDENCE_EXPORTED)[-1]
    statements = make_statements(lines, documents)
    return {
        "type": "sitegate evidence",
        "made_with": f"sitegate {version('sitegate')}",
        "request": f"R-{documents.settings.request}",
        "site": {
            "name": documents.settings.site,
            "title": documents.settings.title,
            "public_key": documents.settings.public_key,
        },
        "title": documents.terms.title,
        "researcher": documents.settings.researcher,
        "dataset": {"name": documents.terms.dataset, "version": documents.terms.version},
        "exported": {
            "at": exported["time"],
            "by": exported["actor"],
            "role": exported["role"],
            "line": exported["n"],
        },
        "state": {
            "word": state.value if state else "unknown",
            "meaning": state.meaning if state else "no line that is shown here says",
            "stopped": state is RequestState.APPROVED and is_stopped(lines),
            "lines": list(state_lines),
        },
        "totals": _totals(documents, runs),
        "sections": [
            {
                "name": safe.value,
                "question": safe.question,
                "statements": [
                    {
                        "text": statement.text,
                        "basis": statement.basis.value,
                        "lines": list(statement.lines),
                        "documents": list(statement.documents),
                        "alarming": statement.alarming,
                    }
                    for statement in statements
                    if statement.safe is safe
                ],
            }
            for safe in Safe
        ],
        "runs": [
            {**asdict(run), "end": run.end.value, "meaning": run.end.meaning,
             "metrics": list(run.metrics), "rules": list(run.rules)}
            for run in runs
        ],
        "trust_matrix": {
            "columns": [column.value for column in Column],
            "rows": [
                {
                    "party": party.name,
                    "cells": [
                        {
                            "sight": cell.sight.value,
                            "reason": cell.reason,
                            "shown_by": list(cell.shown_by),
                        }
                        for cell in party.cells
                    ],
                }
                for party in trust_matrix(documents, runs)
            ],
            "words": [sight.value for sight in Sight],
        },
        "bases": {basis.value: basis.meaning for basis in Basis},
        "proves": list(PROVES),
        "does_not_prove": list(DOES_NOT_PROVE),
        "log": {"lines": lines[-1]["n"], "shown": len(lines), "head": lines[-1]["hash"]},
    }  # fmt: skip


def _totals(documents: Documents, runs: Sequence[RunRecord]) -> dict[str, Any]:
    released = [run for run in runs if run.end is RunEnd.RELEASED]
    return {
        "runs_asked": documents.terms.runs,
        "runs_started": sum(run.end is not RunEnd.NOT_STARTED for run in runs),
        "updates_released": len(released),
        "bytes_released": sum(run.bytes for run in released),
        "privacy": sorted({policy.privacy.mode for policy in documents.policies.values()}),
    }
