"""Federated rounds: every site is asked, a quorum decides, and nothing is passed over in silence.

What happens when a site does not do its part; `cause` is its word in the history, and every cause
is explained in `federation.causes`:

| A site …                             | `cause`        | In this round                            |
| ------------------------------------ | -------------- | ---------------------------------------- |
| cannot be reached, stops answering   | no answer      | is asked again for `patience_s`, with th |
|                                      |                | same run id; once, if it was silent in   |
|                                      |                | the round before                         |
| is slow                              |                | is waited for, for ever by default       |
| is not done after `round_timeout_s`  | late           | is left out; its update is never used    |
| is still at a run of an older round  | late           | is asked again until that run has ended  |
| revoked the approval                 | revoked        | is left out                              |
| waits for a decision, denied, or has | not approved   | is left out                              |
| to confirm under a new policy        |                |                                          |
| has an approval that ran out         | expired        | is left out                              |
| has no run left, in all or today     | over budget    | is left out                              |
| refuses the run, or what it returned | refused        | is left out                              |
| could not carry the run out          | failed         | is left out                              |
| sends what does not fit the model    | does not fit   | is left out                              |
| is not what its keys say             | not trusted    | is left out                              |

A site that is left out has the state `missing`, with the hospital's sentence as `reason`. The round
counts when the quorum holds without it; otherwise `BelowQuorumError` names each missing site, and
nothing of the round is used. Every site is asked anew in every round, so one that returns joins the
next one. A run id belongs to one round: the same round asked again is answered with the same update
and charged once, and no update is used in another round than its own. The result says at the end in
one sentence who is missing where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from federation.aggregation.algorithm import Algorithm, State
from federation.aggregation.fed_avg import FedAvg
from federation.causes import Cause
from federation.checkpoint import Checkpoint, Saved, Setting
from federation.errors import FederationError
from federation.history import History, SiteRound
from federation.measuring import Measure, judge_of, measured_by
from federation.progress import Plan, progress_for
from federation.rounds_result import BelowQuorumError, RoundsResult, StoppedError
from federation.study_checks import (
    Quorum,
    check_config,
    check_data,
    check_model,
    check_numbers,
    check_quorum,
    check_sent,
    holds,
)
from federation.submission import Study
from federation.visits import Asked, visit_sites
from policies.arrays import Arrays

PATIENCE_S = 60.0
"""How long a site that does not answer is asked again, with the same run id."""


def run_rounds(
    study: Study,
    weights: Arrays | State | RoundsResult,
    config: Mapping[str, Any],
    *,
    rounds: int,
    algorithm: Algorithm = FedAvg(),  # noqa: B008  frozen, and without a field
    first_round: int | None = None,
    quorum: Quorum = None,
    patience_s: float = PATIENCE_S,
    round_timeout_s: float | None = None,
    at_once: int | None = None,
    evaluation: tuple[Study, Mapping[str, Any]] | None = None,
    measure: Measure | None = None,
    after_round: Callable[[int, RoundsResult], None] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> RoundsResult:
    """Train at all sites of a study, round by round, and combine what comes back.

    What was reached is also `study.result`, after every round.

    Args:
        study: An approved study.
        weights: The weights to start from, or the state that earlier rounds ended with, or their
            result: then its history goes on too.
        config: The job's arguments; `round` is filled in when the job has it.
        rounds: How many rounds to run.
        algorithm: How updates are combined; `federation.aggregation` has the others.
        first_round: Number of the first round; by default 1, or the one after an earlier result.
        quorum: How many sites, or which ones, a round needs; all by default. A site that fails is
            named in the history, and the round goes on while the quorum holds. The module's text
            says what happens in each case.
        patience_s: How long a site that does not answer is asked again before it counts as missing.
        round_timeout_s: How long a round waits for its sites; by default for ever. A site that is
            not done then is missing as late, and its update is not used, whenever it comes.
        at_once: How many sites train at one time, those first that took longest in the round
            before; all by default. Where all sites share one machine, as many as it has cores are
            faster than all: the longest run then has a core to itself.
        evaluation: A study of the evaluation job and its arguments; it evaluates the weights after
            each round. A round whose weights could not be evaluated everywhere has no AUC.
        measure: The same by a function of yours, of the round's number and the weights.
        after_round: Called with the round's number and the result so far.
        checkpoint: A folder in which each round is saved. The same call again, also in another
            kernel, goes on after the last round that was saved and ends with the same weights.
        progress: Whether to show how the rounds go on.

    Raises:
        FederationError: A round fell below the quorum; the message names each missing site. The
            result so far is the error's `result`. Or, before any site is asked: a number, the
            quorum, the weights or `config` cannot be; the sites' data differ; the algorithm does
            not fit the model, the number of sites or the job's arguments. Or the checkpoint belongs
            to other rounds, has more of them than `rounds`, or cannot be written.
        StoppedError: You stopped the rounds; the message says how to go on.
    """
    start = _given(weights)
    first = start.history.rounds + 1 if first_round is None else first_round
    last = first + rounds - 1
    check_numbers(
        rounds=rounds, first_round=first, at_once=at_once, patience_s=patience_s,
        round_timeout_s=round_timeout_s,
    )  # fmt: skip
    check_quorum(quorum, study.sites)
    result = _start(study, start, config, algorithm, (first, last))
    judge = judge_of(result.weights, evaluation, measure)
    keeper = None if checkpoint is None else Checkpoint(checkpoint)
    setting = Setting.of(study, start.weights, config, first, algorithm)
    done = first - 1
    if keeper is not None and (saved := keeper.load(setting)) is not None:
        done, result = saved.round, _taken_up(saved)
        if done > last:
            raise FederationError(
                f"the checkpoint in {checkpoint} has rounds up to {done}, and rounds up to "
                f"{last} were asked for; ask for more, or give another folder"
            )
    elif keeper is not None:
        keeper.save(setting, _saved(done, result))
    study.result = result
    titles = {name: study.federation[name].title for name in study.sites}
    shown = progress_for(Plan(first, done, last, titles), progress)
    said = ""
    try:
        for number in range(done + 1, last + 1):
            asked = Asked(
                number, _config(study, config, number), result.weights,
                partial(algorithm.to_send, result.state),
                _patience(study.sites, result.history, patience_s),
            )  # fmt: skip
            visits = visit_sites(
                study, slowest_first(study.sites, result.history), asked,
                at_once=at_once or len(study.sites), timeout_s=round_timeout_s,
                show=partial(shown.show_sites, number),
            )  # fmt: skip
            records = [visits[name].record for name in study.sites]
            _check_quorum(study, records, quorum, algorithm.least_updates, result)
            updates = [u for name in study.sites if (u := visits[name].update) is not None]
            try:
                state, diagnostics = algorithm.apply(result.state, updates)
            except ValueError as error:
                raise BelowQuorumError(f"round {number}: {error}", result) from error
            result = RoundsResult(
                state.weights, History([*result.history, *records]), state.memory,
                {**result.diagnostics, number: diagnostics}, dict(result.measured),
            )  # fmt: skip
            if judge is not None:
                shown.show_sites(number, dict.fromkeys(study.sites, "the AUC is measured"))
                result.measured[number] = measured_by(judge, number, result.weights)
            if keeper is not None:
                keeper.save(setting, _saved(number, result))
            study.result, done = result, number
            shown.show_round(number, result)
            if after_round is not None:
                after_round(number, result)
        said = "" if result.is_complete else result.sentence
    except KeyboardInterrupt:
        raise StoppedError(done, last, study.result, checkpoint) from None
    finally:
        shown.close(said)
    return result


def slowest_first(sites: Sequence[str], history: History) -> list[str]:
    """The sites in the order of their seconds in the latest round, the longest first."""
    seconds = {record.site: record.seconds for record in history}  # later rounds replace earlier
    return sorted(sites, key=lambda name: -seconds.get(name, 0.0))


def _given(weights: Arrays | State | RoundsResult) -> RoundsResult:
    if isinstance(weights, State):
        return RoundsResult(weights.weights, memory=weights.memory)
    return weights if isinstance(weights, RoundsResult) else RoundsResult(weights)


def _start(
    study: Study,
    start: RoundsResult,
    config: Mapping[str, Any],
    algorithm: Algorithm,
    numbers: tuple[int, int],
) -> RoundsResult:
    """What the first round starts from, if everything fits; `numbers` of first and last round."""
    name = type(algorithm).__name__
    if not study.sites:
        raise FederationError("the study has no site; submit it with `sites.submit(job, terms)`")
    check_model(study, start.weights)
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
        state = State(dict(start.weights), start.memory) if start.memory else None
        state = state or algorithm.init(start.weights)
        sent = {site: algorithm.to_send(state, site) for site in study.sites}
    except (ValueError, KeyError) as error:
        raise FederationError(str(error)) from error
    first, last = numbers
    check_config(study, _config(study, config, first))
    bound = study.wanted.arguments.get("round")
    if bound is not None and not bound.allows(last):
        raise FederationError(
            f"rounds {first} to {last} cannot be: the hospitals were asked for `round` "
            f"{bound.in_words()}. Ask for fewer rounds, or submit with a wider range"
        )
    check_sent(study, sent)
    present = (study.federation[site] for site in study.sites)
    sites = [site for site in present if not site.is_absent]
    check_data([s.title for s in sites], [s.dataset(study.wanted.dataset).card for s in sites])
    return replace(start, weights=state.weights, memory=state.memory)


def _config(study: Study, config: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """The job's arguments in one round."""
    return {**config, "round": number} if "round" in study.wanted.arguments else config


def _patience(sites: Sequence[str], history: History, patience_s: float) -> dict[str, float]:
    """Site -> how long it is asked again: once, when it was silent in the round before."""
    before = history.rounds
    silent = {r.site for r in history if r.round == before and r.cause == Cause.NO_ANSWER}
    return {name: 0.0 if name in silent else patience_s for name in sites}


def _taken_up(saved: Saved) -> RoundsResult:
    return RoundsResult(
        saved.weights, saved.history, saved.memory, saved.diagnostics, saved.measured
    )


def _saved(number: int, result: RoundsResult) -> Saved:
    return Saved(
        number, result.weights, result.history, result.memory, result.diagnostics, result.measured
    )


def _check_quorum(
    study: Study,
    records: Sequence[SiteRound],
    quorum: Quorum,
    least: int,
    result: RoundsResult,
) -> None:
    present = {record.site for record in records if record.state == "contributed"}
    needed = study.sites if quorum is None else quorum
    wanted = f"{needed} sites" if isinstance(needed, int) else ", ".join(needed)
    enough = holds(quorum, present, study.sites)
    if enough and len(present) < least:
        enough, wanted = False, f"{least} sites for its algorithm"
    if not enough:
        missing = "\n".join(
            f"- {study.federation[r.site].title}: {r.reason}" for r in records if r.reason
        )
        raise BelowQuorumError(
            f"round {records[0].round} needs {wanted}, and has "
            f"{', '.join(sorted(present)) or 'none'}. Missing:\n{missing}\nMend that and make the "
            "same call again, or give a `quorum` that holds without them; what was reached before "
            "is `study.result`",
            result,
        )
