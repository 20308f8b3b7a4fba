"""A second opinion on the text of a job: Bandit, the common linter for unsafe Python.

References:
    https://bandit.readthedocs.io/en/1.9.4/plugins/ lists its tests by number.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from policies.findings import Finding, Severity
from policies.job.text import JobText, shown

RULE = "job.second_opinion"
MAXIMUM_LINES = 5_000


def allowed(_job: object) -> str:
    """What the rule lets pass."""
    return "nothing that Bandit finds"


def check(job: JobText, told: Collection[int] = ()) -> Iterator[Finding]:
    """What Bandit finds on lines of which nothing is told yet.

    Args:
        job: The text.
        told: Lines with a finding of another rule.
    """
    try:
        issues = _issues(job.text)
    except Exception:  # whatever a hostile text does to Bandit, the other rules' findings stand
        yield Finding(
            RULE,
            Severity.READ,
            "Bandit cannot judge this text",
            allowed(job),
            "rely on the other rules, and read closely",
        )
        return
    for issue in issues:
        if issue.lineno not in told:
            severity = Severity.WARN if issue.severity == "HIGH" else Severity.READ
            seen = f"{issue.test_id}: {shown(_first_sentence(issue.text), 100)}"
            yield Finding(RULE, severity, seen, allowed(job), "check this line", issue.lineno)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].rstrip(".")


def _issues(text: str) -> list[Any]:
    """Bandit's issues, by line; comments that would silence it are not heeded."""
    visitor_class, tests, namespace, metrics_class = _bandit()
    metrics = metrics_class()
    metrics.begin("job.py")
    data = text.encode()
    visitor = visitor_class("job.py", io.BytesIO(data), namespace, tests, False, {}, metrics)
    visitor.process(data)
    return sorted(visitor.tester.results, key=lambda i: (i.lineno, i.test_id, i.text))


@cache
def _bandit() -> tuple[Any, Any, Any, Any]:
    """Bandit's parts; loaded at the first text, for that takes a while."""
    for noisy in ("bandit", "stevedore"):  # say what they cannot load, wherever logs go
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bandit.core import config, meta_ast, metrics, node_visitor, test_set
    tests = test_set.BanditTestSet(config.BanditConfig())
    return node_visitor.BanditNodeVisitor, tests, meta_ast.BanditMetaAst, metrics.Metrics
