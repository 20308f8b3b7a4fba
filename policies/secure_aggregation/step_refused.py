"""The error of a step that a site does not take."""

from __future__ import annotations

from policies.findings import Finding, refuse

AGAIN = "begin the round again as another attempt"


class StepRefused(ValueError):
    """A step that a site does not take; carries the finding."""

    def __init__(self, rule: str, seen: str, allowed: str, do: str = AGAIN) -> None:
        self.finding: Finding = refuse(f"secure.{rule}", seen, allowed, do)
        super().__init__(self.finding.sentence)


def second(what: str, rule: str) -> StepRefused:
    """Another input for a step that was taken."""
    return StepRefused(rule, f"{what} for the second time, and others", "one answer per session")


def too_early(what: str, allowed: str) -> StepRefused:
    """A step before the one that it needs."""
    return StepRefused("order", f"{what} before their time", allowed)
