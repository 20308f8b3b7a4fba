"""What a global model must show at a hospital before it may be called released."""

from __future__ import annotations

from pydantic import Field

from policies.strict import Strict

Share = float | None


class ReleaseRule(Strict):
    """Limits on what the leakage test of a global model finds at this hospital.

    A limit on a true positive rate is held to the upper end of its 95 % interval, at the first
    false positive rate that the number of hold-outs resolves and that is not below the one named:
    what too few images cannot show is not taken for shown.
    """

    required: bool = True
    """Whether a model needs the test here to be called released. Where it is not required, a test
    that was made is still held to the limits."""
    maximum_tpr_at_0_1_percent: Share = Field(default=0.1, gt=0, le=1)
    """Largest share of members that an attack may find at a false positive rate of 0.1 %."""
    maximum_tpr_at_1_percent: Share = Field(default=0.1, gt=0, le=1)
    """The same at a false positive rate of 1 %."""
    maximum_parameters_per_patient: float | None = Field(default=None, gt=0, le=1e9)
    """Most parameters of the model for each patient of the training split (for each image, where
    nobody knows the patients); none: no limit."""
