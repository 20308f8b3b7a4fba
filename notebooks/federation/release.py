"""`federation.release(study, weights, start)`: may a global model be called released?

Each site runs the approved leakage test on the model; the limits are those of each site's policy.
The model is released when every one of them holds.

A test shows what these attacks find, and not that another would find nothing: it is no guarantee.
Differential privacy is one (`privacy` in the policy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from federation.errors import FederationError
from federation.leakage import LOW_FPRS, Leakage
from federation.notebook_tables import BAD, GOOD
from federation.release_figure import release_figure
from federation.side_by_side import ask_each
from federation.study_checks import check_run
from federation.submission import Study
from federation.terms import START
from policies.arrays import Arrays, arrays_sha256
from policies.release_rule import ReleaseRule


class NotReleasedError(FederationError):
    """A model did not pass the leakage test of every site."""


@dataclass(frozen=True, slots=True)
class SiteRelease:
    """What one site's test says.

    Attributes:
        title: Of the site.
        limits: From its policy.
        leakage: What was found, None where no test was made.
        reasons: Why the model is not released there, each a sentence; empty where it is.
        guarantee: What its policy guarantees in the place of a test; empty where it does not.
    """

    title: str
    limits: ReleaseRule
    leakage: Leakage | None
    reasons: tuple[str, ...]
    guarantee: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The verdict on one global model.

    Attributes:
        weights_sha256: Digest of the model that was tested.
        sites: Short name of a site -> its verdict.
    """

    weights_sha256: str
    sites: dict[str, SiteRelease]

    @property
    def released(self) -> bool:
        """Whether the limits of every site hold."""
        return bool(self.sites) and not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is not released, each a sentence that names its site."""
        return [f"{s.title}: {reason}." for s in self.sites.values() for reason in s.reasons]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        tested = sum(site.leakage is not None for site in self.sites.values())
        if self.released:
            return (
                f"Released: the leakage test was made at {tested} of {len(self.sites)} sites, and "
                "the limits of every site hold. These attacks found no more; others might."
            )
        failed = [site.title for site in self.sites.values() if site.reasons]
        return f"Not released: the limits of {', '.join(failed)} do not hold."

    def require(self) -> None:
        """Go on only with a released model.

        Raises:
            NotReleasedError: It is not, with the reasons.
        """
        if not self.released:
            raise NotReleasedError("\n".join([self.sentence, *(f"- {r}" for r in self.reasons)]))

    def frame(self) -> pd.DataFrame:
        """One row per site: the attack that finds most at each rate, intervals, and the verdict."""
        return pd.DataFrame(
            [{"site": site.title, **_plain(site)} for site in self.sites.values()]
        ).set_index("site")

    def table(self) -> pd.DataFrame:
        """The same in words."""
        return pd.DataFrame(
            [{"": site.title, **_in_words(site)} for site in self.sites.values()]
        ).set_index("")

    def figure(self) -> Figure:
        """ROC curves of the attacks on log-log axes; triangles are the limits."""
        return release_figure({s.title: (s.leakage, s.limits) for s in self.sites.values()})

    def _repr_html_(self) -> str:
        colour = GOOD if self.released else BAD
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in self.reasons)
        return (
            f'<p style="color: {colour}; font-weight: 500">{escape(self.sentence)}</p>'
            f"{self.table().to_html()}<ul>{reasons}</ul>"
        )


def release(
    study: Study,
    weights: Arrays,
    start: Arrays,
    config: Mapping[str, Any],
    *,
    round_number: int = 1,
    sites: Sequence[str] | None = None,
) -> Release:
    """Test a global model for leakage inside every site, and hold it to each site's limits.

    A site that refuses the test or does not answer is a reason against the release where its
    policy requires the test; so is a site whose policy is not known. A site whose policy keeps
    differential privacy allows no such test, and its guarantee stands in the place of one.

    Args:
        study: An approved study of `notebooks/jobs/test_leakage.py` (`leakage_terms`).
        weights: The global model.
        start: The weights that its training began with; shadow models begin there.
        config: The job's arguments. Train shadow models about as the model was: an attack with
            worse ones finds less.
        round_number: Tells tests of different models apart.
        sites: Sites to test at; all of the study by default. Name those that trained the model.

    Raises:
        FederationError: The weights or `config` are not what the study asked for.
    """
    names = list(sites or study.sites)
    sent = {**weights, **{f"{START}{name}": array for name, array in start.items()}}
    check_run(study, names, lambda _: sent, config)
    parameters = sum(array.size for array in weights.values())

    def visit(name: str) -> Leakage:
        update = study.run(name, sent, config, round_number=round_number)
        patients, by_image = _patients(study, name)
        return Leakage(
            update.counts["leakage"].astype(np.int64),
            parameters,
            patients,
            by_image,
            update.metrics["member_loss"],
            update.metrics["hold_out_loss"],
        )

    found, failed = ask_each(names, visit)
    for error in failed.values():
        if not isinstance(error, FederationError):
            raise error
    return Release(
        arrays_sha256(weights),
        {name: judged(study, name, found.get(name), failed.get(name)) for name in names},
    )


def judged(
    study: Study, name: str, leakage: Leakage | None, error: Exception | None
) -> SiteRelease:
    """What one site's policy says to what was found there."""
    site = study.federation[name]
    if site.is_absent:
        told = "it has not answered, so that its limits are not known; ask it again"
        return SiteRelease(site.title, ReleaseRule(), None, (told,))
    rule = site.policy.release
    if leakage is not None:
        return SiteRelease(site.title, rule, leakage, tuple(leakage.breaches(rule)))
    if site.policy.privacy.mode != "none":  # under which no test of single images is allowed
        return SiteRelease(site.title, rule, None, (), site.policy.privacy.guarantee())
    told = " ".join(str(error).split()).rstrip(".")
    reasons = (f"its policy requires the test, and it was not made: {told}",)
    return SiteRelease(site.title, rule, None, reasons if rule.required else ())


def _patients(study: Study, name: str) -> tuple[int | None, bool]:
    """Patients of the training split as its card says, or images; and whether it is images."""
    card = study.federation[name].dataset(study.wanted.dataset).card
    if patients := card.get("patients"):
        return patients.get("train"), False
    counts = card["counts"]["train"].values()
    return (None if None in counts else sum(counts)), True


def _plain(site: SiteRelease) -> dict[str, object]:
    plain: dict[str, object] = {"released": not site.reasons}
    if (found := site.leakage) is None:
        return plain
    for fpr in LOW_FPRS:
        attack, point = found.worst(fpr)
        name = f"tpr_at_{fpr:g}"
        plain |= {
            name: point.tpr.value, f"{name}_low": point.tpr.low, f"{name}_high": point.tpr.high,
            f"{name}_attack": attack, f"{name}_measured_at": point.fpr.value,
        }  # fmt: skip
    return plain | {
        "members": found.members,
        "hold_outs": found.hold_outs,
        "parameters_per_patient": found.parameters_per_patient,
        "member_loss": found.member_loss,
        "hold_out_loss": found.hold_out_loss,
    }


def _in_words(site: SiteRelease) -> dict[str, str]:
    words = {"verdict": "limits do not hold" if site.reasons else "limits hold"}
    found, rule = site.leakage, site.limits
    if found is None:
        untested = "not tested: differential privacy instead" if site.guarantee else "not tested"
        return {**words, "members": untested}
    limits = (rule.maximum_tpr_at_0_1_percent, rule.maximum_tpr_at_1_percent)
    for fpr, limit in zip(LOW_FPRS, limits, strict=True):
        attack, point = found.worst(fpr)
        at = "" if found.resolves(fpr) else f", measured at {100 * point.fpr.value:.2g} %"
        most = "no limit" if limit is None else f"limit {limit:g}"
        words[f"TPR at FPR {100 * fpr:g} %"] = f"{point.tpr} by {attack}{at}; {most}"
    unit = "image" if found.by_image else "patient"
    return {
        **words,
        "members": f"{found.members:,}",
        "hold-outs": f"{found.hold_outs:,}",
        "parameters": f"{found.parameters_per_patient:,.0f} per {unit}",
    }
