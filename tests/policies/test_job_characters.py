"""Characters that show a reader something else than Python reads."""

from __future__ import annotations

import pytest

from policies.findings import Finding, Severity, refusals
from policies.job.text import shown
from policies.job_rules import check_job
from policies.sections import JobRule

FRAME = "# computes nothing\ndef train(data, weights, config):\n    {}\n    return weights\n"


def found(line: str) -> list[Finding]:
    findings = check_job(FRAME.format(line), "train", JobRule())
    return [f for f in findings if f.rule == "job.characters" and f.severity.rank]


@pytest.mark.parametrize(
    ("line", "seen", "severity"),
    [
        ("x = 1  # \u202e", "characters that turn the order of the text: U+202E", Severity.REFUSE),
        ("x = '\u2066\u2069'", "characters that turn the order of the text: U+2066, U+2069",
         Severity.REFUSE),
        ("x = '\u200b'", "invisible or control characters: U+200B", Severity.REFUSE),
        ("x = '\ufeff'", "invisible or control characters: U+FEFF", Severity.REFUSE),
        ("x = '\u3000'", "invisible or control characters: U+3000", Severity.REFUSE),
        ("x = '\u3164'", "invisible or control characters: U+3164", Severity.REFUSE),
        ("x = 1  # \x1b[2K", "invisible or control characters: U+001B", Severity.REFUSE),
        ("x = 1  # \x08", "invisible or control characters: U+0008", Severity.REFUSE),
        ("x = 1  # \u2028 y", "characters that look like the end of a line: U+2028",
         Severity.REFUSE),
        ("x = 1  # \x0c y", "characters that look like the end of a line: U+000C",
         Severity.REFUSE),
        ("x = 1  # \x85 y", "characters that look like the end of a line: U+0085",
         Severity.REFUSE),
        ("d\u0430ta = 1", "a name with letters that look like others: U+0430", Severity.REFUSE),
        ("\uff4f = 1", "`o` written in other letters", Severity.REFUSE),
        ("\U0001d44e = 1", "`a` written in other letters", Severity.REFUSE),
        ("größe = 1", "the name `größe`", Severity.READ),
        ("\u03b1 = 1", "the name `α`", Severity.READ),
    ],
)  # fmt: skip
def test_character_is_found(line: str, seen: str, severity: Severity) -> None:
    assert [(f.seen, f.severity, f.line) for f in found(line)] == [(seen, severity, 3)]


@pytest.mark.parametrize(
    "line",
    [
        "x = 1  # Größe, naïve, Прогноз, 肺炎, 10 µm, ≤ 5",
        "x = 'Größe ≤ 5 µm'",
        "x = 'data und дата'",
        "x =\t1",
        "x = 1  # no\xa0break",
    ],
)
def test_other_languages_in_comments_and_strings_are_ordinary(line: str) -> None:
    assert found(line) == []


@pytest.mark.parametrize(
    ("first", "refused"),
    [
        ("# -*- coding: utf-8 -*-", False),
        ("# vim: set fileencoding=utf8 :", False),
        ("# coding: latin-1", True),
        ("# -*- coding: utf-7 -*-", True),
        ("# the coding of labels is 0 and 1", False),
    ],
)
def test_only_utf_8_may_be_declared(first: str, refused: bool) -> None:
    text = first + "\n" + FRAME.format("pass")
    findings = refusals(check_job(text, "train", JobRule()))
    assert bool(findings) is refused
    if refused:
        assert {f.rule for f in findings} <= {"job.characters", "job.syntax"}


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        ("plain", "plain"),
        ("a\u202eb", "a<U+202E>b"),
        ("a\nb\x1b", "a<U+000A>b<U+001B>"),
        ("\u05d0", "<U+05D0>"),
        ("e\u0301", "e<U+0301>"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
    ],
)
def test_what_a_job_chose_is_shown_safely(piece: str, words: str) -> None:
    assert shown(piece) == words


def test_findings_carry_no_character_that_turns_or_hides() -> None:
    line = (
        "from numpy import a\u0301\u0301 as \u05d0\u05d1; weights['\u202e'] = data.arrays('x')[0]"
    )
    for finding in check_job(FRAME.format(line), "train", JobRule()):
        assert all(c.isprintable() for c in finding.sentence)
        assert "\u202e" not in finding.sentence
        assert "\u05d0" not in finding.sentence
