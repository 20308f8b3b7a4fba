"""Terms of the usual requests: train a model, evaluate one, test one for leakage, describe data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from federation.errors import FederationError
from federation.leakage import ATTACKS, RANGES
from policies.contract import Access, ArrayContract, Bound, Contract, Terms
from policies.privacy.asked import PrivacyAsked
from policies.strict import validation_sentences

Range = tuple[float, float]
MOST_GROUPS = 8
"""Values that an attribute of a dataset may have."""
START = "start."
"""Before the names of the weights that the shadow models of a leakage test begin with."""
LEAKAGE_METRICS = ("member_loss", "hold_out_loss")
EVALUATION_METRICS = ("loss", "accuracy", "sensitivity", "specificity", "brier", "auc")


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
    privacy: PrivacyAsked | None = None
    access: Access = "arrays"

    @property
    def fixed(self) -> dict[str, Any]:
        """The arguments that have one value, and those values; ranges are for the runs to fill."""
        return {n: bound.value for n, bound in self.arguments.items() if bound.value is not None}

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
                access=self.access,
                runs=self.runs,
                expires_in_days=self.expires_in_days,
                arguments=self.arguments,
                contract=self.contract,
                privacy=self.privacy,
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
    metrics: Sequence[str] = ("loss", "accuracy", "steps"),
    sent: Mapping[str, NDArray[np.generic]] | None = None,
    expires_in_days: int = 30,
    epsilon: float | None = None,
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
        epsilon: What all runs together may cost a patient, where hospitals keep account (policy
            `privacy`); they derive the noise from it, and then no metric leaves (`metrics=()`).
    """
    asked = None if epsilon is None else _asked(epsilon)
    inputs = None if sent is None else {name: declared(array) for name, array in sent.items()}
    arrays = {name: declared(array) for name, array in weights.items()}
    contract = Contract(weights=arrays, inputs=inputs, metrics=tuple(metrics))
    bounds = bounds_of(config)
    return Wanted(title, purpose, dataset, runs, bounds, contract, expires_in_days, asked)


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
    metrics: Sequence[str] = EVALUATION_METRICS,
    by: Sequence[str] = (),
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of the evaluation job: weights go in; tables of counts and a few numbers come out.

    Args:
        weights: The model's weights.
        title: What the job does, in one line.
        purpose: Why, in one line.
        dataset: Name of the dataset, the same at all sites.
        runs: Runs asked for, one per model, and one per model and subgroup.
        classes: Number of classes.
        bins: Bins of the score, an even number; half of them lie below the operating point.
        config: Argument -> a fixed value, a range `(low, high)`, or a list of choices.
        metrics: Names of the numbers that leave.
        by: Attributes of the dataset's card whose subgroups may be evaluated, such as `sex`; all
            images may be, too.
        expires_in_days: How long the approval shall hold.

    Raises:
        FederationError: `bins` is odd or below 2.
    """
    if bins < 2 or bins % 2:
        raise FederationError(f"`bins` is {bins}; give an even number of at least 2")
    tables: dict[str, tuple[int, ...]] = {"scores": (1 if classes == 2 else classes, 2, bins)}
    if classes > 2:
        tables["classified"] = (classes, 2)
    contract = Contract(
        inputs={name: declared(array) for name, array in weights.items()},
        counts={n: ArrayContract(shape=shape, dtype="int64") for n, shape in tables.items()},
        metrics=tuple(metrics),
    )
    groups = {"by": ["", *by], "group": (0, MOST_GROUPS - 1)} if by else {}
    arguments = bounds_of({"operating_point": 0.5, **groups, **config, "bins": bins})
    return Wanted(title, purpose, dataset, runs, arguments, contract, expires_in_days)


def leakage_terms(
    weights: Mapping[str, NDArray[np.generic]],
    *,
    title: str,
    purpose: str,
    dataset: str,
    runs: int,
    config: Mapping[str, Any],
    metrics: Sequence[str] = LEAKAGE_METRICS,
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of the leakage test: a model and its first weights go in; one table comes out.

    Args:
        weights: The model's weights; those that its training began with are declared alike.
        title: What the job does, in one line.
        purpose: Why, in one line.
        dataset: Name of the dataset, the same at all sites.
        runs: Runs asked for, one per model.
        config: Argument -> a fixed value, a range `(low, high)`, or a list of choices.
        metrics: Names of the numbers that leave.
        expires_in_days: How long the approval shall hold.
    """
    inputs = {name: declared(array) for name, array in weights.items()}
    inputs |= {f"{START}{name}": declared for name, declared in inputs.items()}
    table = ArrayContract(shape=(len(ATTACKS), 2, RANGES), dtype="int64")
    contract = Contract(inputs=inputs, counts={"leakage": table}, metrics=tuple(metrics))
    return Wanted(title, purpose, dataset, runs, bounds_of(config), contract, expires_in_days)


def description_terms(
    *,
    title: str,
    purpose: str,
    dataset: str,
    runs: int,
    classes: int,
    bins: int,
    config: Mapping[str, Any],
    expires_in_days: int = 30,
) -> Wanted:
    """Terms of the job that describes a dataset: a table of counts and two numbers come out.

    Args:
        title: What the job does, in one line.
        purpose: Why, in one line.
        dataset: Name of the dataset, the same at all sites.
        runs: Runs asked for, one per split.
        classes: Number of classes.
        bins: Bins of the brightness of pixels.
        config: Argument -> a fixed value, a range `(low, high)`, or a list of choices: `split` and
            `minimum_count`.
        expires_in_days: How long the approval shall hold.
    """
    contract = Contract(
        counts={"intensities": ArrayContract(shape=(classes, bins), dtype="int64")},
        metrics=("mean", "deviation"),
    )
    arguments = bounds_of({**config, "bins": bins})
    return Wanted(title, purpose, dataset, runs, arguments, contract, expires_in_days)


def _asked(epsilon: float) -> PrivacyAsked:
    try:
        return PrivacyAsked(epsilon=epsilon)
    except ValidationError as error:
        raise FederationError(
            f"`epsilon` is {epsilon!r}; give a number above 0, at most 100, for all runs together"
        ) from error


def declared(array: NDArray[np.generic]) -> ArrayContract:
    """Shape and dtype of an array, as a contract has them."""
    return ArrayContract(shape=array.shape, dtype=array.dtype.name)  # type: ignore[arg-type]


def bounds_of(config: Mapping[str, Any]) -> dict[str, Bound]:
    """The arguments of a request: a fixed value, a range `(low, high)`, or a list of choices."""
    return {name: _bound(name, value) for name, value in config.items()}


def _bound(name: str, value: Any) -> Bound:
    if isinstance(value, tuple) and len(value) != 2:
        raise FederationError(f"`{name}`: a range is (low, high)")
    try:
        if isinstance(value, tuple):
            return Bound(low=value[0], high=value[1])
        if isinstance(value, list):
            return Bound(choices=tuple(value))
        return Bound(value=value)
    except ValidationError as error:
        raise FederationError(
            f"`{name}` cannot be {value!r}: give a plain number or text, a range (low, high) with "
            "low at most high, or a list of choices"
        ) from error
