"""Attacks on `privacy.mode: update_noise`: code that wants to tell one patient past the noise.

The code is as hostile as it likes. It runs at a real site whose policy lets every text through.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import factories
import federation
from datasites.audit_log import read_events
from datasites.cli import app
from datasites.protection import with_noise
from datasites.records import Records
from federation.errors import RefusedError
from federation.submission import RunUpdate, Study
from hospitals import Hospital, make_hospital, running
from policies.contract import ArrayContract
from policies.privacy.asked import PrivacyAsked
from policies.privacy.mechanisms import Mechanism
from policies.update_rules import Update

NOISE = {"mode": "update_noise", "maximum_epsilon": 8.0, "delta": 1e-5, "clip_norm": 2.0}
MODULES = ["math", "numpy", "time", "os", "json"]
ON_CARD = 120
"""Training images, as the card says."""

TELLS = """\
# Tells by {how} whether the first image is bright.
def train(data, weights, config):
    import math
    import os
    import time

    import numpy as np

    images, labels = data.arrays("train")
    bright = images[0].mean() > 0
    update = {{name: array + 1 for name, array in weights.items()}}
    metrics = {{}}
    examples = len(labels)
    {act}
    return {{"weights": update, "metrics": metrics, "examples": examples}}
"""
WAYS = {
    "an error": 'if bright: raise ValueError("bright")',
    "its end": "if bright: os._exit(3)",
    "memory": "if bright: update = {'w': np.ones(2**33)}",
    "a missing array": "if bright: update = {}",
    "another array": "if bright: update['more'] = np.ones(4, np.float32)",
    "a shape": "if bright: update['w'] = np.ones(5, np.float32)",
    "a type": "if bright: update['w'] = np.ones(4, np.float64)",
    "not a number": "if bright: update['w'] = update['w'] * math.nan",
    "too few images": "if bright: examples = 1",
    "a count of images": "if bright: examples = 4711",
    "a metric": "if bright: metrics = {'loss': 4711.0}",
    "a key": "if bright: return {'weights': update, 'examples': examples, 'bright': 1}",
    "a large number": "if bright: update['w'] = update['w'] * 1e30",
}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running site that adds noise to the update of any code."""
    made = make_hospital(
        tmp_path_factory.mktemp("noisy") / "site",
        example="north-clinic",
        privacy=NOISE,
        runs={"maximum": 1000},
        job={"imports": MODULES, "forbidden_calls": ["never.used"]},
        sandbox={"memory_mb": 512, "time_s": 20, "processes": 16},
    )
    with running([made]):
        yield made


def submit(hospital: Hospital, text: str, epsilon: float, runs: int = 1, **more: Any) -> Study:
    return hospital.submit(
        hospital.connect(), text, runs=runs, contract=factories.contract(metrics=()),
        privacy=PrivacyAsked(epsilon=epsilon), **more,
    )  # fmt: skip


def noise_of(hospital: Hospital, epsilon: float, runs: int = 1) -> float:
    """Standard deviation of the noise in each number."""
    rule = hospital.trial.site.policy().privacy
    return PrivacyAsked(epsilon=epsilon).mechanism(runs, rule).noise_multiplier * 2 * 2.0


def events(hospital: Hospital, study: Study) -> list[dict[str, Any]]:
    subject = f"R-{study.requests[hospital.trial.name]}/"
    return [e for e in read_events(hospital.trial.site.audit) if e["run"].startswith(subject)]


@pytest.mark.parametrize("how", WAYS)
def test_how_a_run_ends_tells_nothing(noisy: Hospital, how: str) -> None:
    text = TELLS.format(how=how, act=WAYS[how])
    study = submit(noisy, text, 0.2)
    update = noisy.run(study)
    assert set(update.weights) == {"w"}
    assert (update.weights["w"].shape, update.weights["w"].dtype.name) == ((4,), "float32")
    assert (update.metrics, update.counts, update.examples) == ({}, {}, ON_CARD)
    started, released = events(noisy, study)
    assert released["event"] == "update released"
    assert released["detail"]["examples"] == ON_CARD
    assert set(released["detail"]) == {"bytes", "arrays", "metrics", "examples"}
    assert started["detail"]["privacy"]["noise_multiplier"] > 1


def test_the_update_is_the_clipped_change_and_noise(noisy: Hospital) -> None:
    """Eight runs of one study: their mean comes as near to the change as the noise lets it."""
    study = submit(noisy, TELLS.format(how="nothing", act=""), 1.5, 8)
    deviation = noise_of(noisy, 1.5, 8)
    updates = [noisy.run(study, round_number=number).weights["w"] for number in range(1, 9)]
    changes = np.array(updates) - factories.weights()["w"]
    np.testing.assert_allclose(changes.mean(0), 1.0, atol=6 * deviation / np.sqrt(8))
    assert 0.4 * deviation < changes.std() < 1.8 * deviation
    costs = study.privacy().iloc[0]
    assert costs["protection"] == "update_noise"
    assert 1.45 < costs["spent by this study"] <= 1.5
    assert costs["spent by everyone"] > costs["spent by this study"]
    assert "update_noise" in study.privacy()._repr_html_()


def test_rounds_and_their_history_go_on_as_without_noise(noisy: Hospital) -> None:
    study = submit(noisy, factories.DOUBLE_JOB, 0.3, 2)
    result = federation.run_rounds(
        study, factories.weights(), {"rate": 0.5}, rounds=2, progress=False
    )
    assert [(r.state, r.examples) for r in result.history] == [("contributed", ON_CARD)] * 2
    assert np.isfinite(result.weights["w"]).all()


def test_the_same_run_again_is_the_same_update_and_costs_nothing(noisy: Hospital) -> None:
    study = submit(noisy, factories.DOUBLE_JOB, 0.2)
    first, again = noisy.run(study), noisy.run(study)
    np.testing.assert_array_equal(first.weights["w"], again.weights["w"])
    assert [e["event"] for e in events(noisy, study)].count("run started") == 1


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"privacy": None}, "privacy.epsilon"),
        ({"privacy": PrivacyAsked(epsilon=9)}, "privacy.epsilon"),
        ({"contract": factories.contract()}, "privacy.outputs"),
        ({"privacy": PrivacyAsked(epsilon=8)}, "privacy.budget"),
    ],
)
def test_a_request_past_the_policy_cannot_be_approved(
    noisy: Hospital, changes: dict[str, Any], rule: str
) -> None:
    plain = {
        "runs": 1, "contract": factories.contract(metrics=()), "privacy": PrivacyAsked(epsilon=1)
    }  # fmt: skip
    noisy.run(submit(noisy, factories.DOUBLE_JOB, 0.1))
    study = noisy.submit(
        noisy.connect(), factories.DOUBLE_JOB, approve=False, **{**plain, **changes}
    )
    (request,) = study._own_requests().values()
    assert [f["rule"] for f in request["findings"] if f["severity"] == "refuse"] == [rule]
    with pytest.raises(Exception, match=rule):
        noisy.decide(study, "approve")


def test_the_ledger_outlives_a_killed_site_and_a_lost_record(noisy: Hospital) -> None:
    study = submit(noisy, factories.DOUBLE_JOB, 0.2, 2)
    noisy.run(study)
    noisy.trial.kill()
    site = str(noisy.trial.site.path)
    assert CliRunner().invoke(app, ["privacy", "verify", "--site", site]).exit_code == 0
    records = Records(noisy.trial.site.database_url)
    with records.write() as session:
        session.connection().exec_driver_sql("DELETE FROM privacy_charges")
    records.close()
    broken = CliRunner().invoke(app, ["privacy", "verify", "--site", site])
    assert broken.exit_code == 3
    assert "NOT IN THE RECORDS" in broken.output
    noisy.trial.launch()
    noisy.trial.wait_until_up()
    found = CliRunner().invoke(app, ["privacy", "verify", "--site", site, "--json"])
    assert json.loads(found.output)["holds"]
    again = noisy.connect().study(study.job, study.wanted, study.requests)
    noisy.run(again, round_number=2)


def test_the_cap_ends_the_runs_of_approvals_that_stand(noisy: Hospital) -> None:
    """Two approvals that fit one by one do not fit together: the ledger says so at the run."""
    shown = CliRunner().invoke(
        app, ["privacy", "show", "--site", str(noisy.trial.site.path), "--json"]
    )
    (told,) = json.loads(shown.output)["datasets"]
    share = 0.95 * told["left"]
    first, second = (submit(noisy, factories.DOUBLE_JOB, share) for _ in range(2))
    noisy.run(first)
    with pytest.raises(RefusedError, match=r"(?s)privacy\.budget.*is left"):
        noisy.run(second)


def test_when_an_update_is_given_out_tells_nothing(noisy: Hospital) -> None:
    """With `release_after_s`, quick, slow and endless runs take equally long."""
    policy = factories.policy(
        privacy={**NOISE, "maximum_epsilon": 30.0, "release_after_s": 3},
        job={"imports": MODULES, "forbidden_calls": ["never.used"]}, version=2,
    )  # fmt: skip
    noisy.trial.adopt_policy(json.dumps(policy.model_dump(mode="json")), "time tells, too")
    seconds = []
    for act in ("", "time.sleep(1)", "if bright: time.sleep(60)"):
        study = submit(noisy, TELLS.format(how="time", act=act), 0.3)
        update = timed(noisy, study)
        seconds.append(update[1])
        assert update[0].examples == ON_CARD
    assert min(seconds) >= 3
    assert max(seconds) < 3 + 4  # what is left is the site's own work, whatever the code did


def timed(hospital: Hospital, study: Study) -> tuple[RunUpdate, float]:
    start = time.monotonic()
    update = hospital.run(study)
    return update, time.monotonic() - start


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_the_best_guess_from_an_update_is_as_bad_as_the_guarantee_says(epsilon: float) -> None:
    """Code that returns one end of the ball for one dataset, and the other end for another.

    For every test of one against the other, true positives are at most e^epsilon times false
    positives, plus delta (Kairouz, Oh and Viswanath 2015). The threshold on the projection is the
    most powerful test there is (Neyman and Pearson).
    """
    policy = factories.policy(privacy=NOISE)
    one = PrivacyAsked(epsilon=epsilon).mechanism(1, policy.privacy)
    sent = {"w": np.zeros(4, np.float32)}
    seen = {
        sign: np.array([answer(sign, sent, policy, one) for _ in range(4000)]) for sign in (-1, 1)
    }
    for threshold in np.quantile(seen[-1], [0.5, 0.9, 0.99]):
        false = float(np.mean(seen[-1] > threshold))
        true = float(np.mean(seen[1] > threshold))
        assert true <= np.exp(epsilon) * false + 1e-5 + 5 * np.sqrt(0.25 / 4000)
    assert np.mean(seen[1] > 0) > 0.5 + 0.02 * epsilon  # it is a test, and finds something


def answer(sign: int, sent: dict[str, Any], policy: Any, mechanism: Mechanism) -> float:
    update = Update({"w": np.full(4, sign * 1e9, np.float32)}, {}, 120)
    contract = factories.contract(
        weights={"w": ArrayContract(shape=(4,), dtype="float32")}, metrics=()
    )
    noised = with_noise(update, sent, contract, policy, mechanism, 120)
    return float(noised.weights["w"].sum())
