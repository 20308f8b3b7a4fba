"""What a site's process does in the tests of faults, and what is seen of the site afterwards."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
from datasites.audit_log import CHECKPOINT_EVERY, AuditLog, Event, read_events, verify_log
from datasites.catalogue import handle
from datasites.config import Site
from datasites.decisions import Shown, approve, deny, request_changes, revoke
from datasites.errors import RecordError, RunRefused, SiteError
from datasites.open_site import OpenSite
from datasites.records import RehearsalRow, RequestRow
from datasites.recovery import recover
from datasites.rehearsal import Rehearsal, latest_rehearsal
from datasites.requests import withdraw_request
from datasites.runs import Asked, RunAnswer, ask_again, run_job
from datasites.standing import expire_due
from open_sites import OWNER, RITA, RecordedSyft, open_site, submit
from policies.arrays import pack
from tests.faults.durable_steps import Steps

Tell = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody was answered who asked for a run.

    Attributes:
        sha256: Digest of the update that left; empty if none did.
        state: Of the receipt: released, running, unknown; `refused` otherwise.
        words: The refusal.
        repeated: Whether the receipt says that it left before.
    """

    sha256: str = ""
    state: str = "refused"
    words: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What is on the disk of a site.

    Attributes:
        events: Events of the log with their subject, in order.
        intact: Whether the log verifies.
        requests: Number -> state.
        approvals: Signed approvals, in order.
        decisions: Signed decisions, in order.
        runs: Run id -> state and starts.
        results: Names of the files of outcomes, half-written ones too.
        recoveries: What each start after a crash told.
        under_decision: Names of the files of decisions that are not in the records yet.
    """

    events: list[tuple[str, str]]
    intact: bool
    requests: dict[int, str]
    approvals: list[str]
    decisions: list[str]
    runs: dict[str, tuple[str, int]]
    results: list[str]
    recoveries: list[dict[str, Any]]
    under_decision: list[str]

    def of(self, subject: str) -> list[str]:
        """The events with this subject."""
        return [event for event, of in self.events if of == subject]


def make(
    folder: Path, text: str, *, approved: bool = True, nearly_signed: bool = False
) -> tuple[int, str]:
    """Make a site with one request; its number and its code in syft.

    Where the log is nearly signed, a checkpoint follows the end of the next run.
    """
    site = open_site(folder)
    syft = RecordedSyft()
    row = submit(site, syft, text, account=RITA)
    _say_rehearsed(site, row)
    if approved:
        _approve(site, syft, row.id)
    if nearly_signed:
        unsigned = verify_log(site.site.audit, site.key.public_hex).unsigned_lines
        for _ in range(CHECKPOINT_EVERY - 2 - unsigned):
            site.audit.append(Event.LOGIN, RITA, "login")
    site.close()
    return row.id, row.syft_code


def call(
    site: Site,
    steps: Steps,
    tell: Tell,
    *,
    code: str,
    round: int = 1,
    rotate: bool = False,
) -> None:
    """Ask for a run; after a full disk, ask for it again in the same process."""
    opened = OpenSite(site)
    if rotate:
        opened.audit = AuditLog(site.audit, opened.key, opened.config.name, rotate_bytes=1000)
    recover(opened)
    steps.watch()
    tell(ask(opened, code, round))
    opened.under_way.close()  # steps that the run takes after its answer
    tell(steps.taken)
    if steps.fault is not None:
        steps.fault = None
        opened.under_way = type(opened.under_way)()
        tell(ask(opened, code, round))


def start_again(
    site: Site, steps: Steps, tell: Tell, *, code: str, round: int = 1, asked: bool = True
) -> None:
    """Start the site, ask what came of a run, ask for it, and look; then stop the site."""
    try:
        opened = OpenSite(site)
        recover(opened)
    except SiteError as error:  # the site does not start, and says why
        tell(f"refused: {error}")
        return
    tell(steps.taken)
    tell(look(site))
    if asked:
        tell(outcome(opened, code, round))
        tell(ask(opened, code, round))
        tell(ask(opened, code, round))
    opened.close()
    tell(look(site))


def decide(site: Site, steps: Steps, tell: Tell, *, number: int, verb: str) -> None:
    """Decide about a request; say whether it was done, in words if not."""
    opened = OpenSite(site)
    recover(opened)
    syft = RecordedSyft()
    steps.watch()
    tell(_decided(opened, syft, number, verb))
    tell(steps.taken)
    if steps.fault is not None:
        steps.fault = None
        tell(_decided(opened, syft, number, verb))


def _decided(site: OpenSite, syft: RecordedSyft, number: int, verb: str) -> str:
    try:
        match verb:
            case "approve":
                _approve(site, syft, number)
            case "deny":
                deny(site, syft, number, OWNER, "a test")
            case "changes":
                request_changes(site, number, OWNER, "a test")
            case "revoke":
                revoke(site, syft, number, OWNER, "a test")
            case "withdraw":
                withdraw_request(site, syft, RITA, number, "a test")
            case "expire":
                expire_due(site, syft, dt.datetime.now(dt.UTC) + dt.timedelta(days=365))
    except (SiteError, RunRefused) as error:
        return str(error)
    return "done"


def ask(site: OpenSite, code: str, round: int) -> Answer:
    """Ask for a run with its weights."""
    config = json.dumps({"rate": 0.5})
    weights = pack(factories.weights())
    return _answer(lambda: run_job(site, _asked(site, code, round), weights, config))


def outcome(site: OpenSite, code: str, round: int) -> Answer:
    """Ask what came of a run."""
    return _answer(lambda: ask_again(site, _asked(site, code, round)))


def look(site: Site) -> Seen:
    """What is on the disk of a site that may run."""
    with sqlite3.connect(site.state / "site.db") as records:

        def all_of(what: str) -> list[Any]:
            return records.execute(f"select {what}").fetchall()

        runs = {
            f"R-{request}/{round}/{attempt}": (state, starts)
            for request, round, attempt, state, starts in all_of(
                "request, round, attempt, state, starts from runs order by id"
            )
        }
        requests = dict(all_of("id, state from requests"))
        approvals = [document for (document,) in all_of("document from approvals order by id")]
        decisions = [document for (document,) in all_of("document from decisions order by id")]
    records.close()
    lines = list(read_events(site.audit))
    return Seen(
        events=[(line["event"], line["subject"]) for line in lines],
        intact=verify_log(site.audit, _key(site)).intact,
        requests=requests,
        approvals=approvals,
        decisions=decisions,
        runs=runs,
        results=sorted(path.name for path in (site.state / "results").iterdir()),
        recoveries=[line["detail"] for line in lines if line["event"] == Event.SITE_RECOVERED],
        under_decision=sorted(path.name for path in (site.state / "decisions").glob("*")),
    )


def _key(site: Site) -> str:
    return (site.keys / "site_key.pub").read_text().strip()


def _asked(site: OpenSite, code: str, round: int) -> Asked:
    (version,) = (path.name for path in site.site.datasets.iterdir())
    return Asked(RITA, code, True, handle("chest-xray", version), round, 1)


def _answer(call: Callable[[], RunAnswer]) -> Answer:
    try:
        answer = call()
    except RunRefused as refused:
        return Answer(words=" ".join(finding.sentence for finding in refused.findings))
    except RecordError as error:  # the gate says it in a sentence of its own
        return Answer(words=f"The site cannot write its records: {error}")
    receipt, arrays = json.loads(answer.receipt), answer.arrays
    sha256 = hashlib.sha256(arrays).hexdigest() if arrays else ""
    assert sha256 == receipt.get("sha256", "")
    return Answer(sha256, receipt["state"], repeated=receipt.get("repeated", False))


def _approve(site: OpenSite, syft: RecordedSyft, number: int) -> None:
    report = latest_rehearsal(site, number)
    assert report is not None
    approve(site, syft, number, OWNER, "a test", Shown(site.policy.sha256, report.sha256))


def _say_rehearsed(site: OpenSite, row: RequestRow) -> None:
    told = Rehearsal(
        request=row.id, at=row.submitted_at, text_sha256=row.text_sha256, version="0" * 64,
        policy_sha256=site.policy.sha256, images=64, config={}, outcome="returned", seconds=0.1,
        memory_mb=1, influence="none",
    )  # fmt: skip
    with site.records.write() as session:
        session.add(RehearsalRow(request=row.id, at=told.at, report=told.model_dump_json()))
