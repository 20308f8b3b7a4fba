"""What a rule says about a request, a job text or an update."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How serious a finding is, from least to most; the value is the word that people read."""

    PASS = "pass"  # noqa: S105  the word, not a password
    READ = "read"
    WARN = "warn"
    REFUSE = "refuse"

    @property
    def meaning(self) -> str:
        """The sentence that explains the word to a reviewer."""
        return {
            Severity.PASS: "the rule is kept",
            Severity.READ: "a person should look at this before deciding",
            Severity.WARN: "probably not an honest training job: do not approve without "
            "understanding it",
            Severity.REFUSE: "cannot be approved under this policy",
        }[self]

    @property
    def rank(self) -> int:
        """0 for the least serious, to sort by."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's verdict, with the value seen, the value allowed and what to do next."""

    rule: str
    severity: Severity
    seen: str
    allowed: str
    do: str = ""
    line: int | None = None

    @property
    def sentence(self) -> str:
        """The finding in one line, as a researcher may read it; never data, never a path."""
        where = f" (line {self.line})" if self.line else ""
        then = f" To do: {self.do}." if self.do else ""
        return f"{self.rule}{where}: {self.seen}; allowed: {self.allowed}.{then}"

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON types."""
        return {**asdict(self), "severity": self.severity.value}


def finding_from_dict(plain: Mapping[str, Any]) -> Finding:
    """The finding that `Finding.as_dict` wrote."""
    return Finding(**{**plain, "severity": Severity(plain["severity"])})


def refusals(findings: Iterable[Finding]) -> list[Finding]:
    """Only the findings that forbid."""
    return [f for f in findings if f.severity is Severity.REFUSE]


def verdict(findings: Iterable[Finding]) -> str:
    """The findings in a few words: `1 refused, 1 warning`, `ok, 2 to read`, `ok`."""
    number = Counter(finding.severity for finding in findings)
    refused, warnings, to_read = (
        number[severity] for severity in (Severity.REFUSE, Severity.WARN, Severity.READ)
    )
    parts = [f"{refused} refused" if refused else "ok"]
    if warnings:
        parts.append(f"{warnings} warning{'s' if warnings > 1 else ''}")
    if to_read:
        parts.append(f"{to_read} to read")
    return ", ".join(parts)


def refuse(rule: str, seen: str, allowed: str, do: str, line: int | None = None) -> Finding:
    """A finding that forbids."""
    return Finding(rule, Severity.REFUSE, seen, allowed, do, line)


def passed(rule: str, seen: str, allowed: str) -> Finding:
    """A finding that says that the rule is kept."""
    return Finding(rule, Severity.PASS, seen, allowed)


_REFUSAL = "sitegate refusal: "


def encode_refusal(findings: Iterable[Finding]) -> str:
    """Findings as one text that can travel where only a message can."""
    return _REFUSAL + json.dumps([f.as_dict() for f in findings])


def decode_refusal(message: str) -> list[Finding] | None:
    """The findings in a message of `encode_refusal`, None if it is another message."""
    if not message.startswith(_REFUSAL):
        return None
    return [finding_from_dict(plain) for plain in json.loads(message[len(_REFUSAL) :])]
