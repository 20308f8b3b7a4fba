"""Distributed differential privacy: noise that is divided among the sites of a sum.

Where only the sum can be read, each of h honest sites may add Gaussian noise with one h-th of the
variance, since variances of independent noise add up.
"""

from __future__ import annotations

import math


def noise_share(noise_multiplier: float, honest: int) -> float:
    """The noise multiplier of one site, so that `honest` of them have `noise_multiplier` together.

    The guarantee is the Gaussian mechanism's with `noise_multiplier`, for one patient of one site,
    against everyone who reads the sum only. It assumes all of this:

    - At least `honest` of the sites whose updates are in the sum added their noise, and do not tell
      it. A site that is honest and drops out does not count: its noise is gone with its update. So
      `honest` is at most the threshold less the sites that may be with the researcher. If fewer
      contribute, the noise is too small, and the guarantee does not hold with its epsilon.
    - Every site has the same weight in the sum (`privacy.examples: fixed`): a site's weight
      multiplies its noise, too.
    - Noise is added before numbers are rounded to whole steps. A step that is a millionth of a
      site's deviation or less changes little, and this is not proved here; for the discrete
      mechanism with proof see the reference.

    A site whose noise has to hold on its own, against the other sites too, adds all of it.

    Args:
        noise_multiplier: Of the sum: standard deviation in units of the sensitivity.
        honest: Sites that are in the sum and honest, 1 at least.

    Raises:
        ValueError: `honest` is below 1.

    References:
        Kairouz, Liu, Steinke: The Distributed Discrete Gaussian Mechanism for Federated Learning
        with Secure Aggregation, ICML 2021, section 2.
    """
    if honest < 1:
        raise ValueError(f"{honest} honest sites add no noise; give 1 or more")
    return noise_multiplier / math.sqrt(honest)
