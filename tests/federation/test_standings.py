"""Where requests stand, in words; and what a notebook shows of findings and datasets."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

import factories
from federation.errors import FederationError
from federation.job import Job
from federation.notebook_tables import Cell, Datasets, Findings, html_table
from federation.saved_study import read_study, save_study
from federation.standings import in_a_sentence, standing_of, standings_table, waited
from federation.submission import Federation, Study
from federation.terms import Wanted

NOW = dt.datetime(2026, 11, 22, 11, 30, tzinfo=dt.UTC)


def request(**changes: Any) -> dict[str, Any]:
    """What a site says of a request that waits."""
    plain = {
        "request": 7, "state": "pending", "state_in_words": "pending", "stopped": False,
        "reason": "", "comments": [], "submitted_at": "2026-11-22T09:14:00Z", "runs": 12,
        "runs_used": 0, "expires_at": "", "needed": "1 person (owner)", "findings": [],
    }  # fmt: skip
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "less than a minute"),  # the hospital's clock is ahead
        (59, "less than a minute"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (260_000, "3 d"),
    ],
)
def test_waiting_is_told_in_the_largest_unit(seconds: float, words: str) -> None:
    assert waited(dt.timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("changes", "words", "why"),
    [
        ({}, "waiting 2 h", "needs 1 person (owner)"),
        # one of two has agreed
        (
            {"state": "partly approved", "state_in_words": "1 of 2 agreed"},
            "waiting 2 h",
            "1 of 2 agreed; needs 1 person (owner)",
        ),
        ({"state": "approved", "reason": "fine"}, "approved", "fine"),
        # the policy changed after the approval
        (
            {"state": "approved", "stopped": True},
            "stopped",
            "its policy changed; the hospital has to confirm its approval",
        ),
        (
            {"state": "changes requested", "reason": "see line 3", "comments": [{}]},
            "changes requested",
            "see line 3 (1 remark on lines: `comments()`)",
        ),
        ({"state": "denied", "reason": "too many runs"}, "denied", "too many runs"),
    ],
)
def test_a_request_stands_in_words_with_the_reason(
    changes: dict[str, Any], words: str, why: str
) -> None:
    standing = standing_of("St Mary's", request(**changes), now=NOW)
    assert (standing.words, standing.why) == (words, why)


def test_the_sentence_starts_with_who_is_waited_for() -> None:
    standings = [
        standing_of("North Clinic", request(state="approved"), now=NOW),
        standing_of("St Mary's", request(), now=NOW),
        standing_of("Seaside", request(state="approved"), now=NOW),
        standing_of("Lakeside", None, FederationError("lakeside does not answer")),
    ]
    told = "waiting 2 h at St Mary's; approved at North Clinic and Seaside; "
    assert in_a_sentence(standings) == f"{told}does not answer at Lakeside."
    table = standings_table("A <study>", standings)
    assert "A &lt;study&gt;" in table
    assert "lakeside does not answer" in table


def test_a_study_without_requests_says_so() -> None:
    assert standings_table("A study", []) == "<p><b>A study</b>: not submitted yet.</p>"


def test_findings_name_what_is_open_once_and_count_the_rest() -> None:
    rule = {"rule": "runs.maximum", "seen": "40 <runs>", "allowed": "at most 12", "do": "ask less"}
    kept = {"rule": "examples.minimum", "verdict": "pass", "seen": "1", "allowed": "1", "do": ""}
    rows = [{"site": s, "verdict": "refused", **rule} for s in ("Seaside", "St Mary's")]
    found = Findings([*rows, {"site": "Seaside", **kept}, {"site": "North Clinic", **kept}])
    page = found._repr_html_()
    assert page.count("runs.maximum") == 1
    assert "Seaside, St Mary&#x27;s" in page
    assert "40 &lt;runs&gt;" in page
    assert "● could be approved</span>; 1 rules pass" in page
    assert page.count("✕ cannot be approved") == 2
    assert type(found[found["verdict"] == "pass"]) is not Findings  # a selection shows every row


def test_datasets_show_counts_whole_and_suppressed_ones_in_a_word() -> None:
    page = Datasets([{"site": "a", "train": 1200}, {"site": "b", "train": None}])._repr_html_()
    assert "1,200" in page
    assert "suppressed" in page
    assert "nan" not in page.lower()


def test_cells_of_a_table_are_text() -> None:
    page = html_table(["<head>"], [[Cell("<b>", below="<i>")]])
    assert "&lt;head&gt;" in page
    assert "&lt;b&gt;" in page
    assert "&lt;i&gt;" in page


def study_of(requests: dict[str, int]) -> Study:
    wanted = Wanted(
        "Double", "a test", "chest-xray", 10, factories.terms().arguments, factories.contract(), 14
    )
    study = Study(Federation([]), Job(factories.DOUBLE_JOB, "double", "train"), wanted)
    study.requests = requests
    return study


def test_a_saved_study_is_the_same_when_it_is_read(tmp_path: Path) -> None:
    study = study_of({"st-marys": 7})
    saved = read_study(save_study(study, tmp_path / "new" / "study.json"))
    assert saved.parts() == (study.job, study.wanted)
    assert saved.requests == {"st-marys": 7}


def test_a_study_that_was_not_submitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="submit it first"):
        save_study(study_of({}), tmp_path / "study.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), ("not JSON", "no saved study"), ("{}", "no saved study")],
)
def test_a_file_that_is_no_saved_study_is_said_so(
    tmp_path: Path, content: str | None, says: str
) -> None:
    file = tmp_path / "study.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(FederationError, match=says.replace("no saved", "not a saved")):
        read_study(file)
