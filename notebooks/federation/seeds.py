"""The same rounds with several seeds: what is a difference between methods, and what is chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from federation.errors import FederationError
from federation.rounds import run_rounds
from federation.rounds_result import RoundsResult
from federation.submission import Study
from policies.arrays import Arrays


@dataclass(frozen=True, slots=True)
class Seeds:
    """What several seeds gave.

    Attributes:
        results: Seed -> its rounds.
        measures: Seed -> what was measured of its model, name -> number.
    """

    results: dict[int, RoundsResult]
    measures: dict[int, dict[str, float]]

    def frame(self) -> pd.DataFrame:
        """One row per seed; below them mean and standard deviation (of a sample, n - 1)."""
        seeds = pd.DataFrame.from_dict(self.measures, orient="index").rename_axis("seed")
        summary = pd.DataFrame({"mean": seeds.mean(), "deviation": seeds.std(ddof=1)}).T
        return pd.concat([seeds, summary]).rename_axis("seed")

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(float_format=lambda value: f"{value:.4f}"))


def run_seeds(
    study: Study,
    card: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    rounds: int,
    measure: Callable[[int, Arrays], Mapping[str, float]] | None = None,
    last: tuple[int, Mapping[str, Any]] | None = None,
    first_round: int = 1,
    **options: Any,
) -> Seeds:
    """Train once per seed under one approval; the seed draws initial weights and the images' order.

    Args:
        study: An approved study whose terms leave `seed` and `round` open, with enough runs:
            `rounds` for each seed.
        card: A site's card of the dataset.
        config: The job's arguments; `seed` is filled in.
        seeds: The seeds.
        rounds: Rounds of each.
        measure: Measures a seed's model; by default loss and accuracy of the last round, as seen
            while training.
        last: So many of the rounds, the last ones, with these arguments changed: a lower learning
            rate for the end.
        first_round: Number of the first round of the first seed; each seed has rounds of its own.
        options: As for `run_rounds`.

    Raises:
        FederationError: No seed was given, or one twice; or as `run_rounds`.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise FederationError(f"give each seed once, and at least one (now {list(seeds)})")
    results, measures = {}, {}
    for k, seed in enumerate(seeds):
        given = {**config, "seed": seed}
        weights = study.job.call("initial_weights", card, given)
        first, ending = first_round + k * rounds, 0 if last is None else last[0]
        result = run_rounds(
            study, weights, given, rounds=rounds - ending, first_round=first, **options
        )
        if last is not None and ending:
            result = run_rounds(
                study, result, {**given, **last[1]}, rounds=ending,
                first_round=first + rounds - ending, **options,
            )  # fmt: skip
        results[seed] = result
        measures[seed] = dict(
            _last_round(result) if measure is None else measure(seed, result.weights)
        )
    return Seeds(results, measures)


def _last_round(result: RoundsResult) -> dict[str, float]:
    frame = result.history.frame().loc[result.history.rounds]
    weight = frame["examples"] / frame["examples"].sum()
    return {name: float((frame[name].fillna(0) * weight).sum()) for name in ("loss", "accuracy")}
