"""Models as graphs, for tests of the hospital's own trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasites.sandbox.exporter import describe
from federation.job import Job, read_job
from policies.arrays import Arrays
from policies.model_graph import ModelGraph, read_graph
from policies.privacy.plan import ScorePlan, TrainingPlan

ROOT = Path(__file__).resolve().parents[2]
JOB: Job = read_job(ROOT / "notebooks/jobs/train_privately.py")
CARD: dict[str, Any] = {"classes": ["normal", "pneumonia"], "shape": [8, 8]}
MODELS = ("small_cnn", "mobilenet_v2", "resnet18", "densenet121")


def tiny() -> torch.nn.Module:
    """A model that trains in milliseconds."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def exported(model: torch.nn.Module) -> Any:
    """What the exporter writes about a model."""
    return json.loads(json.dumps(describe(model)))


def graph_of(model: torch.nn.Module) -> ModelGraph:
    """The graph of an honest model."""
    graph = read_graph(json.dumps(describe(model)).encode())
    assert isinstance(graph, ModelGraph), graph
    return graph


def weights_of(model: torch.nn.Module) -> Arrays:
    """Its parameters, as they are sent."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def training_plan(**changes: Any) -> TrainingPlan:
    """A short plan; changes of its fields."""
    plain: dict[str, Any] = {
        "unit": "patient", "sampling_rate": 0.5, "steps": 3, "noise_multiplier": 1.0,
        "clip_norm": 1.0, "expected_batch": 30, "learning_rate": 0.5, "examples": 100,
    }  # fmt: skip
    return TrainingPlan.model_validate({**plain, **changes})


def score_plan(**changes: Any) -> ScorePlan:
    """A plan of a table of scores; changes of its fields."""
    plain: dict[str, Any] = {
        "unit": "patient", "split": "test", "bins": 10, "noise_multiplier": 1.0, "examples": 60,
    }  # fmt: skip
    return ScorePlan.model_validate({**plain, **changes})


def shapes_images(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8) uint8 whose brighter half tells the class, and labels."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(number) % 2).astype(np.int64)
    images = rng.integers(0, 150, (number, 8, 8), dtype=np.uint8)
    images[labels == 0, :4] += 90
    images[labels == 1, 4:] += 90
    return images, labels
