"""Refusals are logged up to so many a minute; the others are counted, and none is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit_logs import KEY
from datasites.audit_log import AuditLog, Event, read_events
from datasites.people import STRANGER
from datasites.refusal_log import MOST_PER_MINUTE, RefusalLog

RITA = "rita@uni.example"


class Clock:
    """Time that a test moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(tmp_path: Path, clock: Clock) -> RefusalLog:
    return RefusalLog(AuditLog(tmp_path / "audit.jsonl", KEY), clock)


def logged(folder: Path) -> list[dict[str, Any]]:
    found = read_events(folder / "audit.jsonl")
    return [line for line in found if line["event"] != Event.CHECKPOINT]


def refuse(refusals: RefusalLog, times: int, event: Event, actor: str) -> None:
    for _ in range(times):
        refusals.append(event, actor, "page", reason="wrong")


@pytest.mark.parametrize("more", [-1, 0, 1, 40])
def test_no_more_than_so_many_a_minute_are_logged(
    tmp_path: Path, refusals: RefusalLog, more: int
) -> None:
    refuse(refusals, MOST_PER_MINUTE + more, Event.LOGIN_REFUSED, STRANGER)
    assert len(logged(tmp_path)) == MOST_PER_MINUTE + min(more, 0)


def test_what_was_not_logged_is_told_with_the_next_line(
    tmp_path: Path, refusals: RefusalLog, clock: Clock
) -> None:
    refuse(refusals, MOST_PER_MINUTE + 7, Event.LOGIN_REFUSED, STRANGER)
    clock.now = 60
    refuse(refusals, 2, Event.LOGIN_REFUSED, STRANGER)
    told = [line["detail"].get("refusals_not_logged_before") for line in logged(tmp_path)]
    assert told == [None] * MOST_PER_MINUTE + [7, None]


def test_a_flood_hides_no_other_actor_and_no_other_event(
    tmp_path: Path, refusals: RefusalLog
) -> None:
    refuse(refusals, MOST_PER_MINUTE + 1, Event.LOGIN_REFUSED, STRANGER)
    refuse(refusals, 1, Event.LOGIN_REFUSED, RITA)
    refuse(refusals, 1, Event.CALL_REFUSED, STRANGER)
    last = [(line["event"], line["actor"]) for line in logged(tmp_path)[-2:]]
    assert last == [("login refused", RITA), ("call refused", STRANGER)]
