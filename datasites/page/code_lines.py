"""A job's text for a reader: coloured, numbered as Python does, with nothing hidden in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from pygments.lexers.python import PythonLexer
from pygments.token import STANDARD_TYPES, Token, _TokenType

from datasites.page.wording import named
from policies.findings import Severity
from policies.text_lines import lines_of

LONGEST_COLOURED = 2000
"""Characters of a line from which a text is shown without colours: no person writes such lines."""


@dataclass(frozen=True, slots=True)
class CodeLine:
    """One line.

    Attributes:
        number: From 1.
        html: Its text as markup.
        notes: Findings about it.
        changed: Whether the text it is compared with does not have it.
    """

    number: int
    html: Markup
    notes: tuple[Mapping[str, Any], ...]
    changed: bool


def code_lines(
    text: str, findings: Sequence[Mapping[str, Any]], changed: frozenset[int] = frozenset()
) -> list[CodeLine]:
    """Every line of a text with what was found on it."""
    lines = lines_of(text) or [""]
    if max(map(len, lines)) > LONGEST_COLOURED:
        coloured = [_mark(line, in_code=True) for line in lines]
    else:
        coloured = list(_coloured("\n".join(lines)))
    notes: dict[int, list[Mapping[str, Any]]] = {}
    for finding in findings:
        if finding["line"] and finding["severity"] != Severity.PASS:
            notes.setdefault(finding["line"], []).append(finding)
    return [
        CodeLine(number, html, tuple(notes.get(number, ())), number in changed)
        for number, html in enumerate(coloured, 1)
    ]


def _coloured(text: str) -> Iterator[Markup]:
    """The lines of a text, as the lexer sees them."""
    line: list[Markup] = []
    for _, kind, value in PythonLexer().get_tokens_unprocessed(text):
        first, *others = value.split("\n")
        line.append(_piece(kind, first))
        for other in others:
            yield Markup().join(line)
            line = [_piece(kind, other)]
    yield Markup().join(line)


def _piece(kind: _TokenType, text: str) -> Markup:
    if not text:
        return Markup()
    words = kind in Token.Comment or kind in Token.Literal
    html, name = _mark(text, in_code=not words), STANDARD_TYPES.get(kind, "")
    return Markup('<span class="{}">{}</span>').format(name, html) if name else html


def _mark(text: str, *, in_code: bool) -> Markup:
    """A piece of text; hidden characters, and in code all that are not ASCII, are named."""
    if text.isascii() and text.isprintable():
        return escape(text)
    return Markup().join(_character(c, in_code) for c in text)


def _character(character: str, in_code: bool) -> Markup:
    if character == "\t":
        return Markup("\t")
    if not character.isprintable():
        return Markup('<mark class="odd">{}</mark>').format(named(character))
    if in_code and not character.isascii():
        return Markup('<mark class="odd">{}{}</mark>').format(character, named(character))
    return escape(character)
