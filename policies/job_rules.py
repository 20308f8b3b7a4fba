"""Rules on the text of a job, decided from its syntax tree alone; the text is never run here.

They are advice to a person and a first fence, not the wall: the wall is the sandbox.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import islice

from policies.findings import Finding, Severity, passed, refuse
from policies.sections import JobRule
from policies.strict import some

MAXIMUM_BYTES = 200_000
UNSAFE_METHODS = {"tofile", "dump", "dumps", "ctypes", "setflags"}
"""Attributes of arrays that write files or reach raw memory, whatever the array is called."""
MAXIMUM_FINDINGS = 30
"""Findings of one rule that are listed; a text with more is refused all the same."""

_Check = Callable[[ast.Module, str, str, JobRule], Iterator[Finding]]


def job_sha256(text: str) -> str:
    """Hex SHA-256 of a job's text, byte for byte in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_job(text: str, entry: str, rule: JobRule) -> list[Finding]:
    """Every finding about a job's text, the kept rules included."""
    if len(text.encode(errors="surrogatepass")) > MAXIMUM_BYTES:
        return [
            refuse(
                "job.syntax",
                f"{len(text):,} characters",
                f"at most {MAXIMUM_BYTES:,}",
                "send the job alone, without data",
            )
        ]
    try:
        text.encode()
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        return [
            refuse(
                "job.syntax",
                "the text is not Python",
                "a Python 3.11 module",
                "run it once before submitting",
                line,
            )
        ]
    findings: list[Finding] = []
    for check, (name, allowed) in _KEPT.items():
        found = list(islice(check(tree, text, entry, rule), MAXIMUM_FINDINGS))
        findings.extend(found or [passed(name, "kept", allowed(rule))])
    return findings


def _check_form(tree: ast.Module, text: str, entry: str, rule: JobRule) -> Iterator[Finding]:
    lines = len(re.findall(r"\r\n|\r|\n", text)) + 1
    if lines > rule.maximum_lines:
        yield refuse(
            "job.form", f"{lines} lines", f"at most {rule.maximum_lines}", "shorten the job"
        )
    if not text.lstrip().startswith("#"):
        yield Finding(
            "job.form",
            Severity.READ,
            "no comment at the top",
            "a header that says what is computed and what leaves",
        )
    first = tree.body[0] if tree.body else None
    if not isinstance(first, ast.FunctionDef) or first.name != entry:
        yield refuse(
            "job.form",
            "the first statement is not the entry function",
            f"`def {entry}(data, weights, config)` first, helpers after it",
            "move imports into the functions",
            getattr(first, "lineno", None),
        )
    elif [a.arg for a in first.args.args] != ["data", "weights", "config"]:
        yield refuse(
            "job.form",
            f"`{entry}` takes other arguments",
            f"`def {entry}(data, weights, config)`",
            "rename them",
            first.lineno,
        )
    for statement in tree.body[1:]:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield refuse(
                "job.form",
                "a statement outside the functions",
                "functions and classes only",
                "move it into a function",
                statement.lineno,
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield refuse(
                "job.form",
                "`global` or `nonlocal`",
                "no state outside functions",
                "pass values as arguments",
                node.lineno,
            )


def _check_imports(tree: ast.Module, _text: str, _entry: str, rule: JobRule) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        else:
            continue
        for module in modules:
            if not any(_is_below(module, allowed) for allowed in rule.imports):
                yield refuse(
                    "job.imports",
                    f"import of `{module[:80]}`",
                    some(rule.imports, 12),
                    "use the allowed modules, or ask the hospital",
                    node.lineno,
                )


def _check_calls(tree: ast.Module, _text: str, _entry: str, rule: JobRule) -> Iterator[Finding]:
    aliases = _import_aliases(tree)
    modules = {target.split(".")[0] for targets in aliases.values() for target in targets}
    for node in ast.walk(tree):
        for name in _dotted_names(node, aliases):
            yield from _check_name(name, node, rule, modules)


def _check_name(name: str, node: ast.AST, rule: JobRule, modules: Set[str]) -> Iterator[Finding]:
    last = name.rsplit(".", 1)[-1]
    if last.startswith("__") and last.endswith("__") and last != "__init__":
        yield refuse(
            "job.calls",
            f"`{last[:60]}`",
            "no access to Python's internals",
            "write it without",
            getattr(node, "lineno", None),
        )
    if "." in name and last in UNSAFE_METHODS and name.split(".")[0] not in modules:
        yield refuse(
            "job.calls",
            f"`.{last}`",
            "arrays that are only computed with",
            "return arrays; files and raw memory are not available",
            getattr(node, "lineno", None),
        )
    for forbidden in rule.forbidden_calls:
        if _is_below(name, forbidden):
            yield refuse(
                "job.calls",
                f"use of `{name[:80]}`",
                f"anything but `{forbidden}`",
                "return arrays; files and processes are not available",
                getattr(node, "lineno", None),
            )


def _check_output(tree: ast.Module, _text: str, _entry: str, _rule: JobRule) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted_names(node.func, {}) == {"print"}:
            yield Finding(
                "job.output",
                Severity.READ,
                "`print`",
                "nothing is shown to the researcher; it goes to the site's log",
                "remove it",
                node.lineno,
            )
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield Finding(
                "job.output",
                Severity.READ,
                "`raise`",
                "the researcher sees only that the run failed; failed runs count",
                "check that it does not depend on single images",
                node.lineno,
            )


_KEPT: dict[_Check, tuple[str, Callable[[JobRule], str]]] = {
    _check_form: ("job.form", lambda r: f"at most {r.maximum_lines} lines, functions only"),
    _check_imports: ("job.imports", lambda r: some(r.imports, 12)),
    _check_calls: ("job.calls", lambda r: f"none of {len(r.forbidden_calls)} names"),
    _check_output: ("job.output", lambda _: "no print, no raise"),
}


def _import_aliases(tree: ast.Module) -> dict[str, set[str]]:
    """Name -> everything that an import anywhere in the text binds it to."""
    aliases: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                first = a.name.split(".")[0]
                aliases[a.asname or first].add(a.name if a.asname else first)
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                aliases[a.asname or a.name].add(f"{node.module}.{a.name}")
    return aliases


def _dotted_names(node: ast.AST, aliases: Mapping[str, set[str]]) -> set[str]:
    """What a name or a chain of attributes may stand for; empty for other nodes."""
    below: list[str] = []
    while isinstance(node, ast.Attribute):
        below.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        roots = aliases.get(node.id) or {node.id}
    else:
        roots = {"?"} if below else set()
    return {".".join([root, *reversed(below)]) for root in roots}


def _is_below(name: str, root: str) -> bool:
    return name == root or name.startswith(root + ".")
