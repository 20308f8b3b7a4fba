"""Sites that tests of this room may kill, stop and damage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datasites.new_site import example_policy
from hospitals import Hospital, make_hospital, start
from policies.document import load_policy


@pytest.fixture(scope="module")
def lonely_hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running site of its own; a test leaves it running."""
    hospital = make_hospital(tmp_path_factory.mktemp("lonely") / "site")
    try:
        start(hospital)
        yield hospital
    finally:
        hospital.trial.stop()


@pytest.fixture(scope="module")
def two_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    """Two running sites, with 120 and 60 training images."""
    folder = tmp_path_factory.mktemp("two")
    example = load_policy(example_policy()).model_dump(mode="json", exclude_none=True)
    arguments = {**example["arguments"], "rate": {"low": 0.0, "high": 1.0}}
    update = {"maximum_mb": 20, "maximum_change_norm": 1000}
    hospitals = [
        make_hospital(folder / name, example=name, train=count, arguments=arguments, update=update)
        for name, count in (("st-marys", 120), ("north-clinic", 60))
    ]
    try:
        for hospital in hospitals:
            start(hospital)
        yield hospitals
    finally:
        for hospital in hospitals:
            hospital.trial.stop()
