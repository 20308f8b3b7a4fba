"""One run, from the researcher's call to the update that leaves, in the order of the design.

approval   signature, not revoked, not expired, same text, same dataset version, same policy
arguments  config and weights as the approved terms say
ledger     the run is charged, or was answered before
run        in the queue of its dataset version: `datasites.carrying_out`

The call waits for the run for `answer_within_s` and says that it is under way when it takes longer;
the researcher then asks for its outcome with the same id. Every way of asking passes the same
checks, and gives the same update once the run has ended.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from datasites.approvals import Approval, check_approval
from datasites.audit_log import Event
from datasites.carrying_out import AlreadyLogged, Order, carry_out
from datasites.catalogue import handle
from datasites.errors import RunRefused
from datasites.ledger import Outcome, RunId, RunState, check_same
from datasites.lineage import retired_because
from datasites.open_site import OpenSite
from datasites.privacy_ledger import Charge
from datasites.records import RequestRow
from datasites.request_states import UNDECIDED, RequestState
from datasites.requests import request_findings
from datasites.runs_under_way import UnderWay
from datasites.standing import latest_approval
from policies.argument_rules import check_arguments
from policies.arrays import Arrays, MalformedArraysError, unpack
from policies.contract import Contract, Terms
from policies.document import Policy
from policies.findings import finding_from_dict, refusals, refuse
from policies.proof_rules import check_proof
from policies.update_rules import check_weights

MAXIMUM_ROUND = 1_000_000
MAXIMUM_ATTEMPT = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """Which run somebody asks for.

    Attributes:
        account: Who calls.
        syft_code: Id of the code in syft, as the call names it.
        approved_in_syft: Whether syft, too, holds this account's code for approved.
        private_handle: What syft holds as the private side of the bound asset.
        round: The researcher's round.
        attempt: 1 for the first try of a round.
    """

    account: str
    syft_code: str
    approved_in_syft: bool
    private_handle: dict[str, str]
    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What the researcher is told about a run.

    Attributes:
        receipt: JSON: run, state, seconds; of a released update also metrics, examples, sha256,
            repeated.
        arrays: The update (safetensors; names start with `weights/` or `counts/`), else empty.
    """

    receipt: str
    arrays: bytes = b""


def run_job(site: OpenSite, asked: Asked, weights: bytes, config_json: str) -> RunAnswer:
    """Run approved code once and give what may leave, or say that it is under way.

    Args:
        site: The site.
        asked: Which run.
        weights: Named arrays (safetensors).
        config_json: The job's arguments as a JSON object.

    Raises:
        RunRefused: With every reason; nothing of the data is in them.
    """
    row, run = _identified(site, asked)
    with site.run_lock(row.id), _Logging(site, asked.account, run):
        order = _order(site, row, run, asked)
        found = _begin(site, order, weights, config_json)
    if isinstance(found, Outcome):
        return _answer(site, asked.account, run, found)
    return _wait(site, asked.account, found)


def ask_again(site: OpenSite, asked: Asked) -> RunAnswer:
    """What came of a run that was under way, in the form of `run_job`.

    The state in the receipt is `unknown` when the site has no outcome and the run is not under way:
    it was interrupted, and starts again when it is asked for with its weights.

    Raises:
        RunRefused: As by `run_job`.
    """
    row, run = _identified(site, asked)
    with site.run_lock(row.id), _Logging(site, asked.account, run):
        _order(site, row, run, asked)
        under_way = site.under_way.of(row.id)
        if under_way is None or under_way.run != run:
            outcome = site.ledger.find(run)
            if outcome is None:
                return _told(run, "unknown")
            return _answer(site, asked.account, run, outcome)
    return _wait(site, asked.account, under_way)


class _Logging:
    """Logs the refusals that leave a block, once each."""

    def __init__(self, site: OpenSite, account: str, run: RunId | str) -> None:
        self._site, self._account, self._subject = site, account, str(run)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RunRefused) and not isinstance(error, AlreadyLogged):
            rules = sorted({f.rule for f in error.findings})
            self._site.audit.append(Event.RUN_REFUSED, self._account, self._subject, rules=rules)


def _identified(site: OpenSite, asked: Asked) -> tuple[RequestRow, RunId]:
    with _Logging(site, asked.account, "run"):
        row = _own_request(site, asked.account, asked.syft_code)
        return row, _run_id(row.id, asked.round, asked.attempt)


def _order(site: OpenSite, row: RequestRow, run: RunId, asked: Asked) -> Order:
    """What may be run now, under the approval in force."""
    _check_state(site, row, asked.approved_in_syft and row.id not in site.ended)
    policy, adoption = site.policy, site.adoption
    number, approval = _approval_in_force(site, row, policy, adoption)
    wall = site.bwrap.sha256 if site.bwrap else ""
    if findings := check_proof(site.proof, wall, policy, dt.datetime.now(dt.UTC)):
        raise RunRefused(findings)
    terms = approval.terms
    if asked.private_handle != handle(terms.dataset, terms.version):
        raise _refused("approval.dataset", "the code is bound to another dataset version",
                       f"{terms.dataset} version {terms.version[:12]}",
                       "submit a new request")  # fmt: skip
    if retired_because(site.site.lineages, terms.version) is not None:
        raise _refused(
            "dataset.withdrawn",
            f"{terms.dataset} version {terms.version[:12]} was withdrawn by the hospital",
            "a version that is published",
            "submit a new request for the version that came after it",
        )
    return Order(
        run=run, account=row.account, text=row.text, text_sha256=row.text_sha256,
        approval=number, terms=terms, policy=policy, adoption=adoption,
        privacy=_charge(terms, policy),
    )  # fmt: skip


def _charge(terms: Terms, policy: Policy) -> Charge | None:
    """What a run costs the patients, where the policy keeps account."""
    rule = policy.privacy
    if rule.mode == "none":
        return None
    if terms.privacy is None:  # no approval of it is in force under such a policy
        raise _refused("privacy.epsilon", "the request asks for no epsilon",
                       f"above 0, at most {rule.cap:g}", "submit a new request")  # fmt: skip
    return Charge(terms.dataset, terms.privacy.mechanism(terms.runs, rule), rule)


def _begin(site: OpenSite, order: Order, weights: bytes, config_json: str) -> UnderWay | Outcome:
    """Charge a run and let it begin, or find it under way or ended."""
    run, terms = order.run, order.terms
    config, sent = _parse_config(config_json), _parse_weights(weights)
    contract = terms.contract or Contract()
    if findings := check_arguments(config, terms.arguments) + check_weights(sent, contract):
        raise RunRefused(findings)
    digest = hashlib.sha256(weights)
    digest.update(b"\0" + config_json.encode())
    arguments = digest.hexdigest()
    under_way = site.under_way.of(run.request)
    if under_way is not None and under_way.run != run:
        raise _refused("run.busy", f"run {under_way.run} is under way",
                       "one run of a request at a time",
                       "ask again when it has ended")  # fmt: skip
    if under_way is not None:
        check_same(run, under_way.arguments, arguments)
        return under_way
    if site.ledger.has_lost_its_end(run):
        reason = "its end could not be recorded"
        site.audit.append(Event.RUN_INTERRUPTED, "site", str(run), reason=reason)
        site.ledger.interrupt(run)
    earlier = site.ledger.reserve(
        run, order.approval, terms.runs, order.policy.runs.per_day, arguments, order.privacy
    )
    if earlier is not None:
        return earlier

    def work() -> Outcome:
        return carry_out(site, order, weights, sent, config, arguments)

    return site.under_way.begin(run, arguments, terms.version, work)


def _wait(site: OpenSite, account: str, under_way: UnderWay) -> RunAnswer:
    outcome = site.under_way.wait_for(under_way, site.config.answer_within_s)
    if outcome is None:
        return _told(under_way.run, "running", under_way.seconds)
    return _answer(site, account, under_way.run, outcome)


def _told(run: RunId, state: str, seconds: float = 0) -> RunAnswer:
    receipt = {"run": str(run), "state": state, "seconds": round(seconds, 3)}
    return RunAnswer(json.dumps(receipt))


def _answer(site: OpenSite, account: str, run: RunId, outcome: Outcome) -> RunAnswer:
    """The answer to somebody who asked for a run that has ended."""
    first = site.under_way.take(run)
    if outcome.state is not RunState.RELEASED:
        raise AlreadyLogged([finding_from_dict(f) for f in outcome.answer["findings"]])
    if not first:
        site.audit.append(
            Event.UPDATE_REPEATED, account, str(run), update_sha256=outcome.answer["sha256"]
        )
    receipt = {**outcome.answer, "state": outcome.state.value, "repeated": not first}
    return RunAnswer(json.dumps(receipt), outcome.payload)


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


def _check_state(site: OpenSite, row: RequestRow, approved_in_syft: bool) -> None:
    if row.state != RequestState.APPROVED or not approved_in_syft:
        state = row.state if row.state != RequestState.APPROVED else "no longer approved"
        reason = f": {row.reason}" if row.reason else ""
        raise _refused(
            "approval.state",
            f"R-{row.id} is {state}{reason}",
            "approved requests",
            _what_to_do(site, row),
        )


def _what_to_do(site: OpenSite, row: RequestRow) -> str:
    """What a researcher can do about a request that is not approved."""
    if row.state not in UNDECIDED:
        return "read the reason, and submit again"
    if refused := refusals(request_findings(site, row)):
        told = [f"{finding.rule}: {finding.do}" for finding in refused]
        return f"the policy forbids to approve it; {'; '.join(dict.fromkeys(told))}"
    if row.state == RequestState.CHANGES_REQUESTED:
        return "read the comments, change the job and submit it again"
    return "wait for the decision"


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


def _refused(rule: str, seen: str, allowed: str, do: str) -> RunRefused:
    return RunRefused([refuse(rule, seen, allowed, do)])
