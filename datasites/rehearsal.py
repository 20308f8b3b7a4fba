"""A rehearsal: the exact text on the mock, in the same cage, before anyone approves it.

It shows what the job calls, takes, returns and tries, and how single mock images move its result.
The mock is small and made from no patient, so rules on how many images a result needs do not apply.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from typing import Literal

import numpy as np
from pydantic import Field
from sqlalchemy import select

from datasites.audit_log import Event
from datasites.catalogue import read_card
from datasites.influence import Probe, measure_influence
from datasites.mock_store import MockStore
from datasites.open_site import OpenSite
from datasites.people import Acting
from datasites.private_run import PrivateRun, run_privately
from datasites.records import RehearsalRow, RequestRow, utc_now
from datasites.requests import request_terms
from datasites.sandbox.cage import RunFailed, RunResult, RunText, RunTrace
from datasites.sandbox.private_training import ModelRefused
from policies.arrays import Arrays, pack
from policies.contract import ArrayContract, Bound, Contract, Terms, Value
from policies.findings import Finding, refuse
from policies.sections import SandboxRule
from policies.strict import Strict, model_sha256
from policies.update_rules import check_update, what_may_leave

NOT_ON_MOCKS = ("examples.minimum", "counts.minimum")
"""Rules about numbers of images, which the mock does not have."""
LOG_CHARACTERS = 4000

logger = logging.getLogger(__name__)


class ReturnedArray(Strict):
    """One array that the job returned."""

    name: str
    """Its name."""
    kind: Literal["weights", "counts"]
    """What it was returned as."""
    shape: tuple[int, ...]
    """Length of each axis."""
    dtype: str
    """numpy's name of the element type."""


class Rehearsal(Strict):
    """What happened when a request's text ran on the mock."""

    request: int
    """Number of the request."""
    at: str
    """UTC."""
    text_sha256: str
    """The text that ran."""
    version: str
    """The dataset version whose mock it ran on."""
    policy_sha256: str
    """The policy that it was judged under."""
    images: int
    """Mock images per split."""
    config: dict[str, Value]
    """The arguments that were used: fixed ones as asked for, open ones within their range."""
    outcome: str
    """`returned`, or the kind of error."""
    seconds: float
    """Wall time of the first run."""
    memory_mb: int
    """Memory at most, beside the libraries, MiB."""
    returned: tuple[ReturnedArray, ...] = ()
    """Every array that came back."""
    metrics: dict[str, float] = Field(default={})
    """Every number that came back."""
    examples: int | None = None
    """The number of images that the job says it used."""
    refused: tuple[dict[str, str | int | None], ...] = ()
    """Findings that would have kept this result at the site."""
    calls: tuple[tuple[str, int], ...] = ()
    """What the text called, and how often."""
    attempts: tuple[tuple[str, int], ...] = ()
    """What it tried that honest training does not: files, sockets, processes."""
    log: str = ""
    """What it printed or raised. It ran on the mock, so it holds nothing of a patient."""
    influence: str
    """How single images move the result, in words."""
    probed: int = 0
    """Images that were changed, one at a time."""
    largest_share: float = 0.0
    """The largest part of all movement that comes from one image."""
    suspicious: bool = False
    """Whether single images move the result as if they were stored."""
    repeatable: bool = True
    """Whether the same run gave the same result."""

    @property
    def succeeded(self) -> bool:
        """Whether the job returned what it declared."""
        return self.outcome == "returned" and not self.refused

    @property
    def sha256(self) -> str:
        """Digest of the whole report."""
        return model_sha256(self)


def rehearse(site: OpenSite, row: RequestRow, acting: Acting | None) -> Rehearsal:
    """Run a request's text on the mock and keep what happened.

    Raises:
        SandboxError: The sandbox cannot be started.
    """
    terms = request_terms(row)
    with site.rehearsing:
        site.audit.append(
            Event.REQUEST_REHEARSED,
            acting.email if acting else "site",
            f"R-{row.id}",
            role=acting.role if acting else None,
            text_sha256=row.text_sha256,
            version=terms.version,
        )
        mock = MockStore(
            site.site.state / "mocks" / terms.version, read_card(site.site.datasets, terms.version)
        )
        report = _Rehearsing(site, row, terms, mock).report()
    with site.records.write() as session:
        session.add(RehearsalRow(request=row.id, at=report.at, report=report.model_dump_json()))
    return report


def latest_rehearsal(site: OpenSite, number: int) -> Rehearsal | None:
    """The last rehearsal of a request, if there was one."""
    query = (
        select(RehearsalRow).where(RehearsalRow.request == number).order_by(RehearsalRow.id.desc())
    )
    with site.records.read() as session:
        found = session.scalars(query).first()
    return Rehearsal.model_validate_json(found.report) if found else None


class _Rehearsing:
    """One rehearsal under way: the cage, the budget of time, and the arguments."""

    def __init__(self, site: OpenSite, row: RequestRow, terms: Terms, mock: MockStore) -> None:
        self._policy, self._row, self._terms, self._mock = site.policy, row, terms, mock
        self._site = site
        self._contract = terms.contract or Contract()
        self._sent = plausible_weights(self._contract.sent)
        self._config = {name: plausible_value(b) for name, b in terms.arguments.items()}
        self._end = time.monotonic() + self._policy.review.rehearsal.time_s

    def report(self) -> Rehearsal:
        """Run the job, check what it returned, then change single images."""
        started = time.monotonic()
        try:
            first = self._run(watched=True)
        except RunFailed as failed:
            return self._told(
                outcome=failed.kind,
                seconds=round(time.monotonic() - started, 3),
                trace=failed.trace or RunTrace(),
                log=failed.log[:LOG_CHARACTERS],
                influence="the job did not return anything",
            )
        try:
            found = self._findings(first)
        except Exception:  # a defect of ours must not hide what the job did
            logger.exception("rehearsal request=R-%s", self._row.id)
            found = [refuse("update.keys", "a result that cannot be checked", "an update",
                            "look at the text")]  # fmt: skip
        return self._told(
            outcome="returned",
            seconds=first.seconds,
            trace=first.trace,
            log=first.log[:LOG_CHARACTERS],
            returned=tuple(_returned(first)),
            metrics={n: v for n, v in first.update.metrics.items() if math.isfinite(v)},
            examples=first.update.examples,
            refused=tuple(f.as_dict() for f in found),
            **self._influence(first),
        )

    def _influence(self, first: RunResult) -> dict[str, object]:
        """What single images move; a job that breaks on a changed image is as suspicious."""
        wanted = min(self._policy.review.rehearsal.images, self._mock.count)
        if self._terms.access == "trainer":
            return {"influence": "the text sees none, and noise covers what one of them moves"}
        if not wanted:
            return {"influence": "no image was changed to see what it moves"}
        rows = np.linspace(0, self._mock.count - 1, wanted).round().astype(int)
        probes: list[Probe] = []
        again, broken = None, ""
        try:
            again = self._run()
            for row in rows:
                with self._mock.changed(int(row)) as change:
                    probes.append(Probe(change, self._run().update))
        except RunFailed as failed:
            logger.info("rehearsal request=R-%s ended with %s", self._row.id, failed.kind)
            if failed.kind != "TimeLimit":
                what = "when an image was changed" if again else "when it ran again"
                broken = f"the job ended with {failed.kind} {what}"
        if broken or again is None or not probes:
            words = broken or "there was no time to change single images"
            return {"influence": words, "suspicious": bool(broken), "probed": len(probes)}
        try:
            measured = measure_influence(first.update, again.update, probes)
        except (ValueError, ArithmeticError):  # a defect of ours must not hide what the job did
            logger.exception("rehearsal request=R-%s", self._row.id)
            return {"influence": "the results cannot be compared", "suspicious": True}
        return {
            "influence": measured.in_words(),
            "probed": measured.probed,
            "largest_share": measured.largest_share,
            "suspicious": measured.suspicious,
            "repeatable": measured.repeatable,
        }

    def _run(self, *, watched: bool = False) -> RunResult:
        left = math.floor(self._end - time.monotonic())
        if left < 1:
            raise RunFailed("TimeLimit")
        limits = self._policy.sandbox
        limits = limits.model_copy(update={"time_s": min(left, limits.time_s)})
        version, folder = self._terms.version, self._mock.folder
        if self._terms.access == "trainer":
            return self._run_privately(limits)
        cage = self._site.mock_cage(version, folder)
        text = RunText(self._row.text, self._terms.entry, self._config, pack(self._sent))
        return cage.run(text, self._contract, limits, watched=watched)

    def _run_privately(self, limits: SandboxRule) -> RunResult:
        """Build the model, and train it on the mock with the noise that runs would have."""
        asked, version = self._terms.privacy, self._terms.version
        if asked is None or self._policy.privacy.mode != "dp_sgd":
            raise RunFailed("NotAnUpdate", "the policy and the terms do not go together")
        run = PrivateRun(
            self._row.text, self._terms, self._config, self._sent, self._policy,
            asked.mechanism(self._terms.runs, self._policy.privacy), self._mock.card,
        )  # fmt: skip
        cages = self._site.private_mock_cages(version, self._mock.folder)
        try:
            return run_privately(cages, run, limits)
        except ModelRefused as refused:
            raise RunFailed("ValueError", str(refused)) from refused

    def _findings(self, result: RunResult) -> list[Finding]:
        update = what_may_leave(result.update, self._policy)
        found = check_update(update, self._sent, self._contract, self._policy)
        if result.undeclared:
            found.append(
                refuse(
                    "update.keys",
                    "keys returned beside the contract's",
                    "weights, counts, metrics, examples",
                    "return nothing else",
                )
            )
        return [f for f in found if f.rule not in NOT_ON_MOCKS]

    def _told(self, *, trace: RunTrace, **said: object) -> Rehearsal:
        return Rehearsal.model_validate(
            {
                "request": self._row.id,
                "at": utc_now(),
                "text_sha256": hashlib.sha256(self._row.text.encode()).hexdigest(),
                "version": self._terms.version,
                "policy_sha256": self._policy.sha256,
                "images": self._mock.count,
                "config": self._config,
                "memory_mb": trace.memory_mb,
                "calls": trace.calls,
                "attempts": trace.attempts,
                **said,
            }
        )


def plausible_value(bound: Bound) -> Value:
    """A value within a bound: the fixed one, the first choice, the low end, or between the ends."""
    if bound.value is not None:
        return bound.value
    if bound.choices is not None:
        return bound.choices[0]
    low, high = bound.low or 0, bound.high or 0
    if bound.whole:
        return low
    return math.sqrt(low * high) if low > 0 else (low + high) / 2


def plausible_weights(declared: dict[str, ArrayContract]) -> Arrays:
    """Weights as a fresh network has them: small random matrices, scales and variances near 1."""
    rng = np.random.default_rng(0)
    weights: Arrays = {}
    for name, array in declared.items():
        if array.dtype.startswith("int"):
            values = np.zeros(array.shape)
        elif len(array.shape) > 1:
            values = rng.normal(0, 1 / math.sqrt(max(1, math.prod(array.shape[1:]))), array.shape)
        elif name.endswith(("weight", "running_var")):
            values = rng.uniform(0.9, 1.1, array.shape)
        else:
            values = rng.normal(0, 0.01, array.shape)
        weights[name] = values.astype(array.dtype)
    return weights


def _returned(result: RunResult) -> list[ReturnedArray]:
    groups = (("weights", result.update.weights), ("counts", result.update.counts))
    return [
        ReturnedArray.model_validate(
            {"name": name[:120], "kind": kind, "shape": array.shape, "dtype": array.dtype.name}
        )
        for kind, arrays in groups
        for name, array in list(sorted(arrays.items()))[:5000]
    ]
