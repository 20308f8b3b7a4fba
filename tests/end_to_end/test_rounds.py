"""Federated rounds over two real sites: quorum, missing sites, same bits for the same seed.

What happens to a site that does not do its part stands in the table of `federation.rounds`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

import factories
import federation
import slow_aggregation as slow
import terminals
from datasites.trial import roster
from federation.aggregation import FedAdam, FedProx, Median, Scaffold, TrimmedMean
from federation.errors import AbsentSiteWarning, ConnectionLostError, FederationError
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


LATE_JOB = """\
# Adds to the weights; a large site needs seconds for its first round.
def train(data, weights, config):
    import math

    total, labels = 0.0, data.arrays("train")[1]
    if config["round"] == 1 and len(labels) > 100:
        for k in range(int(config["rate"] * 100_000_000)):
            total += math.sqrt(k)
    step = 100 if config["round"] == 1 and len(labels) > 100 else 1
    return {
        "weights": {name: array + step for name, array in weights.items()},
        "metrics": {"loss": 0.5},
        "examples": len(labels),
    }
"""
STOPPED = """
import json, sys
import federation, factories
from federation.job import Job
from federation.terms import Wanted
from policies.contract import Bound

plan = json.loads(sys.stdin.read())
sites = federation.connect(plan["roster"], email="rita@uni.example", password=factories.PASSWORD)
arguments = {"rate": Bound(low=0.0, high=1.0), "round": Bound(low=0, high=9)}
wanted = Wanted("A test", "a test", "chest-xray", 10, arguments, factories.contract())
study = sites.study(Job(plan["text"], "job", "train"), wanted, plan["requests"])
config = {"rate": 0.8, "round": 0}
federation.run_rounds(study, factories.weights(), config, rounds=2, checkpoint=plan["folder"])
"""


def test_ctrl_c_ends_a_round_at_once_with_a_sentence_and_the_rounds_can_go_on(
    two_hospitals, two_sites, tmp_path
):
    arguments = {"rate": Bound(low=0.0, high=1.0), "round": Bound(low=0, high=9)}
    study = submitted(two_hospitals, two_sites, LATE_JOB, arguments=arguments)
    plan = {
        "roster": roster([h.trial for h in two_hospitals]), "text": study.job.text,
        "requests": study.requests, "folder": str(tmp_path),
    }  # fmt: skip
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    child.stdin.write(json.dumps(plan).encode())
    child.stdin.close()
    written, asked = "", False
    with contextlib.suppress(OSError):  # the terminal's end
        while chunk := os.read(terminal, 65536):
            written += chunk.decode()
            if not asked and "North Clinic  sent" in written:
                os.kill(child.pid, signal.SIGINT)
                asked = True
    os.close(terminal)
    assert child.wait(10) == 1
    assert asked, written
    assert "St Mary's  sent" not in written  # nothing of the run is waited for
    rows = [row for row in terminals.screen(written) if row]
    assert rows[0].startswith("rounds:   0%")
    assert rows[1] == (
        f"StoppedError: you stopped in round 1 of 2; what was before is saved in {tmp_path}. Make "
        "the same call again to go on with round 1; a site that has trained for it answers with "
        "the same update, free of charge"
    )
    assert rows[2:] == ["  at <string>, line 14"]
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.8, "round": 0}, rounds=2, checkpoint=tmp_path,
        progress=False,
    )  # fmt: skip
    assert result.is_complete
    assert set(study.status()["runs used"]) == {"2 of 10"}


def test_rounds_that_are_stopped_without_a_checkpoint_go_on_from_the_study(
    two_hospitals, two_sites, monkeypatch
):
    study = answering(
        submitted(two_hospitals, two_sites), monkeypatch,
        st_marys=[1, 2, 3, 4], north_clinic=[3, 4, 5, 6],
    )  # fmt: skip
    answer, stopped_once = study.run, threading.Lock()

    def run(name, weights, config, *, round_number, **asked):
        if round_number == 2:
            if stopped_once.acquire(blocking=False):  # the other site's thread does not press it
                signal.raise_signal(signal.SIGINT)
            time.sleep(60)  # the site is silent; nobody waits for it
        return answer(name, weights, config, round_number=round_number, **asked)

    monkeypatch.setattr(study, "run", run)
    began = time.monotonic()
    with pytest.raises(federation.StoppedError) as stopped:
        federation.run_rounds(
            study, factories.weights(), {"rate": 0.5}, rounds=3, progress=False
        )  # fmt: skip
    assert time.monotonic() - began < 45
    assert "run_rounds(study, study.result, config, rounds=2, first_round=2)" in str(stopped.value)
    assert study.result is stopped.value.result
    monkeypatch.setattr(study, "run", answer)
    result = federation.run_rounds(
        study, study.result, {"rate": 0.5}, rounds=2, first_round=2, progress=False
    )
    assert result.history.frame().index.tolist() == [
        (number, name) for number in (1, 2, 3) for name in ("st-marys", "north-clinic")
    ]
    assert sorted(result.diagnostics) == [1, 2, 3]


def test_a_site_that_is_revoked_in_mid_study_is_missing_from_then_on_and_never_in_silence(
    two_hospitals, two_sites, capsys
):
    study = submitted(two_hospitals, two_sites)

    def after_round(number, _):
        if number == 1:
            two_hospitals[1].decide(study, "revoke", "scanner audit this week")

    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.5}, rounds=3, quorum=1, after_round=after_round
    )
    rows = result.history.frame().xs("north-clinic", level="site")
    assert rows["state"].tolist() == ["contributed", "missing", "missing"]
    assert rows["cause"].tolist() == ["", "revoked", "revoked"]
    assert "scanner audit this week" in rows["reason"].iloc[1]
    assert rows["examples"].tolist() == [60, 0, 0]
    sentence = (
        "Not every site contributed to the 3 rounds: north-clinic is missing in rounds 2, 3 "
        "(revoked)."
    )
    assert result.sentence == sentence
    for shown in (result._repr_html_(), result.history._repr_html_(), repr(result)):
        assert sentence in shown
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == sentence
    assert "North Clinic is missing (revoked)" in said[1]
    assert study.result is result


def test_a_site_without_runs_left_is_missing_as_over_budget(two_hospitals, two_sites):
    study = submitted(two_hospitals, two_sites)
    study.submit("north-clinic", runs=1, follows=None)
    two_hospitals[1].decide(study, "approve")
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.5}, rounds=2, quorum=["st-marys"], progress=False
    )
    rows = result.history.frame().xs("north-clinic", level="site")
    assert rows["cause"].tolist() == ["", "over budget"]
    assert "1 of 1 runs are used" in rows["reason"].iloc[1]
    assert "submit a new request for more runs" in rows["reason"].iloc[1]


def test_a_late_update_is_never_used_and_the_site_joins_again_when_it_is_done(
    two_hospitals, two_sites
):
    study = submitted(
        two_hospitals, two_sites, LATE_JOB,
        arguments={"rate": Bound(low=0.0, high=1.0), "round": Bound(low=0, high=9)},
    )  # fmt: skip
    result = factories.weights()
    for _ in range(8):  # each call goes on from what the one before reached
        result = federation.run_rounds(
            study, result, {"rate": 1.0, "round": 0}, rounds=1, quorum=["north-clinic"],
            round_timeout_s=2, progress=False,
        )  # fmt: skip
        causes = result.history.frame().xs("st-marys", level="site")["cause"].tolist()
        if causes[-1] == "":
            break
    assert causes == ["late"] * (len(causes) - 1) + [""]
    assert len(causes) > 1
    reason = result.history.frame().loc[(1, "st-marys"), "reason"]
    assert reason == (
        "the 2 s of the round were over, and the site was still training; an update that comes now "
        "is not used"
    )
    np.testing.assert_array_equal(result.weights["w"], factories.weights()["w"] + len(causes))


@pytest.mark.parametrize("quorum", [None, 2, ["north-clinic"], ["st-marys", "north-clinic"]])
def test_round_below_the_quorum_is_not_called_a_success(two_hospitals, two_sites, quorum):
    study = submitted(two_hospitals, two_sites)
    two_hospitals[1].decide(study, "revoke", "scanner audit this week")
    with pytest.raises(BelowQuorumError, match=r"North Clinic: approval\.state: R-") as below:
        federation.run_rounds(
            study, factories.weights(), {"rate": 0.5}, rounds=2, quorum=quorum, progress=False
        )
    np.testing.assert_array_equal(below.value.result.weights["w"], factories.weights()["w"])


LATER = """\
import datetime

real = datetime.datetime


class Later(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(days=31)


datetime.datetime = Later
"""


def test_a_site_is_missing_while_it_is_silent_and_when_it_returns_with_an_approval_that_ran_out(
    two_hospitals, two_sites, tmp_path, monkeypatch
):
    """North Clinic's clock is 31 days ahead when it comes back."""
    study = submitted(two_hospitals, two_sites)
    north = two_hospitals[1].trial
    (tmp_path / "sitecustomize.py").write_text(LATER)

    def return_later(number, _):
        if number == 2:
            paths = [str(tmp_path), *filter(None, sys.path)]
            monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
            north.launch()
            north.wait_until_up()

    north.stop()
    try:
        began = time.monotonic()
        result = federation.run_rounds(
            study, factories.weights(), {"rate": 0.5}, rounds=3, quorum=["st-marys"], patience_s=2,
            after_round=return_later, progress=False,
        )  # fmt: skip
        seconds = result.history.frame()["seconds"].xs("north-clinic", level="site")
        assert seconds[1] >= 2 > seconds[2]  # who was silent is asked once in the next round
        assert time.monotonic() - began < 60
    finally:
        monkeypatch.undo()
        north.launch()
        north.wait_until_up()
    rows = result.history.frame().xs("north-clinic", level="site")
    assert rows["cause"].tolist() == ["no answer", "no answer", "expired"]
    assert "does not answer; try again, and ask the hospital" in rows["reason"].iloc[0]
    assert "is expired: the approval ended on" in rows["reason"].iloc[2]
    assert "To do: read the reason, and submit again" in rows["reason"].iloc[2]


def test_what_was_asked_for_and_cannot_be_is_refused_before_a_run(two_hospitals, two_sites):
    study = submitted(two_hospitals, two_sites)
    good = {"weights": factories.weights(), "config": {"rate": 0.5}, "rounds": 1}
    for changes, words in (
        ({"rounds": 0}, "rounds=0 cannot be; give a whole number of at least 1"),
        ({"quorum": 3}, "quorum=3 cannot be: there are 2 sites .* number from 1 to 2"),
        ({"quorum": 0}, "quorum=0 cannot be"),
        ({"quorum": []}, "the quorum is an empty list; name the sites"),
        ({"quorum": "st-marys"}, r"neither a number of sites nor a list .* quorum=\['st-marys'\]"),
        ({"quorum": ["st-marys", "seaside"]}, "the quorum names seaside, and the sites"),
        ({"round_timeout_s": 0}, "round_timeout_s=0 cannot be"),
        ({"weights": [0.0] * 4}, "the weights are a list, and must be a dictionary: name -> array"),
        ({"weights": {}}, "there are no weights; give those of a training, or draw"),
        ({"weights": {"w": [0.0] * 4}}, "the weight `w` is a list, and weights are NumPy arrays"),
        ({"weights": {"w": np.full(4, np.nan, np.float32)}}, "`w` has numbers that are not finite"),
        ({"weights": {"w": np.zeros(5, np.float32)}},
         r"`w` is float32 \(5,\) \(allowed: float32 \(4,\)\). Send the approved model, or ask"),
        ({"weights": {"v": np.zeros(4, np.float32)}}, "sent and not declared: v"),
        ({"config": {"rate": 2.0}},
         r"`rate` = 2.0 \(allowed: 0.0 to 1.0\). Stay within the approved range"),
        ({"config": {}}, "`rate` is missing"),
        ({"config": {"rate": 0.5, "speed": 1}}, "argument `speed`"),
        ({"config": {"rate": np.float32(0.5)}}, "a float32; give a plain number or text"),
        ({"evaluation": study}, r"write evaluation=\(study, config\)"),
    ):  # fmt: skip
        with pytest.raises(FederationError, match=words):
            federation.run_rounds(study, **{**good, **changes}, progress=False)
    assert set(study.status()["runs used"]) == {"0 of 10"}


def test_a_job_that_names_a_module_that_the_site_lacks_says_so(two_hospitals, two_sites):
    text = LEARN_JOB.replace("import numpy as np", "import monai\n    import numpy as np")
    study = submitted(two_hospitals, two_sites, text)
    with pytest.raises(BelowQuorumError) as below:
        federation.run_rounds(
            study, factories.weights(), {"rate": 0.5}, rounds=1, progress=False
        )  # fmt: skip
    told = str(below.value)
    assert "run.failed: run R-" in told
    assert "ended with ModuleNotFoundError" in told
    assert "To do: import only modules that the site has installed" in told


def test_sites_whose_data_differ_are_found_before_anything_is_submitted(two_hospitals):
    rng = np.random.default_rng(0)

    def publish(hospital, name, size, classes, labels):
        images = rng.integers(0, 256, (40, size, size), dtype=np.uint8)
        splits = {split: (images, np.int64(labels)) for split in ("train", "test")}
        hospital.trial.write_dataset(splits, name=name, classes=classes)
        hospital.trial.control.publish()

    halves, zeros, two = [0, 1] * 20, [0] * 40, ("normal", "pneumonia")
    for hospital, size, classes in zip(
        two_hospitals, (8, 16), (two, ("normal", "effusion")), strict=True
    ):
        publish(hospital, "shapes", size, two, halves)
        publish(hospital, "classes", 8, classes, halves)
        publish(hospital, "one-class", 8, two, zeros)
    sites = federation.connect(
        roster([h.trial for h in two_hospitals]), email="rita@uni.example",
        password=factories.PASSWORD,
    )  # fmt: skip
    for dataset, words in (
        ("shapes", "St Mary's has images of 8 x 8; North Clinic has images of 16 x 16. Ask the"),
        ("classes", "the classes normal, pneumonia; North Clinic has the classes normal, effusion"),
        ("one-class", "needs images of at least two classes .* only `normal` .*submit to a site"),
        ("none", "St Mary's has no dataset `none`; it publishes: chest-xray"),
    ):
        with pytest.raises(FederationError, match=words):
            two_hospitals[0].submit(sites, LEARN_JOB, approve=False, dataset=dataset)
    requests = [json.loads(site.call("sitegate.requests")) for site in sites]
    assert not [r for listed in requests for r in listed if r.get("dataset") in ("shapes", "none")]


def test_the_jobs_of_the_repository_train_and_evaluate_at_real_sites(
    two_hospitals, two_sites, tmp_path
):
    job = read_job(JOBS / "train_classifier.py")
    card = two_sites["st-marys"].dataset("chest-xray").card
    weights = job.call("initial_weights", card, {"seed": 0})
    config = {"learning_rate": 0.05, "batch_size": 32, "augmentation": 0.5, "epochs": 1}
    terms = federation.training_terms(
        weights, title="train", purpose="a test", dataset="chest-xray", runs=5,
        config={**config, "seed": 0, "round": (0, 5)},
    )  # fmt: skip
    study = two_sites.submit(job, terms)
    evaluate = read_job(JOBS / "evaluate_classifier.py")
    check = two_sites.submit(
        evaluate,
        federation.evaluation_terms(
            weights, title="evaluate", purpose="a test", dataset="chest-xray", runs=5, classes=2,
            bins=240, config={"split": "test", "minimum_count": 5},
        ),
    )  # fmt: skip
    for hospital in two_hospitals:
        hospital.decide(study, "approve")
        hospital.decide(check, "approve")
    judge = {"split": "test", "minimum_count": 5, "bins": 240}
    asked = {"config": {**config, "seed": 0, "round": 0}, "evaluation": (check, judge)}
    result = federation.run_rounds(
        study, weights, rounds=2, checkpoint=tmp_path, progress=False, **asked
    )
    assert result.weights_sha256 != federation.RoundsResult(weights).weights_sha256
    measured = federation.evaluate(check, result.weights, judge, round_number=9)
    frame = result.auc_frame()
    assert frame.index.tolist() == [1, 2]
    assert set(frame.columns) == {"st-marys", "north-clinic", "all"}
    assert frame.loc[2, "all"] == measured.overall.auc.value
    for changes, words in (
        ({"config": {**judge, "split": "val"}}, r"`split` = val \(allowed: exactly test\)"),
        ({"weights": {**result.weights, "more": np.zeros(1)}}, "sent and not declared: more"),
        ({"weights": list(result.weights)}, "the weights are a list, and must be a dictionary"),
    ):
        with pytest.raises(FederationError, match=words):
            federation.evaluate(check, **{"weights": result.weights, "config": judge, **changes})
    with pytest.raises(
        FederationError, match=r"rounds 1 to 99 cannot be: .* asked for `round` 0 to"
    ):
        federation.run_rounds(study, weights, rounds=99, progress=False, **asked)
    two_hospitals[1].decide(check, "revoke", "enough for now")
    result = federation.run_rounds(
        study, weights, rounds=3, checkpoint=tmp_path, progress=False, **asked
    )
    assert result.auc_frame()["all"].isna().tolist() == [False, False, True]
    assert not result.is_complete
    assert "The AUC was not measured after round 3 (North Clinic refused:" in result.sentence
    assert measured.overall.images == 120
    assert 0.3 < measured.overall.auc.value < 0.7  # the images are noise


def test_a_site_that_is_down_when_you_connect_joins_when_it_answers(
    two_hospitals, two_sites, tmp_path
):
    saved = submitted(two_hospitals, two_sites).save(tmp_path / "study.json")
    north = two_hospitals[1].trial
    known = roster([h.trial for h in reversed(two_hospitals)])
    account = {"email": "rita@uni.example", "password": factories.PASSWORD}
    asked = {"config": {"rate": 0.5}, "rounds": 1, "quorum": 1, "progress": False}
    north.stop()
    try:
        with pytest.raises(ConnectionLostError, match=r"north-clinic at .* does not answer"):
            federation.connect(known, **account)
        with pytest.raises(ConnectionLostError, match=r"north-clinic at .* does not answer"):
            federation.connect(known, quorum=["north-clinic"], **account)
        with pytest.raises(FederationError, match="quorum=3 cannot be: there are 2 sites"):
            federation.connect(known, quorum=3, **account)
        with pytest.raises(FederationError, match=r"st-marys did not log rita@uni.example in"):
            federation.connect(known, quorum=1, email="rita@uni.example", password="wrong")
        with pytest.warns(AbsentSiteWarning, match=r"north-clinic at .* logged in to when it"):
            sites = federation.connect(known, quorum=1, **account)
        assert [site.name for site in sites.absent] == ["north-clinic"]
        absent_row = sites.datasets()._repr_html_().split("north-clinic")[1]
        assert "✕ does not answer" in absent_row
        assert "suppressed" not in absent_row
        assert "✕ cannot be used now" in sites._repr_html_()
        study = sites.saved_study(saved)
        with pytest.raises(ConnectionLostError, match="north-clinic"):
            sites.submit(study.job, study.wanted)
        result = federation.run_rounds(study, factories.weights(), patience_s=0, **asked)
        assert result.history.frame().loc[(1, "north-clinic"), "cause"] == "no answer"
        assert "North" not in sites["north-clinic"].title
        written = federation.report(study, result, folder=tmp_path)
        assert "the site did not answer when this was written" in written.html.read_text()
    finally:
        north.launch()
        north.wait_until_up()
    result = federation.run_rounds(study, result, **asked)
    assert list(result.history.frame().loc[2, "state"]) == ["contributed", "contributed"]
    assert sites.absent == []
    assert sites["north-clinic"].title == "North Clinic"
    assert "✕" not in sites._repr_html_() + sites.datasets().to_string()
