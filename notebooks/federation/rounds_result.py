"""What some rounds came to, and the two ways in which they end early."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from federation.aggregation.algorithm import Memory, State
from federation.aggregation.diagnostics import Diagnostics
from federation.curves import curves
from federation.errors import FederationError, Sentence
from federation.history import History, Measured
from policies.arrays import Arrays, arrays_sha256


@dataclass(slots=True)
class RoundsResult:
    """The global weights after some rounds, and how they came about.

    Attributes:
        weights: The global weights.
        history: Who contributed what.
        memory: What the algorithm remembers beside the weights.
        diagnostics: Number of a round -> how far the weights moved in it, and who moved them.
        measured: Number of a round -> the AUC after it, where that was asked for.
    """

    weights: Arrays
    history: History = field(default_factory=History)
    memory: Memory = field(default_factory=dict)
    diagnostics: dict[int, Diagnostics] = field(default_factory=dict)
    measured: dict[int, Measured] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The algorithm's state, as `algorithm.to_send(state, site)` wants it."""
        return State(self.weights, self.memory)

    @property
    def weights_sha256(self) -> str:
        """Digest of the global weights: names, dtypes, shapes and every bit."""
        return arrays_sha256(self.weights)

    @property
    def is_complete(self) -> bool:
        """Whether every site contributed to every round, and every AUC is there."""
        return not self.history.missing and not any(m.reason for m in self.measured.values())

    @property
    def sentence(self) -> str:
        """Who contributed, in one sentence that names every absence."""
        unmeasured = [f"round {n} ({m.reason})" for n, m in self.measured.items() if m.reason]
        told = f" The AUC was not measured after {'; '.join(unmeasured)}." if unmeasured else ""
        return self.history.sentence + told

    def auc_frame(self) -> pd.DataFrame:
        """The AUC after each round: a column per site where it is known, and `all`."""
        frame = pd.DataFrame.from_dict(
            {number: dict(m.auc) for number, m in self.measured.items()}, orient="index"
        )
        return frame.rename_axis("round")

    def __repr__(self) -> str:
        return f"RoundsResult({self.sentence} weights sha256 {self.weights_sha256[:12]}…)"

    def _repr_html_(self) -> str:
        auc = {number: m.auc for number, m in self.measured.items()}
        drawn = curves(self.history, auc, self.history.first, self.history.rounds)
        warned = "" if self.is_complete else ' style="color: #9c2f1f"'
        return f"<p{warned}><b>{escape(self.sentence)}</b></p><div>{drawn}</div>"


class BelowQuorumError(FederationError):
    """A round had fewer sites than the quorum; `result` holds everything up to the round before."""

    def __init__(self, message: str, result: RoundsResult) -> None:
        super().__init__(message)
        self.result = result


class StoppedError(Sentence, KeyboardInterrupt):
    """You stopped the rounds by hand; `result` holds every round that was over."""

    def __init__(
        self, done: int, last: int, result: RoundsResult, checkpoint: str | Path | None
    ) -> None:
        self.result = result
        number = done + 1
        if number > last:
            told = f"you stopped after round {done}, the last one; `study.result` has all of it"
        elif checkpoint is not None:
            told = (
                f"you stopped in round {number} of {last}; what was before is saved in "
                f"{checkpoint}. Make the same call again to go on with round {number}"
            )
        else:
            told = (
                f"you stopped in round {number} of {last}; what was before is `study.result`. Go "
                f"on with `federation.run_rounds(study, study.result, config, "
                f"rounds={last - done}, first_round={number})`"
            )
        again = "; a site that has trained for it answers with the same update, free of charge"
        super().__init__(told + ("" if number > last else again))
