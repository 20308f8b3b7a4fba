"""Which events of an audit log somebody wants to see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasites.audit_segments import read_events


def find_events(
    log: Path, *, subject: str = "", event: str = "", actor: str = "", text: str = ""
) -> Iterator[dict[str, Any]]:
    """The events that match, oldest first; what is left empty matches all.

    Args:
        log: The log.
        subject: What it was about; `R-7` takes the runs `R-7/3/1` with it.
        event: The word for what happened.
        actor: Who did it: an address, the part before its `@`, or `site`; capitals do not matter.
        text: What stands anywhere in the event; capitals do not matter.
    """
    actor, text = actor.casefold(), text.casefold()
    for line in read_events(log):
        who = line["actor"].casefold()
        if (
            (not subject or f"{line['subject']}/".startswith(f"{subject}/"))
            and (not event or line["event"] == event)
            and (not actor or actor in (who, who.partition("@")[0]))
            and (not text or text in str(line).casefold())
        ):
            yield line
