"""Results of leakage tests, built from counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from federation.leakage import Leakage
from federation.release import Release, SiteRelease
from policies.release_rule import ReleaseRule


def leakage(
    hold_outs: Sequence[int], members: Sequence[int], *, parameters: int = 1000, **changes: object
) -> Leakage:
    """The same counts for each attack."""
    table = np.array([[hold_outs, members]] * 3, np.int64)
    plain = {"patients": 100, "by_image": False, "member_loss": 0.1, "hold_out_loss": 0.2}
    return Leakage(table, parameters, **{**plain, **changes})  # type: ignore[arg-type]


def site_release(title: str, found: Leakage | None, rule: ReleaseRule) -> SiteRelease:
    """A verdict on what was found."""
    reasons = () if found is None else tuple(found.breaches(rule))
    return SiteRelease(title, rule, found, reasons)


def two_sites(weights_sha256: str = "0" * 64) -> Release:
    """A model that one site lets go and one does not."""
    rule = ReleaseRule()
    good = leakage([0, 5, 5, 10, 20, 70, 200, 690], [0, 5, 5, 10, 20, 70, 200, 690])
    bad = leakage([0, 5, 5, 10, 20, 70, 200, 690], [100, 50, 50, 50, 50, 100, 300, 300])
    return Release(
        weights_sha256,
        {
            "st-marys": site_release("St Mary's", good, rule),
            "north-clinic": site_release("North Clinic", bad, rule),
        },
    )
