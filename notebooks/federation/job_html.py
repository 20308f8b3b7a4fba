"""A job's text as a notebook shows it: numbered and coloured, its end folded away."""

from __future__ import annotations

import ast
from html import escape

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

_LOOK = "font-family: monospace; font-size: 12px; line-height: 1.4; margin: 0; white-space: pre"


def job_html(name: str, text: str, sha256: str) -> str:
    """The header and the entry function, and below them the rest, to be unfolded.

    Args:
        name: Name of the job.
        text: Its text, which starts with its entry function.
        sha256: Digest of the text.
    """
    lines = text.splitlines()
    shown = ast.parse(text).body[0].end_lineno or len(lines)
    rest = len(lines) - shown
    folded = (
        f"<details><summary>{rest} more lines</summary>{_coloured(lines[shown:], shown + 1)}"
        "</details>"
    )
    return (
        f"<p><b>{escape(name)}</b>, {len(lines)} lines, SHA-256 {sha256[:12]}…</p>"
        f"{_coloured(lines[:shown], 1)}{folded if rest else ''}"
    )


def _coloured(lines: list[str], first: int) -> str:
    formatter = HtmlFormatter(
        noclasses=True, linenos="inline", linenostart=first, prestyles=_LOOK, nobackground=True
    )
    return str(highlight("\n".join(lines), PythonLexer(stripnl=False), formatter))
