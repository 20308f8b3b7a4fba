"""What a reader sees of a text is what it is: nothing is hidden, nothing is interpreted."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasites.page.code_lines import LONGEST_COLOURED, code_lines
from tests.page.sheets import finding

NAMED = re.compile(r"⟨U\+[0-9A-F]{4,6}⟩")


def words(markup: str) -> str:
    """The text of some markup."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x = 1  # \u202e oh", "x = 1  # ⟨U+202E⟩ oh"),
        ("x = '\u200b'", "x = '⟨U+200B⟩'"),
        ("x\u00a0= 1", "x⟨U+00A0⟩= 1"),
        ("\x0cx = 1", "⟨U+000C⟩x = 1"),
        ("а = 1", "а⟨U+0430⟩ = 1"),  # a Cyrillic letter that looks like `a`
        ("x = 'Grüße'", "x = 'Grüße'"),  # letters in a string are no disguise
        ("x = '<script>alert(1)</script>'", "x = '<script>alert(1)</script>'"),
        ("\tx = 1", "\tx = 1"),
        ("\ud800", "⟨U+D800⟩"),
    ],
)
def test_hidden_characters_are_written_out(text, shown) -> None:
    (line,) = code_lines(text, [])
    assert words(str(line.html)) == shown
    assert "<script" not in str(line.html)


def test_characters_that_are_written_out_are_marked() -> None:
    (line,) = code_lines("x = 1  # \u202e", [])
    assert '<mark class="odd">⟨U+202E⟩</mark>' in line.html


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_numbered_as_python_does(end) -> None:
    text = end.join(["a = 1", "b = '''", "c'''", "d = 4\x0b\u2028", ""])
    lines = code_lines(text, [])
    assert [line.number for line in lines] == [1, 2, 3, 4]
    assert words(str(lines[3].html)) == "d = 4⟨U+000B⟩⟨U+2028⟩"


def test_findings_stand_at_their_line_and_kept_rules_do_not() -> None:
    notes = [
        finding("job.flow", "warn", "x", "y", "", 2),
        finding("job.calls", "refuse", "z", "y", "", 2),
        finding("job.form", "pass", "kept", "", "", 1),
        finding("runs.maximum", "refuse", "20", "12"),
    ]
    lines = code_lines("a = 1\nb = 2\n", notes, frozenset({1}))
    assert [[n["rule"] for n in line.notes] for line in lines] == [[], ["job.flow", "job.calls"]]
    assert [line.changed for line in lines] == [True, False]


def test_absurdly_long_lines_are_shown_whole_without_colours() -> None:
    text = "x = '" + "<b>" * LONGEST_COLOURED + "'"
    (line,) = code_lines(text, [])
    assert "<span" not in line.html
    assert words(str(line.html)) == text


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_any_text_is_shown_whole_and_as_text(text) -> None:
    lines = code_lines(text, [])
    expected = re.split(r"\r\n|\r|\n", text)
    if len(expected) > 1 and not expected[-1]:
        expected.pop()
    assert len(lines) == len(expected)
    for line, source in zip(lines, expected, strict=True):
        tags = re.findall(r"<[^>]*>", str(line.html))
        assert all(re.fullmatch(r'</?(span|mark)( class="[a-z0-9]+")?>', tag) for tag in tags)
        plain = NAMED.sub("", words(str(line.html)))
        assert plain.isprintable() or "\t" in plain
        kept = [c for c in source if c.isascii() and c.isprintable()]
        assert [c for c in plain if c.isascii() and c.isprintable()] == kept
