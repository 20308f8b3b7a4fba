"""The running sites that tests share; each is started once per session."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

with warnings.catch_warnings():  # syft 0.9.5 warns about its own imports
    warnings.simplefilter("ignore")
    import syft  # noqa: F401


from federation.submission import Federation
from hospitals import Hospital, make_hospital, start


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """One running site with small random images; accounts rita@ and mallory@uni.example."""
    made = make_hospital(tmp_path_factory.mktemp("hospital") / "site")
    try:
        start(made)
        yield made
    finally:
        made.trial.stop()


@pytest.fixture(scope="session")
def rita(hospital: Hospital) -> Federation:
    """Logged in at the shared hospital as an honest researcher."""
    return hospital.connect("rita@uni.example")
