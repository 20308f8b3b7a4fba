"""Federated rounds over two real sites: quorum, missing sites, same bits for the same seed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import factories
import federation
from datasites.trial import roster
from federation.errors import FederationError
from federation.job import read_job
from federation.rounds import BelowQuorumError
from hospitals import JOBS
from policies.contract import Bound

SHARES = {"st-marys": 120, "north-clinic": 60}
LEARN_JOB = """\
# Moves the weights towards the mean image of the site.
def train(data, weights, config):
    import numpy as np

    images, labels = data.arrays("train")
    target = np.float32(images[:, :2, :2].mean(0).reshape(4) / 255)
    moved = weights["w"] + np.float32(config["rate"]) * (target - weights["w"])
    loss = float(np.square(target - weights["w"]).mean())
    return {"weights": {"w": moved}, "metrics": {"loss": loss}, "examples": len(labels)}
"""


@pytest.fixture(scope="module")
def two_sites(two_hospitals):
    return federation.connect(
        roster([h.trial for h in two_hospitals]),
        email="rita@uni.example",
        password=factories.PASSWORD,
    )


def submitted(two_hospitals, two_sites, runs=10):
    study = two_hospitals[0].submit(
        two_sites,
        LEARN_JOB,
        approve=False,
        runs=runs,
        arguments={"rate": Bound(low=0.0, high=1.0)},
    )
    for hospital in two_hospitals:
        hospital.decide(study, "approve")
    return study


def test_rounds_average_by_examples_and_the_history_says_who_gave_how_many(
    two_hospitals, two_sites
):
    study = submitted(two_hospitals, two_sites)
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.5}, rounds=3, progress=False
    )
    frame = result.history.frame()
    assert len(frame) == 6
    assert frame["examples"].groupby("site").unique().map(list).to_dict() == {
        name: [count] for name, count in SHARES.items()
    }
    targets = [factories.splits(train=n)["train"][0][:, :2, :2].mean(0).reshape(4) / 255
               for n in SHARES.values()]  # fmt: skip
    expected = factories.weights()["w"].astype(np.float64)
    for _ in range(3):
        moved = [expected + 0.5 * (target - expected) for target in targets]
        expected = (moved[0] * 120 + moved[1] * 60) / 180
    np.testing.assert_allclose(result.weights["w"], expected, rtol=1e-5)


def test_two_runs_from_one_start_give_the_same_bits(two_hospitals, two_sites):
    digests = set()
    for _ in range(2):
        study = submitted(two_hospitals, two_sites)
        result = federation.run_rounds(
            study, factories.weights(), {"rate": 0.3}, rounds=3, progress=False
        )
        digests.add(result.weights_sha256)
    assert len(digests) == 1


KERNEL = """
import json, os, signal, sys, time
import federation
from federation.job import Job
from federation.terms import Wanted
import factories
from policies.contract import Bound

plan = json.loads(sys.stdin.read())
sites = federation.connect(
    plan["roster"], email="rita@uni.example", password=factories.PASSWORD
)
job = Job(plan["text"], "job", "train")
wanted = Wanted("A test", "a test", "chest-xray", 10, {"rate": Bound(low=0.0, high=1.0)},
                factories.contract())
study = sites.study(job, wanted, plan["requests"])

def after_round(number, result):
    if number == plan["dies_after"]:
        os.kill(os.getpid(), signal.SIGKILL)

federation.run_rounds(study, factories.weights(), {"rate": 0.25}, rounds=4, progress=False,
                      checkpoint=plan["folder"], after_round=after_round)
"""


def test_a_killed_kernel_goes_on_and_ends_with_the_same_weights(two_hospitals, two_sites, tmp_path):
    undisturbed = federation.run_rounds(
        submitted(two_hospitals, two_sites), factories.weights(), {"rate": 0.25}, rounds=4,
        progress=False,
    )  # fmt: skip
    study = submitted(two_hospitals, two_sites)
    plan = {
        "roster": roster([h.trial for h in two_hospitals]), "text": study.job.text,
        "requests": study.requests, "folder": str(tmp_path), "dies_after": 2,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KERNEL],
        input=json.dumps(plan), text=True, env=environment, capture_output=True, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # Round 3 was under way too: one of the sites has trained, and nobody has its update.
    after = load_file(tmp_path / "round-00002.safetensors")
    study.run("st-marys", after, {"rate": 0.25}, round_number=3)
    resumed = two_sites.resume(tmp_path, study.job, study.wanted)
    result = federation.run_rounds(
        resumed, factories.weights(), {"rate": 0.25}, rounds=4, progress=False, checkpoint=tmp_path
    )
    assert result.weights_sha256 == undisturbed.weights_sha256
    frame = result.history.frame()
    assert frame.index.tolist() == undisturbed.history.frame().index.tolist()
    assert set(resumed.status()["runs used"]) == {"4 of 10"}
    again = federation.run_rounds(
        resumed, factories.weights(), {"rate": 0.25}, rounds=4, progress=False, checkpoint=tmp_path
    )
    assert again.weights_sha256 == undisturbed.weights_sha256
    with pytest.raises(FederationError, match="has rounds up to 4, and rounds up to 3 were asked"):
        federation.run_rounds(
            resumed, factories.weights(), {"rate": 0.25}, rounds=3, checkpoint=tmp_path
        )


def test_round_goes_on_without_a_refusing_site_while_the_quorum_holds(two_hospitals, two_sites):
    study = submitted(two_hospitals, two_sites)
    two_hospitals[1].decide(study, "revoke", "scanner audit this week")
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.5}, rounds=2, quorum=1, progress=False
    )
    missing = result.history.frame().xs("north-clinic", level="site")
    assert missing["state"].tolist() == ["missing", "missing"]
    assert "scanner audit this week" in missing["reason"].iloc[0]
    assert missing["examples"].tolist() == [0, 0]


@pytest.mark.parametrize("quorum", [None, 2, ["north-clinic"], ["st-marys", "north-clinic"]])
def test_round_below_the_quorum_is_not_called_a_success(two_hospitals, two_sites, quorum):
    study = submitted(two_hospitals, two_sites)
    two_hospitals[1].decide(study, "revoke", "scanner audit this week")
    with pytest.raises(BelowQuorumError, match="North Clinic refused") as below:
        federation.run_rounds(
            study, factories.weights(), {"rate": 0.5}, rounds=2, quorum=quorum, progress=False
        )
    np.testing.assert_array_equal(below.value.result.weights["w"], factories.weights()["w"])


def test_a_site_that_does_not_answer_is_named_after_its_patience_is_over(two_hospitals, two_sites):
    study = submitted(two_hospitals, two_sites)
    two_hospitals[1].trial.stop()
    try:
        result = federation.run_rounds(
            study,
            factories.weights(),
            {"rate": 0.5},
            rounds=1,
            quorum=["st-marys"],
            patience_s=2,
            progress=False,
        )
    finally:
        two_hospitals[1].trial.launch()
        two_hospitals[1].trial.wait_until_up()
    reason = result.history.frame().loc[(1, "north-clinic"), "reason"]
    assert "does not answer" in reason


def test_the_jobs_of_the_repository_train_and_evaluate_at_real_sites(two_hospitals, two_sites):
    job = read_job(JOBS / "train_classifier.py")
    card = two_sites["st-marys"].dataset("chest-xray").card
    weights = job.call("initial_weights", card, 0)
    config = {"learning_rate": 0.05, "momentum": 0.9, "batch_size": 32, "shift": 1, "epochs": 1}
    terms = federation.training_terms(
        weights, title="train", purpose="a test", dataset="chest-xray", runs=5,
        config={**config, "seed": 0, "round": (0, 5)},
    )  # fmt: skip
    study = two_sites.submit(job, terms)
    evaluate = read_job(JOBS / "evaluate_classifier.py")
    check = two_sites.submit(
        evaluate,
        federation.evaluation_terms(
            weights, title="evaluate", purpose="a test", dataset="chest-xray", runs=2, classes=2,
            bins=240, config={"split": "test", "minimum_count": 5},
        ),
    )  # fmt: skip
    for hospital in two_hospitals:
        hospital.decide(study, "approve")
        hospital.decide(check, "approve")
    result = federation.run_rounds(
        study, weights, {**config, "seed": 0, "round": 0}, rounds=2, progress=False
    )
    assert result.weights_sha256 != federation.RoundsResult(weights).weights_sha256
    measured = federation.evaluate(
        check, result.weights, {"split": "test", "minimum_count": 5, "bins": 240}
    )
    assert measured.overall.images == 120
    assert 0.3 < measured.overall.auc < 0.7  # the images are noise
