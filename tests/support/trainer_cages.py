"""A dataset version, its cage with the trainer, and the cage with its card alone, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasites.catalogue import write_version
from datasites.sandbox.bubblewrap import find_bubblewrap
from datasites.sandbox.cage import Cage, RunResult
from datasites.sandbox.private_training import (
    card_folder,
    export_model,
    score_privately,
    train_privately,
    trainer_cage,
)
from policies.arrays import Arrays
from policies.model_graph import ModelGraph
from policies.sections import SandboxRule
from private_models import (
    graph_of,
    score_plan,
    shapes_images,
    tiny,
    training_plan,
    weights_of,
)

LIMITS = SandboxRule(memory_mb=1024, time_s=60, processes=64)


@dataclass(frozen=True)
class Trainer:
    """Both cages of one dataset version."""

    version: Path
    without_data: Cage
    with_data: Cage

    def export(self, text: str, entry: str = "build", **config: Any) -> ModelGraph:
        """The graph of what a text builds."""
        return export_model(self.without_data, text, entry, config, LIMITS)

    def train(
        self, graph: ModelGraph | None = None, weights: Arrays | None = None, **plan: Any
    ) -> RunResult:
        """Train, by default the tiny model, as `training_plan` with changes says."""
        model = _tiny()
        return train_privately(
            self.with_data, graph or graph_of(model),
            weights_of(model) if weights is None else weights, training_plan(**plan), LIMITS,
        )  # fmt: skip

    def score(self, weights: Arrays | None = None, **plan: Any) -> np.ndarray:
        """The table of scores of the tiny model."""
        model = _tiny()
        sent = weights_of(model) if weights is None else weights
        found = score_privately(
            self.with_data, graph_of(model), sent, score_plan(**plan), 2, LIMITS
        )
        assert found.update.weights == found.update.metrics == {}
        return found.update.counts["scores"]


def _tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny()


@contextmanager
def trainer_on(folder: Path, images_of_each: int = 2) -> Iterator[Trainer]:
    """Cages on a new version of 400 images, of which each patient has some."""
    images, labels = shapes_images(400)
    patients = (np.arange(400) // images_of_each).astype(np.int32)
    version, _ = write_version(
        folder / "datasets",
        {"train": (images, labels), "test": (images[:60], labels[:60])},
        name="chest-xray", classes=("normal", "pneumonia"), source="a test", licence="none",
        description="", minimum_count=5, patients={"train": patients, "test": patients[:60]},
    )  # fmt: skip
    directory, bwrap = folder / "datasets" / version, find_bubblewrap()
    made = Trainer(
        directory,
        Cage(card_folder(folder / "card", directory), bwrap, 1),
        trainer_cage(directory, bwrap, 1),
    )
    made.without_data.start()
    made.with_data.start()
    try:
        yield made
    finally:
        made.without_data.close()
        made.with_data.close()
