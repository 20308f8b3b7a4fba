"""What a leakage test found at one site: how many members an attack finds, at what false alarms.

Members are the images that trained the model, hold-outs those that did not. An attack that guesses
"member" above a threshold has a true positive rate (share of members found) and a false positive
rate (share of hold-outs taken for members). The rate that counts is the one at few false alarms:
Carlini, Chien, Nasr, Song, Terzis, Tramer: Membership Inference Attacks From First Principles,
IEEE S&P 2022, section III.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.intervals import UNKNOWN, Estimate, proportion
from policies.plain_words import in_percent
from policies.release_rule import ReleaseRule

ATTACKS = ("loss threshold", "LiRA, offline", "LiRA, online")
"""In the order of the job's table."""
RANGES = 8
"""Ranges of the score in the job's table."""
LOW_FPRS = (0.001, 0.01)
"""The false positive rates that policies limit."""


@dataclass(frozen=True, slots=True)
class Operating:
    """A point of an attack's ROC curve.

    Attributes:
        fpr: False positive rate, with Wilson's 95 % interval.
        tpr: True positive rate, likewise; the threshold is taken as given.
    """

    fpr: Estimate
    tpr: Estimate


@dataclass(frozen=True, slots=True)
class Leakage:
    """What attacks find of the members of one site.

    Attributes:
        table: Hold-outs and members in each range of the score, from the highest down,
            (attacks, 2, ranges) int64, as the job returns it.
        parameters: Parameters of the model.
        patients: Patients of the training split, or its images where nobody knows the patients;
            None where the number is suppressed.
        by_image: Whether images stand for patients.
        member_loss: Mean cross-entropy of members.
        hold_out_loss: The same of hold-outs.
    """

    table: NDArray[np.int64]
    parameters: int
    patients: int | None
    by_image: bool
    member_loss: float
    hold_out_loss: float

    @property
    def hold_outs(self) -> int:
        """Images that did not train the model."""
        return int(self.table[0, 0].sum())

    @property
    def members(self) -> int:
        """Images that did."""
        return int(self.table[0, 1].sum())

    @property
    def is_known(self) -> bool:
        """Whether there were enough images of both kinds to count."""
        return self.hold_outs > 0 and self.members > 0

    @property
    def parameters_per_patient(self) -> float:
        """Room that the model has for each patient; infinite where their number is suppressed."""
        return self.parameters / self.patients if self.patients else float("inf")

    def roc(self, attack: str) -> NDArray[np.float64]:
        """Points (false positive rate, true positive rate) of an attack, (ranges, 2), rising."""
        passed = np.cumsum(self.table[ATTACKS.index(attack)], axis=1)
        shares: NDArray[np.float64] = passed / np.maximum(passed[:, -1:], 1)
        return shares.T

    def at(self, attack: str, fpr: float) -> Operating:
        """The first point of an attack at a false positive rate of `fpr` or more.

        A curve does not fall: the true positive rate there is not below the one at `fpr`, which few
        hold-outs cannot resolve. `Operating.fpr` says where it was measured.
        """
        if not self.is_known:
            return Operating(UNKNOWN, UNKNOWN)
        hold_outs, members = np.cumsum(self.table[ATTACKS.index(attack)], axis=1)
        k = int(np.argmax(hold_outs >= fpr * self.hold_outs - 1e-9))
        return Operating(
            proportion(float(hold_outs[k]), self.hold_outs),
            proportion(float(members[k]), self.members),
        )

    def worst(self, fpr: float) -> tuple[str, Operating]:
        """The attack that finds most members there, and its point."""
        found = {attack: self.at(attack, fpr) for attack in ATTACKS}
        name = max(found, key=lambda attack: found[attack].tpr.value)
        return name, found[name]

    def resolves(self, fpr: float) -> bool:
        """Whether hold-outs are enough to measure at a false positive rate, to one half of it."""
        return self.is_known and all(
            self.at(attack, fpr).fpr.value <= 1.5 * fpr for attack in ATTACKS
        )

    def breaches(self, rule: ReleaseRule) -> Iterator[str]:
        """Each limit that does not hold, in a sentence without the site's name."""
        if not self.is_known:
            yield (
                "it has too few hold-outs or members to count; ask it to publish a version with "
                "a `val` or `test` split"
            )
        limits = (rule.maximum_tpr_at_0_1_percent, rule.maximum_tpr_at_1_percent)
        for fpr, limit in zip(LOW_FPRS, limits, strict=True):
            attack, point = self.worst(fpr)
            if limit is None or not self.is_known or point.tpr.high <= limit:
                continue
            yield (
                f"`{attack}` finds {in_percent(round(point.tpr.value, 3))} of the members (up to "
                f"{in_percent(round(point.tpr.high, 3))}) at a false positive rate of "
                f"{in_percent(round(point.fpr.value, 4))}, and at {in_percent(fpr)} at most "
                f"{in_percent(limit)} is allowed; {self._advice(fpr)}"
            )
        most = rule.maximum_parameters_per_patient
        if most is not None and self.parameters_per_patient > most:
            unit = "image" if self.by_image else "patient"
            yield (
                f"the model has {self.parameters_per_patient:,.0f} parameters per {unit}, and at "
                f"most {most:,.0f} are allowed; train a smaller model, or with more sites"
            )

    def _advice(self, fpr: float) -> str:
        if self.resolves(fpr):
            return "train for fewer rounds, with weight decay or augmentation, or with privacy"
        return (
            f"{self.hold_outs:,} hold-outs cannot resolve that rate: test with more, or ask the "
            "hospital whether its limit is meant for so few"
        )
