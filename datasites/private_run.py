"""A run of a job that describes a model: it is built in one cage, and trained or scored in another.

The plan of training comes from the policy, the approval and the dataset's card; of the job's
arguments it takes those that say nothing of how much privacy a step costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from datasites.catalogue import Card
from datasites.protection import examples_told
from datasites.sandbox.cage import Cage, RunResult
from datasites.sandbox.private_training import (
    ModelRefused,
    export_model,
    score_privately,
    train_privately,
)
from policies.arrays import Arrays
from policies.contract import Contract, Terms
from policies.document import Policy
from policies.findings import refuse
from policies.model_graph import ModelGraph, check_graph, image_shape
from policies.privacy.mechanisms import Mechanism
from policies.privacy.plan import ScorePlan, TrainingPlan, plan_training
from policies.sections import SandboxRule
from policies.strict import validation_sentences

OF_SCORING = ("split", "bins", "operating_point", "size")
"""Arguments of a job that the plan of a table of scores takes, where the job has them."""


@dataclass(frozen=True, slots=True)
class PrivateCages:
    """Where a job that describes a model runs.

    Attributes:
        building: The cage with the card and no image, for the text.
        training: The cage with the images and no foreign code.
        patients_known: Whether it is known which image is whose.
    """

    building: Cage
    training: Cage
    patients_known: bool


@dataclass(frozen=True, slots=True)
class PrivateRun:
    """What one run is about.

    Attributes:
        text: The job.
        terms: What was approved.
        config: The job's arguments.
        sent: Weights that the run starts from.
        policy: The policy in force.
        mechanism: What the run is charged with.
        card: Of the dataset version.
    """

    text: str
    terms: Terms
    config: Mapping[str, Any]
    sent: Arrays
    policy: Policy
    mechanism: Mechanism
    card: Card

    @property
    def scores(self) -> bool:
        """Whether it asks for a table of scores, and not for trained parameters."""
        contract = self.terms.contract or Contract()
        return not contract.weights and set(contract.counts) == {"scores"}

    def training_plan(self, patients_known: bool) -> TrainingPlan:
        """How a model is trained.

        Raises:
            ModelRefused: An argument of the job is none for training.
        """
        rule, patients = self.policy.privacy, self.card.patients.get("train")
        return _fitting(
            TrainingPlan,
            lambda: plan_training(
                self.mechanism,
                unit="patient" if patients_known else "image",
                patients=patients or self.card.images("train") or self.policy.examples.minimum,
                examples=examples_told(0, self.card, self.policy),
                clip_norm=rule.clip_norm,
                images_per_patient=rule.images_per_patient,
                config=self.config,
            ),
        )

    def score_plan(self, patients_known: bool) -> ScorePlan:
        """How a split is scored; raises as `training_plan`."""
        chosen = {name: self.config[name] for name in OF_SCORING if name in self.config}
        fixed = {
            "unit": "patient" if patients_known else "image",
            "noise_multiplier": self.mechanism.noise_multiplier,
            "images_per_patient": self.policy.privacy.images_per_patient,
            "examples": examples_told(0, self.card, self.policy),
        }
        return _fitting(ScorePlan, lambda: ScorePlan(**{"split": "test", **chosen, **fixed}))


def run_privately(cages: PrivateCages, run: PrivateRun, limits: SandboxRule) -> RunResult:
    """Build the model, check it, and train or score it.

    Raises:
        ModelRefused: The model, or an argument, is not one for the hospital's trainer; nothing of
            the data is in the findings, as no image was read.
        RunFailed: The text raised, or a cage took too much.
        SandboxError: A cage cannot be started.
    """
    config = dict(run.config)
    graph = export_model(cages.building, run.text, run.terms.entry, config, limits)
    plan = (
        run.score_plan(cages.patients_known)
        if run.scores
        else run.training_plan(cages.patients_known)
    )
    image = image_shape(run.card.shape, plan.size)
    if wrong := check_graph(graph, image, len(run.card.classes)):
        raise ModelRefused(wrong)
    if isinstance(plan, ScorePlan):
        classes = len(run.card.classes)
        return score_privately(cages.training, graph, run.sent, plan, classes, limits)
    _check_parameters(graph, run.terms.contract or Contract())
    return train_privately(cages.training, graph, run.sent, plan, limits)


def _check_parameters(graph: ModelGraph, contract: Contract) -> None:
    """The parameters that leave are those of the model, and those that were approved."""
    built = graph.parameters()
    declared = {name: array.shape for name, array in contract.weights.items()}
    if declared != built:
        raise ModelRefused(
            [
                refuse(
                    "model.parameters",
                    f"a model with {len(built)} parameter arrays",
                    f"the {len(declared)} arrays of the contract, with their names and shapes",
                    "submit the weights of the model that the text builds",
                )
            ]
        )


P = TypeVar("P", TrainingPlan, ScorePlan)


def _fitting(model: type[P], make: Callable[[], P]) -> P:
    try:
        return make()
    except ValidationError as error:
        raise ModelRefused(
            [
                refuse("arguments.plan", sentence, "what the trainer knows", "correct it")
                for sentence in validation_sentences(error, model)
            ]
        ) from error


def knows_patients(version: Path) -> bool:
    """Whether it is known of a version which image is whose."""
    return (version / "train_patients.npy").exists()
