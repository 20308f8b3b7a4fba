"""What the hospital's own trainer does: private training, and a private table of scores.

What leaves is a function of two things: numbers that were fixed before an image was read, and sums
over patients to which `patient_optimizer` or `_noised_table` added noise.

All physical batches of a run have the same size; where images are missing, black ones stand that
count for nothing. So an image goes through the same arithmetic whoever else is in the step, and its
gradient does not tell of its neighbours by rounding (as far as torch's kernels treat each image of
a batch alike, which `tests/datasites/test_trainer.py` measures).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from torch import Tensor

from datasites.sandbox.patient_optimizer import PatientOptimizer
from datasites.sandbox.patient_samples import Patients, Physical, physical_batches
from datasites.sandbox.rebuilding import Rebuilt
from datasites.sandbox.worker import Data
from policies.arrays import Arrays
from policies.model_graph import ModelGraph, check_graph, image_shape, read_graph
from policies.privacy.noise import gaussian_steps
from policies.privacy.plan import ScorePlan, TrainingPlan, scored_classes

MOST_AT_ONCE = 64
"""Images that go through a model together, at most."""
SCORE_RANGE = 12.0
"""Log-odds are cut to -12 .. 12, as in `notebooks/jobs/evaluate_classifier.py`."""


def train(
    data: Data, graph: bytes, weights: Arrays, plan: dict[str, Any], memory_mb: int
) -> tuple[Arrays, int]:
    """Train a model privately on the `train` split; the parameters, and the plan's `examples`.

    Raises:
        ValueError: Graph, weights or plan do not fit the dataset version or each other.
    """
    told = TrainingPlan.model_validate(plan)
    model, at_once = _model(data, graph, weights, told.size, memory_mb, training=True)
    _seed()
    learner = GradSampleModule(model, loss_reduction="sum")
    learner.train()
    optimizer = PatientOptimizer(
        _optimizer(model, told), told.noise_multiplier, told.clip_norm, told.expected_batch
    )
    images, labels = data.arrays("train")
    patients = Patients.of_split(data.directory, "train", told.unit, len(labels))
    most = min(told.images_per_patient, at_once)
    for step in range(told.steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(told, step)
        drawn = patients.drawn(told.sampling_rate)
        for batch in physical_batches(patients, drawn, most, at_once):
            add_gradients(learner, optimizer, images, labels, batch, at_once, told.size)
        optimizer.step()
    trained = {f"weights/{n}": p.detach().numpy() for n, p in model.named().items()}
    return {name: array for name, array in trained.items()}, told.examples


def add_gradients(
    learner: GradSampleModule,
    optimizer: PatientOptimizer,
    images: NDArray[Any],
    labels: NDArray[np.int64],
    batch: Physical,
    at_once: int,
    size: int,
) -> None:
    """Add the clipped gradients of the patients in a physical batch.

    A patient's loss is the mean cross-entropy of its images in the step.
    """
    used = len(batch.rows)
    share, truth = torch.zeros(at_once), torch.zeros(at_once, dtype=torch.int64)
    share[:used] = torch.from_numpy(np.repeat(1 / batch.of_each, batch.of_each))
    truth[:used] = torch.from_numpy(labels[batch.rows])
    scores = learner(_padded(images, batch.rows, at_once, size))
    losses = torch.nn.functional.cross_entropy(scores, truth, reduction="none")
    with warnings.catch_warnings():  # torch says that images have no gradient
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        torch.autograd.backward((losses * share).sum())
    optimizer.accumulate(batch.of_each.tolist())


def score(
    data: Data, graph: bytes, weights: Arrays, plan: dict[str, Any], memory_mb: int
) -> tuple[Arrays, int]:
    """The table of scores (tables, 2, bins) int64 on a split, noised; negative counts become 0.

    For each scored class: how many images of other classes, and of it, have a log-odds of the class
    in each of `bins` equal bins.

    Raises:
        ValueError: Graph, weights or plan do not fit the dataset version or each other.
    """
    told = ScorePlan.model_validate(plan)
    model, at_once = _model(data, graph, weights, told.size, memory_mb, training=False)
    model.eval()
    images, labels = data.arrays(told.split)
    classes = len(data.card["classes"])
    patients = Patients.of_split(data.directory, told.split, told.unit, len(labels))
    counts = np.zeros((scored_classes(classes), 2, told.bins), np.int64)
    for rows in _chosen(patients, told.images_per_patient, at_once):
        with torch.no_grad():
            scores = model(_padded(images, rows, at_once, told.size))[: len(rows)]
        bins = bins_of(scores, told)
        for table, k in enumerate(range(classes) if classes > 2 else [1]):
            truth = (labels[rows] == k).astype(np.int64)
            np.add.at(counts[table], (truth, bins[:, k]), 1)
    return {"counts/scores": _noised_table(counts, told.deviation(classes))}, told.examples


def bins_of(scores: Tensor, plan: ScorePlan) -> NDArray[np.int64]:
    """The bin of each image for each class, (N, classes); what is not a number is in the first."""
    probability = scores.double().softmax(1).clip(1e-9, 1 - 1e-9)
    odds = torch.logit(probability) - math.log(plan.operating_point / (1 - plan.operating_point))
    odds = odds.nan_to_num(-SCORE_RANGE).clip(-SCORE_RANGE, SCORE_RANGE)
    places = (odds + SCORE_RANGE) / (2 * SCORE_RANGE) * plan.bins
    return places.long().clip(0, plan.bins - 1).numpy()


def _noised_table(counts: NDArray[np.int64], deviation: float) -> NDArray[np.int64]:
    noise = gaussian_steps(counts.size, deviation).reshape(counts.shape)
    return np.maximum(counts + noise, 0)


def _chosen(patients: Patients, most: int, at_once: int) -> Iterator[NDArray[np.int64]]:
    """Rows of at most `most` images of each patient, `at_once` at a time."""
    every = [patients.images(patient, most) for patient in range(len(patients))]
    rows = np.concatenate(every) if every else np.zeros(0, np.int64)
    for first in range(0, len(rows), at_once):
        yield np.sort(rows[first : first + at_once])


def _model(
    data: Data, graph: bytes, weights: Arrays, size: int, memory_mb: int, *, training: bool
) -> tuple[Rebuilt, int]:
    """The rebuilt model with its weights, and how many images it takes at once."""
    found = read_graph(graph)
    if not isinstance(found, ModelGraph):
        raise ValueError("; ".join(finding.sentence for finding in found))
    image = image_shape(data.card["shape"], size)
    if wrong := check_graph(found, image, len(data.card["classes"])):
        raise ValueError("; ".join(finding.sentence for finding in wrong))
    model = Rebuilt(found)
    model.load(weights)
    numbers = 6 * found.value_count(image) + 3 * found.parameter_count() * training
    room = memory_mb * 2**20 // 2 - 4 * 6 * found.parameter_count()
    return model, max(1, min(MOST_AT_ONCE, room // (4 * numbers)))


def _padded(images: NDArray[Any], rows: NDArray[np.int64], at_once: int, size: int) -> Tensor:
    """Images as a model gets them, (at_once, 3, H, W) float32 in [-1, 1]; the rest is black."""
    found = np.zeros((at_once, *images.shape[1:]), images.dtype)
    for place, row in enumerate(rows):
        found[place] = images[row]
    if found.ndim == 3:
        found = found[..., None]
    x = np.ascontiguousarray(found.transpose(0, 3, 1, 2), dtype=np.float32)
    half = 127.5 if images.dtype == np.uint8 else 0.5  # floats are 0 to 1
    scaled = (torch.from_numpy(x) / half - 1.0).expand(-1, 3, -1, -1)
    if size:
        scaled = torch.nn.functional.interpolate(scaled, (size, size), mode="bilinear")
    return scaled


def _optimizer(model: Rebuilt, plan: TrainingPlan) -> torch.optim.Optimizer:
    rate, decay = plan.learning_rate, plan.weight_decay
    if plan.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(model.parameters(), rate, plan.momentum, weight_decay=decay)


def _learning_rate(plan: TrainingPlan, step: int) -> float:
    if plan.schedule == "constant":
        return plan.learning_rate
    return plan.learning_rate * (1 + math.cos(math.pi * step / plan.steps)) / 2


def _seed() -> None:
    """Dropout draws unpredictably: with a known seed it would tell an image's place in the step."""
    torch.manual_seed(int.from_bytes(os.urandom(8), "big") >> 1)
