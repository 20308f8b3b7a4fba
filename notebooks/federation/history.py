"""Who contributed what, round by round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import pandas as pd


@dataclass(frozen=True, slots=True)
class SiteRound:
    """One site in one round.

    Attributes:
        round: Number of the round.
        site: Short name of the site.
        state: `contributed`, or `missing`.
        reason: Why it is missing.
        examples: Images that the update rests on.
        loss: Mean training loss at the site, NaN when it is missing.
        accuracy: Training accuracy at the site, NaN when it is missing.
        seconds: From the call to the answer.
        run: The run's id at the site.
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

    def frame(self) -> pd.DataFrame:
        """One row per (round, site)."""
        columns = list(SiteRound.__dataclass_fields__)
        rows = [asdict(record) for record in self.records]
        return pd.DataFrame(rows, columns=columns).set_index(["round", "site"])

    def mean_loss(self) -> pd.Series[float]:
        """Training loss per round, weighted by examples."""
        frame = self.frame()
        frame = frame[frame["state"] == "contributed"]
        weighted = (frame["loss"] * frame["examples"]).groupby("round").sum()
        return weighted / frame["examples"].groupby("round").sum()

    def _repr_html_(self) -> str:
        return str(self.frame().to_html())
