"""Audit logs for tests: written as a site writes them, and written as a forger would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasites.audit_checkpoint import sign_checkpoint
from datasites.audit_lines import Chain
from datasites.audit_log import AuditLog, Event
from datasites.keys import SiteKey
from policies.strict import canonical_json

KEY = SiteKey(b"k" * 32)
OTHER = SiteKey(b"o" * 32)


def write(path: Path, events: int, start: int = 0, rotate_bytes: int = 64_000_000) -> None:
    """Append so many events to the log."""
    log = AuditLog(path, KEY, "st-marys", rotate_bytes=rotate_bytes)
    for k in range(start, start + events):
        log.append(Event.RUN_STARTED, "rita@uni.example", f"R-1/{k}/1", number=10_000 + k, name="é")
    log.close()


def checkpoint(path: Path) -> None:
    """Open the log and sign it, as a site that stops."""
    log = AuditLog(path, KEY, "st-marys")
    log.checkpoint()
    log.close()


def contents(lines: list[bytes]) -> list[dict[str, Any]]:
    """The records in the lines."""
    return [json.loads(line)["content"] for line in lines]


def rechained(plain: list[dict[str, Any]], key: SiteKey | None = None) -> list[bytes]:
    """Lines of these records with a right chain, as anyone can make it; and signed, with a key."""
    chain, lines = Chain(), []
    for content in plain:
        if key and content["event"] == "checkpoint":
            signed = sign_checkpoint(key, "st-marys", chain.lines, chain.head, content["time"])
            content = {**content, "detail": signed.model_dump(mode="json")}
        raw, chain = chain.extend(canonical_json(content))
        lines.append(raw)
    return lines
