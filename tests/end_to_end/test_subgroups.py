"""Evaluation by subgroup at real sites: one shows its groups, one keeps them, one knows none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import factories
import federation
from datasites.imaging.subgroups import Subgroups
from datasites.trial import roster
from federation.job import read_job
from hospitals import JOBS, Hospital, all_arguments, make_hospital, running

JUDGE: dict[str, Any] = {"split": "test", "minimum_count": 5, "bins": 240}


def by_sex(women: dict[str, int]) -> Subgroups:
    """Split -> women among its images, which come first; the classes take turns."""
    members = {
        split: {"sex": (np.arange(len(labels)) >= women[split]).astype(np.int8)}
        for split, (_, labels) in factories.splits().items()
    }
    return Subgroups({"sex": ("F", "M")}, members)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    folder, update = tmp_path_factory.mktemp("three"), {"maximum_mb": 20}
    known = {
        "st-marys": by_sex({"train": 60, "test": 40}),
        "north-clinic": by_sex({"train": 60, "test": 8}),  # four of each class
        "seaside": None,
    }
    made = [
        make_hospital(
            folder / name, example=name, subgroups=subgroups, arguments=all_arguments(),
            update=update, job={"imports": ["math", "numpy", "torch", "torchvision.models"]},
        )
        for name, subgroups in known.items()
    ]  # fmt: skip
    with running(made):
        yield made


def test_a_model_is_evaluated_by_subgroup_over_real_sites(three: list[Hospital]) -> None:
    sites = federation.connect(
        roster([h.trial for h in three]), email="rita@uni.example", password=factories.PASSWORD
    )
    datasets = {name: sites[name].dataset("chest-xray") for name in sites.names}
    assert [d.card.get("groups") for d in datasets.values()] == [{"sex": ["F", "M"]}] * 2 + [None]
    assert datasets["st-marys"].card["group_counts"]["test"] == {"sex": {"F": 40, "M": 20}}
    assert datasets["north-clinic"].card["group_counts"]["test"] == {"sex": {"F": 8, "M": 52}}
    assert "sex: F" in datasets["st-marys"]._repr_html_()

    job = read_job(JOBS / "evaluate_classifier.py")
    card, mock = datasets["st-marys"].card, sites["st-marys"].mock("chest-xray")
    weights = read_job(JOBS / "train_classifier.py").call("initial_weights", card, {"seed": 0})
    tried = job.try_on(mock, card, weights, {**JUDGE, "by": "sex", "group": 1})
    assert tried["examples"] > 0

    study = sites.submit(
        job,
        federation.evaluation_terms(
            weights, title="evaluate", purpose="a test", dataset="chest-xray", runs=6, classes=2,
            bins=240, config={"split": "test", "minimum_count": 5}, by=["sex"],
        ),
    )  # fmt: skip
    for hospital in three:
        hospital.decide(study, "approve")
    whole = federation.evaluate(study, weights, JUDGE, round_number=1)
    assert whole.overall.images == 180
    measured = federation.evaluate_groups(study, weights, JUDGE, by="sex", first_round=2)
    images = measured.frame()["images"]
    titles = {name: sites[name].title for name in sites.names}
    assert images[("F", titles["st-marys"])] == "40"
    assert images[("M", titles["st-marys"])] == "20"
    assert images[("F", titles["north-clinic"])] == "suppressed"
    assert images[("M", titles["north-clinic"])] == "suppressed"  # or else 60 less 52 would tell
    assert measured.without == {"F": [titles["seaside"]], "M": [titles["seaside"]]}
    assert images[("all", "all")] == "60"
    parts = sum(measured.groups[value].tables["st-marys"].scores.sum(2) for value in "FM")
    np.testing.assert_array_equal(parts, whole.tables["st-marys"].scores.sum(2))
