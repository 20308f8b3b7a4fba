"""A review sheet as the site sends it; tests change what they are about."""

from __future__ import annotations

from typing import Any

from policies.findings import Finding, Severity
from policies.text_diff import diff_rows

TEXT = "# A job.\ndef train(data, weights, config):\n    return weights\n"
VERSION = "ab" * 32


def summary(**changes: Any) -> dict[str, Any]:
    """A request in the list."""
    plain = {
        "request": 6,
        "title": "Double the weights",
        "state": "pending",
        "state_in_words": "pending",
        "researcher": "rita@uni.example",
        "submitted_at": "2026-11-25T09:00:00Z",
        "follows": None,
        "decided_by": "",
        "agreed": [],
        "decided_at": "",
        "reason": "",
        "verdict": "ok",
        "dataset": {"name": "chest-xray", "version": VERSION},
        "runs": {"asked": 10, "used": 0, "left": 10},
        "leaves_bytes": 16,
        "expires_at": "",
        "stopped": False,
        "text_sha256": "cd" * 32,
    }
    return plain | changes


def sheet(**changes: Any) -> dict[str, Any]:
    """The sheet of a request."""
    plain = summary() | {
        "dataset": summary()["dataset"]
        | {"training_images": 120, "card": None, "certificate": None},
        "purpose": "a test",
        "use": "research",
        "policy": "test v1",
        "findings": [finding("runs.maximum", "pass", "10 runs asked for", "at most 100")],
        "terms": {"expires_in_days": 30},
        "leaves": "1 weight array of 4 numbers (16 bytes), the number of images used",
        "leaving": [
            {"name": "w", "kind": "weights", "shape": [4], "dtype": "float32", "bytes": 16}
        ],
        "total_bytes": 160,
        "arguments": {"config.rate": "open: 0.0 to 1.0"},
        "needed": {"approvers": 1, "waiting_hours": 0.0, "in_words": "1 person (owner)"},
        "decisions": [],
        "privacy": {
            "mode": "none",
            "guarantee": "none",
            "cap": None,
            "delta": None,
            "spent": None,
            "left": None,
            "asked": None,
            "by_request": None,
            "at_most": None,
            "run": "",
        },
        "rehearsal": rehearsal(),
        "comparisons": [],
        "policy_sha256": "c" * 64,
        "requester": {
            "account": "rita@uni.example",
            "name": "Rita",
            "institution": "Example University",
            "since": "2026-11-01T00:00:00Z",
            "requests": 0,
            "states": {},
            "runs": 0,
            "released": 0,
        },
        "earlier": [],
        "text": TEXT,
    }
    return plain | changes


def finding(
    rule: str, severity: str, seen: str, allowed: str, do: str = "", line: int | None = None
) -> dict[str, Any]:
    """A finding as the site sends it."""
    return Finding(rule, Severity(severity), seen, allowed, do, line).as_dict()


def rehearsal(**changes: Any) -> dict[str, Any]:
    """A rehearsal that went as it should."""
    plain = {
        "at": "2026-11-25T09:01:00Z",
        "policy_sha256": "c" * 64,
        "sha256": "d" * 64,
        "images": 64,
        "config": {"rate": 0.5},
        "outcome": "returned",
        "seconds": 0.1,
        "memory_mb": 9,
        "returned": [{"name": "w"}],
        "metrics": {"loss": 0.5},
        "examples": 64,
        "refused": [],
        "calls": [["builtins.len", 1]],
        "attempts": [],
        "log": "",
        "influence": "6 of 6 changed images move the result alike",
        "probed": 6,
        "largest_share": 0.2,
        "suspicious": False,
        "repeatable": True,
        "succeeded": True,
    }
    return plain | changes


def comparison(old: str, new: str, *, approved: bool = True) -> dict[str, Any]:
    """What the site says about a text beside that of R-4."""
    rows = [
        {
            "change": row.change.value,
            "old_line": row.old_line,
            "old": row.old,
            "new_line": row.new_line,
            "new": row.new,
        }
        for row in diff_rows(old, new)
    ]
    return {
        "request": 4,
        "title": "Double the weights",
        "decided_at": "2026-11-20T09:00:00Z",
        "approved": approved,
        "same": old == new,
        "changed": sum(row["change"] != "same" for row in rows),
        "rows": rows,
    }
