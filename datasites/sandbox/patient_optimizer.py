"""The private step: clip each patient's gradient, sum on a grid, add noise, let an optimizer step.

It is Opacus' `DPOptimizer` with three things replaced. Gradients are clipped per patient and not
per image. What is not finite counts as nothing, where 0 times infinity would make the sum tell of
one patient. And sums and noise are exact: each clipped gradient is rounded towards zero to whole
steps of a grid, so its norm does not grow; whole numbers add up without error, in any order; and
x + round(G) = round(x + G) for whole x, so that what comes out is the rounding of the exact
Gaussian mechanism (see `policies.privacy.noise` for what remains; Mironov 2012 for the attack).

References:
    Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1.
    McMahan et al. 2018, "Learning differentially private recurrent language models", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from policies.privacy.noise import GRID, gaussian_steps

SLACK = 1 - 1e-6
"""Gradients are scaled to a millionth less than C: more than float32 can be wrong in scaling."""


class PatientOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """Makes private steps with an optimizer of torch.

    `accumulate` takes the gradients of some patients, as often as a step needs, also never; `step`
    adds the noise, divides by the expected batch and lets the optimizer step.

    Args:
        optimizer: What steps along noised gradients; it sees no other.
        noise_multiplier: Standard deviation of the noise in units of `clip_norm`.
        clip_norm: L2 norm C of one patient's gradient, at most.
        expected_batch: What sums are divided by.
    """

    accumulated_iterations = 1  # what Opacus' accountants multiply the sampling rate by

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        noise_multiplier: float,
        clip_norm: float,
        expected_batch: float,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip_norm,
            expected_batch_size=expected_batch,
        )
        self.grid = noise_multiplier * clip_norm * GRID
        """A step of the grid, in units of the gradient."""
        for parameter in self.params:
            parameter.summed_grad = torch.zeros(parameter.numel(), dtype=torch.float64)

    def accumulate(self, images: Sequence[int]) -> None:
        """Add the clipped gradients of some patients, of whom all images are in `grad_sample`.

        Args:
            images: How many images each patient has, in their order; images after them count for
                nothing.
        """
        gradients = [_of_patients(p, images) for p in self.params]
        norms = torch.stack(
            [torch.linalg.vector_norm(g, dim=1, dtype=torch.float64) for g in gradients]
        ).norm(dim=0)
        scale = (self.max_grad_norm * SLACK / norms.clamp(min=1e-300)).clamp(max=1.0)
        broken = ~torch.isfinite(norms)
        scale = (scale / self.grid).masked_fill(broken, 0.0).float()[:, None]
        for parameter, gradient in zip(self.params, gradients, strict=True):
            gradient[broken] = 0.0
            whole = gradient.mul_(scale).trunc_()
            # Sums of whole numbers below 2 ** 53 are exact in float64.
            parameter.summed_grad += whole.sum(0, dtype=torch.float64)

    def add_noise(self) -> None:
        """Put the noised sum, divided by the expected batch, where the optimizer looks for it."""
        for parameter in self.params:
            noise = torch.from_numpy(gaussian_steps(parameter.numel(), 1 / GRID))
            whole = parameter.summed_grad.to(torch.int64) + noise
            mean = whole.double() * (self.grid / self.expected_batch_size)
            parameter.grad = mean.float().view_as(parameter)
            parameter.summed_grad.zero_()

    def pre_step(self, closure: Callable[[], float] | None = None) -> bool:
        """Add the noise; an optimizer's step follows whatever was accumulated, also nothing."""
        self.add_noise()
        if self.step_hook:
            self.step_hook(self)
        return True


def _of_patients(parameter: Any, images: Sequence[int]) -> Tensor:
    """The gradients (patients, entries) of a parameter, summed over images; these are dropped."""
    samples: Tensor = parameter.grad_sample.flatten(1)
    parameter.grad_sample = parameter.grad = None
    used = samples[: sum(images)]
    if len(used) == len(images):
        return used
    return torch.stack([own.sum(0) for own in torch.split(used, list(images))])
