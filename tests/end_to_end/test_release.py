"""The release gate at real sites: a model that knows its members by heart stays, another leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import factories
import federation
from datasites.trial import roster
from federation.job import LocalData, read_job
from federation.leakage import ATTACKS
from hospitals import JOBS, Hospital, all_arguments, make_hospital, running
from policies.arrays import Arrays, arrays_sha256

TEST: dict[str, Any] = {
    "shadows": 2, "epochs": 2, "learning_rate": 0.05, "momentum": 0.9, "batch_size": 32, "seed": 0,
    "minimum_count": 5,
}  # fmt: skip
LENIENT = {"maximum_tpr_at_0_1_percent": 0.4, "maximum_tpr_at_1_percent": 0.4}
STRICT = {**LENIENT, "maximum_parameters_per_patient": 100}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    """One hospital that allows any size of model, and one that allows small ones only."""
    folder = tmp_path_factory.mktemp("release")
    made = [
        make_hospital(
            folder / name, example=name, arguments=all_arguments(), release=rule,
            update={"maximum_mb": 20},
            job={"imports": ["math", "numpy", "torch", "torchvision.models"]},
        )
        for name, rule in (("st-marys", LENIENT), ("north-clinic", STRICT))
    ]  # fmt: skip
    with running(made):
        yield made


def learned_by_heart(card: dict[str, Any], start: Arrays) -> Arrays:
    """A model trained on the members, whose labels follow from nothing, until it knows each."""
    images, labels = factories.splits()["train"]
    data = LocalData({"images": images, "labels": labels}, card)
    job: dict[str, Any] = {}
    exec(compile((JOBS / "train_classifier.py").read_text(), "job", "exec"), job)
    config = {"optimizer": "adam", "learning_rate": 0.003, "epochs": 40}
    weights: Arrays = job["train"](data, start, config)["weights"]
    return weights


def test_a_model_that_knows_its_members_by_heart_is_not_released(two: list[Hospital]) -> None:
    sites = federation.connect(
        roster([h.trial for h in two]), email="rita@uni.example", password=factories.PASSWORD
    )
    card = sites["st-marys"].dataset("chest-xray").card
    start = read_job(JOBS / "train_classifier.py").call("initial_weights", card, {"seed": 0})
    study = sites.submit(
        read_job(JOBS / "test_leakage.py"),
        federation.leakage_terms(
            start, title="test for leakage", purpose="a test", dataset="chest-xray", runs=3,
            config=TEST,
        ),
    )  # fmt: skip
    waiting = federation.release(study, start, start, TEST, sites=["st-marys"])
    assert not waiting.released
    assert "its policy requires the test, and it was not made" in waiting.reasons[0]
    for hospital in two:
        hospital.decide(study, "approve")

    known = learned_by_heart(card, start)
    leaky = federation.release(study, known, start, TEST, round_number=2)
    for name in ("st-marys", "north-clinic"):
        found = leaky.sites[name].leakage
        assert found is not None
        point = found.at("loss threshold", 0.01)
        assert point.tpr.low > 4 * point.fpr.value
    assert not leaky.released
    assert leaky.weights_sha256 == arrays_sha256(known)
    assert any("finds" in r and "60 hold-outs cannot resolve" in r for r in leaky.reasons)
    with pytest.raises(federation.NotReleasedError, match="Not released"):
        leaky.require()

    fresh = federation.release(study, start, start, TEST, round_number=3)
    assert fresh.sites["st-marys"].reasons == ()
    (reason,) = fresh.reasons  # the other hospital's limit on the size of the model
    assert "parameters per image, and at most 100 are allowed" in reason
    for attack in ATTACKS:
        found = fresh.sites["st-marys"].leakage
        assert found is not None
        cells = found.table[found.table > 0]
        assert np.all(cells >= 5)
        assert found.at(attack, 0.01).tpr.high <= 0.4
    alone = federation.release(study, start, start, TEST, round_number=3, sites=["st-marys"])
    assert alone.released
    assert "Released: the leakage test was made at 1 of 1 sites" in alone.sentence
    alone.require()
    assert alone.frame().loc[sites["st-marys"].title, "members"] == 120
    assert alone.figure().axes
