"""Who contributed what, round by round, and who is missing where, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from html import escape

import pandas as pd

ROUNDS_SHOWN = 30
"""Rounds in a notebook's table; `History.frame()` has all."""


@dataclass(frozen=True, slots=True)
class SiteRound:
    """One site in one round.

    Attributes:
        round: Number of the round.
        site: Short name of the site.
        state: `contributed`, or `missing`.
        reason: Why it is missing, in the hospital's words where it answered.
        examples: Images that the update rests on.
        loss: Mean training loss at the site, NaN when it is missing.
        accuracy: Training accuracy at the site, NaN when it is missing.
        seconds: From the call to the answer.
        run: The run's id at the site.
        cause: Why it is missing, in a word of `federation.causes.Cause`; empty when it is not.
    """

    round: int
    site: str
    state: str
    reason: str = ""
    examples: int = 0
    loss: float = float("nan")
    accuracy: float = float("nan")
    seconds: float = 0.0
    run: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The AUC of the global weights after one round.

    Attributes:
        auc: `all` for over all sites, and the sites where it is known -> AUC, NaN without one.
        reason: Why it could not be measured; empty when it was.
    """

    auc: dict[str, float]
    reason: str = ""


_COLUMNS = [
    "round", "site", "state", "cause", "reason", "examples", "loss", "accuracy", "seconds", "run",
]  # fmt: skip


@dataclass(slots=True)
class History:
    """All rounds of a study so far."""

    records: list[SiteRound] = field(default_factory=list)

    def __iter__(self) -> Iterator[SiteRound]:
        return iter(self.records)

    @property
    def rounds(self) -> int:
        """Number of the last round, 0 before the first."""
        return max((record.round for record in self.records), default=0)

    @property
    def first(self) -> int:
        """Number of the first round, 0 before it."""
        return min((record.round for record in self.records), default=0)

    @property
    def sites(self) -> list[str]:
        """Every site that was asked in some round."""
        return list(dict.fromkeys(record.site for record in self.records))

    @property
    def missing(self) -> list[SiteRound]:
        """The sites that did not contribute to a round, in the order of the rounds."""
        return [record for record in self.records if record.state != "contributed"]

    @property
    def sentence(self) -> str:
        """Who contributed, in one sentence that names every absence."""
        rounds = {record.round for record in self.records}
        if not rounds:
            return "No round is over yet."
        many = f"{len(rounds)} round{'' if len(rounds) == 1 else 's'}"
        if not self.missing:
            return f"Every site ({', '.join(self.sites)}) contributed to {_each(len(rounds))}."
        absences: dict[str, dict[str, list[int]]] = {}
        for record in self.missing:
            by_cause = absences.setdefault(record.site, {})
            by_cause.setdefault(record.cause or "no cause recorded", []).append(record.round)
        told = "; ".join(
            f"{site} is missing in "
            + " and ".join(f"{_in_words(numbers)} ({cause})" for cause, numbers in causes.items())
            for site, causes in absences.items()
        )
        return f"Not every site contributed to the {many}: {told}."

    def frame(self) -> pd.DataFrame:
        """One row per (round, site)."""
        rows = [asdict(record) for record in self.records]
        return pd.DataFrame(rows, columns=_COLUMNS).set_index(["round", "site"])

    def mean_loss(self) -> pd.Series[float]:
        """Training loss per round, weighted by examples."""
        frame = self.frame()
        frame = frame[frame["state"] == "contributed"]
        weighted = (frame["loss"] * frame["examples"]).groupby("round").sum()
        return weighted / frame["examples"].groupby("round").sum()

    def _repr_html_(self) -> str:
        """A row per round and a column per site, under the sentence."""
        rounds = sorted({record.round for record in self.records})
        found = {(record.round, record.site): record for record in self.records}
        loss = self.mean_loss()
        head = "".join(f"<th>{escape(name)}</th>" for name in ("round", *self.sites, "mean loss"))
        rows = "".join(
            f"<tr><th>{number}</th>"
            + "".join(_cell(found.get((number, site))) for site in self.sites)
            + f"<td>{_number(loss.get(number, float('nan')))}</td></tr>"
            for number in rounds[-ROUNDS_SHOWN:]
        )
        more = len(rounds) - ROUNDS_SHOWN
        note = f"<p>{more} earlier rounds are in <code>frame()</code>.</p>" if more > 0 else ""
        return (
            f"<p>{escape(self.sentence)}</p>{note}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


def _cell(record: SiteRound | None) -> str:
    if record is None:
        return "<td></td>"
    if record.state == "contributed":
        loss = "" if record.loss != record.loss else f", loss {_number(record.loss)}"
        return f"<td>{record.examples:,} images{loss}</td>"
    return (
        f'<td style="color: #9c2f1f" title="{escape(record.reason)}">'
        f"missing: {escape(record.cause or record.reason)}</td>"
    )


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _each(rounds: int) -> str:
    return "the one round" if rounds == 1 else f"each of {rounds} rounds"


def _in_words(numbers: Sequence[int]) -> str:
    """`round 4`, `rounds 4 to 6`, `rounds 2, 4 to 6`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    told = ", ".join(
        str(span[0])
        if len(span) == 1
        else f"{span[0]}, {span[1]}"
        if len(span) == 2
        else f"{span[0]} to {span[-1]}"
        for span in spans
    )
    return f"round{'' if len(numbers) == 1 else 's'} {told}"
