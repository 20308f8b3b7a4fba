"""Findings travel as a message and come back the same; a verdict is a few words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.findings import (
    Finding,
    Severity,
    decode_refusal,
    encode_refusal,
    finding_from_dict,
    passed,
    refusals,
    refuse,
    verdict,
)

PASS = passed("runs.maximum", "10 runs asked for", "at most 60")
READ = Finding("privacy.mode", Severity.READ, "none", "none", "decide")
WARN = Finding("job.flow", Severity.WARN, "images -> result", "models and counts", "read it", 5)
REFUSED = refuse("job.imports", "import of `os`", "math, numpy", "use the allowed modules", 7)

findings = st.builds(
    Finding,
    rule=st.text(),
    severity=st.sampled_from(Severity),
    seen=st.text(),
    allowed=st.text(),
    do=st.text(),
    line=st.none() | st.integers(1, 5000),
)


@given(st.lists(findings, max_size=5))
def test_findings_come_back_as_they_were_sent(sent: list[Finding]) -> None:
    assert decode_refusal(encode_refusal(sent)) == sent


@given(findings)
def test_finding_survives_json(finding: Finding) -> None:
    assert finding_from_dict(json.loads(json.dumps(finding.as_dict()))) == finding


@pytest.mark.parametrize(
    "message", ["", "[]", "refused", " sitegate refusal: []", "Exception: sitegate refusal: []"]
)
def test_another_message_is_no_refusal(message: str) -> None:
    assert decode_refusal(message) is None


def test_refusal_without_findings_is_still_a_refusal() -> None:
    assert decode_refusal(encode_refusal([])) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "ok"),
        ([PASS], "ok"),
        ([PASS, READ], "ok, 1 to read"),
        ([READ, READ], "ok, 2 to read"),
        ([REFUSED], "1 refused"),
        ([PASS, REFUSED, READ, REFUSED], "2 refused, 1 to read"),
        ([WARN, PASS], "ok, 1 warning"),
        ([REFUSED, WARN, READ, WARN], "1 refused, 2 warnings, 1 to read"),
    ],
)
def test_verdict_is_told_in_words(found: list[Finding], words: str) -> None:
    assert verdict(found) == words
    assert verdict(iter(found)) == words  # also when the findings can be read only once


def test_refusals_are_the_findings_that_forbid() -> None:
    assert refusals([PASS, REFUSED, READ]) == [REFUSED]
    assert refusals([PASS, READ, WARN]) == []


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (PASS, "runs.maximum: 10 runs asked for; allowed: at most 60."),
        (READ, "privacy.mode: none; allowed: none. To do: decide."),
        (
            REFUSED,
            "job.imports (line 7): import of `os`; allowed: math, numpy. "
            "To do: use the allowed modules.",
        ),
    ],
)
def test_finding_is_one_sentence(finding: Finding, sentence: str) -> None:
    assert finding.sentence == sentence


@pytest.mark.parametrize("severity", list(Severity))
def test_every_severity_is_explained(severity: Severity) -> None:
    assert len(severity.meaning.split()) >= 4


def test_severities_are_sorted_from_least_to_most_serious() -> None:
    found = sorted([WARN, REFUSED, PASS, READ], key=lambda f: f.severity.rank)
    assert found == [PASS, READ, WARN, REFUSED]
