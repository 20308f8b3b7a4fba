"""The number of images that leaves, and the noise of a run that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
from datasites.catalogue import Card, write_version
from datasites.protection import examples_told, with_noise
from policies.privacy.mechanisms import Mechanism
from policies.update_rules import Update, what_may_leave

NOISE: dict[str, Any] = {"mode": "update_noise", "maximum_epsilon": 8.0, "delta": 1e-5}


def card(tmp_path: Path, train: int) -> Card:
    return write_version(
        tmp_path, factories.splits(train), name="chest-xray", classes=("normal", "pneumonia"),
        source="trial", licence="none", description="", minimum_count=5,
    )[1]  # fmt: skip


@pytest.mark.parametrize(
    ("privacy", "train", "told"),
    [
        ({"mode": "none"}, 120, 77),
        ({"mode": "none", "examples": "card"}, 120, 120),
        ({"mode": "none", "examples": "rounded"}, 151, 200),
        ({"mode": "none", "examples": "rounded"}, 149, 100),
        ({"mode": "none", "examples": "rounded"}, 20, 100),
        ({"mode": "none", "examples": "fixed"}, 120, 1),
        (NOISE, 120, 120),
        ({**NOISE, "examples": "fixed"}, 120, 1),
    ],
)
def test_the_number_of_images_is_told_as_the_policy_says(
    tmp_path: Path, privacy: dict[str, Any], train: int, told: int
) -> None:
    policy = factories.policy(privacy=privacy)
    assert examples_told(77, card(tmp_path, train), policy) == told


def test_a_number_that_the_card_suppresses_is_the_policys_minimum(tmp_path: Path) -> None:
    policy = factories.policy(privacy=NOISE, examples={"minimum": 11})
    assert examples_told(77, card(tmp_path, 4), policy) == 11


def test_a_run_without_an_update_gives_the_noise_of_one_that_changed_nothing() -> None:
    policy, one = factories.policy(privacy=NOISE), Mechanism(noise_multiplier=3.0)
    sent, contract = factories.weights(), factories.contract(metrics=())
    none = [
        with_noise(None, sent, contract, policy, one, 120).weights["w"] - sent["w"]
        for _ in range(3000)
    ]
    same = [
        with_noise(Update(sent, {}, 5), sent, contract, policy, one, 120).weights["w"] - sent["w"]
        for _ in range(3000)
    ]
    for seen in (np.array(none), np.array(same)):
        assert seen.std() == pytest.approx(3.0 * 2 * policy.privacy.clip_norm, rel=0.05)
        assert abs(seen.mean()) < 0.3


@pytest.mark.parametrize(("privacy", "kept"), [({"mode": "none"}, True), (NOISE, False)])
def test_metrics_and_tables_stay_where_noise_covers_weights_alone(
    privacy: dict[str, Any], kept: bool
) -> None:
    update = Update(factories.weights(), {"loss": 0.5}, 120, {"t": np.ones(3, np.int64)})
    left = what_may_leave(update, factories.policy(privacy=privacy))
    assert (bool(left.metrics), bool(left.counts)) == (kept, kept)
    assert left.weights is update.weights
