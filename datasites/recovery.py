"""What a site does at its start about what it was stopped in the middle of.

Nothing of this needs a person. The log decides: what it tells has happened, what it does not tell
has not. In this order, each step safe to be done again after another crash:

1. The log's unfinished last line is cut off (`datasites.audit_log`, event "log recovered"): what it
   was to record did not happen.
2. A request that the log ended (denied, revoked, withdrawn) is ended in the records too.
3. A run whose end the log tells is settled with the outcome that was kept for it: the same id is
   answered with it. It is not made again.
4. A run that the log started and did not end is interrupted (event "run interrupted"): it told
   nobody anything, and the same id starts again under the same charge.
5. A run that was charged and not started stays charged, and the same id starts it.
6. Outcomes that were kept and never told, and half-written files, are deleted.
7. syft's own status of each request is made to agree (`Gate.mirror_all_decisions`).

If there was anything in 2, 3, 4 or 5, the event "site recovered" says how much.
"""

from __future__ import annotations

import logging

from datasites.audit_events import Event
from datasites.ledger import Outcome, RunId, RunState
from datasites.open_site import OpenSite
from datasites.standing import settle_ended
from policies.findings import refuse

ENDS = {
    Event.UPDATE_RELEASED: RunState.RELEASED,
    Event.UPDATE_REFUSED: RunState.REFUSED,
    Event.RUN_FAILED: RunState.FAILED,
}
"""What ends a run, as the log says it."""

logger = logging.getLogger(__name__)


def recover(site: OpenSite) -> None:
    """Make records and log agree again; called once, before anybody is answered.

    Raises:
        RecordError: Records or log cannot be written.
    """
    requests = settle_ended(site)
    runs = site.ledger.unsettled()
    by_fate: dict[str, list[RunId]] = {"settled": [], "interrupted": [], "not started": []}
    for run in runs:
        by_fate[_recover(site, run)].append(run)
    site.ledger.clear([*by_fate["interrupted"], *by_fate["not started"]])
    if not requests and not runs:
        return
    logger.warning("recovered requests=%s runs=%s", requests, by_fate)
    site.audit.append(
        Event.SITE_RECOVERED,
        "site",
        site.config.name,
        requests_ended=[f"R-{number}" for number in requests],
        runs_settled=[str(run) for run in by_fate["settled"]],
        runs_interrupted=[str(run) for run in by_fate["interrupted"]],
        runs_not_started=[str(run) for run in by_fate["not started"]],
    )


def _recover(site: OpenSite, run: RunId) -> str:
    """Bring one run that did not end in the records to where it may go on."""
    events = site.unsettled.get(str(run), [])
    told = [event for event in events if event in ENDS]
    if told:
        site.ledger.settle(run, _outcome(site, run, ENDS[told[-1]]))
        return "settled"
    if Event.RUN_STARTED not in events:
        return "not started"
    if events[-1] is not Event.RUN_INTERRUPTED:
        site.audit.append(Event.RUN_INTERRUPTED, "site", str(run), reason="the site had stopped")
    site.ledger.interrupt(run)
    return "interrupted"


def _outcome(site: OpenSite, run: RunId, state: RunState) -> Outcome:
    """The outcome that was kept before the log told the end of a run."""
    kept = site.ledger.kept(run)
    if kept is not None and kept.state is state:
        return kept
    logger.error("run=%s ended as %s in the log, and its outcome was not kept", run, state)
    finding = refuse(
        "run.failed",
        f"run {run} ended, and what came of it was lost",
        "runs whose outcome is kept",
        "ask for another attempt",
    )
    return Outcome(RunState.FAILED, {"findings": [finding.as_dict()]})
