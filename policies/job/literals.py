"""Values that stand in a text in a form that nobody can read: blobs, code in strings."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator

from policies.findings import Finding, Severity
from policies.job.text import JobText

RULE = "job.literals"
LONG_TEXT = 200
"""Characters without a space, or bytes, that count as encoded data."""
LONG_LIST = 64
"""Numbers written out in one place."""
LONG_NUMBER = 10**24
_ENCODED = re.compile(r"[A-Za-z0-9+/=_\-]{80,}|(?:[0-9A-Fa-f]{2}){32,}|(?:\\x[0-9a-f]{2}){16,}")
_CODE = re.compile(r"\b(import\s+\w+|__\w+__|exec\s*\(|eval\s*\(|lambda\s+\w+:|os\.system)")
_READS = re.compile(r"\{\w*(\.[A-Za-z_]|\[)[^{}]*\}")
_DENSE = 4.5
"""Bits per character; prose and names have fewer, base64 has more."""


def allowed(_job: object) -> str:
    """What the rule lets pass."""
    return "short values that a person can read"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about literals."""
    documents = {id(d) for node in job.nodes if (d := _docstring(node)) is not None}
    for node in job.nodes:
        if isinstance(node, ast.Constant) and id(node) not in documents:
            yield from _check_constant(node)
        elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            yield from _check_display(node)
    for number, line in enumerate(job.lines, 1):
        comment = line.rpartition("#")[2] if "#" in line else ""
        if _ENCODED.search(comment) and _is_dense(comment):
            yield _warn("encoded data in a comment", number)


def _check_constant(node: ast.Constant) -> Iterator[Finding]:
    value = node.value
    if isinstance(value, bytes):
        if len(value) > 16:
            yield _warn(f"{len(value)} bytes in the text", node.lineno)
    elif isinstance(value, str):
        if _is_encoded(value):
            yield _warn(f"a text of {len(value)} characters that looks encoded", node.lineno)
        elif _READS.search(value):
            yield _warn("a format that reads attributes or items", node.lineno)
        elif _CODE.search(value):
            yield _finding(Severity.READ, "code inside a string", node.lineno)
    elif isinstance(value, int) and abs(value) >= LONG_NUMBER:
        yield _warn("a number of more than 24 digits", node.lineno)


def _check_display(node: ast.List | ast.Tuple | ast.Set | ast.Dict) -> Iterator[Finding]:
    items = node.values if isinstance(node, ast.Dict) else node.elts
    constants = sum(isinstance(item, ast.Constant) for item in items)
    if constants > LONG_LIST:
        yield _warn(f"{constants} values written out", node.lineno)


def _is_encoded(text: str) -> bool:
    unusual = sum(not c.isprintable() and c not in "\n\t" for c in text)
    if unusual > 4 or sum(ord(c) > 0x2FF for c in text) > 40:
        return True
    longest = max(map(len, text.split()), default=0)
    return longest >= LONG_TEXT or bool(_ENCODED.search(text) and _is_dense(text))


def _is_dense(text: str) -> bool:
    counts = Counter(text.strip())
    total = sum(counts.values())
    bits = -sum(n / total * math.log2(n / total) for n in counts.values())
    digits = len(text.strip()) >= 64 and set(text.strip()) <= set("0123456789abcdefABCDEF\\x")
    return bits > _DENSE or digits


def _docstring(node: ast.AST) -> ast.Constant | None:
    if not isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) or not node.body:
        return None
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first.value if len(str(first.value.value)) < 2000 else None
    return None


def _warn(seen: str, line: int) -> Finding:
    return _finding(Severity.WARN, seen, line)


def _finding(severity: Severity, seen: str, line: int) -> Finding:
    return Finding(
        RULE, severity, seen, allowed(None), "send numbers as weights or arguments", line
    )
