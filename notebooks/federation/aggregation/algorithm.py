"""What an aggregation algorithm is: a state, and a round that makes the next one.

    algorithm = FedAdam(rate=0.01)
    state = algorithm.init(weights)
    state, diagnostics = algorithm.apply(state, updates)
    state.weights                                # the new global weights

Nothing is hidden in the algorithm itself, so a state that was saved goes on to the same bits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from federation.aggregation.diagnostics import Diagnostics
from policies.arrays import Arrays

Memory = dict[str, Arrays]
"""What an algorithm remembers from round to round: `momentum`, `control of st-marys`, … -> arrays
under the names of the model's."""


@dataclass(frozen=True, slots=True)
class SiteUpdate:
    """What one site contributed to a round.

    Attributes:
        site: Short name of the site.
        weights: The weights that it returned, names, shapes and dtypes as in the global ones.
        examples: Number of images that they rest on.
        metrics: Single numbers that came with them; `steps` is the number of local steps.
    """

    site: str
    weights: Arrays
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """What a round starts from: plain arrays, so that it can be saved.

    Attributes:
        weights: The global weights.
        memory: What the algorithm remembers beside them; empty for plain averaging.
    """

    weights: Arrays
    memory: Memory = field(default_factory=dict)


class Algorithm(Protocol):
    """A way to combine the updates of a round; a frozen dataclass with its hyperparameters.

    Sums run in float64 in the order of the sites' names: the same updates give the same bits
    whichever site answered first. Only some of the sites may have contributed to a round.
    """

    @property
    def arguments(self) -> Mapping[str, float]:
        """Arguments that the job must have been given for the algorithm to be what it says."""
        return {}

    @property
    def least_updates(self) -> int:
        """How many updates a round needs."""
        return 1

    def init(self, weights: Arrays) -> State:
        """The state before the first round.

        Raises:
            ValueError: The algorithm cannot work on these arrays.
        """
        return State(dict(weights))

    @abstractmethod
    def apply(self, state: State, updates: Sequence[SiteUpdate]) -> tuple[State, Diagnostics]:
        """The state after a round; the one before is left as it was.

        Raises:
            ValueError: There are too few updates, no example, or an update does not fit.
        """

    def to_send(self, state: State, site: str) -> Arrays:
        """The arrays that a site is sent in the next round: the global weights."""
        return state.weights
