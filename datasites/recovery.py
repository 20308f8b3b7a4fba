"""What a site does at its start about what it was stopped in the middle of.

Nothing of this needs a person. The log decides: what it tells has happened, what it does not tell
has not. In this order, each step safe to be done again after another crash:

1. The log's unfinished last line is cut off (`datasites.audit_log`, event "log recovered"): what it
   was to record did not happen.
2. A decision about a request that the log tells is recorded with the signed documents that were
   kept for it (`datasites.kept_decisions`), and a request that the log ended is ended.
3. A run whose end the log tells is settled with the outcome that was kept for it: the same id is
   answered with it. It is not made again.
4. A run that the log started and did not end is interrupted (event "run interrupted"): it told
   nobody anything, and the same id starts again under the same charge.
5. A run that was charged and not started, or not again, stays charged; the same id starts it.
6. Outcomes that were kept and never told, those of rounds that are over, and half-written files
   are deleted.
7. What runs cost the patients' privacy is charged again where the log tells of a charge that the
   records lack.
8. syft's own status of each request is made to agree (`Gate.mirror_all_decisions`).

If there is anything in 2, 3, 4 or 5, the event "site recovered" names it before it is done.
"""

from __future__ import annotations

import logging

from datasites.audit_events import Event
from datasites.kept_decisions import record_waiting, waiting
from datasites.ledger import Outcome, RunId, RunState
from datasites.open_site import OpenSite
from datasites.privacy_ledger import restore
from datasites.standing import ended_in_the_log, settle_ended
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
    decided = sorted({kept.decision.request for kept in waiting(site)})
    requests, runs = ended_in_the_log(site), site.ledger.unsettled()
    last = {run: _last_told(site, run) for run in runs}
    settled = [run for run in runs if last[run] in ENDS]
    interrupted = [run for run in runs if last[run] is Event.RUN_STARTED]
    not_started = [run for run in runs if run not in {*settled, *interrupted}]
    if decided or requests or runs:
        logger.warning(
            "recovering decided=%s ended=%s settled=%s interrupted=%s not_started=%s",
            decided, requests, settled, interrupted, not_started,
        )  # fmt: skip
        site.audit.append(
            Event.SITE_RECOVERED,
            "site",
            site.config.name,
            requests_decided=[f"R-{number}" for number in decided],
            requests_ended=[f"R-{number}" for number in requests],
            runs_settled=[str(run) for run in settled],
            runs_interrupted=[str(run) for run in interrupted],
            runs_not_started=[str(run) for run in not_started],
        )
    if lost := restore(site.records, site.charged.values()):
        logger.warning("recovering privacy charges that the log tells: %s", ", ".join(lost))
    site.charged.clear()
    record_waiting(site)
    settle_ended(site, ended_in_the_log(site))
    for run in settled:
        site.ledger.settle(run, _outcome(site, run, ENDS[last[run]]))
    for run in interrupted:
        site.audit.append(Event.RUN_INTERRUPTED, "site", str(run), reason="the site had stopped")
        site.ledger.interrupt(run)
    site.ledger.clear()


def _last_told(site: OpenSite, run: RunId) -> Event:
    """The last start, interruption or end of a run in the log; as if interrupted if none is."""
    told = [
        event
        for event in site.unsettled.get(str(run), [])
        if event in ENDS or event in (Event.RUN_STARTED, Event.RUN_INTERRUPTED)
    ]
    return told[-1] if told else Event.RUN_INTERRUPTED


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
