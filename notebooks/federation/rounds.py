"""Federated rounds: one thread per site, a quorum, and a history that names who was missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from federation.aggregation.algorithm import Algorithm, Memory, SiteUpdate, State
from federation.aggregation.diagnostics import Diagnostics
from federation.aggregation.fed_avg import FedAvg
from federation.aggregation.updates import misfit
from federation.checkpoint import Checkpoint, Saved, Setting
from federation.errors import ConnectionLostError, FederationError, RefusedError
from federation.history import History, SiteRound
from federation.submission import Study
from policies.arrays import Arrays, arrays_sha256

PATIENCE_S = 60.0
"""How long a site that does not answer is asked again, with the same run id."""


@dataclass(slots=True)
class RoundsResult:
    """The global weights after some rounds, and how they came about.

    Attributes:
        weights: The global weights.
        history: Who contributed what.
        memory: What the algorithm remembers beside the weights.
        diagnostics: Number of a round -> how far the weights moved in it, and who moved them.
    """

    weights: Arrays
    history: History = field(default_factory=History)
    memory: Memory = field(default_factory=dict)
    diagnostics: dict[int, Diagnostics] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The algorithm's state, as `algorithm.to_send(state, site)` wants it."""
        return State(self.weights, self.memory)

    @property
    def weights_sha256(self) -> str:
        """Digest of the global weights: names, dtypes, shapes and every bit."""
        return arrays_sha256(self.weights)


def run_rounds(
    study: Study,
    weights: Arrays,
    config: Mapping[str, Any],
    *,
    rounds: int,
    algorithm: Algorithm = FedAvg(),  # noqa: B008  frozen, and without a field
    first_round: int = 1,
    quorum: int | Sequence[str] | None = None,
    patience_s: float = PATIENCE_S,
    at_once: int | None = None,
    after_round: Callable[[int, RoundsResult], None] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> RoundsResult:
    """Train at all sites of a study, round by round, and combine what comes back.

    Args:
        study: An approved study.
        weights: The weights to start from.
        config: The job's arguments; `round` is filled in when the job has it.
        rounds: How many rounds to run.
        algorithm: How updates are combined; `federation.aggregation` has the others.
        first_round: Number of the first; go on after an interruption with the next number. An
            algorithm that remembers more than the weights goes on from a checkpoint only.
        quorum: How many sites, or which ones, a round needs; all by default. A site that fails is
            named in the history, and the round goes on while the quorum holds. So is one whose
            update does not fit the model.
        patience_s: How long a site that does not answer is asked again before it counts as missing.
        at_once: How many sites train at one time, those first that took longest in the round
            before; all by default. Where all sites share one machine, as many as it has cores are
            faster than all: the longest run then has a core to itself.
        after_round: Called with the round's number and the result so far.
        checkpoint: A folder in which each round is saved. The same call again, also in another
            kernel, goes on after the last round that was saved and ends with the same weights.
        progress: Whether to show a progress bar.

    Raises:
        FederationError: A round fell below the quorum; the message names each missing site. The
            result so far is the error's `result`. Or the algorithm does not fit the model, the
            number of sites or the job's arguments. Or the checkpoint belongs to other rounds, has
            more of them than `rounds`, or cannot be written.
    """
    result = _start(study, weights, config, algorithm)
    keeper = None if checkpoint is None else Checkpoint(checkpoint)
    setting = Setting.of(study, weights, config, first_round, algorithm)
    done = first_round - 1
    if keeper is not None and (saved := keeper.load(setting)) is not None:
        done, result = saved.round, _taken_up(saved)
        if done >= first_round + rounds:
            raise FederationError(
                f"the checkpoint in {checkpoint} has rounds up to {done}, and rounds up to "
                f"{first_round + rounds - 1} were asked for; ask for more, or give another folder"
            )
    elif keeper is not None:
        keeper.save(setting, _saved(done, result))
    bar = tqdm(
        range(done + 1, first_round + rounds), desc="rounds", unit="round", disable=not progress,
        initial=done + 1 - first_round, total=rounds,
    )  # fmt: skip
    with ThreadPoolExecutor(at_once or max(len(study.sites), 1)) as pool:
        for number in bar:
            sent = {**config, "round": number} if "round" in study.wanted.arguments else config

            def visit(
                name: str, number: int = number, sent: Mapping[str, Any] = sent
            ) -> tuple[SiteRound, SiteUpdate | None]:
                weights = algorithm.to_send(result.state, name)
                return _visit(study, name, weights, result.weights, sent, number, patience_s)

            begun = {n: pool.submit(visit, n) for n in slowest_first(study.sites, result.history)}
            visits = [begun[name].result() for name in study.sites]
            records = [record for record, _ in visits]
            _check_quorum(study, records, quorum, algorithm.least_updates, result)
            updates = [update for _, update in visits if update is not None]
            try:
                state, diagnostics = algorithm.apply(result.state, updates)
            except ValueError as error:
                raise BelowQuorumError(f"round {number}: {error}", result) from error
            result.history.records.extend(records)
            result.weights, result.memory = state.weights, state.memory
            result.diagnostics[number] = diagnostics
            if keeper is not None:
                keeper.save(setting, _saved(number, result))
            bar.set_postfix(loss=f"{result.history.mean_loss()[number]:.3f}")
            if after_round is not None:
                after_round(number, result)
    return result


class BelowQuorumError(FederationError):
    """A round had fewer sites than the quorum; `result` holds everything up to the round before."""

    def __init__(self, message: str, result: RoundsResult) -> None:
        super().__init__(message)
        self.result = result


def slowest_first(sites: Sequence[str], history: History) -> list[str]:
    """The sites in the order of their seconds in the latest round, the longest first."""
    seconds = {record.site: record.seconds for record in history}  # later rounds replace earlier
    return sorted(sites, key=lambda name: -seconds.get(name, 0.0))


def _start(
    study: Study, weights: Arrays, config: Mapping[str, Any], algorithm: Algorithm
) -> RoundsResult:
    """What the first round starts from, if the algorithm fits."""
    name = type(algorithm).__name__
    if len(study.sites) < algorithm.least_updates:
        raise FederationError(
            f"{name} needs at least {algorithm.least_updates} sites, and the study has "
            f"{len(study.sites)}; submit to more, or take an algorithm that needs fewer"
        )
    for argument, value in algorithm.arguments.items():
        given = config.get(argument, 0)
        if given != value:
            raise FederationError(
                f"{name} is told that the job's `{argument}` is {value}, and `config` says "
                f"{given if argument in config else 'nothing of it'}; give both the same number"
            )
    try:
        state = algorithm.init(weights)
        for site in study.sites:
            algorithm.to_send(state, site)
    except ValueError as error:
        raise FederationError(str(error)) from error
    return RoundsResult(state.weights, memory=state.memory)


def _taken_up(saved: Saved) -> RoundsResult:
    return RoundsResult(saved.weights, saved.history, saved.memory, saved.diagnostics)


def _saved(number: int, result: RoundsResult) -> Saved:
    return Saved(number, result.weights, result.history, result.memory, result.diagnostics)


def _visit(
    study: Study,
    name: str,
    sent: Arrays,
    weights: Arrays,
    config: Mapping[str, Any],
    number: int,
    patience_s: float,
) -> tuple[SiteRound, SiteUpdate | None]:
    """Ask one site for its update; what came of it for the history, and the update if it fits."""
    started = heard = time.monotonic()

    def while_running(_: float) -> None:
        nonlocal heard
        heard = time.monotonic()

    while True:
        try:
            update = study.run(name, sent, config, round_number=number, while_running=while_running)
        except ConnectionLostError as lost:
            # The same run id again: answered with the same update, and charged once.
            if time.monotonic() - heard >= patience_s:
                seconds = time.monotonic() - started
                return SiteRound(number, name, "missing", str(lost), seconds=seconds), None
            time.sleep(1)
        except (RefusedError, FederationError) as refused:
            seconds = time.monotonic() - started
            return SiteRound(number, name, "missing", str(refused), seconds=seconds), None
        else:
            given = SiteUpdate(name, update.weights, update.examples, update.metrics)
            if reason := misfit(given, weights):
                seconds, reason = time.monotonic() - started, f"its update was not used: {reason}"
                return SiteRound(number, name, "missing", reason, seconds=seconds), None
            record = SiteRound(
                number,
                name,
                "contributed",
                examples=update.examples,
                loss=update.metrics.get("loss", float("nan")),
                accuracy=update.metrics.get("accuracy", float("nan")),
                seconds=time.monotonic() - started,
                run=update.run,
            )
            return record, given


def _check_quorum(
    study: Study,
    records: Sequence[SiteRound],
    quorum: int | Sequence[str] | None,
    least: int,
    result: RoundsResult,
) -> None:
    present = {record.site for record in records if record.state == "contributed"}
    needed = study.sites if quorum is None else quorum
    if isinstance(needed, int):
        holds, wanted = len(present) >= max(needed, 1), f"{needed} sites"
    else:
        holds, wanted = bool(present) and present >= set(needed), ", ".join(needed)
    if holds and len(present) < least:
        holds, wanted = False, f"{least} sites for its algorithm"
    if not holds:
        missing = "\n".join(
            f"- {study.federation[r.site].title}: {r.reason}" for r in records if r.reason
        )
        raise BelowQuorumError(
            f"round {records[0].round} needs {wanted}, and has "
            f"{', '.join(sorted(present)) or 'none'}. Missing:\n{missing}",
            result,
        )
