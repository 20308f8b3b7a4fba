"""Running hospitals for tests, and the shortest ways to submit, decide and run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import factories
import federation
from datasites.catalogue import SplitArrays
from datasites.imaging.subgroups import Subgroups
from datasites.new_site import example_config, example_policy
from datasites.trial import TrialSite, free_port, roster
from federation.job import Job
from federation.submission import Federation, RunUpdate, Study
from federation.terms import Wanted
from policies.contract import Bound
from policies.document import load_policy
from warm_sites import WarmSite

JOBS = Path(__file__).resolve().parents[2] / "notebooks" / "jobs"

_numbers = itertools.count(1)


class Hospital:
    """A running site with one dataset, and researchers' accounts on it."""

    def __init__(self, site: TrialSite, version: str) -> None:
        self.trial, self.version = site, version

    def connect(self, email: str = "rita@uni.example") -> Federation:
        """Log in as a researcher."""
        return federation.connect(roster([self.trial]), email=email, password=factories.PASSWORD)

    def submit(
        self, federation_: Federation, text: str, *, approve: bool = True, **changes: Any
    ) -> Study:
        """Submit a job, and approve it as the owner if wanted; each text is made unique."""
        job = Job(f"{text.rstrip()}\n# test {next(_numbers)}\n", "job", "train")
        plain: dict[str, Any] = {
            "title": "A test",
            "purpose": "a test",
            "dataset": "chest-xray",
            "runs": 10,
            "arguments": {"rate": Bound(low=0.0, high=1.0)},
            "contract": factories.contract(),
        }
        study = federation_.submit(job, Wanted(**{**plain, **changes}))
        if approve:
            self.decide(study, "approve")
        return study

    def decide(self, study: Study, verb: str, reason: str = "a test") -> dict[str, Any]:
        """Decide about a study's request as the owner."""
        return self.trial.decide(study.requests[self.trial.name], verb, reason)

    def run(self, study: Study, **changes: Any) -> RunUpdate:
        """One run with valid arguments, changed where the test says so."""
        arguments: dict[str, Any] = {
            "weights": factories.weights(),
            "config": {"rate": 0.5},
            "round_number": 1,
            **changes,
        }
        return study.run(self.trial.name, **arguments)


def all_arguments() -> dict[str, Any]:
    """The arguments that the example policy allows, and the `rate` of these tests' own jobs."""
    example = load_policy(example_policy()).model_dump(mode="json", exclude_none=True)
    return {**example["arguments"], "rate": {"low": 0.0, "high": 1.0}}


def make_hospital(
    path: Path,
    *,
    example: str = "st-marys",
    train: int = 120,
    splits: dict[str, SplitArrays] | None = None,
    subgroups: Subgroups | None = None,
    patients: dict[str, Any] | None = None,
    **policy_changes: Any,
) -> Hospital:
    """A site with a dataset, not yet running."""
    policy = factories.policy(**policy_changes)
    policy_file = path.parent / f"{path.name}-policy.yaml"
    policy_file.write_text(yaml.safe_dump(policy.model_dump(mode="json")))
    config = example_config(example).model_copy(
        update={"port": free_port(), "requests_per_day": 2000}
    )
    trial = WarmSite(path, config, policy_file)
    version, _ = trial.write_dataset(
        splits or factories.splits(train),
        name="chest-xray",
        classes=("normal", "pneumonia"),
        subgroups=subgroups,
        patients=patients,
    )
    return Hospital(trial, version)


def start(hospital: Hospital) -> None:
    """Start a hospital's site and make the researchers' accounts."""
    hospital.trial.launch()
    hospital.trial.wait_until_up()
    for name in ("rita", "mallory"):
        hospital.trial.add_account(f"{name}@uni.example", name, factories.PASSWORD)


@contextlib.contextmanager
def running(hospitals: list[Hospital]) -> Iterator[list[Hospital]]:
    """Start hospitals one after the other, and stop them all in the end."""
    try:
        for hospital in hospitals:
            start(hospital)
        yield hospitals
    finally:
        for hospital in hospitals:
            hospital.trial.stop()
