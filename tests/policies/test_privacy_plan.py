"""What plans say of steps, noise and sensitivity."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from policies.privacy.mechanisms import Mechanism
from policies.privacy.plan import (
    SETTINGS,
    TrainingPlan,
    plan_training,
    score_sensitivity,
    steps_for,
)
from private_models import JOB, score_plan, training_plan


@pytest.mark.parametrize(
    ("epochs", "rate", "steps"),
    [(1, 1, 1), (1, 0.1, 10), (3, 0.1, 30), (20, 512 / 4238, 166), (1, 0.3, 4), (0.01, 0.5, 1)],
)
def test_steps_follow_from_epochs_and_sampling_rate(epochs: float, rate: float, steps: int) -> None:
    assert steps_for(epochs, rate) == steps


@pytest.mark.parametrize(("epochs", "rate"), [(0, 0.5), (1, 0), (1, 1.01), (math.nan, 0.5)])
def test_steps_of_nothing_are_refused(epochs: float, rate: float) -> None:
    with pytest.raises(ValueError, match="give epochs above 0"):
        steps_for(epochs, rate)


@pytest.mark.parametrize(
    ("classes", "images", "sensitivity"),
    [(2, 1, 1.0), (2, 3, 3.0), (3, 1, math.sqrt(3)), (9, 2, 6.0)],
)
def test_one_patient_moves_a_table_by_its_images_times_the_root_of_its_tables(
    classes: int, images: int, sensitivity: float
) -> None:
    assert score_sensitivity(classes, images) == pytest.approx(sensitivity)
    plan = score_plan(images_per_patient=images, noise_multiplier=2.0)
    assert plan.deviation(classes) == pytest.approx(2 * sensitivity)


def test_plans_are_charged_as_what_they_do() -> None:
    plan = training_plan(noise_multiplier=1.5, sampling_rate=0.1, steps=7)
    charged = Mechanism(noise_multiplier=1.5, sampling_rate=0.1, steps=7)
    assert plan.mechanism == charged
    assert score_plan(noise_multiplier=3.0).mechanism == Mechanism(noise_multiplier=3.0)


def test_a_plan_takes_the_researchers_settings_and_no_others() -> None:
    charged = Mechanism(noise_multiplier=1.5, sampling_rate=0.1, steps=7)
    config = {"learning_rate": 0.5, "optimizer": "adam", "model": "small_cnn", "steps": 9,
              "noise_multiplier": 0.1, "clip_norm": 9.0, "examples": 1, "seed": 3}  # fmt: skip
    plan = plan_training(
        charged, unit="patient", patients=200, examples=450, clip_norm=2.0, images_per_patient=3,
        config=config,
    )  # fmt: skip
    assert plan.mechanism == charged
    assert (plan.learning_rate, plan.optimizer, plan.size) == (0.5, "adam", 0)
    assert (plan.clip_norm, plan.images_per_patient, plan.examples) == (2.0, 3, 450)
    assert plan.expected_batch == pytest.approx(20)


def test_the_job_has_the_settings_of_a_plan_with_the_same_defaults() -> None:
    told = JOB.call("defaults")
    fields = TrainingPlan.model_fields
    assert {n: told[n] for n in SETTINGS} == {n: fields[n].default for n in SETTINGS}
    assert set(told) == {*SETTINGS, "model", "seed"}


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0.0}, {"clip_norm": 0.0}, {"sampling_rate": 1.1}, {"steps": 0},
        {"expected_batch": 0.0}, {"unit": "site"}, {"momentum": 1.0}, {"seed": 1},
    ],
)  # fmt: skip
def test_a_plan_without_protection_is_none(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        training_plan(**change)
