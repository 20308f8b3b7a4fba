"""How the page writes numbers, times and strangers' text."""

from __future__ import annotations

import datetime as dt

import pytest

from datasites.page.wording import age, cut, moment, shown, size, visible

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"), (59, "just now"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
        (86_399, "23 h"), (86_400, "1 d"), (86_400 * 40, "40 d"),
    ],
)  # fmt: skip
def test_age_has_one_unit(seconds, words) -> None:
    assert age((NOW - dt.timedelta(seconds=seconds)).isoformat(), NOW) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (None, "not declared"), (16, "16 bytes"), (9_999, "9,999 bytes"), (10_000, "10.0 kB"),
        (999_999, "1,000.0 kB"), (1_000_000, "1.00 MB"), (1_682_440, "1.68 MB"),
    ],
)  # fmt: skip
def test_sizes_have_the_unit_that_fits(number, words) -> None:
    assert size(number) == words


def test_times_are_utc_and_what_is_none_stays() -> None:
    assert moment("2026-11-25T13:00:00+01:00") == "2026-11-25 12:00 UTC"
    assert moment("<yesterday>") == "<yesterday>"
    assert age("<yesterday>", NOW) == "unknown"


def test_long_names_are_cut_with_a_sign() -> None:
    assert cut("x" * 90) == "x" * 90
    assert cut("x" * 1_000_000) == "x" * 89 + "…"


def test_nothing_is_hidden_in_what_is_printed() -> None:
    assert visible("a\u202eb\u200bc\x00d\te") == "a⟨U+202E⟩b⟨U+200B⟩c⟨U+0000⟩d\te"
    assert shown(None) == ""
    assert shown("a\u2066") == "a⟨U+2066⟩"
