"""FedAdam: Adam at the server, on the mean change of the sites.

References:
    Reddi et al., Adaptive Federated Optimization, ICLR 2021, arXiv 2003.00295, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.aggregation.adaptive import Adaptive
from federation.aggregation.arithmetic import Floats
from federation.aggregation.hyperparameters import check_share


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """Second moment = `beta_2` * second moment + (1 - `beta_2`) * squared mean change.

    The rest is as in `Adaptive`.

    Attributes:
        beta_2: Part of the second moment that is kept from round to round; 0.99 in the paper.
    """

    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("FedAdam", "beta_2", self.beta_2)

    def second_moment(self, moment: Floats, square: Floats) -> Floats:
        """A moving average of squared changes."""
        return self.beta_2 * moment + (1 - self.beta_2) * square
