"""Errors that a researcher reads as a sentence.

FederationError
├── ConnectionLostError   the site did not answer; the same call may be made again
└── RefusedError          the site said no; carries the findings
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.findings import Finding


class FederationError(Exception):
    """Something went wrong; the message says what to do."""


class ConnectionLostError(FederationError):
    """A site did not answer."""


class RefusedError(FederationError):
    """A site refused, with a rule, the value seen, the value allowed and what to do."""

    def __init__(self, site: str, findings: Sequence[Finding]) -> None:
        self.site, self.findings = site, list(findings)
        lines = [f"{site} refused:"]
        for f in findings:
            lines += [f"  rule     {f.rule}", f"  seen     {f.seen}", f"  allowed  {f.allowed}"]
            if f.do:
                lines.append(f"  do       {f.do}")
        super().__init__("\n".join(lines))
