"""Data of single images that reach the result."""

from __future__ import annotations

from collections.abc import Iterator

from policies.findings import Finding, Severity
from policies.job.flow_values import Reach
from policies.job.text import JobText, shown

RULE = "job.flow"
_MEANT = {
    Reach.NOTABLE: "counts and means; extremes and tables of pixels can show a single image",
    Reach.EVERY: "sums, means and counts over many images, and trained models",
    Reach.EACH: "sums, means and counts over many images, and trained models",
    Reach.CHOSEN: "nothing of images that the text picks",
}


def allowed(_job: object) -> str:
    """What the rule lets pass."""
    return "sums, means and counts over many images, and trained models"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about the way of the data, each with its path through the text."""
    if not job.flow.followed:
        yield Finding(
            RULE,
            Severity.WARN,
            "a text too entangled to follow its data",
            "code that can be followed",
            "write it in fewer and simpler functions",
        )
    for leak in job.flow.leaks:
        yield Finding(
            RULE,
            Severity.READ if leak.trace.reach == Reach.NOTABLE else Severity.WARN,
            shown(leak.way, 240),
            _MEANT[leak.trace.reach],
            "reduce it over the images, or explain it to the hospital",
            leak.line,
        )
