"""Where a privacy budget stands, for those who decide about it, ask for it or look at it later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from datasites.privacy_ledger import entries, spent_on
from datasites.records import Records
from policies.contract import Terms
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Spent
from policies.privacy.rule import PrivacyRule


@dataclass(frozen=True, slots=True)
class PrivacyStanding:
    """What a request asks of a dataset's budget; epsilons are per patient, at `delta`.

    Attributes:
        mode: The policy's.
        guarantee: What the policy guarantees, in words.
        cap: Most epsilon; None with mode none, like all numbers below.
        delta: Delta of the guarantee.
        spent: Epsilon of everyone's runs on the dataset so far, in the policy's period.
        left: What the cap leaves.
        asked: Epsilon of all runs of the request.
        by_request: Epsilon of the request's runs so far.
        at_most: Epsilon on the dataset when all runs of the request are made.
        run: What one run does, in words.
    """

    mode: str
    guarantee: str
    cap: float | None = None
    delta: float | None = None
    spent: float | None = None
    left: float | None = None
    asked: float | None = None
    by_request: float | None = None
    at_most: float | None = None
    run: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The standing as JSON types."""
        return asdict(self)


def privacy_standing(
    records: Records, terms: Terms, rule: PrivacyRule, request: int
) -> PrivacyStanding:
    """The standing of a request under a policy."""
    if rule.mode == "none":
        return PrivacyStanding(rule.mode, rule.guarantee())

    def cost(spent: Spent) -> float:
        return epsilon(spent, rule.guaranteed_delta, rule.accountant)

    spent = spent_on(records, terms.dataset, rule.period_days)
    mine = Spent(e.mechanism for e in entries(records) if e.request == request)
    before = cost(spent)
    known = PrivacyStanding(
        mode=rule.mode,
        guarantee=rule.guarantee(),
        cap=rule.cap,
        delta=rule.guaranteed_delta,
        spent=before,
        left=max(0.0, rule.cap - before),
        by_request=cost(mine),
    )
    if terms.privacy is None:
        return known
    try:
        mechanism = terms.privacy.mechanism(terms.runs, rule)
    except ValueError:
        return known
    rest = Spent({mechanism: max(0, terms.runs - mine.total())})
    return PrivacyStanding(
        **{
            **asdict(known),
            "asked": terms.privacy.epsilon,
            "at_most": cost(spent + rest),
            "run": mechanism.in_words(),
        }
    )


def standing_in_words(standing: Mapping[str, Any]) -> list[str]:
    """A standing (`PrivacyStanding.as_dict`) in short lines, the most decisive first."""
    if standing["mode"] == "none":
        return ["NONE: updates leave as they were computed"]
    cap, spent = f"{standing['cap']:g}", f"{standing['spent']:.3g}"
    told = []
    if standing["at_most"] is not None:
        told.append(
            f"epsilon {standing['asked']:g} asked for, {standing['by_request']:.3g} of it spent; "
            f"with all runs the dataset stands at {standing['at_most']:.3g} of {cap}"
        )
    return [
        *told,
        f"epsilon {spent} of {cap} per patient spent on the dataset by everyone, "
        f"{standing['left']:.3g} left",
        *([f"each run: {standing['run']}"] if standing["run"] else []),
        standing["guarantee"],
    ]
