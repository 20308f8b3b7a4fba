"""What the policy's rules need to know of a dataset version, counted exactly for the site."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasites.catalogue import read_card
from datasites.errors import DatasetError
from policies.request_rules import DatasetFacts


def dataset_facts(datasets: Path, version: str) -> DatasetFacts:
    """Images, classes, methods and the largest patient's share of a version.

    Raises:
        DatasetError: There is no such version, or its files cannot be read.
    """
    card = read_card(datasets, version)
    folder = datasets / version
    try:
        labels = np.load(folder / "train_labels.npy", mmap_mode="r")
        patients = folder / "train_patients.npy"
        numbers = np.load(patients, mmap_mode="r") if patients.exists() else None
    except (OSError, ValueError) as error:
        raise DatasetError(f"the arrays of dataset version {version[:12]} are broken") from error
    share = None
    if numbers is not None and len(numbers):
        share = float(np.unique(numbers, return_counts=True)[1].max() / len(numbers))
    return DatasetFacts(
        examples=len(labels),
        classes=tuple(int(n) for n in np.bincount(labels, minlength=len(card.classes))),
        largest_share=share,
        patients_known=numbers is not None,
        methods=card.deidentification,
    )
