"""FedBN: each site keeps its own normalisation layers; the others are averaged.

References:
    Li, Jiang, Zhang, Kamp, Dou: FedBN: Federated Learning on Non-IID Features via Local Batch
    Normalization, ICLR 2021, arXiv 2102.07623, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from federation.aggregation.algorithm import Algorithm, SiteUpdate, State
from federation.aggregation.arithmetic import mean
from federation.aggregation.diagnostics import Diagnostics, measure
from federation.aggregation.updates import ordered, shares
from policies.arrays import Arrays


@dataclass(frozen=True)
class FedBN(Algorithm):
    """Shared arrays are averaged as in `FedAvg`; local ones are those that the site itself had.

    The sites keep nothing between rounds, so local arrays travel too: the server keeps each site's
    and sends them back to it alone (`to_send`). A site that missed a round goes on with its own
    from before. In the global weights, local arrays hold the mean of the round's: a start for a
    site that was never there. A site's model, to evaluate it there, is `to_send(state, site)`.

    Attributes:
        local: Patterns of names such as `features.*.norm.*`; by default every array of a layer
            that has a `running_mean`, that is of batch normalisation.
    """

    local: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.local, str) or not all(isinstance(p, str) and p for p in self.local):
            raise ValueError(
                f"FedBN cannot have `local` = {self.local!r}; give a tuple of patterns of names"
            )

    def init(self, weights: Arrays) -> State:
        """The state before the first round; every site starts from the same local arrays.

        Raises:
            ValueError: No array is local, or a pattern fits none.
        """
        unused = [p for p in self.local if not any(fnmatchcase(name, p) for name in weights)]
        if unused:
            raise ValueError(f"FedBN: no array fits {', '.join(unused)}; look at the model's names")
        if not self.names(weights):
            raise ValueError(
                "FedBN: the model has no batch normalisation, so nothing would stay local; name "
                "its normalisation layers in `local`, or take FedAvg"
            )
        return State(dict(weights))

    def names(self, weights: Arrays) -> list[str]:
        """Names of the arrays that stay local."""
        if self.local:
            return [name for name in weights if any(fnmatchcase(name, p) for p in self.local)]
        end = "running_mean"
        layers = {name.removesuffix(end) for name in weights if name.rpartition(".")[2] == end}
        return [name for name in weights if name[: name.rfind(".") + 1] in layers]

    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round; its diagnostics are those of the shared arrays."""
        given = ordered(updates, state.weights)
        local = self.names(state.weights)
        weights = mean(given, shares(given))
        own = {
            _key(update.site): {name: update.weights[name] for name in local} for update in given
        }
        before = {name: array for name, array in state.weights.items() if name not in set(local)}
        return State(weights, {**state.memory, **own}), measure(before, weights, given)

    def to_send(self, state: State, site: str) -> Arrays:
        """The global weights, with the site's own local arrays once it has some."""
        return {**state.weights, **state.memory.get(_key(site), {})}


def _key(site: str) -> str:
    return f"local of {site}"
