"""Where the requests of a study stand, in words: who has decided, and who is waited for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from federation.notebook_tables import BAD, GOOD, QUIET, Cell, Row, html_table
from federation.notebook_tables import WAITING as AMBER
from policies.findings import finding_from_dict, verdict

WAITING = {"pending", "partly approved"}
"""States in which a request waits for the hospital."""
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))
_COLOURS = {
    "approved": GOOD, "denied": BAD, "revoked": BAD, "expired": BAD, "changes requested": AMBER,
}  # fmt: skip
_SIGNS = {GOOD: "●", BAD: "✕", AMBER: "○", QUIET: "–"}


@dataclass(frozen=True, slots=True)
class Standing:
    """One request at one hospital.

    Attributes:
        title: The hospital's.
        words: Where it stands, such as `approved` or `waiting 2 h`.
        colour: Of the words.
        why: What the hospital said, or what it still needs.
        request: Its number, such as `R-7`.
        runs: Runs used and allowed.
        until: Day on which the approval ends.
        policy: What the policy says.
    """

    title: str
    words: str
    colour: str
    why: str = ""
    request: str = ""
    runs: str = ""
    until: str = ""
    policy: str = ""


def standing_of(
    title: str,
    request: Mapping[str, Any] | None,
    error: Exception | None = None,
    now: dt.datetime | None = None,
) -> Standing:
    """Where a request stands.

    Args:
        title: The hospital's title.
        request: What the hospital says of it; None when it did not answer.
        error: Why it did not.
        now: The time; by default this computer's.
    """
    if request is None:
        return Standing(title, "does not answer", BAD, str(error))
    state = str(request["state"])
    words, why, colour = state, str(request["reason"]), _COLOURS.get(state, QUIET)
    if state in WAITING:
        since = dt.datetime.fromisoformat(request["submitted_at"])
        words = f"waiting {waited((now or dt.datetime.now(dt.UTC)) - since)}"
        why, colour = f"needs {request['needed']}", AMBER
        if state == "partly approved":
            why = f"{request['state_in_words']}; {why}"
    elif request["stopped"]:
        words, why, colour = (
            "stopped", "its policy changed; the hospital has to confirm its approval", BAD,
        )  # fmt: skip
    if request["comments"]:
        remarks = len(request["comments"])
        why += f" ({remarks} remark{'' if remarks == 1 else 's'} on lines: `comments()`)"
    return Standing(
        title,
        words,
        colour,
        why,
        f"R-{request['request']}",
        f"{request['runs_used']} of {request['runs']}",
        request["expires_at"][:10] if state == "approved" else "",
        verdict(finding_from_dict(f) for f in request["findings"]),
    )


def standings_table(title: str, standings: Sequence[Standing]) -> str:
    """A sentence about all, and a row for each."""
    rows: list[Row] = [
        [
            s.title,
            Cell(f"{_SIGNS[s.colour]} {s.words}", s.colour, s.why),
            s.request,
            s.policy,
            s.runs,
            s.until,
        ]
        for s in standings
    ]
    head = ["hospital", "state", "request", "policy", "runs used", "valid until"]
    return f"<p><b>{escape(title)}</b>: {escape(in_a_sentence(standings))}</p>" + (
        html_table(head, rows) if rows else ""
    )


def in_a_sentence(standings: Sequence[Standing]) -> str:
    """`waiting 2 h at St Mary's; approved at Seaside.`: whoever is waited for comes first."""
    if not standings:
        return "not submitted yet."
    order = sorted(standings, key=lambda s: not s.words.startswith("waiting"))
    places: dict[str, list[str]] = {}
    for standing in order:
        places.setdefault(standing.words, []).append(standing.title)
    return "; ".join(f"{words} at {_listed(titles)}" for words, titles in places.items()) + "."


def waited(time: dt.timedelta) -> str:
    """`3 d`, `2 h`, `12 min`, or `less than a minute`."""
    seconds = time.total_seconds()
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "less than a minute"


def _listed(titles: Sequence[str]) -> str:
    *most, last = titles
    return f"{', '.join(most)} and {last}" if most else last
