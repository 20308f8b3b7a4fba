"""The block at the top of a sheet says what is wrong, most decisive first."""

from __future__ import annotations

import pytest

from datasites.attention import PER_RULE, Kind, what_to_look_at
from tests.page.sheets import TEXT, comparison, finding, rehearsal, sheet

REFUSED = finding("runs.maximum", "refuse", "20 runs asked for", "at most 12", "ask for fewer")
WARNED = finding("job.flow", "warn", 'images (line 2) -> weights["w"] (line 3)', "none", "", 3)
READ = finding("privacy.mode", "read", "none: updates leave as computed", "none", "decide")
SAME = comparison(TEXT, TEXT)


@pytest.mark.parametrize(
    ("changes", "kind", "headline"),
    [
        ({"findings": [READ]}, Kind.GOOD, "Nothing found speaks against it"),
        ({"findings": [READ, REFUSED]}, Kind.REFUSED, "The policy refuses it: 1 refusal"),
        ({"findings": [REFUSED, REFUSED, WARNED]}, Kind.REFUSED,
         "The policy refuses it: 2 refusals"),
        ({"findings": [WARNED]}, Kind.WARNING, "Understand 1 warning before you approve"),
        ({"findings": [WARNED], "rehearsal": rehearsal(suspicious=True)}, Kind.WARNING,
         "Understand 1 warning before you approve, and look at the rehearsal"),
        ({"rehearsal": rehearsal(attempts=[["socket.connect", 2]])}, Kind.REHEARSAL,
         "The rehearsal shows something to understand before you approve"),
        ({"rehearsal": None}, Kind.READ,
         "No rule speaks against it; it has not been rehearsed yet"),
    ],
)  # fmt: skip
def test_headline_sums_up_what_decides(changes, kind, headline) -> None:
    found = what_to_look_at(sheet(**changes))
    assert (found.kind, found.headline) == (kind, headline)


def test_points_stand_in_the_order_of_how_much_they_decide() -> None:
    found = what_to_look_at(
        sheet(
            findings=[READ, WARNED, REFUSED],
            rehearsal=rehearsal(suspicious=True, repeatable=False),
            comparisons=[comparison(TEXT, TEXT.replace("return weights", "return data"))],
        )
    )
    kinds = [point.kind for point in found.points]
    assert kinds == [
        Kind.REFUSED, Kind.WARNING, Kind.REHEARSAL, Kind.CHANGED, Kind.READ, Kind.READ,
    ]  # fmt: skip


def test_a_point_shows_its_line_and_leads_to_it() -> None:
    (point,) = [p for p in what_to_look_at(sheet(findings=[WARNED])).points if p.line]
    assert point.what == "Something of single images may leave"
    assert point.instead == 'images (line 2) -> weights["w"] (line 3)'
    assert (point.anchor, point.code) == ("L3", ("return weights",))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"outcome": "MemoryError"}, "It failed on the mock: MemoryError"),
        ({"suspicious": True}, "The result rests on few images"),
        ({"attempts": [["open", 3], ["fork", 1]]},
         "It tried what honest training does not: open (3×), fork (1×)"),
        ({"refused": [REFUSED]}, "What it returned would stay here: 20 runs asked for"),
    ],
)  # fmt: skip
def test_what_went_wrong_on_the_mock_is_a_point(changes, what) -> None:
    found = what_to_look_at(sheet(rehearsal=rehearsal(**changes)))
    assert what in [p.what for p in found.points if p.kind is Kind.REHEARSAL]
    assert "returned what it declared" not in " ".join(p.what for p in found.points)


@pytest.mark.parametrize("number", [PER_RULE, PER_RULE + 1, PER_RULE + 20])
def test_many_findings_of_one_rule_do_not_hide_the_others(number) -> None:
    many = [finding("job.calls", "refuse", f"use of `f{k}`", "none") for k in range(number)]
    found = what_to_look_at(sheet(findings=[*many, REFUSED]))
    refused = [p for p in found.points if p.kind is Kind.REFUSED]
    assert len(refused) == min(number, PER_RULE) + 1 + (number > PER_RULE)
    if number > PER_RULE:
        assert refused[-1].what == f"{number - PER_RULE} more of this rule"


@pytest.mark.parametrize(
    ("new", "approved", "kind", "what", "code"),
    [
        (TEXT, True, Kind.GOOD, "The text is that of R-4, which was approved", ()),
        (TEXT, False, Kind.CHANGED, "The text is still that of R-4, whose place it takes", ()),
        (TEXT.replace("weights\n", "data\n"), True, Kind.CHANGED,
         "1 line differs from R-4, which was approved", ("+ return data",)),
        (TEXT.replace("# A job.\n", ""), True, Kind.CHANGED,
         "1 line differs from R-4, which was approved", ("− # A job.",)),
        ("a\nb\nc\n" + TEXT, False, Kind.CHANGED,
         "3 lines differ from R-4, whose place it takes", ("+ a", "+ b", "+ c")),
        ("a\nb\nc\nd\n" + TEXT, True, Kind.CHANGED,
         "4 lines differ from R-4, which was approved", ()),
    ],
)  # fmt: skip
def test_difference_to_an_earlier_text_is_a_point(new, approved, kind, what, code) -> None:
    found = what_to_look_at(sheet(text=new, comparisons=[comparison(TEXT, new, approved=approved)]))
    (point,) = [p for p in found.points if "R-4" in p.what]
    assert (point.kind, point.what, point.code) == (kind, what, code)


def test_a_finding_beyond_the_text_has_no_line_to_show() -> None:
    odd = finding("job.form", "warn", "x", "y", "", 99)
    (point,) = [p for p in what_to_look_at(sheet(findings=[odd])).points if p.line]
    assert point.code == ()


def test_an_honest_sheet_has_nothing_worse_than_things_to_read() -> None:
    found = what_to_look_at(sheet(findings=[READ], comparisons=[SAME]))
    assert {p.kind for p in found.points} <= {Kind.READ, Kind.GOOD}
