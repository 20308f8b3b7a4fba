"""The modules that a job may import."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from policies.findings import Finding, Severity, refuse
from policies.job.calls import is_below
from policies.job.text import JobText, shown
from policies.strict import some

RULE = "job.imports"


def allowed(job: JobText) -> str:
    """What the rule lets pass."""
    return some(job.rule.imports, 12)


def check(job: JobText) -> Iterator[Finding]:
    """Findings about imports."""
    for node in job.nodes:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
            if any(alias.name == "*" for alias in node.names):
                yield Finding(
                    RULE,
                    Severity.WARN,
                    f"every name of `{shown(modules[0])}`",
                    "imports that say which names they bring",
                    "import the module, or the names that are used",
                    node.lineno,
                )
        else:
            continue
        for module in modules:
            if not any(is_below(module, root) for root in job.rule.imports):
                yield refuse(
                    RULE,
                    f"import of `{shown(module, 80)}`",
                    allowed(job),
                    "use the allowed modules, or ask the hospital",
                    node.lineno,
                )
