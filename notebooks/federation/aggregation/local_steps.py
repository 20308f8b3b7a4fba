"""How many optimiser steps a site took in a round."""

from __future__ import annotations

import math

from federation.aggregation.algorithm import SiteUpdate


def local_steps(update: SiteUpdate, batch_size: int | None, epochs: int) -> float:
    """The steps behind an update: its metric `steps`, or counted from its examples.

    Args:
        update: What a site contributed. When its job returns a metric `steps`, that is the number.
        batch_size: The job's, for jobs without that metric; the last batch may be smaller.
        epochs: The job's, likewise.

    Raises:
        ValueError: There is neither the metric nor a batch size, or no step was taken.
    """
    if "steps" in update.metrics:
        steps = float(update.metrics["steps"])
    elif batch_size is not None:
        steps = float(epochs * math.ceil(update.examples / batch_size))
    else:
        raise ValueError(
            f"the update of {update.site} does not say how many local steps it took; let the job "
            "return a metric `steps`, or give the algorithm the job's `batch_size` and `epochs`"
        )
    if not math.isfinite(steps) or steps < 1:
        raise ValueError(
            f"the update of {update.site} says it took {steps:g} local steps; it takes at least 1"
        )
    return steps


def counted_with(batch_size: int | None, epochs: int) -> dict[str, float]:
    """The job's arguments that counting steps rests on, none when the job says its steps."""
    return {} if batch_size is None else {"batch_size": batch_size, "epochs": epochs}
