"""Who is in a step, and with which images: drawn from a cryptographic source.

Poisson sampling: each patient is drawn by a word of its own, independently of all others, so that
how many are drawn varies and may be none (Abadi et al. 2016; Mironov, Talwar and Zhang 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.privacy.noise import random_words
from policies.privacy.plan import Unit

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Patients:
    """The images of each patient of a split.

    Attributes:
        order: (images,) rows of the split, patient by patient.
        first: (patients + 1,) where each patient begins in `order`.
    """

    order: Rows
    first: Rows

    @classmethod
    def of_split(cls, directory: Path, split: str, unit: Unit, images: int) -> Patients:
        """The patients of a version's split; where nobody knows them, each image is one.

        Raises:
            ValueError: The unit is the patient and patients are not known, or the other way round.
        """
        index = directory / f"{split}_patients.npy"
        if index.exists() != (unit == "patient"):
            raise ValueError("the plan's unit is not the one that the version has")
        if unit == "image":
            return cls(np.arange(images), np.arange(images + 1))
        return cls.of(np.load(index))

    @classmethod
    def of(cls, owners: NDArray[np.int32]) -> Patients:
        """From the patient of each image, (images,)."""
        order = np.argsort(owners, kind="stable")
        changes = np.flatnonzero(np.diff(owners[order])) + 1
        first = np.concatenate([[0], changes, [len(owners)]]) if len(owners) else np.zeros(1, int)
        return cls(order, first.astype(np.int64))

    def __len__(self) -> int:
        return len(self.first) - 1

    def drawn(self, sampling_rate: float) -> Rows:
        """Patients of one step; each is in it with probability `sampling_rate`, to 2 ** -64."""
        if sampling_rate >= 1:
            return np.arange(len(self))
        below = np.uint64(int(sampling_rate * 2.0**64))
        return np.flatnonzero(random_words(len(self)) < below)

    def images(self, patient: int, most: int) -> Rows:
        """Rows of at most `most` images of a patient, drawn at random without replacement."""
        own: Rows = self.order[self.first[patient] : self.first[patient + 1]]
        if len(own) <= most:
            return own
        chosen: Rows = own[np.argsort(random_words(len(own)), kind="stable")[:most]]
        return chosen


@dataclass(frozen=True, slots=True)
class Physical:
    """Images that go through the model together: whole patients.

    Attributes:
        rows: (images,) rows of the split, patient by patient.
        of_each: (patients,) how many of them each patient has.
    """

    rows: Rows
    of_each: Rows


def physical_batches(
    patients: Patients, drawn: Rows, most: int, at_once: int
) -> Iterator[Physical]:
    """The images of drawn patients, at most `most` of each, at most `at_once` at a time.

    Args:
        patients: Those of the split.
        drawn: Those of the step.
        most: Images of one patient, at most; not above `at_once`.
        at_once: Images of a physical batch, at most.
    """
    held: list[Rows] = []
    for patient in drawn:
        own = patients.images(int(patient), most)
        if sum(map(len, held)) + len(own) > at_once:
            yield _physical(held)
            held = []
        held.append(own)
    if held:
        yield _physical(held)


def _physical(held: list[Rows]) -> Physical:
    return Physical(np.concatenate(held), np.array([len(own) for own in held]))
