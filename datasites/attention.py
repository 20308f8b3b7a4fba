"""What to look at: the few things of a review sheet that decide, most decisive first.

It says nothing that the sheet does not say further down; it saves the reader from searching.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from policies.findings import Severity
from policies.plain_words import counted
from policies.text_lines import lines_of

Sheet = Mapping[str, Any]
PER_RULE = 4
"""Findings of one rule and severity that are listed; the policy's table has them all."""
CHANGED_LINES = 3
"""So few changed lines are shown at once."""
SAID = {
    "job.flow": "Something of single images may leave",
    "privacy.mode": "Privacy of single patients",
}
"""Rules whose findings need a sentence before them to be understood."""


class Kind(StrEnum):
    """How a point counts; the value is the word beside it, the order is that of the list."""

    REFUSED = "refused"
    WARNING = "warning"
    REHEARSAL = "rehearsal"
    CHANGED = "changed"
    READ = "to read"
    GOOD = "in order"


SERIOUS = (Kind.REFUSED, Kind.WARNING, Kind.REHEARSAL)
"""Kinds beside which nothing is said to be in order."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to look at.

    Attributes:
        kind: How it counts.
        what: What is seen, as a sentence.
        instead: What would be allowed or expected; empty where nothing else is.
        rule: The policy's rule that says so; empty where no rule does.
        anchor: The part of the sheet that has it.
        line: The line of the text that it is about.
        code: That line, or the lines that changed.
    """

    kind: Kind
    what: str
    instead: str = ""
    rule: str = ""
    anchor: str = "policy"
    line: int | None = None
    code: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attention:
    """The block at the top of a sheet: one sentence, and the points behind it."""

    kind: Kind
    headline: str
    points: tuple[Point, ...]


def what_to_look_at(sheet: Sheet) -> Attention:
    """The points of a sheet, and the sentence that sums them up."""
    lines = lines_of(sheet["text"])
    points = [
        *_of_policy(sheet["findings"], Severity.REFUSE, Kind.REFUSED, lines),
        *_of_policy(sheet["findings"], Severity.WARN, Kind.WARNING, lines),
        *_of_rehearsal(sheet["rehearsal"]),
        *_of_comparisons(sheet["comparisons"]),
        *_of_policy(sheet["findings"], Severity.READ, Kind.READ, lines),
    ]
    if any(point.kind in SERIOUS for point in points):
        points = [point for point in points if point.kind is not Kind.GOOD]  # it would calm
    points.sort(key=lambda point: list(Kind).index(point.kind))
    kind, headline = _headline(sheet, points)
    return Attention(kind, headline, tuple(points))


def _headline(sheet: Sheet, points: Sequence[Point]) -> tuple[Kind, str]:
    number = Counter(finding["severity"] for finding in sheet["findings"])
    refused, warned = number[Severity.REFUSE], number[Severity.WARN]
    rehearsed = any(point.kind is Kind.REHEARSAL for point in points)
    if refused:
        return Kind.REFUSED, f"The policy refuses it: {counted(refused, 'refusal')}"
    if warned:
        also = ", and look at the rehearsal" if rehearsed else ""
        return Kind.WARNING, f"Understand {counted(warned, 'warning')} before you approve{also}"
    if rehearsed:
        return Kind.REHEARSAL, "The rehearsal shows something to understand before you approve"
    if sheet["rehearsal"] is None:
        return Kind.READ, "No rule speaks against it; it has not been rehearsed yet"
    return Kind.GOOD, "Nothing found speaks against it"


def _of_policy(
    findings: Sequence[Mapping[str, Any]], severity: Severity, kind: Kind, lines: Sequence[str]
) -> Iterator[Point]:
    told: Counter[str] = Counter()
    for finding in findings:
        if finding["severity"] != severity:
            continue
        rule, line = finding["rule"], finding["line"]
        told[rule] += 1
        if told[rule] <= PER_RULE:
            said = SAID.get(rule)
            yield Point(
                kind,
                said or _capital(finding["seen"]),
                finding["seen"] if said else _instead(finding),
                rule,
                f"L{line}" if line else "policy",
                line,
                (lines[line - 1].strip(),) if line and line <= len(lines) else (),
            )
    for rule, number in told.items():
        if number > PER_RULE:
            yield Point(kind, f"{number - PER_RULE} more of this rule", "", rule)


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _instead(finding: Mapping[str, Any]) -> str:
    """What a finding asks for, in the words that fit how serious it is."""
    if finding["severity"] == Severity.REFUSE:
        return f"allowed: {finding['allowed']}"
    return str(finding["do"] or finding["allowed"])


def _of_rehearsal(rehearsal: Mapping[str, Any] | None) -> Iterator[Point]:
    if rehearsal is None:
        yield Point(Kind.READ, "Nobody has seen yet what it does on the mock", "rehearse it",
                    anchor="rehearsal")  # fmt: skip
        return
    serious = []
    if rehearsal["outcome"] != "returned":
        serious.append((f"It failed on the mock: {rehearsal['outcome']}", ""))
    if rehearsal["suspicious"]:
        stored = "stand in the returned" in rehearsal["influence"]
        what = (
            "Pixels of images stand in what leaves" if stored else "The result rests on few images"
        )
        serious.append((what, rehearsal["influence"]))
    if rehearsal["attempts"]:
        tried = ", ".join(f"{what} ({times}×)" for what, times in rehearsal["attempts"])
        serious.append((f"It tried what honest training does not: {tried}", ""))
    serious.extend(
        (f"What it returned would stay here: {refused['seen']}", f"allowed: {refused['allowed']}")
        for refused in rehearsal["refused"][:PER_RULE]
    )
    for what, instead in serious:
        yield Point(Kind.REHEARSAL, what, instead, anchor="rehearsal")
    if not rehearsal["repeatable"]:
        yield Point(Kind.READ, "The same run gave two different results", "expect a reason in "
                    "the text", anchor="rehearsal")  # fmt: skip
    if not serious:
        what = "On the mock it returned what it declared, and opened no file, network or process"
        yield Point(Kind.GOOD, what, rehearsal["influence"], anchor="rehearsal")


def _of_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    if not comparisons or not comparisons[0]["approved"]:
        yield Point(Kind.READ, "Nothing like this text was approved here before", anchor="code")
    for comparison in comparisons:
        yield from _of_comparison(comparison)


def _of_comparison(comparison: Mapping[str, Any]) -> Iterator[Point]:
    earlier = f"R-{comparison['request']}"
    standing = "which was approved" if comparison["approved"] else "whose place it takes"
    if comparison["same"]:
        if comparison["approved"]:
            yield Point(Kind.GOOD, f"The text is that of {earlier}, {standing}", anchor="diff")
        else:
            yield Point(Kind.CHANGED, f"The text is still that of {earlier}, {standing}",
                        anchor="diff")  # fmt: skip
        return
    changed = [row for row in comparison["rows"] if row["change"] != "same"]
    differ = f"{counted(len(changed), 'line')} {'differs' if len(changed) == 1 else 'differ'}"
    only = changed[0]["new_line"] if len(changed) == 1 else None
    yield Point(
        Kind.CHANGED,
        f"{differ} from {earlier}, {standing}",
        anchor=f"L{only}" if only else "diff",
        line=only,
        code=tuple(map(_changed, changed)) if len(changed) <= CHANGED_LINES else (),
    )


def _changed(row: Mapping[str, Any]) -> str:
    """A changed line as it is now, or as it was where it is gone."""
    return f"− {row['old'].strip()}" if row["new"] is None else f"+ {row['new'].strip()}"
