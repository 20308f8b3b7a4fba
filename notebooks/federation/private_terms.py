"""Terms for hospitals that keep account of privacy and train with their own trainer (`dp_sgd`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from federation.errors import FederationError
from federation.terms import Wanted, bounds_of, declared
from policies.contract import ArrayContract, Contract
from policies.privacy.asked import PrivacyAsked
from policies.privacy.plan import steps_for


def private_training_terms(
    weights: Mapping[str, NDArray[np.generic]],
    *,
    title: str,
    purpose: str,
    dataset: str,
    runs: int,
    epsilon: float,
    sampling_rate: float,
    config: Mapping[str, Any],
    epochs: float = 1.0,
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of a job that describes a model, which each hospital trains itself, with noise.

    Args:
        weights: Initial weights; names and shapes become the contract. All are parameters.
        title: What the job does, in one line.
        purpose: Why, in one line.
        dataset: Name of the dataset, the same at all sites.
        runs: Runs asked for, failed ones included; one per round.
        epsilon: What all runs together may cost a patient; the hospital derives the noise.
        sampling_rate: Part of the patients that a step draws. More means less noise beside what is
            learned, and longer steps.
        config: Argument -> a fixed value, a range `(low, high)`, or a list of choices.
        epochs: How often a patient is drawn in one run, on average.
        expires_in_days: How long the approval shall hold.

    Raises:
        FederationError: `epsilon`, `sampling_rate` or `epochs` is out of range.
    """
    try:
        steps = steps_for(epochs, sampling_rate)
        asked = PrivacyAsked(epsilon=epsilon, sampling_rate=sampling_rate, steps=steps)
    except (ValidationError, ValueError) as error:
        raise FederationError(
            f"epsilon {epsilon:g}, sampling_rate {sampling_rate:g}, epochs {epochs:g}: give an "
            "epsilon above 0 and at most 100, a rate above 0 and at most 1, and epochs above 0"
        ) from error
    contract = Contract(weights={name: declared(array) for name, array in weights.items()})
    return Wanted(
        title, purpose, dataset, runs, bounds_of(config), contract, expires_in_days, asked,
        "trainer",
    )  # fmt: skip


def private_evaluation_terms(
    weights: Mapping[str, NDArray[np.generic]],
    *,
    title: str,
    purpose: str,
    dataset: str,
    runs: int,
    epsilon: float,
    config: Mapping[str, Any],
    bins: int = 20,
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of a table of scores of two classes, which each hospital counts itself, with noise.

    `federation.evaluate` takes such a study. Every cell of the table gets noise of the same size,
    so fewer bins tell more.

    Args:
        weights: The model's weights.
        title: What the job does, in one line.
        purpose: Why, in one line.
        dataset: Name of the dataset, the same at all sites.
        runs: Runs asked for, one per model and split.
        epsilon: What all runs together may cost a patient.
        config: Argument -> a fixed value, a range `(low, high)`, or a list of choices.
        bins: Bins of the score, an even number; half of them lie below the operating point.
        expires_in_days: How long the approval shall hold.

    Raises:
        FederationError: `bins` is odd or below 2, or `epsilon` is out of range.
    """
    if bins < 2 or bins % 2:
        raise FederationError(f"`bins` is {bins}; give an even number of at least 2")
    try:
        asked = PrivacyAsked(epsilon=epsilon)
    except ValidationError as error:
        raise FederationError(
            f"`epsilon` is {epsilon!r}; give a number above 0, at most 100"
        ) from error
    contract = Contract(
        inputs={name: declared(array) for name, array in weights.items()},
        counts={"scores": ArrayContract(shape=(1, 2, bins), dtype="int64")},
    )
    arguments = bounds_of({"operating_point": 0.5, **config, "bins": bins})
    return Wanted(
        title, purpose, dataset, runs, arguments, contract, expires_in_days, asked, "trainer"
    )
