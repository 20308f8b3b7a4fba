"""One run, from the researcher's call to the update that leaves, in the order of the design.

approval   signature, not revoked, not expired, same text, same dataset version, same policy
arguments  config and weights as the approved terms say
ledger     the run is charged, or was answered before
audit      "run started", on the disk before anything runs
sandbox    text + memory-mapped data + weights -> result
rules      contract and policy on the result
audit      "update released" with its hash, then the update leaves
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from typing import Any

from sqlalchemy import select

from datasites.approvals import Approval, check_approval
from datasites.audit_log import Event
from datasites.catalogue import handle
from datasites.errors import DatasetError, RunRefused, SandboxError
from datasites.ledger import Outcome, RunId, RunState
from datasites.lineage import retired_because
from datasites.open_site import OpenSite
from datasites.records import RequestRow
from datasites.request_states import RequestState
from datasites.sandbox.cage import RunFailed, RunText
from datasites.standing import latest_approval
from policies.argument_rules import check_arguments
from policies.arrays import Arrays, MalformedArraysError, pack, unpack
from policies.contract import Contract
from policies.document import Policy
from policies.findings import Finding, finding_from_dict, refuse
from policies.update_rules import Update, check_update, check_weights

MAXIMUM_ROUND = 1_000_000
MAXIMUM_ATTEMPT = 1000

logger = logging.getLogger(__name__)


def run_job(
    site: OpenSite,
    *,
    account: str,
    syft_code: str,
    approved_in_syft: bool,
    private_handle: dict[str, str],
    round_number: int,
    attempt: int,
    weights: bytes,
    config_json: str,
) -> dict[str, Any]:
    """Run approved code once and give what may leave.

    Args:
        site: The site.
        account: Who calls.
        syft_code: Id of the code in syft, as the call names it.
        approved_in_syft: Whether syft, too, holds this account's code for approved.
        private_handle: What syft holds as the private side of the bound asset.
        round_number: The researcher's round.
        attempt: 1 for the first try of a round.
        weights: Named arrays (safetensors).
        config_json: The job's arguments as a JSON object.

    Returns:
        `arrays` (safetensors; names start with `weights/` or `counts/`) and `receipt` (JSON: run,
        metrics, examples, sha256, seconds, repeated).

    Raises:
        RunRefused: With every reason; nothing of the data is in them.
    """
    try:
        row = _own_request(site, account, syft_code)
        run = _run_id(row.id, round_number, attempt)
    except RunRefused as refused:
        _log_refusal(site, account, "run", refused)
        raise
    with site.run_lock(row.id):
        try:
            _check_state(row, approved_in_syft and row.id not in site.ended)
            return _run(site, row, run, private_handle, weights, config_json)
        except RunRefused as refused:
            _log_refusal(site, account, str(run), refused)
            raise


class _Settled(RunRefused):
    """A refusal whose event is in the log already."""


def _run(
    site: OpenSite,
    row: RequestRow,
    run: RunId,
    private_handle: dict[str, str],
    weights: bytes,
    config_json: str,
) -> dict[str, Any]:
    policy, adoption = site.policy, site.adoption
    number, approval = _approval_in_force(site, row, policy, adoption)
    terms = approval.terms
    contract = terms.contract or Contract()
    if private_handle != handle(terms.dataset, terms.version):
        raise RunRefused(
            [
                refuse(
                    "approval.dataset",
                    "the code is bound to another dataset version",
                    f"{terms.dataset} version {terms.version[:12]}",
                    "submit a new request",
                )
            ]
        )
    config = _parse_config(config_json)
    sent = _parse_weights(weights)
    if findings := check_arguments(config, terms) + check_weights(sent, contract):
        raise RunRefused(findings)
    if retired_because(site.site.lineages, terms.version) is not None:
        raise RunRefused(
            [
                refuse(
                    "dataset.withdrawn",
                    f"{terms.dataset} version {terms.version[:12]} was withdrawn by the hospital",
                    "a version that is published",
                    "submit a new request for the version that came after it",
                )
            ]
        )
    try:
        cage = site.cage(terms.version)
    except DatasetError as error:
        logger.error("run=%s dataset=%s damaged", run, terms.version)
        raise _site_trouble(run) from error

    arguments = hashlib.sha256(weights + b"\0" + config_json.encode()).hexdigest()
    per_day = policy.runs.per_day
    if (earlier := site.ledger.reserve(run, number, terms.runs, per_day, arguments)) is not None:
        return _repeat(site, row.account, run, earlier)
    site.audit.append(
        Event.RUN_STARTED,
        row.account,
        str(run),
        text_sha256=row.text_sha256,
        version=terms.version,
        arguments_sha256=arguments,
        sandbox="bubblewrap" if site.bwrap else "process",
    )
    text = RunText(row.text, terms.entry, config, weights)
    try:
        result = cage.run(text, contract, policy.sandbox)
        findings = check_update(result.update, sent, contract, policy)
    except RunFailed as failed:
        raise _failed(site, row.account, run, failed) from failed
    except SandboxError as error:
        logger.error("run=%s sandbox=%s", run, error)
        raise _site_trouble(run) from error
    except Exception as error:  # a defect of ours must not leave a run without an end
        logger.exception("run=%s broke the site's rules", run)
        raise _failed(site, row.account, run, RunFailed("NotAnUpdate")) from error
    if result.log:
        logger.info("run=%s said=%r", run, result.log)
    if result.undeclared:
        findings.append(
            refuse(
                "update.keys",
                "keys returned beside the contract's",
                "weights, counts, metrics, examples",
                "return nothing else",
            )
        )
    if site.adoption != adoption or row.id in site.ended:
        findings.append(
            refuse(
                "approval.state",
                "the approval ended, or the hospital's policy changed, while the run was under way",
                "runs that end under the approval that they began under",
                "look at the state of the request, and ask the hospital",
            )
        )
    if findings:
        raise _refused_update(site, row.account, run, findings)
    return _release(site, row.account, run, result.update, result.seconds)


def _own_request(site: OpenSite, account: str, syft_code: str) -> RequestRow:
    with site.records.read() as session:
        row = session.scalar(select(RequestRow).where(RequestRow.syft_code == syft_code))
    if row is None or row.account != account:
        raise _refused("run.request", "no request of this account", "requests submitted here",
                       "submit the job first")  # fmt: skip
    return row


def _run_id(request: int, round_number: int, attempt: int) -> RunId:
    if not (0 <= round_number <= MAXIMUM_ROUND and 1 <= attempt <= MAXIMUM_ATTEMPT):
        raise _refused("run.id", f"round {round_number}, attempt {attempt}",
                       f"round 0 to {MAXIMUM_ROUND}, attempt 1 to {MAXIMUM_ATTEMPT}",
                       "number the runs from 1")  # fmt: skip
    return RunId(request, round_number, attempt)


def _check_state(row: RequestRow, approved_in_syft: bool) -> None:
    if row.state != RequestState.APPROVED or not approved_in_syft:
        state = row.state if row.state != RequestState.APPROVED else "no longer approved"
        reason = f": {row.reason}" if row.reason else ""
        raise _refused(
            "approval.state",
            f"R-{row.id} is {state}{reason}",
            "approved requests",
            "wait for the decision, or submit again",
        )


def _approval_in_force(
    site: OpenSite, row: RequestRow, policy: Policy, adoption: int
) -> tuple[int, Approval]:
    """The approval that allows this run now."""
    stored = latest_approval(site, row.id)
    if stored is None or stored.revoked:
        raise _refused("approval.state", f"R-{row.id} has no approval in force",
                       "approved requests", "ask the hospital")  # fmt: skip
    approval, findings = check_approval(
        stored.document,
        stored.signature,
        public_hex=site.key.public_hex,
        request=row.id,
        researcher=row.account,
        text=row.text,
        policy=policy,
        adoption=adoption,
        now=dt.datetime.now(dt.UTC),
    )
    if approval is None or findings:
        raise RunRefused(findings)
    return stored.id, approval


def _parse_config(config_json: str) -> dict[str, Any]:
    try:
        config = json.loads(config_json)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or any(
        not isinstance(v, bool | int | float | str) for v in config.values()
    ):
        raise _refused("arguments.form", "something else than names with numbers or texts",
                       "a JSON object of plain values", "send plain values")  # fmt: skip
    return config


def _parse_weights(weights: bytes) -> Arrays:
    try:
        return unpack(weights)
    except MalformedArraysError as error:
        raise _refused("weights.form", str(error), "named arrays (safetensors)",
                       "send them with federation.run_rounds")  from error  # fmt: skip


def _repeat(site: OpenSite, account: str, run: RunId, earlier: Outcome) -> dict[str, Any]:
    if earlier.state is not RunState.RELEASED:
        raise RunRefused([finding_from_dict(f) for f in earlier.answer["findings"]])
    site.audit.append(
        Event.UPDATE_REPEATED, account, str(run), update_sha256=earlier.answer["sha256"]
    )
    return {
        "arrays": earlier.payload,
        "receipt": json.dumps({**earlier.answer, "repeated": True}),
    }


def _failed(site: OpenSite, account: str, run: RunId, failed: RunFailed) -> RunRefused:
    logger.warning("run=%s failed=%s said=%r", run, failed.kind, failed.log)
    finding = refuse(
        "run.failed",
        f"run {run} ended with {failed.kind}",
        "runs that return what the contract declares",
        "try the job on the mock; the hospital's log has more under this run id",
    )
    site.audit.append(Event.RUN_FAILED, account, str(run), kind=failed.kind)
    site.ledger.settle(run, Outcome(RunState.FAILED, {"findings": [finding.as_dict()]}))
    return _Settled([finding])


def _refused_update(
    site: OpenSite, account: str, run: RunId, findings: list[Finding]
) -> RunRefused:
    site.audit.append(
        Event.UPDATE_REFUSED, account, str(run), rules=sorted({f.rule for f in findings})
    )
    answer = {"findings": [f.as_dict() for f in findings]}
    site.ledger.settle(run, Outcome(RunState.REFUSED, answer))
    return _Settled(findings)


def _release(
    site: OpenSite, account: str, run: RunId, update: Update, seconds: float
) -> dict[str, Any]:
    payload = pack(
        {f"weights/{name}": array for name, array in update.weights.items()}
        | {f"counts/{name}": array for name, array in update.counts.items()}
    )
    answer = {
        "run": str(run),
        "metrics": update.metrics,
        "examples": update.examples,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "seconds": seconds,
        "repeated": False,
    }
    site.audit.append(
        Event.UPDATE_RELEASED,
        account,
        str(run),
        update_sha256=answer["sha256"],
        bytes=len(payload),
        arrays=len(update.weights) + len(update.counts),
        metrics=sorted(update.metrics),
        examples=update.examples,
    )
    site.ledger.settle(run, Outcome(RunState.RELEASED, answer, payload))
    return {"arrays": payload, "receipt": json.dumps(answer)}


def _log_refusal(site: OpenSite, account: str, subject: str, refused: RunRefused) -> None:
    if not isinstance(refused, _Settled):
        rules = sorted({f.rule for f in refused.findings})
        site.audit.append(Event.RUN_REFUSED, account, subject, rules=rules)


def _site_trouble(run: RunId) -> RunRefused:
    return _refused("site.trouble", f"the site could not carry out run {run}", "a working site",
                    "tell the hospital the run id; the same id can be tried again")  # fmt: skip


def _refused(rule: str, seen: str, allowed: str, do: str) -> RunRefused:
    return RunRefused([refuse(rule, seen, allowed, do)])
