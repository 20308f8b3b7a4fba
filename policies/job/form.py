"""The form of a job that a reviewer can read from top to bottom."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from policies.findings import Finding, Severity, refuse
from policies.job.text import JobText

RULE = "job.form"
LONG_LINE = 140
ABSURD_LINE = 400
_ENDS = (ast.Return, ast.Raise, ast.Break, ast.Continue)


def allowed(job: JobText) -> str:
    """What the rule lets pass."""
    return f"at most {job.rule.maximum_lines} lines, functions only"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about the form, the whole text first."""
    if len(job.lines) > job.rule.maximum_lines:
        yield refuse(
            RULE,
            f"{len(job.lines)} lines",
            f"at most {job.rule.maximum_lines}",
            "shorten the job",
        )
    if not job.text.lstrip().startswith("#"):
        yield Finding(
            RULE,
            Severity.READ,
            "no comment at the top",
            "a header that says what is computed and what leaves",
        )
    yield from _check_entry(job)
    yield from _check_outside(job)
    for node in job.nodes:
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield refuse(
                RULE,
                "`global` or `nonlocal`",
                "no state outside functions",
                "pass values as arguments",
                node.lineno,
            )
        yield from _check_unreachable(node)
    yield from _check_lines(job)


def _check_entry(job: JobText) -> Iterator[Finding]:
    first = job.tree.body[0] if job.tree.body else None
    if not isinstance(first, ast.FunctionDef) or first.name != job.entry:
        yield refuse(
            RULE,
            "the first statement is not the entry function",
            f"`{job.head}` first, helpers after it",
            "move imports into the functions",
            getattr(first, "lineno", None),
        )
    elif tuple(a.arg for a in first.args.args) != job.arguments:
        yield refuse(
            RULE,
            f"`{job.entry}` takes other arguments",
            f"`{job.head}`",
            "rename them",
            first.lineno,
        )
    for statement in job.tree.body[1:]:
        if getattr(statement, "name", None) == job.entry:
            yield refuse(
                RULE,
                f"a second `{job.entry}`, which runs instead of the first",
                "one entry function",
                "keep one of them",
                statement.lineno,
            )


def _check_outside(job: JobText) -> Iterator[Finding]:
    """Statements that run when the text is loaded, before the entry function is called."""
    for statement in job.tree.body[1:]:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield refuse(
                RULE,
                "a statement outside the functions",
                "functions and classes only",
                "move it into a function",
                statement.lineno,
            )
    for statement in job.tree.body:
        for expression in _loaded(statement):
            called = [n for n in ast.walk(expression) if isinstance(n, ast.Call | ast.Await)]
            if called or expression in getattr(statement, "decorator_list", ()):
                yield Finding(
                    RULE,
                    Severity.WARN,
                    "code that runs when the text is loaded",
                    "plain values in defaults, annotations and class bodies",
                    "move it into a function",
                    expression.lineno,
                )


def _loaded(statement: ast.stmt) -> Iterator[ast.expr]:
    if isinstance(statement, ast.FunctionDef):
        arguments = statement.args
        yield from statement.decorator_list
        yield from (d for d in (*arguments.defaults, *arguments.kw_defaults) if d)
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        yield from (a.annotation for a in every if a.annotation)
        if statement.returns:
            yield statement.returns
    elif isinstance(statement, ast.ClassDef):
        yield from (*statement.decorator_list, *statement.bases)
        yield from (k.value for k in statement.keywords)
        for inner in statement.body:
            yield from _loaded(inner)
            if not isinstance(inner, ast.FunctionDef | ast.ClassDef):
                yield from (e for e in ast.iter_child_nodes(inner) if isinstance(e, ast.expr))


def _check_unreachable(node: ast.AST) -> Iterator[Finding]:
    for _, block in ast.iter_fields(node):
        if not isinstance(block, list):
            continue
        for before, after in pairwise(block):
            if isinstance(before, _ENDS) and isinstance(after, ast.stmt):
                yield Finding(
                    RULE,
                    Severity.WARN,
                    "code that is never reached",
                    "code that runs",
                    "remove it",
                    after.lineno,
                )
                break


def _check_lines(job: JobText) -> Iterator[Finding]:
    statements = Counter(n.lineno for n in job.nodes if isinstance(n, ast.stmt))
    for number, line in enumerate(job.lines, 1):
        width = len(line.expandtabs())
        gap = "     " * 8 in line.strip()
        if width > LONG_LINE or gap:
            absurd = width > ABSURD_LINE or gap
            yield Finding(
                RULE,
                Severity.WARN if absurd else Severity.READ,
                "a wide gap within a line" if gap else f"a line of {width} characters",
                f"lines of at most {LONG_LINE} characters",
                "break the line",
                number,
            )
        if ";" in line and statements[number] > 1:
            yield Finding(
                RULE,
                Severity.READ,
                "several statements on one line",
                "one statement per line",
                "break the line",
                number,
            )
