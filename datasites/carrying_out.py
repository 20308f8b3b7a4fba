"""Carries out one run that is charged: what happens between its reservation and its end.

audit      "run started", on the disk before anything runs
sandbox    text + memory-mapped data + weights -> result
rules      contract and policy on the result
noise      where the policy adds some; nobody outside then learns how the code ended
outcome    kept as a file, then told by the audit log, then by the record

An update that no event tells does not leave, and what an event tells is never told twice: a run
whose end is in the log is not made again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from datasites.audit_log import Event
from datasites.catalogue import read_card
from datasites.errors import DatasetError, RecordError, RunRefused, SandboxError
from datasites.ledger import Outcome, RunId, RunState
from datasites.open_site import OpenSite
from datasites.privacy_ledger import Charge
from datasites.private_run import PrivateRun, run_privately
from datasites.protection import examples_told, with_noise
from datasites.sandbox.cage import RunFailed, RunResult, RunText, RunTrace
from datasites.sandbox.private_training import ModelRefused
from policies.arrays import Arrays, pack
from policies.contract import Contract, Terms
from policies.document import Policy
from policies.findings import Finding, refuse
from policies.sections import SandboxRule
from policies.update_rules import Update, check_update, what_may_leave

logger = logging.getLogger(__name__)

BROKEN = "try the job on the mock; the hospital's log has more under this run id"
LACKING = (
    "import only modules that the site has installed; the hospital sees in the job's rehearsal "
    "which one is missing, and can install it"
)
"""What to do after a run that failed, and after one that could not import something."""


class AlreadyLogged(RunRefused):
    """A refusal whose event is in the log already."""


@dataclass(frozen=True, slots=True)
class Order:
    """A run that may begin, and under what.

    Attributes:
        run: Its id.
        account: Whose it is.
        text: The job's text.
        text_sha256: Its digest.
        approval: Number of the approval in force.
        terms: What was approved.
        policy: The policy in force.
        adoption: Which adoption of a policy put it in force.
        privacy: What the run is charged with; None where no account is kept.
    """

    run: RunId
    account: str
    text: str
    text_sha256: str
    approval: int
    terms: Terms
    policy: Policy
    adoption: int
    privacy: Charge | None = None


def carry_out(
    site: OpenSite,
    order: Order,
    weights: bytes,
    sent: Arrays,
    config: dict[str, Any],
    arguments: str,
) -> Outcome:
    """Run a job and record what comes of it.

    Args:
        site: The site.
        order: What to run.
        weights: The weights that were sent (safetensors).
        sent: The same as arrays.
        config: The job's arguments.
        arguments: Digest of both.

    Raises:
        AlreadyLogged: The site is at fault, or stops; the same id may start again.
        RecordError: The site cannot write its records.
    """
    run, terms = order.run, order.terms
    if site.under_way.is_stopping:
        raise _site_trouble(run)
    privacy: dict[str, Any] = {"privacy": order.privacy.in_log()} if order.privacy else {}
    site.audit.append(
        Event.RUN_STARTED,
        order.account,
        str(run),
        text_sha256=order.text_sha256,
        version=terms.version,
        arguments_sha256=arguments,
        sandbox="bubblewrap" if site.bwrap else "process",
        **privacy,
    )
    site.ledger.started(run)
    began = time.monotonic()
    came = _compute(site, order, weights, sent, config)
    if _hides(order):
        came = _noised(site, order, came, sent, began)
    if isinstance(came, ModelRefused):  # before an image was read
        return _refused_update(site, order, came.findings)
    if isinstance(came, RunFailed):
        return _failed(site, order, came)
    return _ended(site, order, came)


@dataclass(frozen=True, slots=True)
class Computed:
    """What a run returned, and what rules find about it."""

    update: Update
    seconds: float
    findings: list[Finding]


def _compute(
    site: OpenSite, order: Order, weights: bytes, sent: Arrays, config: dict[str, Any]
) -> Computed | RunFailed | ModelRefused:
    """Run the text: what came of it, or how it failed.

    Raises:
        AlreadyLogged: The site is at fault, or stops.
    """
    run, terms, limits = order.run, order.terms, order.policy.sandbox
    contract = terms.contract or Contract()
    if (after_s := order.policy.privacy.release_after_s) is not None:
        limits = limits.model_copy(update={"time_s": min(limits.time_s, after_s)})
    try:
        result = _result(site, order, weights, sent, config, limits)
        update = what_may_leave(result.update, order.policy)
        findings = check_update(update, sent, contract, order.policy)
        update = replace(update, examples=_examples(site, order, update.examples))
    except (SandboxError, DatasetError) as error:
        logger.error("run=%s cannot be carried out: %s", run, error)
        if not site.under_way.is_stopping:
            site.audit.append(Event.RUN_INTERRUPTED, "site", str(run), reason="no working sandbox")
            site.ledger.interrupt(run)
        raise _site_trouble(run) from error
    except ModelRefused as refused:
        return refused
    except RunFailed as failed:
        if site.under_way.is_stopping:  # its cage was ended under it
            raise _site_trouble(run) from failed
        return failed
    except Exception:  # a defect of ours must not leave a run without an end
        logger.exception("run=%s broke the site's rules", run)
        return RunFailed("NotAnUpdate")
    _log(run, result.log, result.trace)
    if result.undeclared:
        findings.append(
            refuse(
                "update.keys",
                "keys returned beside the contract's",
                "weights, counts, metrics, examples",
                "return nothing else",
            )
        )
    seconds = 0.0 if order.privacy else result.seconds  # it would tell, if roughly, who was drawn
    return Computed(update, seconds, findings)


def _result(
    site: OpenSite,
    order: Order,
    weights: bytes,
    sent: Arrays,
    config: dict[str, Any],
    limits: SandboxRule,
) -> RunResult:
    """Run the text on the images, or let the hospital's trainer train the model that it builds."""
    terms = order.terms
    if terms.access == "arrays":
        text = RunText(order.text, terms.entry, config, weights)
        return site.cage(terms.version).run(text, terms.contract or Contract(), limits)
    if order.privacy is None:
        raise LookupError(f"run {order.run} has no charge")
    card = read_card(site.site.datasets, terms.version)
    run = PrivateRun(order.text, terms, config, sent, order.policy, order.privacy.mechanism, card)
    return run_privately(site.private_cages(terms.version), run, limits)


def _hides(order: Order) -> bool:
    """Whether nobody outside may learn how a run of foreign code ended."""
    return order.privacy is not None and order.policy.privacy.mode == "update_noise"


def _noised(
    site: OpenSite,
    order: Order,
    came: Computed | RunFailed | ModelRefused,
    sent: Arrays,
    began: float,
) -> Computed:
    """The update with noise, when it may be given out; what rules find stays at the site."""
    if order.privacy is None:
        raise LookupError(f"run {order.run} has no charge")
    update = None
    if isinstance(came, ModelRefused):
        raise LookupError(f"run {order.run} was not foreign code")
    if isinstance(came, RunFailed):
        _tell_failure(order, came)
    elif came.findings:
        rules = sorted({finding.rule for finding in came.findings})
        logger.warning("run=%s gives noise alone: refused by %s", order.run, ", ".join(rules))
    else:
        update = came.update
    protected = with_noise(
        update,
        sent,
        order.terms.contract or Contract(),
        order.policy,
        order.privacy.mechanism,
        _examples(site, order, 0),
    )
    after_s = order.policy.privacy.release_after_s
    if after_s is not None and site.under_way.rest(began + after_s - time.monotonic()):
        raise _site_trouble(order.run)
    return Computed(protected, float(after_s or 0), [])


def _examples(site: OpenSite, order: Order, counted: int) -> int:
    if order.policy.privacy.examples_shown == "counted":
        return counted
    card = read_card(site.site.datasets, order.terms.version)
    return examples_told(counted, card, order.policy)


def _ended(site: OpenSite, order: Order, came: Computed) -> Outcome:
    """The end of a run whose result the rules have seen."""
    findings = came.findings
    payload = b"" if findings else _packed(came.update)
    with site.deciding:  # no decision falls between the last look at the approval and the event
        if site.adoption != order.adoption or order.run.request in site.ended:
            findings = [
                *findings,
                refuse(
                    "approval.state",
                    "the approval ended, or the hospital's policy changed, while the run was "
                    "under way",
                    "runs that end under the approval that they began under",
                    "look at the state of the request, and ask the hospital",
                ),
            ]
        if findings:
            return _refused_update(site, order, findings)
        return _release(site, order, came.update, payload, came.seconds)


def _packed(update: Update) -> bytes:
    return pack(
        {f"weights/{name}": array for name, array in update.weights.items()}
        | {f"counts/{name}": array for name, array in update.counts.items()}
    )


def _release(
    site: OpenSite, order: Order, update: Update, payload: bytes, seconds: float
) -> Outcome:
    answer = {
        "run": str(order.run),
        "metrics": update.metrics,
        "examples": update.examples,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "seconds": seconds,
    }
    outcome = Outcome(RunState.RELEASED, answer, payload)
    return _record(
        site, order, outcome, Event.UPDATE_RELEASED,
        update_sha256=answer["sha256"],
        bytes=len(payload),
        arrays=len(update.weights) + len(update.counts),
        metrics=sorted(update.metrics),
        examples=update.examples,
    )  # fmt: skip


def _refused_update(site: OpenSite, order: Order, findings: list[Finding]) -> Outcome:
    outcome = Outcome(RunState.REFUSED, {"findings": [f.as_dict() for f in findings]})
    rules = sorted({f.rule for f in findings})
    return _record(site, order, outcome, Event.UPDATE_REFUSED, rules=rules)


def _tell_failure(order: Order, failed: RunFailed) -> None:
    logger.warning("run=%s failed=%s", order.run, failed.kind)
    _log(order.run, failed.log, failed.trace)


def _failed(site: OpenSite, order: Order, failed: RunFailed) -> Outcome:
    _tell_failure(order, failed)
    finding = refuse(
        "run.failed",
        f"run {order.run} ended with {failed.kind}",
        "runs that return what the contract declares",
        LACKING if failed.kind in ("ModuleNotFoundError", "ImportError") else BROKEN,
    )
    outcome = Outcome(RunState.FAILED, {"findings": [finding.as_dict()]})
    return _record(site, order, outcome, Event.RUN_FAILED, kind=failed.kind)


def _record(site: OpenSite, order: Order, outcome: Outcome, event: Event, **detail: Any) -> Outcome:
    """Keep an outcome, log it, and settle the run; after a crash the log decides."""
    site.ledger.keep(order.run, outcome)
    site.audit.append(event, order.account, str(order.run), **detail)
    try:
        site.ledger.settle(order.run, outcome)
    except RecordError as error:  # what is in the log stands; the record follows when it can
        logger.error("run=%s has ended and is not settled: %s", order.run, error)
    return outcome


def _log(run: RunId, said: str, trace: RunTrace | None) -> None:
    """Tell the site's log what a run printed, and what it tried that training does not."""
    if said:
        logger.info("run=%s said=%r", run, said)
    if trace is not None and trace.attempts:
        tried = "; ".join(f"{what} ({count})" for what, count in trace.attempts)
        logger.warning("run=%s tried=%r", run, tried)


def _site_trouble(run: RunId) -> AlreadyLogged:
    return AlreadyLogged(
        [
            refuse(
                "site.trouble",
                f"the site could not carry out run {run}",
                "a working site",
                "tell the hospital the run id; the same id can be tried again",
            )
        ]
    )
