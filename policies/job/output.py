"""What a run tells beside its result: printed text, exceptions, the time that it takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from policies.findings import Finding, Severity
from policies.job.flow import way
from policies.job.flow_values import Reach, Trace
from policies.job.text import JobText

RULE = "job.output"
_SEES_FAILURE = "the researcher sees only that the run failed; failed runs count"


def allowed(_job: object) -> str:
    """What the rule lets pass."""
    return "no print, no raise"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about output; data that decide about it make them serious."""
    raw = {(event.kind, event.line): event.trace for event in job.flow.events if event.trace.is_raw}
    for node in job.nodes:
        if isinstance(node, ast.Call) and "print" in job.names.of(node.func):
            yield _finding(
                "`print`",
                "nothing is shown to the researcher; it goes to the site's log",
                "remove it",
                node.lineno,
                raw.get(("print", node.lineno)),
            )
        elif isinstance(node, ast.Raise) and node.exc is not None:
            yield _raised("`raise`", node.lineno, raw.get(("raise", node.lineno)))
        elif isinstance(node, ast.Assert):
            yield _raised("`assert`", node.lineno, raw.get(("raise", node.lineno)))
    for (kind, line), trace in raw.items():
        if kind == "time" and trace.reach >= Reach.EACH:
            yield _finding(
                "a loop as long as the data say",
                "loops whose length no single image decides: the researcher sees the time",
                "make the number of passes an argument",
                line,
                trace,
            )
        elif kind == "fail":
            yield _finding(
                "a value that is not used, but may fail", _SEES_FAILURE, "remove it", line, trace
            )


def _raised(word: str, line: int, trace: Trace | None) -> Finding:
    return _finding(
        word, _SEES_FAILURE, "check that it does not depend on single images", line, trace
    )


def _finding(seen: str, allowed_instead: str, do: str, line: int, trace: Trace | None) -> Finding:
    if trace is None:
        return Finding(RULE, Severity.READ, seen, allowed_instead, do, line)
    seen = f"{seen}, decided by {way(trace.path)}"
    return Finding(RULE, Severity.WARN, seen, allowed_instead, do, line)
