"""One seed gives one model, bit for bit: at any number of sites, and when a site starts again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import factories
import federation
from datasites.new_site import example_policy
from datasites.trial import roster
from federation.job import read_job
from federation.rounds import RoundsResult
from hospitals import JOBS, Hospital, make_hospital, running
from policies.document import load_policy

CONFIG = {"learning_rate": 0.05, "batch_size": 32, "augmentation": 1.0, "epochs": 1}
SHARES = {"st-marys": 120, "north-clinic": 60, "seaside": 90}


@pytest.fixture(scope="module")
def three_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    """Three running sites with images of their own."""
    folder = tmp_path_factory.mktemp("three")
    example = load_policy(example_policy()).model_dump(mode="json", exclude_none=True)
    update = {"maximum_mb": 20, "maximum_change_norm": 1000}
    hospitals = [
        make_hospital(folder / name, example=name, train=count, arguments=example["arguments"],
                      update=update)
        for name, count in SHARES.items()
    ]  # fmt: skip
    with running(hospitals):
        yield hospitals


def train(hospitals: list[Hospital], seed: int, *, killed: Hospital | None = None) -> str:
    """SHA-256 of the weights after two rounds; `killed` dies between them and starts again."""
    sites = federation.connect(
        roster([h.trial for h in hospitals]), email="rita@uni.example", password=factories.PASSWORD
    )
    job = read_job(JOBS / "train_classifier.py")
    card = sites["st-marys"].dataset("chest-xray").card
    weights = job.call("initial_weights", card, {"seed": seed})
    config = {**CONFIG, "seed": seed}
    terms = federation.training_terms(
        weights, title="train", purpose="a test", dataset="chest-xray", runs=5,
        config={**config, "round": (0, 5)},
    )  # fmt: skip
    study = sites.submit(job, terms)
    for hospital in hospitals:
        hospital.decide(study, "approve")

    def after_round(number: int, _: RoundsResult) -> None:
        if killed is not None and number < 2:
            killed.trial.kill()
            killed.trial.launch()
            killed.trial.wait_until_up()

    result = federation.run_rounds(
        study, weights, {**config, "round": 0}, rounds=2, after_round=after_round, progress=False
    )
    return result.weights_sha256


@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_runs_with_one_seed_are_the_same_with_a_restart_in_between(
    three_hospitals: list[Hospital], count: int
) -> None:
    hospitals = three_hospitals[:count]
    first = train(hospitals, seed=7)
    assert train(hospitals, seed=7, killed=hospitals[-1]) == first
    if count == 1:
        assert train(hospitals, seed=8) != first
