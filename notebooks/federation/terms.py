"""Terms of the two usual requests: train a model, and evaluate one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from federation.errors import FederationError
from policies.contract import ArrayContract, Bound, Contract, Terms
from policies.strict import validation_sentences

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for at every site; each site's dataset version is filled in later."""

    title: str
    purpose: str
    dataset: str
    runs: int
    arguments: dict[str, Bound]
    contract: Contract
    expires_in_days: int = 30

    def at(self, version: str, entry: str) -> Terms:
        """The terms for one site's dataset version.

        Raises:
            FederationError: A field does not fit, such as an empty title or no runs.
        """
        try:
            return Terms(
                title=self.title,
                purpose=self.purpose,
                entry=entry,
                dataset=self.dataset,
                version=version,
                access="arrays",
                runs=self.runs,
                expires_in_days=self.expires_in_days,
                arguments=self.arguments,
                contract=self.contract,
            )
        except ValidationError as error:
            sentences = "; ".join(validation_sentences(error, Terms))
            raise FederationError(f"the terms do not fit: {sentences}") from error


def training_terms(
    weights: Mapping[str, NDArray[np.generic]],
    *,
    title: str,
    purpose: str,
    dataset: str,
    runs: int,
    config: Mapping[str, Any],
    metrics: Sequence[str] = ("loss", "accuracy"),
    sent: Mapping[str, NDArray[np.generic]] | None = None,
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of a training job: the same arrays go in and come out, with a few numbers.

    Args:
        weights: Initial weights; names, shapes and dtypes become the contract.
        title: What the job does, in one line.
        purpose: Why, in one line.
        dataset: Name of the dataset, the same at all sites.
        runs: Runs asked for, failed ones included.
        config: Argument -> a fixed value, a range `(low, high)`, or a list of choices.
        metrics: Names of the numbers that leave.
        sent: The arrays that go in, where an algorithm sends more than the weights
            (`algorithm.to_send`).
        expires_in_days: How long the approval shall hold.
    """
    inputs = None if sent is None else {name: _declare(array) for name, array in sent.items()}
    arrays = {name: _declare(array) for name, array in weights.items()}
    contract = Contract(weights=arrays, inputs=inputs, metrics=tuple(metrics))
    return Wanted(title, purpose, dataset, runs, _bounds(config), contract, expires_in_days)


def evaluation_terms(
    weights: Mapping[str, NDArray[np.generic]],
    *,
    title: str,
    purpose: str,
    dataset: str,
    runs: int,
    classes: int,
    bins: int,
    config: Mapping[str, Any],
    metrics: Sequence[str] = ("loss",),
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of an evaluation job: weights go in; a table of counts and a few numbers come out.

    The table `scores` has a row per class and a column per bin of the score.
    """
    contract = Contract(
        inputs={name: _declare(array) for name, array in weights.items()},
        counts={"scores": ArrayContract(shape=(classes, bins), dtype="int64")},
        metrics=tuple(metrics),
    )
    arguments = _bounds({**config, "bins": bins})
    return Wanted(title, purpose, dataset, runs, arguments, contract, expires_in_days)


def _declare(array: NDArray[np.generic]) -> ArrayContract:
    return ArrayContract(shape=array.shape, dtype=array.dtype.name)  # type: ignore[arg-type]


def _bounds(config: Mapping[str, Any]) -> dict[str, Bound]:
    return {name: _bound(name, value) for name, value in config.items()}


def _bound(name: str, value: Any) -> Bound:
    if isinstance(value, tuple):
        if len(value) != 2:
            raise FederationError(f"`{name}`: a range is (low, high)")
        return Bound(low=value[0], high=value[1])
    if isinstance(value, list):
        return Bound(choices=tuple(value))
    return Bound(value=value)
