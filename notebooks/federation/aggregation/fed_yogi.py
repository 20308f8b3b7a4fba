"""FedYogi: Yogi at the server, on the mean change of the sites.

References:
    Reddi et al., Adaptive Federated Optimization, ICLR 2021, arXiv 2003.00295, algorithm 2.
    Zaheer, Reddi, Sachan, Kale, Kumar: Adaptive Methods for Nonconvex Optimization, NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from federation.aggregation.adaptive import Adaptive
from federation.aggregation.arithmetic import Floats
from federation.aggregation.hyperparameters import check_share


@dataclass(frozen=True)
class FedYogi(Adaptive):
    """Second moment = second moment - (1 - `beta_2`) * square * sign(second moment - square).

    `square` is the squared mean change. Unlike Adam's, the second moment falls by at most
    (1 - `beta_2`) * square in a round, so that a few small changes do not make steps large. The
    rest is as in `Adaptive`.

    Attributes:
        beta_2: How slowly the second moment follows; 0.99 in the paper.
    """

    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("FedYogi", "beta_2", self.beta_2)

    def second_moment(self, moment: Floats, square: Floats) -> Floats:
        """The moment, moved towards the square by a part of the square."""
        moved: Floats = moment - (1 - self.beta_2) * square * np.sign(moment - square)
        return moved
