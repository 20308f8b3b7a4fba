"""What one wants to see of a round: how far the sites moved, and whether in one direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from policies.arrays import Arrays, difference, global_norm

if TYPE_CHECKING:
    from federation.aggregation.algorithm import SiteUpdate


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """One round in numbers. Norms are L2 over all arrays but whole numbers.

    Attributes:
        step_norm: How far the global weights moved.
        site_norms: Site -> how far its weights moved from those of the round before.
        agreement: Site -> mean cosine of its change with those of the other sites: 1 all pull
            alike, 0 each its own way, below 0 against each other. 0 for a site that did not move;
            empty with one site.
        left_out: Sites whose updates were not used.
        clipped: Site -> factor below 1 by which its change was shortened.
        steps: Site -> local steps, for algorithms that need to know.
    """

    step_norm: float
    site_norms: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    clipped: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)


def measure(
    before: Arrays,
    after: Arrays,
    updates: Sequence[SiteUpdate],
    *,
    left_out: Sequence[str] = (),
    clipped: Mapping[str, float] | None = None,
    steps: Mapping[str, float] | None = None,
) -> Diagnostics:
    """The diagnostics of a round, from the global weights before and after it."""
    names = sorted(name for name, array in before.items() if array.dtype.kind == "f")
    products = np.zeros((len(updates), len(updates)))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for name in names:
            moves = np.empty((len(updates), before[name].size))
            for update, move in zip(updates, moves, strict=True):
                np.subtract(
                    update.weights[name].ravel(), before[name].ravel(), move, dtype=move.dtype
                )
            products += moves @ moves.T
        norms = np.sqrt(np.diag(products))
        cosines = products / np.outer(norms, norms)
        cosines = np.clip(np.where(np.isfinite(cosines), cosines, 0.0), -1.0, 1.0)
    sites = [update.site for update in updates]
    others = len(sites) - 1
    agreement = (cosines.sum(axis=1) - np.diag(cosines)) / max(others, 1)
    step = difference({name: after[name] for name in names}, before)
    return Diagnostics(
        step_norm=global_norm(step),
        site_norms=dict(zip(sites, map(float, norms), strict=True)),
        agreement=dict(zip(sites, map(float, agreement), strict=True)) if others else {},
        left_out=tuple(left_out),
        clipped=dict(clipped or {}),
        steps=dict(steps or {}),
    )


def diagnostics_frame(rounds: Mapping[int, Diagnostics]) -> pd.DataFrame:
    """One row per (round, site)."""
    columns = ["round", "site", "step_norm", "site_norm", "agreement", "used", "clipped", "steps"]
    nan = float("nan")
    rows = [
        (
            number, site, seen.step_norm, norm, seen.agreement.get(site, nan),
            site not in seen.left_out, seen.clipped.get(site, 1.0), seen.steps.get(site, nan),
        )
        for number, seen in rounds.items()
        for site, norm in seen.site_norms.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index(["round", "site"])
