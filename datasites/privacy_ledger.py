"""The ledger of privacy: what runs did to the data of a dataset's patients, and what that costs.

A charge names the mechanism of a run and the dataset by its name, which all versions share. It is
written in the transaction that charges the run itself, before anything runs, and is never given
back: not for a run that failed, and not for one that was interrupted. The audit log tells it again
with the start of the run, so that the ledger can be made anew from the log, and compared with it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from datasites.audit_events import Event
from datasites.errors import RunRefused
from datasites.records import ChargeRow, Records, utc_now
from policies.findings import refuse
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Mechanism, Spent
from policies.privacy.rule import PrivacyRule
from policies.strict import canonical_json


@dataclass(frozen=True, slots=True)
class Charge:
    """What a run is to be charged with.

    Attributes:
        dataset: Name of the dataset.
        mechanism: What the run does to its data.
        rule: The policy that caps it.
    """

    dataset: str
    mechanism: Mechanism
    rule: PrivacyRule

    def in_log(self) -> dict[str, Any]:
        """The charge as the audit log tells it."""
        return {"dataset": self.dataset, **self.mechanism.model_dump(mode="json")}


@dataclass(frozen=True, slots=True)
class Entry:
    """One charge of the ledger.

    Attributes:
        run: Id of the run, `R-7/3/1`.
        request: Number of its request.
        dataset: Name of the dataset.
        mechanism: What the run does.
        at: When it was charged, UTC.
    """

    run: str
    request: int
    dataset: str
    mechanism: Mechanism
    at: str


def charge(session: Session, run: Any, wanted: Charge) -> None:
    """Charge a run, once, in the transaction that reserves it.

    Args:
        session: An open transaction.
        run: The run's id (`datasites.ledger.RunId`).
        wanted: What it is charged with.

    Raises:
        RunRefused: The cap would be passed, or the run was charged with another mechanism.
    """
    mine = select(ChargeRow).where(ChargeRow.run == str(run))
    told = canonical_json(wanted.mechanism.model_dump(mode="json")).decode()
    if (row := session.scalar(mine)) is not None:
        if (row.dataset, row.mechanism) != (wanted.dataset, told):
            raise RunRefused(
                [
                    refuse(
                        "privacy.budget",
                        f"run {run} was charged under another policy",
                        "one charge for a run",
                        "raise `attempt`",
                    )
                ]
            )
        return
    rule = wanted.rule
    spent = _counted(_rows(session, wanted.dataset, rule.period_days))
    before = epsilon(spent, rule.guaranteed_delta, rule.accountant)
    after = epsilon(spent + Spent([wanted.mechanism]), rule.guaranteed_delta, rule.accountant)
    if after > rule.cap:
        over = "" if rule.period_days is None else f" in {rule.period_days} days"
        raise RunRefused(
            [
                refuse(
                    "privacy.budget",
                    f"epsilon {before:.4g} of {rule.cap:g} per patient is spent on "
                    f"`{wanted.dataset}`{over}, and this run would make it {after:.4g}",
                    f"at most {rule.cap:g}; {max(0.0, rule.cap - before):.3g} is left",
                    "ask for a smaller share in a new request, or ask the hospital",
                )
            ]
        )
    session.add(
        ChargeRow(
            run=str(run), request=run.request, dataset=wanted.dataset, mechanism=told,
            charged_at=utc_now(),
        )
    )  # fmt: skip


def spent_on(records: Records, dataset: str, period_days: int | None = None) -> Spent:
    """What was charged to a dataset, in the last so many days or ever."""
    with records.read() as session:
        return _counted(_rows(session, dataset, period_days))


def entries(records: Records) -> list[Entry]:
    """Every charge, oldest first."""
    with records.read() as session:
        rows = session.scalars(select(ChargeRow).order_by(ChargeRow.id)).all()
    return [Entry(r.run, r.request, r.dataset, _parsed(r.mechanism), r.charged_at) for r in rows]


def entry_in_log(line: Mapping[str, Any]) -> Entry | None:
    """The charge that an event of an audit log tells, if it does."""
    told = line["detail"].get("privacy")
    if line["event"] != Event.RUN_STARTED or not isinstance(told, dict):
        return None
    run, mechanism = line["run"], {k: v for k, v in told.items() if k != "dataset"}
    return Entry(
        run=run,
        request=int(run.removeprefix("R-").split("/")[0]),
        dataset=told["dataset"],
        mechanism=Mechanism.model_validate(mechanism),
        at=line["time"],
    )


def restore(records: Records, told: Iterable[Entry]) -> list[str]:
    """Add the charges that the log tells and the records lack; the runs that they are of."""
    known = {entry.run for entry in entries(records)}
    lost = [entry for entry in told if entry.run not in known]
    if lost:
        with records.write() as session:
            session.add_all(
                ChargeRow(
                    run=entry.run, request=entry.request, dataset=entry.dataset,
                    mechanism=canonical_json(entry.mechanism.model_dump(mode="json")).decode(),
                    charged_at=entry.at,
                )
                for entry in lost
            )  # fmt: skip
    return [entry.run for entry in lost]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ledger beside the audit log.

    Attributes:
        agreeing: Charges that both tell alike.
        only_in_log: Runs that started with a charge which the records lack.
        only_in_records: Runs that were charged, and of whose start the log does not tell: the
            site was stopped between the two, or the start was removed.
        different: Runs of which both tell another dataset or mechanism.
    """

    agreeing: int
    only_in_log: tuple[str, ...]
    only_in_records: tuple[str, ...]
    different: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing that was spent is missing from the records."""
        return not self.only_in_log and not self.different


def compare(kept: Iterable[Entry], told: Mapping[str, Entry]) -> Comparison:
    """The charges of the records beside those of the log."""
    by_run = {entry.run: entry for entry in kept}
    both = [run for run in by_run if run in told]
    same = [
        run
        for run in both
        if (by_run[run].dataset, by_run[run].mechanism) == (told[run].dataset, told[run].mechanism)
    ]
    return Comparison(
        agreeing=len(same),
        only_in_log=tuple(run for run in told if run not in by_run),
        only_in_records=tuple(run for run in by_run if run not in told),
        different=tuple(run for run in both if run not in same),
    )


def _rows(session: Session, dataset: str, period_days: int | None) -> list[ChargeRow]:
    query = select(ChargeRow).where(ChargeRow.dataset == dataset)
    if period_days is not None:
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=period_days)
        since = start.isoformat(timespec="microseconds").replace("+00:00", "Z")
        query = query.where(ChargeRow.charged_at > since)
    return list(session.scalars(query).all())


def _counted(rows: Iterable[ChargeRow]) -> Spent:
    return Spent(_parsed(row.mechanism) for row in rows)


def _parsed(mechanism: str) -> Mechanism:
    try:
        return Mechanism.model_validate_json(mechanism)
    except ValidationError as error:  # somebody wrote into the database
        raise RunRefused(
            [
                refuse(
                    "privacy.ledger",
                    "the ledger of privacy is damaged",
                    "a ledger that agrees with the audit log",
                    "tell the hospital; `sitegate privacy verify` shows where",
                )
            ]
        ) from error
