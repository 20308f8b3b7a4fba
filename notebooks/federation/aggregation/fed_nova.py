"""FedNova: changes are divided by the local steps behind them, so that nobody pulls too far.

References:
    Wang, Liu, Liang, Joshi, Poor: Tackling the Objective Inconsistency Problem in Heterogeneous
    Federated Optimization, NeurIPS 2020, arXiv 2007.07481, equations 9 to 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import advanced, mean_step
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.hyperparameters import check_above, check_count, check_share
from federation.aggregation.local_steps import counted_with, local_steps
from federation.aggregation.updates import ordered, shares


@dataclass(frozen=True)
class FedNova(Algorithm):
    """The weights move by `rate` * (mean length) * (mean of change / length).

    Both means are over the sites that contributed, weighted by examples. A site's length is the sum
    of the weights that its gradients have in its change: its number of local steps for plain SGD;
    with momentum m and t steps, (t - m (1 - m^t) / (1 - m)) / (1 - m). When all take equally many
    steps it is `FedAvg`. It holds for SGD alone, with a learning rate that is the same at all
    sites. The steps come from the job's metric `steps`, or are counted as `epochs` times the
    batches of `batch_size` in the examples. Running statistics and whole numbers are averaged.

    Attributes:
        momentum: The job's argument `momentum`.
        rate: Learning rate of the server; 1 in the paper.
        batch_size: The job's, for jobs that do not return the metric `steps`.
        epochs: The job's, likewise.
    """

    momentum: float = 0.0
    rate: float = 1.0
    batch_size: int | None = None
    epochs: int = 1

    def __post_init__(self) -> None:
        check_share("FedNova", "momentum", self.momentum)
        check_above("FedNova", "rate", self.rate, 0)
        if self.batch_size is not None:
            check_count("FedNova", "batch_size", self.batch_size, 1)
        check_count("FedNova", "epochs", self.epochs, 1)

    @property
    def arguments(self) -> Mapping[str, float]:
        """SGD with this momentum."""
        return {"momentum": self.momentum, **counted_with(self.batch_size, self.epochs)}

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round."""
        given = ordered(updates, state.weights)
        parts = shares(given)
        steps = {u.site: local_steps(u, self.batch_size, self.epochs) for u in given}
        lengths = [self.length(steps[update.site]) for update in given]
        usual = sum(part * length for part, length in zip(parts, lengths, strict=True))
        per_step = [part / length for part, length in zip(parts, lengths, strict=True)]
        step = mean_step(given, per_step, state.weights)
        along = {name: self.rate * usual * array for name, array in step.items()}
        weights = advanced(state.weights, along, given, parts)
        return State(weights, state.memory), measure(state.weights, weights, given, steps=steps)

    def length(self, steps: float) -> float:
        """How far a gradient that is always the same takes a site, in learning rates."""
        m = self.momentum
        return float((steps - m * (1 - m**steps) / (1 - m)) / (1 - m))
