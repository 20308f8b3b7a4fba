"""The ledger of runs: what was charged to which approval, and what came of it.

A run has an id that the researcher chooses: request, round, attempt. It is charged when it is
reserved, before anything runs, and never given back: attempts count, not only successes. The same
id again is answered with the same outcome and costs nothing, so neither a lost connection nor a
crash of the site loses a round or budget.

States: reserved -> released | refused | failed, and reserved -> interrupted when the site died
meanwhile. An interrupted run has told nobody anything, so the same id may start again.

A run ends in three steps, each on the disk before the next: its outcome is kept as a file, the
audit log says it, the record says it. After a crash between two of them the log decides: an end
that it tells is made good from the file (`datasites.recovery`), and no other end counts.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from datasites.errors import RecordError, RunRefused
from datasites.files import write_private
from datasites.privacy_ledger import Charge, charge
from datasites.records import Records, RunRow, a_day_ago, utc_now
from policies.findings import refuse

MAXIMUM_STARTS = 3
"""How often a run that the site did not survive may start again under one charge."""
KEPT = ".outcome"
"""End of the names of files that keep what came of a run."""


class RunState(StrEnum):
    """Where a run stands."""

    RESERVED = "reserved"
    RELEASED = "released"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class RunId:
    """Names one run at one site; written `R-7/3/1`."""

    request: int
    round: int
    attempt: int

    def __str__(self) -> str:
        return f"R-{self.request}/{self.round}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: the state, the answer as plain JSON, and the released arrays."""

    state: RunState
    answer: dict[str, Any]
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """The outcome as it is kept until its round is over."""
        told = json.dumps({"state": self.state, "answer": self.answer}).encode()
        return struct.pack(">Q", len(told)) + told + self.payload

    @classmethod
    def from_bytes(cls, kept: bytes) -> Outcome:
        """The outcome that was kept."""
        end = 8 + struct.unpack_from(">Q", kept)[0]
        told = json.loads(kept[8:end])
        return cls(RunState(told["state"]), told["answer"], kept[end:])


class Ledger:
    """The runs of one site, and the outcomes that may be asked for again."""

    def __init__(self, records: Records, results: Path) -> None:
        self._records, self._results = records, results
        self._started: set[RunId] = set()
        self._told: dict[RunId, Outcome] = {}
        """Ends that the log tells and the database does not yet; their payloads are in files."""
        self._turn = threading.Lock()
        results.mkdir(mode=0o700, exist_ok=True)

    def used(self, request: int) -> int:
        """Runs charged to a request, over all its approvals: confirming one gives no new budget."""
        with self._records.read() as session:
            query = select(func.count()).where(RunRow.request == request)
            return session.scalar(query) or 0

    def counts(self, requests: Sequence[int]) -> tuple[int, int]:
        """Runs charged to some requests together, and updates that left."""
        with self._records.read() as session:
            states = session.scalars(select(RunRow.state).where(RunRow.request.in_(requests))).all()
        return len(states), states.count(RunState.RELEASED)

    def reserve(
        self,
        run: RunId,
        approval: int,
        limit: int,
        per_day: int,
        arguments: str,
        privacy: Charge | None = None,
    ) -> Outcome | None:
        """Charge a run, or find what came of it before. A run under way must not be asked for.

        Args:
            run: The run's id.
            approval: The approval that it runs under.
            limit: Most runs of the request.
            per_day: Most runs that the request may start in 24 hours.
            arguments: Digest of weights and configuration.
            privacy: What it costs the patients of the dataset, charged in the same transaction.

        Returns:
            None when the run is to start now; the earlier outcome when it ended before.

        Raises:
            RunRefused: A budget is used up, the id belongs to other arguments, or the run was
                interrupted too often.
        """
        self._settle_told(run)
        with self._records.write() as session:
            row = session.scalar(_row(run))
            if row is None:
                mine = select(func.count()).where(RunRow.request == run.request)
                charged = session.scalar(mine)
                if (charged or 0) >= limit:
                    raise _refused("runs.maximum", f"{charged} of {limit} runs are used",
                                   f"at most {limit} runs, failed ones included",
                                   "submit a new request for more runs")  # fmt: skip
                today = session.scalar(mine.where(RunRow.charged_at > a_day_ago()))
                if (today or 0) >= per_day:
                    raise _refused("runs.per_day", f"{today} runs in the last 24 hours",
                                   f"at most {per_day} runs in 24 hours",
                                   "go on tomorrow with the same round")  # fmt: skip
                session.add(
                    RunRow(
                        request=run.request, approval=approval, round=run.round,
                        attempt=run.attempt, arguments_sha256=arguments,
                        state=RunState.RESERVED, starts=1, charged_at=utc_now(), settled_at="",
                        outcome="",
                    )
                )  # fmt: skip
                if privacy is not None:
                    charge(session, run, privacy)
                return None
            check_same(run, row.arguments_sha256, arguments)
            if row.state in (RunState.RESERVED, RunState.INTERRUPTED):
                if privacy is not None:
                    charge(session, run, privacy)
                if row.state == RunState.RESERVED and run not in self._started:
                    return None  # charged, and the site could not start it
                if row.starts >= MAXIMUM_STARTS:
                    raise _refused("run.interrupted", f"run {run} was interrupted "
                                   f"{row.starts} times", f"at most {MAXIMUM_STARTS} starts",
                                   "raise `attempt`")  # fmt: skip
                row.state, row.starts = RunState.RESERVED, row.starts + 1
                self._started.discard(run)
                return None
            return self._earlier(run, row)

    def find(self, run: RunId) -> Outcome | None:
        """What came of a run; None when it was never asked for, or has not ended.

        Raises:
            RunRefused: Its result is no longer kept.
        """
        self._settle_told(run)
        with self._records.read() as session:
            row = session.scalar(_row(run))
        if row is None or row.state in (RunState.RESERVED, RunState.INTERRUPTED):
            return None
        return self._earlier(run, row)

    def started(self, run: RunId) -> None:
        """Remember that the log says that a run started."""
        self._started.add(run)

    def has_lost_its_end(self, run: RunId) -> bool:
        """Whether the log says that a run started, and could not be told its end. Not under way."""
        return run in self._started and run not in self._told

    def keep(self, run: RunId, outcome: Outcome) -> None:
        """Keep what came of a run on the disk; to be called before the log says so.

        Raises:
            RecordError: It cannot be written.
        """
        try:
            write_private(self._result(run), outcome.to_bytes())
        except OSError as error:
            raise RecordError("the outcome of a run cannot be kept; is the disk full?") from error

    def settle(self, run: RunId, outcome: Outcome) -> None:
        """Record what came of a run, which was kept and is in the log.

        Results of earlier rounds of the request are deleted, and those that hold no arrays.
        """
        with self._turn:
            self._told[run] = replace(outcome, payload=b"")
        self._settle_told(run)

    def _settle_told(self, run: RunId) -> None:
        """Let the record say what the log says; again, where it could not before."""
        with self._turn:
            if (outcome := self._told.get(run)) is None:
                return
            with self._records.write() as session:
                row = session.scalar(_row(run))
                if row is None:
                    raise LookupError(f"run {run} was not reserved")
                row.state, row.settled_at = outcome.state, utc_now()
                row.outcome = json.dumps(outcome.answer)
            del self._told[run]
        self._started.discard(run)
        if outcome.state is not RunState.RELEASED:
            self._result(run).unlink(missing_ok=True)
        for path in self._results.glob(f"R-{run.request}_*{KEPT}"):
            if int(path.name.split("_")[1]) < run.round:
                path.unlink(missing_ok=True)

    # --- at the start of the site -----------------------------------------------------------

    def unsettled(self) -> list[RunId]:
        """Runs that are reserved, which at the start of a site means: they did not end."""
        with self._records.read() as session:
            rows = session.scalars(select(RunRow).where(RunRow.state == RunState.RESERVED)).all()
            return [RunId(row.request, row.round, row.attempt) for row in rows]

    def interrupt(self, run: RunId) -> None:
        """Mark a run that started and did not end, as the log says."""
        self._started.discard(run)
        with self._records.write() as session:
            row = session.scalar(_row(run))
            if row is not None:
                row.state = RunState.INTERRUPTED

    def kept(self, run: RunId) -> Outcome | None:
        """What was kept of a run, None if nothing whole was."""
        try:
            return Outcome.from_bytes(self._result(run).read_bytes())
        except (OSError, ValueError, KeyError, struct.error):
            return None

    def clear(self) -> None:
        """Delete what was kept of runs that did not end or whose round is over, and half a file."""
        with self._records.read() as session:
            rows = session.execute(
                select(RunRow.request, RunRow.round, RunRow.attempt, RunRow.state).where(
                    RunRow.state.in_((RunState.RELEASED, RunState.REFUSED, RunState.FAILED))
                )
            ).all()
        latest: dict[int, int] = {}
        for row in rows:
            latest[row.request] = max(latest.get(row.request, 0), row.round)
        wanted = {
            self._result(RunId(row.request, row.round, row.attempt)).name
            for row in rows
            if row.state == RunState.RELEASED and row.round == latest[row.request]
        }
        for path in self._results.iterdir():
            if path.name not in wanted and path.name.endswith((KEPT, ".tmp")):
                path.unlink(missing_ok=True)

    def _earlier(self, run: RunId, row: RunRow) -> Outcome:
        state, answer = RunState(row.state), json.loads(row.outcome)
        if state is not RunState.RELEASED:
            return Outcome(state, answer)
        kept = self.kept(run)
        if kept is None:
            raise _refused("run.id", f"the result of run {run} is no longer kept",
                           "results of the latest round", "use the update that was sent "
                           "then, or run another round")  # fmt: skip
        return Outcome(state, answer, kept.payload)

    def _result(self, run: RunId) -> Path:
        return self._results / f"R-{run.request}_{run.round}_{run.attempt}{KEPT}"


def check_same(run: RunId, before: str, now: str) -> None:
    """Refuse a run id that was asked for with other arguments: the digests differ."""
    if before != now:
        raise _refused("run.id", f"run {run} was asked for with other weights or arguments",
                       "one set of arguments per run id",
                       "raise `attempt` or `round`")  # fmt: skip


def _row(run: RunId) -> Any:
    return select(RunRow).where(
        RunRow.request == run.request, RunRow.round == run.round, RunRow.attempt == run.attempt
    )


def _refused(rule: str, seen: str, allowed: str, do: str) -> RunRefused:
    return RunRefused([refuse(rule, seen, allowed, do)])
