"""The optimizers that a site can train with, as the training job's arguments say them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Optimizer(Protocol):
    """An optimizer of the training job; a frozen dataclass with its hyperparameters."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The job's arguments that choose it."""


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent; momentum starts from zero in every round.

    Attributes:
        learning_rate: Length of a step.
        momentum: How much of the step before stays, 0 to below 1.
        weight_decay: Of the L2 penalty.
    """

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """The job's arguments that choose it."""
        return {
            "optimizer": "sgd", "learning_rate": self.learning_rate, "momentum": self.momentum,
            "weight_decay": self.weight_decay,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980); its moments start from zero in every round.

    Attributes:
        learning_rate: Length of a step.
        weight_decay: Of the L2 penalty.
    """

    learning_rate: float = 0.001
    weight_decay: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """The job's arguments that choose it."""
        return {
            "optimizer": "adam", "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Attributes:
        learning_rate: Length of a step.
        weight_decay: How much weights shrink by themselves.
    """

    learning_rate: float = 0.001
    weight_decay: float = 0.01

    @property
    def arguments(self) -> dict[str, Any]:
        """The job's arguments that choose it."""
        return {
            "optimizer": "adamw", "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
        }  # fmt: skip
