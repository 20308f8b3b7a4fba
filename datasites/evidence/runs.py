"""What came of each run of a request, as the lines of the audit log say: the contributions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from datasites.audit_events import Event


class RunEnd(StrEnum):
    """What came of a run; the value is the word that people read."""

    RELEASED = "released"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNKNOWN = "no end recorded"
    NOT_STARTED = "not started"

    @property
    def meaning(self) -> str:
        """The sentence that explains the word."""
        return {
            RunEnd.RELEASED: "the update left",
            RunEnd.REFUSED: "a rule kept the update at the site",
            RunEnd.FAILED: "the job ended without an update",
            RunEnd.INTERRUPTED: "the site stopped while it ran, or its sandbox broke",
            RunEnd.UNKNOWN: "it started, and no line shown here says how it ended",
            RunEnd.NOT_STARTED: "the call was refused before anything ran",
        }[self]


_ENDS = {
    Event.UPDATE_RELEASED.value: RunEnd.RELEASED,
    Event.UPDATE_REFUSED.value: RunEnd.REFUSED,
    Event.RUN_FAILED.value: RunEnd.FAILED,
    Event.RUN_INTERRUPTED.value: RunEnd.INTERRUPTED,
}


@dataclass(slots=True)
class RunRecord:
    """One run.

    Attributes:
        run: Its id, `R-7/3/1`.
        end: What came of it last.
        started_at: When it started first, UTC; empty if it did not.
        ended_at: When its end was recorded, UTC.
        sandbox: The sandbox that it ran in.
        arguments_sha256: Digest of the weights and arguments that it was called with.
        update_sha256: Digest of the arrays that left.
        bytes: Their size.
        arrays: How many there were.
        metrics: Names of the numbers beside them; the log holds no values.
        examples: How many images the update rests on, as the job said.
        rules: The rules that refused the update, or a call of this run.
        kind: With which kind of error it failed.
        repeats: How often the same update was sent again.
        lines: The lines of the log that say so.
    """

    run: str
    end: RunEnd = RunEnd.NOT_STARTED
    started_at: str = ""
    ended_at: str = ""
    sandbox: str = ""
    arguments_sha256: str = ""
    update_sha256: str = ""
    bytes: int = 0
    arrays: int = 0
    metrics: tuple[str, ...] = ()
    examples: int | None = None
    rules: tuple[str, ...] = ()
    kind: str = ""
    repeats: int = 0
    lines: list[int] = field(default_factory=list)


def run_records(events: Iterable[Mapping[str, Any]]) -> list[RunRecord]:
    """The runs that events are about, in the order in which they were first heard of."""
    runs: dict[str, RunRecord] = {}
    for event in events:
        if not event["run"] or event["event"] not in _ABOUT_RUNS:
            continue
        record = runs.setdefault(event["run"], RunRecord(event["run"]))
        record.lines.append(event["n"])
        _take(record, event)
    return list(runs.values())


def _take(record: RunRecord, event: Mapping[str, Any]) -> None:
    kind, objects, detail = event["event"], event["objects"], event["detail"]
    if kind == Event.RUN_STARTED:
        record.end, record.ended_at = RunEnd.UNKNOWN, ""
        record.started_at = record.started_at or event["time"]
        record.sandbox = detail.get("sandbox", "")
        record.arguments_sha256 = objects.get("arguments_sha256", "")
    elif kind == Event.UPDATE_REPEATED:
        record.repeats += 1
    elif end := _ENDS.get(kind):
        record.end, record.ended_at = end, event["time"]
    record.rules = tuple(sorted({*record.rules, *detail.get("rules", ())}))
    record.kind = detail.get("kind", record.kind)
    if kind == Event.UPDATE_RELEASED:
        record.update_sha256 = objects.get("update_sha256", "")
        record.bytes, record.arrays = detail.get("bytes", 0), detail.get("arrays", 0)
        record.metrics = tuple(detail.get("metrics", ()))
        record.examples = detail.get("examples")


_ABOUT_RUNS = {
    *_ENDS, Event.RUN_STARTED.value, Event.UPDATE_REPEATED.value, Event.RUN_REFUSED.value,
}  # fmt: skip
