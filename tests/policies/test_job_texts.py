"""How many hostile texts the rules on jobs find, and how many honest ones they take for hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from policies.findings import Finding, Severity
from policies.job_rules import RULES, check_job
from policies.sections import JobRule

ROOT = Path(__file__).parents[2]
TEXTS = Path(__file__).parent / "job_texts"
RULE = JobRule(imports=("math", "numpy", "torch", "torchvision"))
MARKER = re.compile(r"<!-- rates: hits (\d+)/(\d+), false alarms (\d+)/(\d+) -->")


@dataclass(frozen=True)
class Entry:
    """One text of a table: what it does, and the rule that is expected to find it."""

    name: str
    text: str
    rule: str = ""
    missed: bool = False


def entries(file: str) -> Iterator[Entry]:
    """The entries of a table; `<U+202E>` in a text stands for that character."""
    for part in re.split(r"^=== ", (TEXTS / file).read_text(), flags=re.MULTILINE)[1:]:
        title, text = part.split("\n", 1)
        text = re.sub(r"<U\+([0-9A-F]{4,6})>", lambda m: chr(int(m[1], 16)), text)
        name, *rule = title.split(" | ")
        text = f"# {name}\n{text.rstrip()}\n"
        expected = rule[0] if rule else ""
        yield Entry(name, text, expected.removeprefix("missed "), expected.startswith("missed "))


HONEST = list(entries("honest.txt"))
HOSTILE = list(entries("hostile.txt"))


@cache
def findings(text: str) -> list[Finding]:
    return check_job(text, "train", RULE)


def alarms(text: str) -> list[Finding]:
    """The findings that say that a text is probably not an honest job."""
    return [f for f in findings(text) if f.severity.rank >= Severity.WARN.rank]


def rates() -> str:
    """The rates over both tables, as README states them."""
    hits = sum(bool(alarms(entry.text)) for entry in HOSTILE)
    false = sum(bool(alarms(entry.text)) for entry in HONEST)
    return f"<!-- rates: hits {hits}/{len(HOSTILE)}, false alarms {false}/{len(HONEST)} -->"


@pytest.mark.parametrize("entry", HONEST, ids=lambda e: e.name)
def test_honest_text_raises_no_alarm(entry: Entry) -> None:
    assert [f.sentence for f in alarms(entry.text)] == []
    to_read = [f for f in findings(entry.text) if f.severity is Severity.READ]
    assert len(to_read) <= 3


@pytest.mark.parametrize("entry", [e for e in HOSTILE if not e.missed], ids=lambda e: e.name)
def test_hostile_text_is_found_by_its_rule(entry: Entry) -> None:
    assert entry.rule in {f.rule for f in alarms(entry.text)}


@pytest.mark.parametrize("entry", [e for e in HOSTILE if e.missed], ids=lambda e: e.name)
def test_known_miss_is_still_missed(entry: Entry) -> None:
    assert alarms(entry.text) == []


def test_tables_are_large_and_reach_every_rule() -> None:
    assert len(HOSTILE) >= 60
    assert len(HONEST) >= 30
    assert {e.rule for e in HOSTILE if not e.missed} >= set(RULES) - {"job.second_opinion"}
    for table in (HOSTILE, HONEST):
        assert len({e.name for e in table}) == len(table)


def test_readme_states_these_rates() -> None:
    stated = MARKER.search((ROOT / "README.md").read_text())
    assert stated is not None
    assert stated[0] == rates()


if __name__ == "__main__":
    print(rates())
