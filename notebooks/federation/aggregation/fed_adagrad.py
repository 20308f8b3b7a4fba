"""FedAdagrad: Adagrad at the server, on the mean change of the sites.

References:
    Reddi et al., Adaptive Federated Optimization, ICLR 2021, arXiv 2003.00295, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.aggregation.adaptive import Adaptive
from federation.aggregation.arithmetic import Floats


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Second moment = second moment + squared mean change: steps only become smaller.

    The rest is as in `Adaptive`. The paper's experiments have no momentum here.

    Attributes:
        beta_1: Part of the momentum that is kept from round to round.
    """

    beta_1: float = 0.0

    def second_moment(self, moment: Floats, square: Floats) -> Floats:
        """The sum of all squared changes."""
        return moment + square
