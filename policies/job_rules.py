"""Rules on the text of a job, decided from its syntax tree alone; the text is never run here.

They are advice to a person and a first fence, not the wall: the wall is the sandbox. What they
refuse, no honest job needs. What they warn of may be honest, and has to be understood. Each module
says what it does not see; `policies/job/flow.py` has the longest list.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from policies.contract import Access
from policies.findings import Finding, passed
from policies.job import (
    calls,
    characters,
    form,
    imports,
    leaks,
    literals,
    output,
    second_opinion,
    state,
)
from policies.job.text import MAXIMUM_BYTES, job_sha256, read_job
from policies.sections import JobRule

__all__ = ["MAXIMUM_BYTES", "RULES", "check_job", "job_sha256"]

ENTRY_ARGUMENTS: dict[Access, tuple[str, ...]] = {
    "arrays": ("data", "weights", "config"),
    "trainer": ("card", "config"),
}
"""What a job's entry function takes, by how the job sees images."""
MAXIMUM_FINDINGS = 30
"""Findings of one rule that are listed; a text with more is refused all the same."""


_RULES = (
    form,
    characters,
    literals,
    imports,
    calls,
    state,
    output,
    leaks,
)
RULES = (*(module.RULE for module in _RULES), second_opinion.RULE)
"""Every rule on a text that is Python, in the order in which they are told."""


def check_job(text: str, entry: str, rule: JobRule, access: Access = "arrays") -> list[Finding]:
    """Every finding about a job's text, the kept rules included.

    The same text gets the same findings everywhere; no text makes this raise. With access
    `trainer` the entry function builds a model from a card, and never sees an image.
    """
    job = read_job(text, entry, rule, ENTRY_ARGUMENTS[access])
    if isinstance(job, Finding):
        return [job]
    findings: list[Finding] = []
    for module in _RULES:
        findings.extend(_listed(module.check(job)) or [_kept(module.RULE, module.allowed(job))])
    told = {finding.line for finding in findings if finding.line}
    doubts = _listed(second_opinion.check(job, told))
    kept = _kept(second_opinion.RULE, second_opinion.allowed(job))
    return [*findings, *(doubts or [kept])]


def _listed(found: Iterable[Finding]) -> list[Finding]:
    """The first findings of a rule, none of them twice."""
    return list(islice(dict.fromkeys(found), MAXIMUM_FINDINGS))


def _kept(rule: str, allowed: str) -> Finding:
    return passed(rule, "kept", allowed)
