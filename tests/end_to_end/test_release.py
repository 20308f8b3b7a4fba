"""The release gate at real sites: a model that knows its members by heart stays, another leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import factories
import federation
from federation.job import LocalData, read_job
from federation.leakage import ATTACKS
from hospitals import JOBS, Hospital, all_arguments, make_hospital, running
from policies.arrays import Arrays, arrays_sha256

TEST: dict[str, Any] = {
    "shadows": 2, "epochs": 1, "learning_rate": 0.05, "momentum": 0.9, "batch_size": 32, "seed": 0,
    "minimum_count": 5,
}  # fmt: skip
LENIENT = {"maximum_tpr_at_0_1_percent": 0.4, "maximum_tpr_at_1_percent": 0.4}


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A hospital whose limits 60 hold-outs can show to hold."""
    made = make_hospital(
        tmp_path_factory.mktemp("release") / "site",
        arguments=all_arguments(),
        release=LENIENT,
        update={"maximum_mb": 20},
        job={"imports": ["math", "numpy", "torch", "torchvision.models"]},
    )
    with running([made]):
        yield made


def learned_by_heart(card: dict[str, Any], start: Arrays) -> Arrays:
    """A model trained on the members, whose labels follow from nothing, until it knows each."""
    images, labels = factories.splits()["train"]
    data = LocalData({"images": images, "labels": labels}, card)
    job: dict[str, Any] = {}
    exec(compile((JOBS / "train_classifier.py").read_text(), "job", "exec"), job)
    config = {"optimizer": "adam", "learning_rate": 0.005, "epochs": 30, "batch_size": 16}
    weights: Arrays = job["train"](data, start, config)["weights"]
    return weights


def test_a_model_that_knows_its_members_by_heart_is_not_released(gated: Hospital) -> None:
    sites = gated.connect()
    site = sites["st-marys"]
    card = site.dataset("chest-xray").card
    start = read_job(JOBS / "train_classifier.py").call("initial_weights", card, {"seed": 0})
    study = sites.submit(
        read_job(JOBS / "test_leakage.py"),
        federation.leakage_terms(
            start, title="test for leakage", purpose="a test", dataset="chest-xray", runs=3,
            config=TEST,
        ),
    )  # fmt: skip
    waiting = federation.release(study, start, start, TEST)
    assert not waiting.released
    assert "its policy requires the test, and it was not made" in waiting.reasons[0]
    gated.decide(study, "approve")

    known = learned_by_heart(card, start)
    leaky = federation.release(study, known, start, TEST, round_number=2)
    found = leaky.sites["st-marys"].leakage
    assert found is not None
    point = found.at("loss threshold", 0.01)
    assert point.tpr.low > 3 * point.fpr.value
    assert found.member_loss < 0.1 < found.hold_out_loss
    assert not leaky.released
    assert leaky.weights_sha256 == arrays_sha256(known)
    assert any("finds" in r and "60 hold-outs cannot resolve" in r for r in leaky.reasons)
    with pytest.raises(federation.NotReleasedError, match="Not released"):
        leaky.require()

    fresh = federation.release(study, start, start, TEST, round_number=3)
    assert fresh.reasons == []
    assert "Released: the leakage test was made at 1 of 1 sites" in fresh.sentence
    fresh.require()
    found = fresh.sites["st-marys"].leakage
    assert found is not None
    assert np.all(found.table[found.table > 0] >= 5)
    assert all(found.at(attack, 0.01).tpr.high <= 0.4 for attack in ATTACKS)
    assert fresh.frame().loc[site.title, "members"] == 120
    assert fresh.figure().axes
