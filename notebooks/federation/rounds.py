"""Federated rounds: one thread per site, a quorum, and a history that names who was missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from federation.aggregation.fed_avg import SiteUpdate, fed_avg
from federation.checkpoint import Checkpoint, Saved, Setting
from federation.errors import ConnectionLostError, FederationError, RefusedError
from federation.history import History, SiteRound
from federation.submission import RunUpdate, Study
from policies.arrays import Arrays, arrays_sha256

PATIENCE_S = 60.0
"""How long a site that does not answer is asked again, with the same run id."""


@dataclass(slots=True)
class RoundsResult:
    """The global weights after some rounds, and how they came about."""

    weights: Arrays
    history: History = field(default_factory=History)

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
    first_round: int = 1,
    quorum: int | Sequence[str] | None = None,
    patience_s: float = PATIENCE_S,
    after_round: Callable[[int, RoundsResult], None] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> RoundsResult:
    """Train at all sites of a study, round by round, and average.

    Args:
        study: An approved study.
        weights: The weights to start from.
        config: The job's arguments; `round` is filled in when the job has it.
        rounds: How many rounds to run.
        first_round: Number of the first; go on after an interruption with the next number.
        quorum: How many sites, or which ones, a round needs; all by default. A site that fails is
            named in the history, and the round goes on while the quorum holds.
        patience_s: How long a site that does not answer is asked again before it counts as missing.
        after_round: Called with the round's number and the result so far.
        checkpoint: A folder in which each round is saved. The same call again, also in another
            kernel, goes on after the last round that was saved and ends with the same weights.
        progress: Whether to show a progress bar.

    Raises:
        FederationError: A round fell below the quorum; the message names each missing site. The
            result so far is the error's `result`. Or the checkpoint belongs to other rounds, has
            more of them than `rounds`, or cannot be written.
    """
    result = RoundsResult(dict(weights))
    keeper = None if checkpoint is None else Checkpoint(checkpoint)
    setting = Setting.of(study, weights, config, first_round)
    done = first_round - 1
    if keeper is not None and (saved := keeper.load(setting)) is not None:
        done, result.weights, result.history = saved.round, saved.weights, saved.history
        if done >= first_round + rounds:
            raise FederationError(
                f"the checkpoint in {checkpoint} has rounds up to {done}, and rounds up to "
                f"{first_round + rounds - 1} were asked for; ask for more, or give another folder"
            )
    elif keeper is not None:
        keeper.save(setting, Saved(done, result.weights, result.history))
    bar = tqdm(
        range(done + 1, first_round + rounds), desc="rounds", unit="round", disable=not progress,
        initial=done + 1 - first_round, total=rounds,
    )  # fmt: skip
    with ThreadPoolExecutor(max(len(study.sites), 1)) as pool:
        for number in bar:
            sent = {**config, "round": number} if "round" in study.wanted.arguments else config

            def visit(
                name: str, number: int = number, sent: Mapping[str, Any] = sent
            ) -> tuple[SiteRound, RunUpdate | None]:
                return _visit(study, name, result.weights, sent, number, patience_s)

            visits = list(pool.map(visit, study.sites))
            records = [record for record, _ in visits]
            _check_quorum(study, records, quorum, result)
            result.history.records.extend(records)
            result.weights = fed_avg(
                [
                    SiteUpdate(record.site, update.weights, update.examples)
                    for record, update in visits
                    if update is not None
                ]
            )
            if keeper is not None:
                keeper.save(setting, Saved(number, result.weights, result.history))
            bar.set_postfix(loss=f"{result.history.mean_loss()[number]:.3f}")
            if after_round is not None:
                after_round(number, result)
    return result


class BelowQuorumError(FederationError):
    """A round had fewer sites than the quorum; `result` holds everything up to the round before."""

    def __init__(self, message: str, result: RoundsResult) -> None:
        super().__init__(message)
        self.result = result


def _visit(
    study: Study,
    name: str,
    weights: Arrays,
    config: Mapping[str, Any],
    number: int,
    patience_s: float,
) -> tuple[SiteRound, RunUpdate | None]:
    started = heard = time.monotonic()

    def while_running(_: float) -> None:
        nonlocal heard
        heard = time.monotonic()

    while True:
        try:
            update = study.run(
                name, weights, config, round_number=number, while_running=while_running
            )
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
            return record, update


def _check_quorum(
    study: Study,
    records: Sequence[SiteRound],
    quorum: int | Sequence[str] | None,
    result: RoundsResult,
) -> None:
    present = {record.site for record in records if record.state == "contributed"}
    needed = study.sites if quorum is None else quorum
    if isinstance(needed, int):
        holds, wanted = len(present) >= max(needed, 1), f"{needed} sites"
    else:
        holds, wanted = bool(present) and present >= set(needed), ", ".join(needed)
    if not holds:
        missing = "\n".join(
            f"- {study.federation[r.site].title}: {r.reason}" for r in records if r.reason
        )
        raise BelowQuorumError(
            f"round {records[0].round} needs {wanted}, and has "
            f"{', '.join(sorted(present)) or 'none'}. Missing:\n{missing}",
            result,
        )
