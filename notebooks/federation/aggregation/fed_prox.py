"""FedProx: federated averaging of sites that are held near the global weights.

References:
    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks,
    MLSys 2020, arXiv 1812.06127, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.aggregation.fed_avg import FedAvg
from federation.aggregation.hyperparameters import check_at_least


@dataclass(frozen=True)
class FedProx(FedAvg):
    """A site minimises its loss plus `proximal` / 2 times the squared distance to what it was sent.

    That term is the job's: it needs an argument `proximal`, adds `proximal` times (parameter - sent
    parameter) to each gradient, and is told the same number in `config`. The mean is that of
    `FedAvg`, weighted by examples; the paper draws sites in proportion to theirs and takes the
    plain mean, which is the same in expectation. Sites may take unequal numbers of steps; that is
    what the term is for. With 0 it is `FedAvg`.

    Attributes:
        proximal: The paper's mu; 0.001 to 1 there.
    """

    proximal: float = 0.01

    def __post_init__(self) -> None:
        check_at_least("FedProx", "proximal", self.proximal, 0)

    @property
    def arguments(self) -> Mapping[str, float]:
        """The job's proximal term."""
        return {"proximal": self.proximal}
