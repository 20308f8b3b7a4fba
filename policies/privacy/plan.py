"""What the hospital's own trainer is told to do: private training, or a private table of scores.

Every number is fixed before an image is read: by the policy, by the approval, by the dataset's
card, which is public. So how many steps are made, and by what their sums are divided, tells
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from policies.privacy.mechanisms import Mechanism
from policies.strict import Strict

Unit = Literal["patient", "image"]
"""Whose presence is hidden. `image` only where nobody knows which image is whose."""


class TrainingPlan(Strict):
    """Private training by the sampled Gaussian mechanism (Abadi et al. 2016, algorithm 1).

    In each step every patient is drawn with probability `sampling_rate`, independently of all
    others. A drawn patient gives one gradient: the mean over at most `images_per_patient` of its
    images, drawn at random, scaled down to an L2 norm of at most `clip_norm` (user-level sampling:
    McMahan et al. 2018, algorithm 1; Charles et al. 2024, section 3). One patient more, with any
    number of images, therefore changes the sum of a step by at most `clip_norm`. The sum gets
    Gaussian noise of `noise_multiplier * clip_norm` and is divided by `expected_batch`.
    """

    unit: Unit
    """Whose presence is hidden."""
    sampling_rate: float = Field(gt=0, le=1)
    """Probability with which each patient is in a step."""
    steps: int = Field(ge=1, le=1_000_000)
    """Steps of this run."""
    noise_multiplier: float = Field(ge=1e-3, le=1e6)
    """Standard deviation of the noise, in units of `clip_norm`."""
    clip_norm: float = Field(ge=1e-6, le=1e6)
    """L2 norm C of one patient's gradient, at most."""
    images_per_patient: int = Field(default=1, ge=1, le=1000)
    """Images of one patient in a step, at most."""
    expected_batch: float = Field(gt=0, le=1e9)
    """What a step's sum is divided by: `sampling_rate` times the card's number of patients."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """What makes steps of noised gradients."""
    learning_rate: float = Field(default=2.0, gt=0, le=1000)
    """Learning rate at the start."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on: as it is, or down to 0 along half a cosine."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Of `sgd`."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """L2 penalty of the optimizer."""
    size: int = Field(default=0, ge=0, le=4096)
    """Images are resized to so many pixels; 0: as they are."""
    examples: int = Field(ge=0, le=2**53)
    """The number of images that is told with the update; nothing is counted."""

    @property
    def mechanism(self) -> Mechanism:
        """What it is charged as."""
        return Mechanism(
            noise_multiplier=self.noise_multiplier,
            sampling_rate=self.sampling_rate,
            steps=self.steps,
        )


SETTINGS = ("optimizer", "learning_rate", "schedule", "momentum", "weight_decay", "size")
"""Fields of a training plan that are the researcher's: arguments of the job, as approved."""


def plan_training(
    mechanism: Mechanism,
    *,
    unit: Unit,
    patients: int,
    examples: int,
    clip_norm: float,
    images_per_patient: int,
    config: Mapping[str, Any],
) -> TrainingPlan:
    """The plan of one run.

    Args:
        mechanism: What the run is charged as.
        unit: Whose presence is hidden.
        patients: How many of them the card tells, or what stands for it; not counted in the data.
        examples: The number of images that is told with the update.
        clip_norm: C, of the policy.
        images_per_patient: Of the policy.
        config: The job's arguments, of which `SETTINGS` are read.

    Raises:
        ValueError: A setting is none that the trainer has (pydantic's ValidationError).
    """
    return TrainingPlan(
        unit=unit,
        sampling_rate=mechanism.sampling_rate,
        steps=mechanism.steps,
        noise_multiplier=mechanism.noise_multiplier,
        clip_norm=clip_norm,
        images_per_patient=images_per_patient,
        expected_batch=mechanism.sampling_rate * patients,
        examples=examples,
        **{name: config[name] for name in SETTINGS if name in config},
    )


class ScorePlan(Strict):
    """A table of scores by the Gaussian mechanism (Dwork and Roth 2014, appendix A).

    One patient more adds at most `images_per_patient` images. Each is in one cell of the table of
    each scored class: all classes, or with two classes the second alone. In the worst case they
    share their cells, so the table changes by at most images * sqrt(tables) in L2 norm.
    """

    unit: Unit
    """Whose presence is hidden."""
    split: str = Field(pattern=r"^[A-Za-z0-9_]{1,40}$")
    """The split that is scored."""
    bins: int = Field(ge=2, le=10_000)
    """Bins of the score."""
    noise_multiplier: float = Field(gt=0, le=1e6)
    """Standard deviation of the noise, in units of the sensitivity."""
    images_per_patient: int = Field(default=1, ge=1, le=1000)
    """Images of one patient that are counted, at most."""
    operating_point: float = Field(default=0.5, gt=0, lt=1)
    """The probability that has score 0."""
    size: int = Field(default=0, ge=0, le=4096)
    """Images are resized to so many pixels; 0: as they are."""
    examples: int = Field(ge=0, le=2**53)
    """The number of images that is told with the table; nothing is counted."""

    @property
    def mechanism(self) -> Mechanism:
        """What it is charged as."""
        return Mechanism(noise_multiplier=self.noise_multiplier)

    def deviation(self, classes: int) -> float:
        """Standard deviation of the noise in each cell, in images."""
        return self.noise_multiplier * score_sensitivity(classes, self.images_per_patient)


def score_sensitivity(classes: int, images_per_patient: int) -> float:
    """By how much one patient more changes a table of scores, in L2 norm, at most."""
    return images_per_patient * math.sqrt(scored_classes(classes))


def scored_classes(classes: int) -> int:
    """How many classes have a table: all, or with two the second alone."""
    return classes if classes > 2 else 1


def steps_for(epochs: float, sampling_rate: float) -> int:
    """Steps in which every patient is drawn `epochs` times on average, rounded up.

    Raises:
        ValueError: `epochs` is not above 0, or the rate is not above 0 and at most 1.
    """
    if not (epochs > 0 and 0 < sampling_rate <= 1):
        raise ValueError(
            f"epochs {epochs:g} at sampling rate {sampling_rate:g}; give epochs above 0 and a rate "
            "above 0, at most 1"
        )
    return math.ceil(epochs / sampling_rate * (1 - 1e-12))
