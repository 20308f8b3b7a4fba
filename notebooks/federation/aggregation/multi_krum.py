"""Multi-Krum: the mean of the updates that are nearest to most of the others.

References:
    Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant
    Gradient Descent, NeurIPS 2017, arXiv 1703.02757, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.aggregation.hyperparameters import check_count
from federation.aggregation.krum import Krum


@dataclass(frozen=True)
class MultiKrum(Krum):
    """The new weights are the plain mean of the `selected` updates with the lowest Krum scores.

    What `Krum` says of one holds for each of them. With `selected` 1 it is `Krum`.

    Attributes:
        selected: How many updates are averaged.
    """

    selected: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("MultiKrum", "selected", self.selected, 1)

    @property
    def least_updates(self) -> int:
        """As for `Krum`, and so many that the poisoned can be left out."""
        return max(super().least_updates, self.selected + self.faulty)

    @property
    def chosen(self) -> int:
        """How many updates are used."""
        return self.selected
