"""The job that describes a dataset, at a real site: nothing is sent, and few numbers come back."""

from __future__ import annotations

from typing import Any

import pytest

import federation
from federation.job import read_job
from federation.submission import Federation
from hospitals import JOBS, Hospital


def test_a_site_is_described_or_suppressed(hospital: Hospital, rita: Federation) -> None:
    wanted = federation.description_terms(
        title="describe", purpose="a test", dataset="chest-xray", runs=2, classes=2, bins=8,
        config={"split": ["train", "test"], "minimum_count": (5, 1000)},
    )  # fmt: skip
    study = rita.submit(read_job(JOBS / "describe_dataset.py"), wanted)
    hospital.decide(study, "approve")
    config: dict[str, Any] = {"split": "train", "bins": 8, "minimum_count": 5}
    found = federation.describe(study, config)
    row = found.frame().loc["all"]
    assert row[["images", "normal", "pneumonia"]].tolist() == [120, 60, 60]
    assert row["mean"] == pytest.approx(0.5, abs=0.02)  # the images are noise
    few = federation.describe(study, {**config, "minimum_count": 1000}, round_number=2)
    assert few.overall.images is None
    assert few._repr_html_().count("<td>suppressed</td>") == 10
