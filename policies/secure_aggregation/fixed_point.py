"""Updates as whole numbers that can be added up, and the mean as an update again.

A site's vector is, for n images: n * q for each number of its weights, and n at the end. q is the
change of the number, cut to the clip and rounded to steps. The sum over sites holds the weighted
sum of the changes and the sum of the images, so that neither stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.arrays import Arrays
from policies.secure_aggregation.terms import SecureAggregation

Words = NDArray[np.uint64]
"""Numbers modulo 2^64; those from 2^63 on stand for negative ones."""
AT_A_TIME = 1 << 18


def encode(update: Arrays, sent: Arrays, examples: int, terms: SecureAggregation) -> Words:
    """A site's update as words (entries + 1,) uint64, arrays in the order of their names.

    Args:
        update: Name -> the weights that a run returned.
        sent: The weights that it started from; an array that was not sent changes from zero.
        examples: Images that it used, 1 to `terms.largest_examples`.
        terms: The approved terms.

    Raises:
        ValueError: The number of images is outside; what is beyond would wrap.
    """
    if not 1 <= examples <= terms.largest_examples:
        raise ValueError("the number of images is outside what was approved")
    words = np.empty(sum(array.size for array in update.values()) + 1, np.int64)
    first = 0
    for name in sorted(update):
        after, before = update[name].reshape(-1), _before(name, update[name], sent)
        for start in range(0, after.size, AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            change = after[part].astype(np.float64)
            if before is not None:
                change -= before[part].astype(np.float64)
            steps = quantise(change, terms)
            np.multiply(steps, examples, out=words[first : first + steps.size])
            first += steps.size
    words[-1] = examples
    return words.view(np.uint64)


def quantise(change: NDArray[np.float64], terms: SecureAggregation) -> NDArray[np.int64]:
    """Changes in whole steps, from -Q to Q; a number that is not finite is refused before."""
    steps = np.rint(change * (terms.levels / terms.clip))
    whole: NDArray[np.int64] = steps.clip(-terms.levels, terms.levels).astype(np.int64)
    return whole


def decode(total: Words, terms: SecureAggregation) -> tuple[NDArray[np.float64], int]:
    """The mean change of each number, float64, and the number of images, of a sum of sites.

    Raises:
        ValueError: No site can have given such a sum: something in it is not unmasked.
    """
    signed = total.view(np.int64)
    examples = int(signed[-1])
    if not 1 <= examples <= len(terms.roster) * terms.largest_examples:
        raise ValueError("the sum is not one of updates: a mask or a share in it is wrong")
    changes, most = signed[:-1], examples * terms.levels
    if changes.size and not -most <= int(changes.min()) <= int(changes.max()) <= most:
        raise ValueError("the sum is not one of updates: a mask or a share in it is wrong")
    mean = changes.astype(np.float64)
    mean *= terms.step / examples
    return mean, examples


def moved(mean: NDArray[np.float64], like: Arrays, sent: Arrays) -> Arrays:
    """The weights that were sent, changed by the mean, with shapes and dtypes as in `like`."""
    found: Arrays = {}
    first = 0
    for name in sorted(like):
        array = like[name]
        change = mean[first : first + array.size]
        first += array.size
        before = _before(name, array, sent)
        after = change if before is None else before.astype(np.float64) + change
        found[name] = _stored(after.reshape(array.shape), array.dtype)
    return {name: found[name] for name in like}


def _before(
    name: str, array: NDArray[np.generic], sent: Mapping[str, NDArray[np.generic]]
) -> NDArray[np.generic] | None:
    earlier = sent.get(name)
    if earlier is None or earlier.shape != array.shape:
        return None
    return earlier.reshape(-1)


def _stored(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if dtype.kind in "iu":
        edges = np.iinfo(dtype)
        numbers = np.rint(numbers).clip(edges.min, edges.max - 1024)
    return numbers.astype(dtype)
