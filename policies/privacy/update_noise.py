"""Differential privacy for the update of any code: the change is clipped, and noise is added.

The code is not trusted, so nothing is assumed about how its result depends on a patient: it may
return any update at all for one dataset, and any other for another. Clipped to norm C, both changes
lie in a ball of radius C, so that they are at most 2C apart, whichever datasets they come from. The
Gaussian mechanism with sensitivity 2C therefore gives its guarantee for every pair of datasets, so
also for two that differ in one patient, however many images that patient has (Dwork and Roth 2014,
theorem A.1; Geyer, Klein and Nabi 2017 for the clipped update).

It holds for the numbers that leave. It does not hold for the time that a run takes, unless updates
are kept back until a fixed time after the start (`privacy.release_after_s`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.arrays import Arrays, change_norm
from policies.privacy.noise import noised

Changes = dict[str, NDArray[np.float64]]
"""Array name -> change of its entries."""


def clip_update(update: Arrays, sent: Arrays, clip_norm: float) -> Changes:
    """The change of an update, scaled down to an L2 norm of at most `clip_norm`.

    Args:
        update: Name -> array.
        sent: The arrays that the run started from; an array that was not sent changes from zero.
        clip_norm: C, above 0.

    Returns:
        Name -> the change, float64.
    """
    norm = change_norm(update, sent)
    # A norm is rounded itself: a millionth less keeps the change within C.
    scale = 1.0 if norm <= clip_norm else clip_norm / norm * (1 - 1e-6)
    return {
        name: scale * (array.astype(np.float64) - _before(name, array, sent))
        for name, array in update.items()
    }


def noise_update(
    change: Changes, update: Arrays, sent: Arrays, clip_norm: float, noise_multiplier: float
) -> Arrays:
    """An update whose clipped change got Gaussian noise of deviation `noise_multiplier` * 2C.

    Args:
        change: What `clip_update` gave, or zeros.
        update: Name -> array; only names, shapes and dtypes are read, which the contract fixes.
        sent: The arrays that the run started from.
        clip_norm: C.
        noise_multiplier: Standard deviation in units of the sensitivity 2C.

    Returns:
        Name -> array of the dtype in `update`; what is too large for it is the largest there is.
    """
    deviation = noise_multiplier * 2 * clip_norm
    return {
        name: _as(_before(name, like, sent) + noised(change[name], deviation), like.dtype)
        for name, like in update.items()
    }


def _before(name: str, array: NDArray[np.generic], sent: Arrays) -> NDArray[np.float64]:
    earlier = sent.get(name)
    if earlier is None or earlier.shape != array.shape:
        return np.zeros(array.shape)
    return earlier.astype(np.float64)


def _as(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        return values.clip(-most, most).astype(dtype)
    edges = np.iinfo(dtype)
    return np.rint(values).clip(edges.min, edges.max - 1024).astype(dtype)
