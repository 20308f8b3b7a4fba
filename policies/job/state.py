"""State that outlives a function: in modules, in functions, in default arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from policies.findings import Finding, Severity
from policies.job.text import JobText, shown

RULE = "job.state"


def allowed(_job: object) -> str:
    """What the rule lets pass."""
    return "no state outside functions"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about state."""
    functions = {n.name for n in job.nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in job.nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(
            node.ctx, ast.Store | ast.Del
        ):
            yield from _check_written(node, job, functions)
        elif isinstance(node, ast.FunctionDef | ast.Lambda):
            yield from _check_defaults(node, job)


def _check_written(
    node: ast.Attribute | ast.Subscript, job: JobText, functions: set[str]
) -> Iterator[Finding]:
    root: ast.expr = node
    while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
        root = root.func if isinstance(root, ast.Call) else root.value
    if not isinstance(root, ast.Name):
        return
    modules = {full for full in job.names.of(root) if full.split(".")[0] in job.names.modules}
    owner = min(modules) if root.id in job.names.imported else ""
    if owner or root.id in functions:
        kind = "module" if owner else "function or class"
        yield Finding(
            RULE,
            Severity.WARN,
            f"a change of the {kind} `{shown(owner or root.id)}`",
            allowed(job),
            "pass values as arguments",
            node.lineno,
        )


def _check_defaults(node: ast.FunctionDef | ast.Lambda, job: JobText) -> Iterator[Finding]:
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if isinstance(default, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp):
            yield Finding(
                RULE,
                Severity.READ,
                "a default argument that can change",
                allowed(job),
                "use None, and make the value in the function",
                default.lineno,
            )
