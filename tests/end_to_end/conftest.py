"""Sites that tests of this room may kill, stop and damage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hospitals import Hospital, all_arguments, make_hospital, running


@pytest.fixture(scope="module")
def lonely_hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running site of its own; a test leaves it running."""
    hospital = make_hospital(tmp_path_factory.mktemp("lonely") / "site")
    with running([hospital]):
        yield hospital


@pytest.fixture(scope="module")
def two_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    """Two running sites, with 120 and 60 training images."""
    folder = tmp_path_factory.mktemp("two")
    update = {"maximum_mb": 20, "maximum_change_norm": 1000}
    job = {
        "imports": ["math", "numpy", "torch", "torchvision.models", "monai"]
    }  # the last is in none
    hospitals = [
        make_hospital(
            folder / name,
            example=name,
            train=count,
            arguments=all_arguments(),
            update=update,
            job=job,
        )
        for name, count in (("st-marys", 120), ("north-clinic", 60))
    ]
    with running(hospitals):
        yield hospitals
