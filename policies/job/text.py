"""The text of a job, taken apart once for every rule."""

from __future__ import annotations

import ast
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from policies.findings import Finding, refuse
from policies.job.flow import Flow, follow
from policies.job.names import Names
from policies.sections import JobRule

MAXIMUM_BYTES = 200_000
MAXIMUM_NESTING = 60
"""Expressions and blocks within each other; what nests deeper is not meant to be read."""
MAXIMUM_PER_LINE = 40
"""Names, values and operators for each line that the policy allows; honest jobs have 10 to 20."""


def job_sha256(text: str) -> str:
    """Hex SHA-256 of a job's text, byte for byte in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class JobText:
    """A job's text with its syntax tree, and the policy it is held to."""

    text: str
    tree: ast.Module
    entry: str
    rule: JobRule
    arguments: tuple[str, ...] = ("data", "weights", "config")

    @property
    def head(self) -> str:
        """How the entry function starts."""
        return f"def {self.entry}({', '.join(self.arguments)})"

    @cached_property
    def lines(self) -> list[str]:
        """The lines as Python counts them."""
        return re.split(r"\r\n|\r|\n", self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def names(self) -> Names:
        """What the names of the text stand for."""
        return Names(self.tree)

    @cached_property
    def flow(self) -> Flow:
        """Where the data go."""
        return follow(self.tree, self.entry)


def read_job(text: str, entry: str, rule: JobRule, arguments: tuple[str, ...]) -> JobText | Finding:
    """The text taken apart, or the finding that it cannot be: too long, or not Python."""
    if len(text.encode(errors="surrogatepass")) > MAXIMUM_BYTES:
        return refuse(
            "job.syntax",
            f"{len(text):,} characters",
            f"at most {MAXIMUM_BYTES:,}",
            "send the job alone, without data",
        )
    try:
        text.encode()
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        return refuse(
            "job.syntax",
            "the text is not Python",
            "a Python 3.11 module",
            "run it once before submitting",
            line,
        )
    most = MAXIMUM_PER_LINE * rule.maximum_lines
    if next(islice(ast.walk(tree), most, None), None) is not None:
        return refuse(
            "job.syntax",
            f"more than {most:,} names, values and operators",
            f"at most {MAXIMUM_PER_LINE} for each of {rule.maximum_lines} lines",
            "shorten the job",
        )
    deep = _deepest(tree)
    if deep is not None:
        return refuse(
            "job.syntax",
            f"more than {MAXIMUM_NESTING} expressions or blocks within each other",
            f"at most {MAXIMUM_NESTING}",
            "give the parts names",
            deep,
        )
    return JobText(text, tree, entry, rule, arguments)


def shown(text: str, limit: int = 60) -> str:
    """A piece of a job for a sentence: short, and without characters that change what is seen."""
    clean = "".join(c if c.isprintable() and not _turns(c) else f"<U+{ord(c):04X}>" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _turns(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Mn", "Me") or (
        unicodedata.bidirectional(character) in ("R", "AL", "RLE", "LRE", "RLO", "LRO")
    )


def _deepest(tree: ast.Module) -> int | None:
    """The line at which the nesting is deeper than allowed."""
    waiting: list[tuple[ast.AST, int, int]] = [(tree, 0, 1)]
    while waiting:
        node, depth, line = waiting.pop()
        if depth > MAXIMUM_NESTING:
            return line
        for child in ast.iter_child_nodes(node):
            waiting.append((child, depth + 1, getattr(child, "lineno", line)))
    return None
