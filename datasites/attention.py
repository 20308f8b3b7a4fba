"""What a reviewer has to look at first: one list, most serious first, from rules and rehearsal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datasites.rehearsal import Rehearsal
from policies.findings import Finding, Severity

ATTEMPTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing to look at.

    Attributes:
        severity: How serious it is.
        what: The sentence.
        line: Line of the text that it is about.
        do: What to do about it.
    """

    severity: Severity
    what: str
    line: int | None = None
    do: str = ""


def find_attention(findings: Sequence[Finding], rehearsal: Rehearsal | None) -> list[Attention]:
    """Refusals, warnings, what went wrong or looked odd on the mock, and what a person reads."""
    found = [
        Attention(f.severity, f"{f.rule}: {f.seen}", f.line, f.do)
        for f in findings
        if f.severity is not Severity.PASS
    ]
    found.extend(_of_rehearsal(rehearsal) if rehearsal else ())
    return sorted(found, key=lambda a: -a.severity.rank)


def _of_rehearsal(report: Rehearsal) -> Iterator[Attention]:
    if report.outcome != "returned":
        yield Attention(Severity.WARN, f"on the mock the job ended with {report.outcome}")
    for finding in report.refused:
        yield Attention(Severity.WARN, f"on the mock: {finding['rule']}: {finding['seen']}")
    for attempt, times in report.attempts[:ATTEMPTS_SHOWN]:
        yield Attention(Severity.WARN, f"on the mock the job tried: {attempt} ({times} times)")
    if report.suspicious:
        yield Attention(Severity.WARN, f"on the mock {report.influence}")
