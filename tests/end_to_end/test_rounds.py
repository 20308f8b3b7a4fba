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
import slow_aggregation as slow
from datasites.trial import roster
from federation.aggregation import FedAdam, FedProx, Median, Scaffold, TrimmedMean
from federation.errors import FederationError
from federation.job import read_job
from federation.rounds import BelowQuorumError
from federation.submission import RunUpdate
from hospitals import JOBS
from policies.contract import ArrayContract, Bound
from slow_aggregation import Slow

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


SCAFFOLD_JOB = """\
# Gradient descent on half the squared distance to the mean image of the site, with corrections.
def train(data, weights, config):
    import numpy as np

    images, labels = data.arrays("train")
    target = np.float32(images[:, :2, :2].mean(0).reshape(4) / 255)
    w, steps = weights["w"], len(labels) // 20
    for _ in range(steps):
        w = w - np.float32(config["learning_rate"]) * (w - target + weights["correction.w"])
    loss = float(np.square(target - weights["w"]).mean())
    metrics = {"loss": loss, "steps": float(steps)}
    return {"weights": {"w": w}, "metrics": metrics, "examples": len(labels)}
"""


def submitted(two_hospitals, two_sites, text=LEARN_JOB, **changes):
    changes = {"arguments": {"rate": Bound(low=0.0, high=1.0)}, **changes}
    study = two_hospitals[0].submit(two_sites, text, approve=False, **changes)
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


def targets():
    """Site -> where its job takes the weights."""
    images = {name: factories.splits(train=n)["train"][0] for name, n in SHARES.items()}
    return {n: np.float32(i[:, :2, :2].mean(0).reshape(4) / 255) for n, i in images.items()}


def test_another_algorithm_makes_its_own_step_and_goes_on_from_a_checkpoint(
    two_hospitals, two_sites, tmp_path
):
    study = submitted(two_hospitals, two_sites)
    algorithm = FedAdam(rate=0.1, beta_1=0.5, beta_2=0.9, tau=0.01)
    asked = {"config": {"rate": 0.25}, "algorithm": algorithm, "progress": False}
    undisturbed = federation.run_rounds(study, factories.weights(), rounds=2, **asked)

    start = [float(x) for x in factories.weights()["w"]]
    x, rounds = start, []
    for _ in range(2):
        rounds.append([
            Slow([w + 0.25 * (float(t) - w) for w, t in zip(x, target, strict=True)], SHARES[name])
            for name, target in targets().items()
        ])  # fmt: skip
        x = slow.adaptive("FedAdam", start, rounds, 0.1, 0.5, 0.9, 0.01)
    np.testing.assert_allclose(undisturbed.weights["w"], x, rtol=1e-5)
    assert sorted(undisturbed.diagnostics) == [1, 2]
    assert set(undisturbed.diagnostics[2].site_norms) == set(SHARES)

    study = submitted(two_hospitals, two_sites)
    first = federation.run_rounds(
        study, factories.weights(), rounds=1, checkpoint=tmp_path, **asked
    )
    assert first.weights_sha256 != undisturbed.weights_sha256
    resumed = two_sites.resume(tmp_path, study.job, study.wanted)
    result = federation.run_rounds(
        resumed, factories.weights(), rounds=2, checkpoint=tmp_path, **asked
    )
    assert result.weights_sha256 == undisturbed.weights_sha256
    for name in ("momentum", "second moment"):
        np.testing.assert_array_equal(result.memory[name]["w"], undisturbed.memory[name]["w"])
    assert sorted(result.diagnostics) == [1, 2]
    with pytest.raises(FederationError, match="the algorithm is another"):
        federation.run_rounds(
            resumed, factories.weights(), {"rate": 0.25}, rounds=2, checkpoint=tmp_path
        )


def test_corrections_of_scaffold_reach_the_sites_and_do_not_leave_them(two_hospitals, two_sites):
    """120 images are 6 local steps and 60 are 3; sites count alike."""
    array = ArrayContract(shape=(4,), dtype="float32")
    study = submitted(
        two_hospitals, two_sites, SCAFFOLD_JOB,
        arguments={"learning_rate": Bound(value=0.1)},
        contract=factories.contract(
            inputs={"w": array, "correction.w": array}, metrics=("loss", "steps")
        ),
    )  # fmt: skip
    algorithm = Scaffold(learning_rate=0.1, sites=dict.fromkeys(study.sites, 1))
    result = federation.run_rounds(
        study, factories.weights(), {"learning_rate": 0.1}, rounds=3, algorithm=algorithm,
        progress=False,
    )  # fmt: skip
    assert result.diagnostics[3].steps == {"st-marys": 6.0, "north-clinic": 3.0}
    x = [float(w) for w in factories.weights()["w"]]
    control, own, rounds = [0.0] * 4, {name: [0.0] * 4 for name in SHARES}, []
    for _ in range(3):
        drawn = {}
        for name, target in targets().items():
            y = list(x)
            for _ in range(SHARES[name] // 20):
                y = [
                    y[k] - 0.1 * (y[k] - float(target[k]) + control[k] - own[name][k])
                    for k in range(4)
                ]
            drawn[name] = Slow(y, SHARES[name], SHARES[name] // 20)
        rounds.append(drawn)
        start = [float(w) for w in factories.weights()["w"]]
        x, control, own = slow.scaffold(start, rounds, dict.fromkeys(SHARES, 1), 0.1, 1.0)
    np.testing.assert_allclose(result.weights["w"], x, rtol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        (TrimmedMean(1), "TrimmedMean needs at least 3 sites, and the study has 2; submit to more"),
        (FedProx(0.1), "`proximal` is 0.1, and `config` says nothing of it; give both the same"),
        (Scaffold(0.1, {"st-marys": 1}), "`learning_rate` is 0.1, and `config` says nothing of it"),
    ],
)
def test_an_algorithm_that_does_not_fit_is_refused_before_a_run(
    two_hospitals, two_sites, algorithm, words
):
    study = submitted(two_hospitals, two_sites)
    with pytest.raises(FederationError, match=words):
        federation.run_rounds(
            study, factories.weights(), {"rate": 0.5}, rounds=1, algorithm=algorithm
        )
    with pytest.raises(FederationError, match="Scaffold was not told of north-clinic"):
        federation.run_rounds(
            study, factories.weights(), {"learning_rate": 0.1}, rounds=1,
            algorithm=Scaffold(0.1, {"st-marys": 1}),
        )  # fmt: skip
    assert set(study.status()["runs used"]) == {"0 of 10"}


class Pair(Median):
    """A median that wants two updates."""

    @property
    def least_updates(self):
        return 2


def answering(study, monkeypatch, **answers):
    """A study whose sites answer as they like: taken over by somebody who obeys no policy."""

    def run(name, weights, config, **_):
        w = np.array(answers[name.replace("-", "_")], np.float32)
        return RunUpdate({"w": w}, {}, {"loss": 0.5}, 100, f"{name}/1")

    monkeypatch.setattr(study, "run", run)
    return study


def test_an_update_that_does_not_fit_is_not_used_and_the_site_is_named(
    two_hospitals, two_sites, monkeypatch
):
    study = answering(
        submitted(two_hospitals, two_sites), monkeypatch,
        st_marys=[1, 2, 3, 4], north_clinic=[1, np.nan, 3, 4],
    )  # fmt: skip
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.5}, rounds=1, quorum=1, progress=False
    )
    assert result.weights["w"].tolist() == [1, 2, 3, 4]
    record = result.history.frame().loc[(1, "north-clinic")]
    assert record["state"] == "missing"
    assert record["reason"] == "its update was not used: `w` has numbers that are not finite"
    for algorithm, quorum, words in (
        (Pair(), 1, "round 1 needs 2 sites for its algorithm, and has st-marys"),
        (Median(), None, "- North Clinic: its update was not used"),
    ):
        with pytest.raises(BelowQuorumError, match=words):
            federation.run_rounds(
                study, factories.weights(), {"rate": 0.5}, rounds=1, quorum=quorum,
                algorithm=algorithm, progress=False,
            )  # fmt: skip


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
