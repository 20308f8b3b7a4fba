"""The running sites that tests share; each is started once per session."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

with warnings.catch_warnings():  # syft 0.9.5 warns about its own imports
    warnings.simplefilter("ignore")
    import syft  # noqa: F401


from federation.submission import Federation
from hospitals import Hospital, all_arguments, make_hospital, start


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """One running site with small random images; accounts rita@ and mallory@uni.example."""
    folder = tmp_path_factory.mktemp("hospital")
    made = make_hospital(folder / "site", arguments=all_arguments())
    try:
        start(made)
        yield made
    finally:
        made.trial.stop()


@pytest.fixture(scope="session")
def rita(hospital: Hospital) -> Federation:
    """Logged in at the shared hospital as an honest researcher."""
    return hospital.connect("rita@uni.example")


LONGEST = (
    "test_demonstration.py", "test_readme.py", "test_benchmarks.py", "test_canaries.py",
    "test_pacs_publishing.py", "test_notebooks.py", "test_pneumonia_study.py",
    "test_tissue_study.py",
)  # fmt: skip
"""Files that take minutes; they come first, so that no process waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others keep their order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
