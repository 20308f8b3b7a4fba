"""Hospitals for benchmarks: real sites in processes of their own, with everything switched on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import federation
from datasites.catalogue import SplitArrays
from datasites.config import SiteConfig
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.sources.medmnist import read_medmnist
from datasites.new_site import example_policy
from datasites.people import generate_password
from datasites.trial import TrialSite, free_port, roster
from federation.submission import Federation, Study

CLASSES = ("normal", "pneumonia")
DATASET = "chest-xray"
RESEARCHER = "researcher@uni.example"
JOB = Path(__file__).resolve().parent / "benchmark_job.py"
PHANTOMS = {"train": 4708, "test": 624}
"""As many as PneumoniaMNIST has."""
DIVISION_SEED, ALPHA, FEWEST, FEWEST_OF_LABEL = 7, 1.0, 200, 10


def load_images(file: Path | None, scale: float = 1.0) -> dict[str, SplitArrays]:
    """The splits of a MedMNIST file, or drawn phantoms of the same size and number.

    Args:
        file: The file; None for phantoms.
        scale: How many times so many phantoms.
    """
    if file is not None:
        return dict(read_medmnist(file))
    return {
        split: draw_chest_phantoms(round(count * scale), seed=k)
        for k, (split, count) in enumerate(PHANTOMS.items())
    }


def divide_by_label(labels: NDArray[np.int64], hospitals: int) -> list[NDArray[np.int64]]:
    """Rows of each hospital: for each label Dirichlet shares, drawn until each has enough.

    Enough are 200 images, or a quarter of an equal share where that is less, and ten of a label.
    """
    rng = np.random.default_rng(DIVISION_SEED)
    fewest = min(FEWEST, len(labels) // (4 * hospitals))
    while True:
        rows: list[list[NDArray[np.int64]]] = [[] for _ in range(hospitals)]
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet([ALPHA] * hospitals)
            cuts = (np.cumsum(shares)[:-1] * len(members)).astype(int)
            for row, chunk in zip(rows, np.split(members, cuts), strict=True):
                row.append(chunk)
        joined = [np.sort(np.concatenate(row)) for row in rows]
        fewest_of_label = min(len(chunk) for row in rows for chunk in row)
        if min(map(len, joined)) >= fewest and fewest_of_label >= FEWEST_OF_LABEL:
            return joined


def make_hospitals(
    folder: Path,
    parts: Sequence[tuple[NDArray[Any], NDArray[np.int64]]],
    *,
    runs: int,
    maximum_mb: float = 20,
    **policy_changes: Any,
) -> list[TrialSite]:
    """Sites with one dataset each, not yet running.

    Args:
        folder: Where.
        parts: Training images and labels of each.
        runs: Most runs that a request may have.
        maximum_mb: Largest update.
        policy_changes: Sections of the policy that are different.
    """
    plain = yaml.safe_load(example_policy().read_text())
    plain["runs"] = {"maximum": runs, "per_day": runs}
    plain["update"] = {
        "maximum_mb": maximum_mb,
        "maximum_total_mb": maximum_mb * runs,
        "maximum_change_norm": 1000,
    }
    plain["review"] = {
        "rehearsal": {"images": 4, "time_s": 60}
    }  # one owner, no second pair of eyes
    plain["sandbox"]["memory_mb"] = 4096
    plain |= policy_changes
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(plain, sort_keys=False))
    sites = []
    for k, (images, labels) in enumerate(parts):
        name = f"hospital-{k:02d}"
        config = SiteConfig(
            name=name, title=f"Hospital {k}", port=free_port(), max_body_mb=2 * maximum_mb
        )
        site = TrialSite(folder / name, config, policy)
        site.write_dataset({"train": (images, labels)}, name=DATASET, classes=CLASSES)
        sites.append(site)
    return sites


@contextlib.contextmanager
def running(sites: Sequence[TrialSite]) -> Iterator[Federation]:
    """Start sites and log a researcher in; they are stopped afterwards."""
    try:
        for site in sites:
            site.launch()
        passwords = {site.name: generate_password() for site in sites}
        for site in sites:
            site.wait_until_up()
            site.add_account(RESEARCHER, "The researcher", passwords[site.name])
        yield federation.connect(roster(list(sites)), email=RESEARCHER, password=passwords)
    finally:
        for site in sites:
            site.stop()


def approve(sites: Sequence[TrialSite], study: Study) -> None:
    """Rehearse and approve a study at each site."""
    for site in sites:
        site.decide(study.requests[site.name], "approve", "a benchmark")
