"""Rounds over hospitals that train with their own trainer, and a table of scores, with noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import federation
from datasites.audit_log import read_events
from datasites.trial import roster
from factories import PASSWORD
from federation.errors import RefusedError
from federation.submission import Federation, Study
from hospitals import JOBS, Hospital, make_hospital, running

PRIVACY = {"mode": "dp_sgd", "maximum_epsilon": 40.0, "delta": 1e-5}
JOB = federation.read_job(JOBS / "train_privately.py")
ARGUMENTS: dict[str, Any] = {
    "model": {"choices": ["small_cnn"]},
    "learning_rate": {"low": 0.0, "high": 10.0},
    "momentum": {"low": 0.0, "high": 0.95},
    "split": {"choices": ["test"]},
    "bins": {"low": 2, "high": 100},
    "operating_point": {"low": 0.1, "high": 0.9},
}
CARD = {"classes": ["normal", "pneumonia"], "shape": [8, 8]}
"""What the job reads of a card."""
IMAGES = {"train": 480, "test": 120}


def splits(seed: int) -> dict[str, Any]:
    """Images of noise, those of the second class brighter; every patient has two of one class."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, count in IMAGES.items():
        labels = (np.arange(count) // 2 % 2).astype(np.int64)
        noise = rng.integers(0, 150, (count, 8, 8))
        found[name] = ((noise + 80 * labels[:, None, None]).astype(np.uint8), labels)
    return found


PATIENTS = {name: np.arange(count, dtype=np.int32) // 2 for name, count in IMAGES.items()}


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    """Two running hospitals that let nobody else's code see an image."""
    folder = tmp_path_factory.mktemp("private")
    made = [
        make_hospital(
            folder / name, example=name, splits=splits(k), patients=PATIENTS,
            access=["trainer"], privacy=PRIVACY,
            arguments=ARGUMENTS, job={"imports": ["torch", "torchvision.models"]},
            update={"maximum_mb": 5, "maximum_change_norm": 1e6},
            review={"rehearsal": {"images": 0, "time_s": 60}},
            sandbox={"memory_mb": 1024, "time_s": 120},
        )
        for k, name in enumerate(("st-marys", "north-clinic"))
    ]  # fmt: skip
    with running(made):
        yield made


@pytest.fixture(scope="module")
def sites(private: list[Hospital]) -> Federation:
    return federation.connect(
        roster([h.trial for h in private]), email="rita@uni.example", password=PASSWORD
    )


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return JOB.call("initial_weights", CARD, {"model": "small_cnn"})


def submitted(sites: Federation, private: list[Hospital], wanted: Any, job: Any = JOB) -> Study:
    study = sites.submit(job, wanted)
    for hospital in private:
        hospital.decide(study, "approve")
    return study


def test_hospitals_train_themselves_and_the_shared_model_learns(
    private: list[Hospital], sites: Federation, weights: dict[str, Any]
) -> None:
    wanted = federation.private_training_terms(
        weights, title="Train privately", purpose="a test", dataset="chest-xray", runs=2,
        epsilon=20.0, sampling_rate=0.25, epochs=2,
        config={"model": "small_cnn", "learning_rate": (0.1, 4.0), "momentum": 0.5},
    )  # fmt: skip
    study = submitted(sites, private, wanted)
    config = {"model": "small_cnn", "learning_rate": 1.0, "momentum": 0.5}
    result = federation.run_rounds(study, weights, config, rounds=2, progress=False)
    assert [r.state for r in result.history] == ["contributed"] * 4
    assert {r.examples for r in result.history} == {IMAGES["train"]}  # as on the card
    costs = study.privacy()
    assert list(costs["protection"]) == ["dp_sgd", "dp_sgd"]
    assert all(19.5 < spent <= 20 for spent in costs["spent by this study"])
    told = federation.evaluate(
        scoring(sites, private, weights), result.weights, scoring_config(), round_number=1
    )
    before = federation.evaluate(
        scoring(sites, private, weights), weights, scoring_config(), round_number=1
    )
    assert told.overall.auc.value > 0.8
    assert before.overall.auc.value < 0.7
    for hospital in private:
        events = list(read_events(hospital.trial.site.audit))
        charged = [e["detail"]["privacy"] for e in events if "privacy" in e["detail"]]
        assert [c["steps"] for c in charged] == [8, 8, 1, 1]
        assert all(e["detail"]["metrics"] == [] for e in events if e["event"] == "update released")


def scoring_config() -> dict[str, Any]:
    return {"model": "small_cnn", "split": "test", "operating_point": 0.5, "bins": 10}


def scoring(sites: Federation, private: list[Hospital], weights: dict[str, Any]) -> Study:
    """An approved study of one table of scores."""
    wanted = federation.private_evaluation_terms(
        weights, title="Score privately", purpose="a test", dataset="chest-xray", runs=1,
        epsilon=4.0, bins=10, config={"model": "small_cnn", "split": "test"},
    )  # fmt: skip
    return submitted(sites, private, wanted)


PIXELS = """\
# Tries to look at images where it builds its model.
def build(card, config):
    import torch
    from torch import nn

    class Looking(nn.Module):
        def forward(self, x):
            return x

    return Looking()
"""


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"text": PIXELS}, "model."),
        ({"batch": True}, "model."),
        ({"smaller": True}, "model.parameters"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_a_sentence(
    private: list[Hospital], sites: Federation, weights: dict[str, Any],
    changes: dict[str, Any], rule: str,
) -> None:  # fmt: skip
    text = changes.get("text", JOB.text)
    if "batch" in changes:
        text = text.replace("model.set_submodule(name, nn.GroupNorm(8, layer.num_features))",
                            "model.train()")  # fmt: skip
    if "smaller" in changes:
        text = text.replace("(96, False)", "(88, False)")
    job = federation.Job(text, "private", "build")
    wanted = federation.private_training_terms(
        weights, title="Train privately", purpose="a test", dataset="chest-xray", runs=1,
        epsilon=1.0, sampling_rate=0.25, config={"model": "small_cnn", "learning_rate": 1.0},
    )  # fmt: skip
    study = sites.submit(job, wanted, ["st-marys"])
    private[0].decide(study, "approve")
    config = {"model": "small_cnn", "learning_rate": 1.0}
    with pytest.raises(RefusedError, match=rule.replace(".", r"\.")):
        study.run("st-marys", weights, config, round_number=1)
