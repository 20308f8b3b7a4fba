"""A learning process: `initialize()` gives a state, `next(state, study)` the one after a round.

The form is that of TensorFlow Federated's `tff.learning.algorithms.build_weighted_fed_avg`; here a
round is made by real hospitals, each of which approved the job.

    process = federation.build_weighted_fed_avg(
        federation.Model("mobilenet_v2", classes=10), federation.Adam(1e-3)
    )
    study = process.submit(sites, dataset="tissue", rounds=10, title=..., purpose=...)
    study.wait()                                   # people decide
    state = process.initialize()
    for _ in range(10):
        state, metrics = process.next(state, study)    # prints a line: round, loss, accuracy
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from federation.aggregation.algorithm import Algorithm, State
from federation.aggregation.fed_avg import FedAvg
from federation.errors import FederationError
from federation.history import History
from federation.job import Job
from federation.optimizers import Optimizer
from federation.rounds import run_rounds
from federation.submission import Federation, Study
from federation.terms import Wanted, training_terms
from policies.arrays import Arrays


@dataclass(frozen=True, slots=True)
class Model:
    """An architecture that the training job builds, without pretrained weights.

    Attributes:
        architecture: `small_cnn` (0.2 million parameters), `mobilenet_v2`, `resnet18` or
            `densenet121` of torchvision.
        classes: Number of classes.
        normalisation: `group` (Wu and He 2018, eight groups) or `batch`.
        size: Images are resized to `size` x `size` pixels; 0 leaves them as they are.
    """

    architecture: str
    classes: int
    normalisation: str = "batch"
    size: int = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """The job's arguments that say so."""
        return {
            "model": self.architecture, "normalisation": self.normalisation, "size": self.size,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a round starts from.

    Attributes:
        server: The global weights, and what the algorithm remembers beside them.
        round: Number of the last round, 0 before the first.
        history: Who contributed what so far.
    """

    server: State
    round: int = 0
    history: History = field(default_factory=History)

    @property
    def weights(self) -> Arrays:
        """The global weights."""
        return self.server.weights


class Output(NamedTuple):
    """What `next` gives.

    Attributes:
        state: The state after the round.
        metrics: `loss` and `accuracy` as seen while training, means over the sites weighted by
            examples; `examples`; `sites`, how many contributed.
    """

    state: ServerState
    metrics: dict[str, float]


class LearningProcess:
    """Federated training as a state and a step; see `build_weighted_fed_avg`."""

    def __init__(
        self, job: Job, model: Model, algorithm: Algorithm, config: dict[str, Any]
    ) -> None:
        self.job, self.model, self.algorithm, self.config = job, model, algorithm, config

    @cached_property
    def initial_weights(self) -> Arrays:
        """The weights that training starts from, drawn with the seed."""
        card = {"classes": [str(k) for k in range(self.model.classes)]}
        weights: Arrays = self.job.call("initial_weights", card, self.config)
        return weights

    def initialize(self) -> ServerState:
        """The state before the first round."""
        return ServerState(self.algorithm.init(self.initial_weights))

    def terms(
        self, *, dataset: str, rounds: int, title: str, purpose: str, spare_runs: int = 2
    ) -> Wanted:
        """What the request asks for: these arguments alone, and a run for each round.

        Args:
            dataset: Name of the dataset, the same at all sites.
            rounds: How many rounds are planned.
            title: What the job does, in one line.
            purpose: Why, in one line.
            spare_runs: Runs beside those of the rounds, for attempts that fail.
        """
        sent = self.algorithm.to_send(self.algorithm.init(self.initial_weights), self._some_site)
        return training_terms(
            self.initial_weights,
            title=title,
            purpose=purpose,
            dataset=dataset,
            runs=rounds + spare_runs,
            config={**self.config, "round": (0, rounds + spare_runs)},
            sent=sent if set(sent) != set(self.initial_weights) else None,
        )

    def submit(
        self, sites: Federation, *, dataset: str, rounds: int, title: str, purpose: str
    ) -> Study:
        """Ask hospitals to approve the job; the study waits for their decisions.

        Raises:
            FederationError: A site's images have another number of classes than the model.
            RefusedError: A site could not take the request.
        """
        for site in sites:
            classes = site.dataset(dataset).card["classes"]
            if len(classes) != self.model.classes:
                raise FederationError(
                    f"the model has {self.model.classes} classes, and `{dataset}` at {site.title} "
                    f"has {len(classes)} ({', '.join(classes)}); give the model as many"
                )
        return sites.submit(
            self.job, self.terms(dataset=dataset, rounds=rounds, title=title, purpose=purpose)
        )

    def next(
        self,
        state: ServerState,
        study: Study,
        *,
        quorum: int | Sequence[str] | None = None,
        verbose: bool = True,
    ) -> Output:
        """One round: every site of the study trains, and the updates are combined.

        Args:
            state: The state to start from.
            study: An approved study of this process's job.
            quorum: How many sites, or which ones, the round needs; all by default.
            verbose: Whether to print a line: round, loss, accuracy, sites, seconds.

        Raises:
            FederationError: The round fell below the quorum; the message names who is missing.
        """
        begun, number = time.monotonic(), state.round + 1
        result = run_rounds(
            study,
            state.server,
            self.config,
            rounds=1,
            algorithm=self.algorithm,
            first_round=number,
            quorum=quorum,
            progress=False,
        )
        frame = result.history.frame()
        present = frame[frame["state"] == "contributed"]
        weight = present["examples"] / present["examples"].sum()
        metrics = {
            "loss": float((present["loss"] * weight).sum()),
            "accuracy": float((present["accuracy"] * weight).sum()),
            "examples": float(present["examples"].sum()),
            "sites": float(len(present)),
        }
        if verbose:
            print(  # noqa: T201  what a user of a learning process looks at
                f"round {number:>3}   loss {metrics['loss']:.4f}   "
                f"accuracy {metrics['accuracy']:.4f}   {len(present)} of {len(frame)} sites   "
                f"{time.monotonic() - begun:.1f} s"
            )
        history = History([*state.history, *result.history])
        return Output(ServerState(result.state, number, history), metrics)

    @property
    def _some_site(self) -> str:
        return next(iter(getattr(self.algorithm, "sites", ("any",))))


def build_weighted_fed_avg(
    model: Model,
    client_optimizer: Optimizer,
    server_optimizer: Algorithm = FedAvg(),  # noqa: B008  frozen, and without a field
    *,
    job: Job,
    config: Mapping[str, Any] | None = None,
) -> LearningProcess:
    """Federated averaging weighted by examples, as a learning process.

    Args:
        model: What is trained.
        client_optimizer: How each site trains: `SGD`, `Adam` or `AdamW`.
        server_optimizer: How updates are combined: `FedAvg()` takes their mean; `FedAdam` and the
            others of `federation.aggregation` take their place here.
        job: The training job, `federation.read_job("notebooks/jobs/train_classifier.py")`.
        config: Other arguments of the job (`job.call("defaults")` lists them all).

    Raises:
        FederationError: An argument is not one of the job's.
    """
    known = job.call("defaults")
    given = {
        **server_optimizer.arguments, **model.arguments, **client_optimizer.arguments,
        **(config or {}),
    }  # fmt: skip
    if unknown := sorted(set(given) - set(known)):
        raise FederationError(
            f"the job {job.name} has no argument {', '.join(f'`{n}`' for n in unknown)}; it has "
            f"{', '.join(known)}"
        )
    return LearningProcess(job, model, server_optimizer, {**known, **given})
