"""Rules on the arguments of a run under approved terms."""

from __future__ import annotations

from collections.abc import Mapping

from policies.contract import Bound
from policies.findings import Finding, refuse
from policies.strict import some


def check_arguments(config: Mapping[str, object], approved: Mapping[str, Bound]) -> list[Finding]:
    """What in `config` is not within the approved arguments; empty when all is well."""
    findings = []
    for name in sorted(set(config) - set(approved)):
        findings.append(
            refuse(
                "arguments.range",
                f"argument `{name[:60]}`",
                some(approved, 20),
                "send only approved arguments",
            )
        )
    for name, bound in approved.items():
        if name not in config:
            findings.append(
                refuse(
                    "arguments.range",
                    f"`{name}` is missing",
                    bound.in_words(),
                    "send every approved argument",
                )
            )
        elif not bound.allows(config[name]):
            findings.append(
                refuse(
                    "arguments.range",
                    f"`{name}` = {str(config[name])[:60]}",
                    bound.in_words(),
                    "stay within the approved range",
                )
            )
    return findings
