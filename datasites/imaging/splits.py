"""Splits by patient: stratified by class, seeded, and stable from version to version.

Patients with images that look alike are kept together, for a copy of a training image in the test
split measures memory, not skill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Placed:
    """What splitting needs to know of an image."""

    patient: str
    label: int
    perceptual_hash: str
    order: str
    """Sorts images the same way at every site: the digest of the array."""


def split_by_patient(
    images: Sequence[Placed],
    shares: Mapping[str, float],
    *,
    seed: int,
    earlier: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The split of each patient.

    Args:
        images: All images.
        shares: Split -> share of the images, adding up to 1.
        seed: The same seed, images and shares give the same splits, at every site.
        earlier: Patient -> split in the parent version; patients stay where they were.

    Returns:
        Patient -> split. Patients that share a perceptual hash are in one split; where the parent
        had them apart, all of them are in `train`.
    """
    groups = _groups(images)
    classes = 1 + max((image.label for image in images), default=0)
    counts = {name: np.zeros(classes) for name in groups}
    first: dict[str, str] = {}
    member_of = {patient: name for name, members in groups.items() for patient in members}
    for image in images:
        name = member_of[image.patient]
        counts[name][image.label] += 1
        first[name] = min(first.get(name, image.order), image.order)
    everything = sum(counts.values(), np.zeros(classes))
    totals = {split: share * everything for split, share in shares.items()}
    wanted = dict(totals)
    chosen: dict[str, str] = {}
    for name, members in groups.items():
        kept = {earlier[p] for p in members if earlier and earlier.get(p) in shares}
        if kept:
            chosen[name] = kept.pop() if len(kept) == 1 else "train"
            wanted[chosen[name]] = wanted[chosen[name]] - counts[name]
    rng = np.random.default_rng(seed)
    names = sorted((n for n in groups if n not in chosen), key=lambda n: first[n])
    rng.shuffle(names)
    names.sort(key=lambda n: -counts[n].sum())  # stable: the large first, else as shuffled
    whole = {split: np.maximum(numbers, 1e-9) for split, numbers in totals.items()}
    for name in names:
        present = counts[name] > 0
        needed = {s: float((wanted[s] / whole[s])[present].min()) for s in shares}
        best = max(shares, key=lambda s: (needed[s], shares[s]))
        chosen[name] = best
        wanted[best] = wanted[best] - counts[name]
    return {patient: chosen[member_of[patient]] for patient in member_of}


def _groups(images: Sequence[Placed]) -> dict[str, list[str]]:
    """Patients that have to stay together: those connected by equal perceptual hashes."""
    parent: dict[str, str] = {}

    def find(patient: str) -> str:
        while parent.setdefault(patient, patient) != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    owner: dict[str, str] = {}
    for image in images:
        mine = find(image.patient)
        if not image.perceptual_hash:
            continue
        if (other := owner.setdefault(image.perceptual_hash, image.patient)) != image.patient:
            parent[mine] = find(other)
    groups: dict[str, list[str]] = {}
    for patient in list(parent):
        groups.setdefault(find(patient), []).append(patient)
    return groups


def look_alikes(images: Sequence[Placed]) -> int:
    """How many images look like an image of another patient."""
    owners: dict[str, set[str]] = {}
    for image in images:
        owners.setdefault(image.perceptual_hash, set()).add(image.patient)
    owners[""] = set()
    return sum(len(owners[image.perceptual_hash]) > 1 for image in images)
