"""The section of a policy on differential privacy: what is protected, how, and how much may go."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from policies.privacy.accounting import Accountant
from policies.strict import Strict

Mode = Literal["none", "update_noise", "dp_sgd"]
Examples = Literal["counted", "card", "rounded", "fixed"]
ROUNDED_TO = 100


class PrivacyRule(Strict):
    """Protection added to what leaves."""

    mode: Mode
    """`none`: updates leave as computed. It has to be written out; there is no default.
    `update_noise`: any code may compute an update; its change is clipped and gets Gaussian noise.
    `dp_sgd`: the hospital's own trainer trains the model that a job describes, with noise in every
    step; no foreign code sees an image."""
    maximum_epsilon: float | None = Field(default=None, gt=0, le=100)
    """Most epsilon per patient, over everyone's runs on all versions of a dataset."""
    delta: float | None = Field(default=None, gt=0, lt=0.01)
    """The delta of that guarantee; well below one in the number of patients."""
    period_days: int | None = Field(default=None, ge=1, le=36_500)
    """The cap holds for the runs of any so many days; without it, for ever."""
    accountant: Accountant = "rdp"
    """How runs are added up: `rdp` (Renyi divergence) or `pld` (privacy loss distributions, which
    finds less epsilon for the same noise, and takes seconds)."""
    clip_norm: float = Field(default=1.0, gt=0, le=1e6)
    """L2 norm C: with `update_noise` of the whole change of a run, with `dp_sgd` of one patient's
    gradient in a step."""
    images_per_patient: int = Field(default=1, ge=1, le=1000)
    """With `dp_sgd`: images of one patient that a step, or a table, uses at most."""
    examples: Examples | None = None
    """The number of images that leaves with an update: `counted` by the run (only with mode none),
    as on the dataset's `card`, that `rounded` to hundreds, or `fixed` at 1, so that every site
    weighs the same. Without it: counted with mode none, else as on the card."""
    release_after_s: int | None = Field(default=None, ge=1, le=86_400)
    """With `update_noise`: an update is given out so many seconds after its run began, neither
    sooner nor later, so that the time tells nothing; a run that takes longer is ended. Without it
    the guarantee does not cover time."""

    @property
    def guaranteed_delta(self) -> float:
        """The delta; a policy that guarantees one has it."""
        if self.delta is None:
            raise ValueError("a policy with `privacy.mode: none` has no delta")
        return self.delta

    @property
    def cap(self) -> float:
        """The most epsilon; a policy that guarantees one has it."""
        if self.maximum_epsilon is None:
            raise ValueError("a policy with `privacy.mode: none` has no cap on epsilon")
        return self.maximum_epsilon

    @property
    def examples_shown(self) -> Examples:
        """Which number of images leaves."""
        return self.examples or ("counted" if self.mode == "none" else "card")

    def guarantee(self) -> str:
        """What is guaranteed, with unit, adjacency, delta, accountant and assumptions."""
        if self.mode == "none":
            return "No differential privacy: updates leave as they were computed."
        over = "for ever" if self.period_days is None else f"in any {self.period_days} days"
        names = {"rdp": "Renyi (RDP)", "pld": "privacy loss distribution (PLD)"}
        told = (
            f"Epsilon at most {self.cap:g} with delta {self.guaranteed_delta:g} per patient, over "
            f"all runs of everyone on all versions of a dataset, {over}; {names[self.accountant]} "
            "accountant. "
        )
        if self.mode == "dp_sgd":
            return told + (
                "Two datasets are neighbours if one has one patient more, with all images. "
                "Assumed: it is known which image is whose, and the numbers on a dataset's card "
                "are public. Where patients are not known, the unit is the image. Not covered: the "
                "time that a run takes, which tells about how many patients were drawn."
            )
        time = (
            f"Updates are given out {self.release_after_s} s after a run began."
            if self.release_after_s
            else "Not covered: the time that a run takes."
        )
        return told + (
            "It holds for any code and any two datasets, so for all images of a patient. Assumed: "
            f"the numbers on a dataset's card are public. {time}"
        )

    @model_validator(mode="after")
    def _caps_belong_to_a_guarantee(self) -> Self:
        caps = (self.maximum_epsilon, self.delta)
        if self.mode != "none" and None in caps:
            raise ValueError(f"`{self.mode}` needs `maximum_epsilon` and `delta`")
        if self.mode == "none" and caps != (None, None):
            raise ValueError("caps on epsilon and delta mean nothing with `mode: none`")
        if self.mode != "none" and self.examples == "counted":
            raise ValueError("a number of images that code counted may not leave beside noise")
        if self.release_after_s is not None and self.mode != "update_noise":
            raise ValueError("`release_after_s` is for `mode: update_noise`")
        return self
