"""What a dataset needs before it is published, or published anew without a patient.

Checked then and not at training: a version that no update may rest on helps nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasites.catalogue import SplitArrays
from datasites.errors import DatasetError
from policies.document import Policy


def check_minimums(
    policy: Policy, splits: Mapping[str, SplitArrays], classes: Sequence[str], patients: int | None
) -> None:
    """Whether images are enough for a policy.

    Args:
        policy: The policy in force.
        splits: Split -> images and labels.
        classes: Class names.
        patients: How many patients they are of; None when nobody knows.

    Raises:
        DatasetError: A class, the patients or the training split are fewer than the policy wants.
    """
    minimum = policy.publishing.minimum_per_class
    by_split = _class_sizes(splits, len(classes))
    for k, title in enumerate(classes):
        if (size := sum(sizes[k] for sizes in by_split)) < minimum:
            raise DatasetError(
                f"class `{title}` has {size} images; policy {policy.title} wants at least "
                f"{minimum} of each (publishing.minimum_per_class)"
            )
    if patients is not None and patients < policy.publishing.minimum_patients:
        raise DatasetError(
            f"the dataset has {patients} patients; policy {policy.title} wants at least "
            f"{policy.publishing.minimum_patients} (publishing.minimum_patients)"
        )
    training = len(splits["train"][1]) if "train" in splits else 0
    if training < policy.examples.minimum:
        raise DatasetError(
            f"the training split has {training} images; policy {policy.title} lets no update leave "
            f"that rests on fewer than {policy.examples.minimum} (examples.minimum), so that "
            "nobody could train on it"
        )


def smallest_group(splits: Mapping[str, SplitArrays], classes: int) -> int:
    """Images of the smallest class in any split."""
    return min(min(sizes) for sizes in _class_sizes(splits, classes))


def _class_sizes(splits: Mapping[str, SplitArrays], classes: int) -> list[list[int]]:
    """Images of each class, by split."""
    return [[int((labels == k).sum()) for k in range(classes)] for _, labels in splits.values()]
