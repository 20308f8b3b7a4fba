"""Examines a site and the machine that it is on: for now, whether the cage holds.

What is found is an event of the site's log, which a policy can demand (`sandbox.proof_days`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from datasites.audit_log import AuditLog, Event
from datasites.config import Site
from datasites.errors import SandboxError
from datasites.keys import load_site_key
from datasites.sandbox.bubblewrap import find_bubblewrap
from datasites.sandbox.proof import Check, prove
from datasites.site_lock import only_one
from policies.proof_rules import Proof

PROOFS = frozenset({Event.SANDBOX_PROVED, Event.SANDBOX_FAILED})


def examine(site: Site | None = None) -> tuple[list[Check], str]:
    """Try the cage of this machine; the checks, and the SHA-256 of what builds its walls.

    Args:
        site: The site whose configuration counts and whose secrets must not be seen.
    """
    if site is not None and site.config.sandbox == "process":
        told = "there are none: `sandbox: process` in site.yaml; write `sandbox: bubblewrap`"
        return [Check("walls", False, told)], ""
    try:
        bwrap = find_bubblewrap()
    except SandboxError as error:
        return [Check("walls", False, str(error))], ""
    secrets = [site.state, site.keys, site.audit] if site is not None else []
    found = Check("walls", True, f"bubblewrap from {bwrap.origin}, sha256 {bwrap.sha256[:12]}…")
    return [found, *prove(bwrap, secrets)], bwrap.sha256


def record(audit: AuditLog, checks: Sequence[Check], bubblewrap_sha256: str) -> Proof:
    """Put what was found into the log; the proof that it is, or is not.

    Raises:
        RecordError: It cannot be written.
    """
    failed = [check.name for check in checks if not check.ok]
    event = Event.SANDBOX_FAILED if failed else Event.SANDBOX_PROVED
    at = dt.datetime.now(dt.UTC)
    audit.append(
        event, "site", "sandbox",
        tried=len(checks), failed=failed, bubblewrap_sha256=bubblewrap_sha256,
    )  # fmt: skip
    return Proof(at, not failed, bubblewrap_sha256)


def proof_in(line: Mapping[str, Any]) -> Proof:
    """The proof that a line of the log tells."""
    return Proof(
        dt.datetime.fromisoformat(line["time"]),
        line["event"] == Event.SANDBOX_PROVED,
        line["objects"].get("bubblewrap_sha256", ""),
    )


def proof_in_words(proof: Proof | None) -> str:
    """For people who want to know whether the cage was tried."""
    if proof is None:
        return "not proved yet; run `sitegate doctor`"
    when = f"{proof.at:%Y-%m-%d %H:%M} UTC"
    return f"proved {when}" if proof.passed else f"FAILED when it was tried, {when}"


def examine_while_stopped(site: Site) -> list[Check]:
    """As `examine`, of a site that does not run; what is found goes into its log.

    Raises:
        ConfigurationError: Another process is at work on the site.
        RecordError: The log cannot be written.
    """
    with only_one(site.state / "site.lock", "another process is at work on this site; try again"):
        checks, bubblewrap_sha256 = examine(site)
        audit = AuditLog(site.audit, load_site_key(site.keys), site.config.name)
        try:
            record(audit, checks, bubblewrap_sha256)
        finally:
            audit.close()
    return checks
