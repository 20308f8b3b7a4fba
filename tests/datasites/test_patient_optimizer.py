"""The private step: what one patient can change, and what is added to it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

with warnings.catch_warnings():  # what Opacus imports warns about itself
    warnings.simplefilter("ignore")
    from opacus.accountants import RDPAccountant

    from datasites.sandbox.patient_optimizer import PatientOptimizer
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Mechanism, Spent

HUGE = float(np.finfo(np.float32).max)


def optimizer(
    sizes: tuple[int, ...] = (3, 2), clip: float = 1.0, noise: float = 1.0, batch: float = 1.0
) -> tuple[PatientOptimizer, list[Any]]:
    """An optimizer of parameters of zeros that moves them by minus the noised mean."""
    parameters: list[Any] = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    sgd = torch.optim.SGD(parameters, lr=1.0)
    return PatientOptimizer(sgd, noise, clip, batch), parameters


def summed(gradients: list[list[float]], images: list[int], clip: float = 1.0) -> np.ndarray:
    """The sum of clipped gradients before noise, of rows of five numbers per image."""
    made, parameters = optimizer(clip=clip)
    rows = torch.tensor(gradients, dtype=torch.float32).reshape(-1, 5)
    for parameter, part in zip(parameters, rows.split([3, 2], 1), strict=True):
        parameter.grad_sample = part.clone()
    made.accumulate(images)
    whole = torch.cat([p.summed_grad for p in parameters]).numpy()
    np.testing.assert_array_equal(whole, np.rint(whole))  # it lies on the grid
    return whole * made.grid


CLIPPED: list[tuple[list[list[float]], list[int], list[float]]] = [
    ([[0.3, 0, 0, 0, 0.4]], [1], [0.3, 0, 0, 0, 0.4]),  # below C: as it is
    ([[3, 0, 0, 0, 4]], [1], [0.6, 0, 0, 0, 0.8]),  # above C: scaled, over all parameters
    ([[3, 0, 0, 0, 4], [0.1, 0, 0, 0, 0]], [1, 1], [0.7, 0, 0, 0, 0.8]),  # each by itself
    ([[3, 0, 0, 0, 4], [3, 0, 0, 0, 4]], [2], [0.6, 0, 0, 0, 0.8]),  # two images of one patient
    ([[9, 0, 0, 0, 0], [-9, 0, 0, 0, 0.2]], [2], [0, 0, 0, 0, 0.2]),  # the sum is what is clipped
    ([[HUGE, 0, 0, 0, HUGE]], [1], [math.sqrt(0.5), 0, 0, 0, math.sqrt(0.5)]),
    ([[1e-30, 0, 0, 0, 0]], [1], [0, 0, 0, 0, 0]),  # less than a step of the grid
    # What is no number is nothing, and takes nobody else with it.
    ([[math.nan, 1, 1, 1, 1], [0, 0.5, 0, 0, 0]], [1, 1], [0, 0.5, 0, 0, 0]),
    ([[math.inf, 1, 1, 1, 1], [0, 0.5, 0, 0, 0]], [1, 1], [0, 0.5, 0, 0, 0]),
    ([[HUGE, 0, 0, 0, 0], [HUGE, 0, 0, 0, 0], [0, 0.5, 0, 0, 0]], [2, 1], [0, 0.5, 0, 0, 0]),
    # Images behind those of the patients fill a physical batch up and count for nothing.
    ([[0, 0.5, 0, 0, 0], [9, 9, 9, 9, 9]], [1], [0, 0.5, 0, 0, 0]),
    ([[math.nan] * 5], [], [0, 0, 0, 0, 0]),  # nobody
]  # fmt: skip


@pytest.mark.parametrize(("gradients", "images", "expected"), CLIPPED)
def test_gradients_are_clipped_per_patient(
    gradients: list[list[float]], images: list[int], expected: list[float]
) -> None:
    np.testing.assert_allclose(summed(gradients, images), expected, rtol=2e-6, atol=2e-6)


NUMBER = st.floats(width=32, allow_nan=True, allow_infinity=True)
PATIENTS = st.lists(
    st.lists(st.lists(NUMBER, min_size=5, max_size=5), min_size=1, max_size=3), max_size=4
)


@settings(max_examples=200, deadline=None)
@given(PATIENTS, st.lists(st.lists(NUMBER, min_size=5, max_size=5), min_size=1, max_size=3),
       st.integers(0, 4), st.floats(1e-3, 1e3))  # fmt: skip
def test_one_patient_more_moves_the_sum_by_the_clip_at_most(
    others: list[list[list[float]]], one: list[list[float]], place: int, clip: float
) -> None:
    """Whatever the gradients are: exactly, not up to rounding; sums are of whole numbers."""
    with_one = [*others[:place], one, *others[place:]]

    def total(patients: list[list[list[float]]]) -> np.ndarray:
        images = [image for patient in patients for image in patient]
        return summed(images, [len(patient) for patient in patients], clip)

    difference = total(with_one) - total(others)
    assert np.isfinite(difference).all()
    assert np.linalg.norm(difference) <= clip
    np.testing.assert_allclose(difference, total([one]), atol=1e-12 * clip)


def test_the_noise_of_a_step_is_gaussian_with_deviation_noise_times_clip() -> None:
    made, (parameter,) = optimizer((100_000,), clip=3.0, noise=0.5, batch=4.0)
    made.step()
    first = parameter.detach().clone()
    assert kstest((first * 4.0 / 1.5).numpy(), "norm").pvalue > 1e-6
    made.step()  # nobody was in either step: noise alone
    second = parameter.detach() - first
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    again, (other,) = optimizer((100_000,), clip=3.0, noise=0.5, batch=4.0)
    again.step()
    assert not torch.equal(first, other)


def test_a_step_forgets_what_was_accumulated_before() -> None:
    made, (parameter,) = optimizer((2,), noise=1e-3)
    for expected in ([-1.0, 0.0], [-1.0, 0.0]):  # a second step without anybody stays there
        if not parameter.detach().any():
            parameter.grad_sample = torch.tensor([[5.0, 0.0]])
            made.accumulate([1])
        made.step()
        np.testing.assert_allclose(parameter.detach(), expected, atol=0.02)


def test_what_is_divided_by_is_the_expected_batch_not_the_real_one() -> None:
    made, (parameter,) = optimizer((2,), noise=1e-3, batch=10.0)
    parameter.grad_sample = torch.tensor([[1.0, 0.0]] * 4)
    made.accumulate([1, 1, 1, 1])
    made.step()
    np.testing.assert_allclose(parameter.detach(), [-0.4, 0.0], atol=0.002)


def test_opacus_own_accountant_finds_the_epsilon_that_is_charged() -> None:
    """It counts the steps that are made, and how; ours knows the plan alone."""
    made, _ = optimizer(noise=1.1)
    accountant = RDPAccountant()
    made.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.05))
    for _ in range(200):
        made.step()
    ours = epsilon(Spent({Mechanism(noise_multiplier=1.1, sampling_rate=0.05, steps=200): 1}), 1e-5)
    assert accountant.get_epsilon(1e-5) == pytest.approx(ours, rel=0.01)
