"""A learning process over a real site: its rounds are those of `run_rounds`, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest

import federation
from federation.errors import FederationError
from federation.job import read_job
from federation.process import LearningProcess
from federation.submission import Federation, Study
from hospitals import JOBS, Hospital
from policies.arrays import arrays_sha256

JOB = read_job(JOBS / "train_classifier.py")
MODEL = federation.Model("small_cnn", classes=2, normalisation="group")


def made(server: federation.FedAvg, **config: object) -> LearningProcess:
    return federation.build_weighted_fed_avg(
        MODEL, federation.SGD(0.02), server, job=JOB, config=config
    )


def approved(process: LearningProcess, hospital: Hospital, sites: Federation) -> Study:
    study = process.submit(sites, dataset="chest-xray", rounds=4, title="train", purpose="a test")
    hospital.decide(study, "approve")
    return study


@pytest.mark.parametrize(
    "server",
    [
        federation.FedAvg(), federation.FedProx(proximal=0.1), federation.FedAdam(rate=0.01),
        federation.FedNova(),
        federation.Scaffold(learning_rate=0.02, sites={"st-marys": 1.0}),
    ],
    ids=lambda server: type(server).__name__,
)  # fmt: skip
def test_two_steps_are_two_rounds(
    hospital: Hospital, rita: Federation, server: federation.FedAvg
) -> None:
    """Also for algorithms that remember, correct gradients, or count steps."""
    process = made(server)
    study = approved(process, hospital, rita)
    state = process.initialize()
    for _ in range(2):
        state, metrics = process.next(state, study, verbose=False)
    again = approved(process, hospital, rita)  # the first study's runs are over and paid for
    rounds = federation.run_rounds(
        again, process.initial_weights, process.config, rounds=2, algorithm=server, progress=False
    )
    assert arrays_sha256(state.weights) == rounds.weights_sha256
    assert arrays_sha256(state.weights) != arrays_sha256(process.initial_weights)
    assert state.round == state.history.rounds == 2
    last = rounds.history.frame().loc[(2, "st-marys")]
    assert metrics == {
        "loss": last["loss"], "accuracy": last["accuracy"], "examples": 120.0, "sites": 1.0
    }  # fmt: skip


def test_a_round_is_printed_as_a_line(
    hospital: Hospital, rita: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    process = made(federation.FedAvg())
    _, metrics = process.next(process.initialize(), approved(process, hospital, rita))
    said = capsys.readouterr().out
    assert said.startswith(
        f"round   1   loss {metrics['loss']:.4f}   accuracy {metrics['accuracy']:.4f}   "
        "1 of 1 sites   "
    )
    assert said.count("\n") == 1


def test_a_request_asks_for_the_arguments_of_the_process_alone() -> None:
    process = made(federation.FedAvg(), seed=7)
    wanted = process.terms(dataset="chest-xray", rounds=4, title="t", purpose="p")
    assert wanted.runs == 6
    assert set(wanted.arguments) == set(JOB.call("defaults"))
    assert wanted.arguments["seed"].value == 7
    assert wanted.arguments["learning_rate"].value == 0.02
    assert (wanted.arguments["round"].low, wanted.arguments["round"].high) == (0, 6)
    assert set(wanted.contract.metrics) == {"loss", "accuracy", "steps"}


def test_a_model_of_other_classes_is_refused_before_anything_is_sent(rita: Federation) -> None:
    process = federation.build_weighted_fed_avg(
        replace(MODEL, classes=10), federation.Adam(), job=JOB
    )
    with pytest.raises(FederationError) as refused:
        process.submit(rita, dataset="chest-xray", rounds=1, title="t", purpose="p")
    assert str(refused.value) == (
        "the model has 10 classes, and `chest-xray` at St Mary's has 2 (normal, pneumonia); give "
        "the model as many"
    )


def test_an_argument_that_the_job_does_not_have_is_refused() -> None:
    with pytest.raises(FederationError) as refused:
        made(federation.FedAvg(), dropout=0.5)
    assert str(refused.value).startswith(
        "the job train_classifier has no argument `dropout`; it has model, normalisation, size, "
    )


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (federation.SGD(0.1, momentum=0.5), {"optimizer": "sgd", "momentum": 0.5}),
        (federation.Adam(), {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0}),
        (federation.AdamW(0.01), {"optimizer": "adamw", "weight_decay": 0.01}),
    ],
)
def test_an_optimizer_is_what_the_job_is_told(optimizer, expected) -> None:
    process = federation.build_weighted_fed_avg(MODEL, optimizer, job=JOB)
    assert expected.items() <= process.config.items()
    assert process.config["normalisation"] == "group"


def test_seeds_differ_and_their_mean_and_deviation_are_told(
    hospital: Hospital, rita: Federation
) -> None:
    config = {**JOB.call("defaults"), "learning_rate": 0.02}
    card = rita["st-marys"].dataset("chest-xray").card
    weights = JOB.call("initial_weights", card, config)
    wanted = federation.training_terms(
        weights, title="t", purpose="p", dataset="chest-xray", runs=8,
        config={**config, "seed": (0, 9), "round": (0, 20)},
    )  # fmt: skip
    study = rita.submit(JOB, wanted)
    hospital.decide(study, "approve")
    found = federation.run_seeds(
        study, card, config, seeds=(3, 5), rounds=2, progress=False,
        measure=lambda seed, weights: {"size": float(len(weights)), "seed": float(seed)},
    )  # fmt: skip
    assert found.results[3].weights_sha256 != found.results[5].weights_sha256
    assert [r.history.rounds for r in found.results.values()] == [2, 4]
    frame = found.frame()
    assert frame.loc["mean"].tolist() == [18, 4]
    assert frame.loc["deviation"].tolist() == [0, 2**0.5]
    trained = federation.run_seeds(
        study, card, config, seeds=(3,), rounds=1, first_round=9, progress=False
    )
    last = trained.results[3].history.frame().iloc[-1]
    assert trained.measures == {3: {"loss": last["loss"], "accuracy": last["accuracy"]}}
    with pytest.raises(
        FederationError, match=r"give each seed once, and at least one \(now \[1, 1"
    ):
        federation.run_seeds(study, card, config, seeds=(1, 1), rounds=1)
