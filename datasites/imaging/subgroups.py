"""Subgroups of a dataset: to which value of an attribute, such as sex, each image belongs.

An attribute has few values, so that no column of names or dates becomes one. How many images have
a value is told only where it gives away no small number: `shown_counts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasites.errors import DatasetError

NAME = re.compile(r"[a-z][a-z0-9_]{0,19}")
MOST_VALUES, LONGEST_VALUE = 8, 40
NO_VALUE = -1
"""The place of an image that belongs to no subgroup."""

Members = Mapping[str, NDArray[np.int8]]
"""Attribute -> (N,) places of each image's value, `NO_VALUE` where it has none."""


@dataclass(frozen=True, slots=True)
class Subgroups:
    """The subgroups of a dataset version.

    Attributes:
        values: Attribute -> its values, sorted.
        members: Split -> the members of each attribute.
    """

    values: Mapping[str, tuple[str, ...]]
    members: Mapping[str, Members]

    def chosen(self, rows: Mapping[str, Any]) -> Subgroups:
        """The same of some images: split -> an index or a mask of its rows."""
        members = {
            split: {name: self.members[split][name][mine] for name in self.values}
            for split, mine in rows.items()
        }
        return Subgroups(self.values, members)


def check_attribute(name: str) -> None:
    """Refuse a name that no argument of a job could have.

    Raises:
        DatasetError: It is not a short identifier.
    """
    if not NAME.fullmatch(name):
        raise DatasetError(
            f"--group is `{name[:60]}`; the name of a subgroup is a small letter and up to 19 "
            "small letters, digits or _. Give the column another name"
        )


def find_values(name: str, found: Sequence[str]) -> tuple[str, ...]:
    """The values of an attribute, sorted; empty ones are none.

    Raises:
        DatasetError: There are none, too many, or one is too long.
    """
    values = tuple(sorted(set(found) - {""}))
    if not 1 <= len(values) <= MOST_VALUES:
        raise DatasetError(
            f"--group {name}: it has {len(values) or 'no'} different values; 1 to {MOST_VALUES} "
            "make subgroups. Put values together, such as ages into bands"
        )
    if (longest := max(map(len, values))) > LONGEST_VALUE:
        raise DatasetError(
            f"--group {name}: a value has {longest} characters; at most {LONGEST_VALUE} are shown. "
            "Shorten it"
        )
    return values


def check_members(subgroups: Subgroups, images: Mapping[str, int]) -> None:
    """Refuse members that are not one place per image.

    Args:
        subgroups: What is to be published.
        images: Split -> number of its images.

    Raises:
        DatasetError: A split has other attributes or another number of members, or a place has no
            value.
    """
    for name, values in subgroups.values.items():
        check_attribute(name)
        if values != find_values(name, values):
            raise DatasetError(f"--group {name}: its values are not different and sorted")
        for split, count in images.items():
            places = subgroups.members.get(split, {}).get(name)
            if places is None or places.shape != (count,):
                raise DatasetError(
                    f"--group {name}: {split} has {count} images; give each one its place"
                )
            if count and not NO_VALUE <= places.min() <= places.max() < len(values):
                raise DatasetError(
                    f"--group {name}: a place of {split} is {places.min()} or {places.max()}; "
                    f"{NO_VALUE} to {len(values) - 1} are allowed"
                )


def shown_counts(
    places: NDArray[np.int8], values: Sequence[str], minimum: int
) -> dict[str, int | None]:
    """Value -> number of images, None where it is hidden.

    A number below `minimum` is hidden, zero included, and so would be what is left of the known
    number of all images. Therefore, where a value or the images without one are few, the smallest
    numbers are hidden until they are at least two, make `minimum` together, and every number that
    is shown is larger than their sum, the few without a value included. Then whoever knows this
    rule and the sum still cannot tell whose images they are.

    Args:
        places: (N,) place of each image's value, `NO_VALUE` where it has none.
        values: The values.
        minimum: The smallest number that is shown.
    """
    counts = [int((places == k).sum()) for k in range(len(values))]
    without = len(places) - sum(counts)
    ordered = sorted(counts)
    hidden = sum(count < minimum for count in counts)
    few = without if without < minimum else 0
    if hidden or few:
        hidden = max(hidden, 2)
        for count in ordered[hidden:]:
            together = sum(ordered[:hidden])
            if together >= minimum and count > together + few:
                break
            hidden += 1
    highest = ordered[:hidden][-1] if hidden else -1
    return {
        value: count if count > highest else None
        for value, count in zip(values, counts, strict=True)
    }
