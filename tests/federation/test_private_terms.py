"""Terms for hospitals that train themselves, and measures of a table that got noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import federation
from federation.errors import FederationError
from federation.noised_scores import means_of
from federation.privacy_costs import privacy_costs
from policies.privacy.asked import PrivacyAsked

WEIGHTS = {"w": np.zeros((2, 3), np.float32)}
ABOUT: dict[str, Any] = {
    "title": "Train", "purpose": "a test", "dataset": "chest-xray", "runs": 4, "config": {},
}  # fmt: skip


def test_training_asks_for_steps_that_draw_each_patient_so_often() -> None:
    wanted = federation.private_training_terms(
        WEIGHTS, **ABOUT, epsilon=8.0, sampling_rate=0.25, epochs=3
    )
    assert wanted.privacy == PrivacyAsked(epsilon=8.0, sampling_rate=0.25, steps=12)
    terms = wanted.at("0" * 64, "build")
    assert (terms.access, terms.contract.metrics) == ("trainer", ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0}, {"epsilon": 101.0}, {"sampling_rate": 0.0}, {"sampling_rate": 1.1},
        {"epochs": 0.0},
    ],
)  # fmt: skip
def test_training_out_of_range_is_refused_in_a_sentence(wrong: dict[str, float]) -> None:
    right = {"epsilon": 1.0, "sampling_rate": 0.5, "epochs": 1.0}
    with pytest.raises(FederationError, match="give an epsilon above 0 and at most 100"):
        federation.private_training_terms(WEIGHTS, **ABOUT, **{**right, **wrong})


def test_an_evaluation_asks_for_one_table_of_two_classes() -> None:
    wanted = federation.private_evaluation_terms(WEIGHTS, **ABOUT, epsilon=1.0, bins=10)
    terms = wanted.at("0" * 64, "build")
    assert terms.contract.counts["scores"].shape == (1, 2, 10)
    assert (terms.contract.weights, set(terms.contract.sent)) == ({}, {"w"})
    assert wanted.privacy == PrivacyAsked(epsilon=1.0)
    for wrong, told in (({"bins": 5}, "even number"), ({"epsilon": -1.0}, "above 0")):
        with pytest.raises(FederationError, match=told):
            federation.private_evaluation_terms(WEIGHTS, **ABOUT, **{"epsilon": 1.0, **wrong})


def test_plain_training_may_ask_for_an_epsilon() -> None:
    wanted = federation.training_terms(WEIGHTS, **ABOUT, metrics=(), epsilon=2.0)
    assert wanted.privacy == PrivacyAsked(epsilon=2.0)
    assert federation.training_terms(WEIGHTS, **ABOUT).privacy is None
    with pytest.raises(FederationError, match="`epsilon` is 0"):
        federation.training_terms(WEIGHTS, **ABOUT, epsilon=0)


def test_means_follow_from_a_table() -> None:
    scores = np.zeros((1, 2, 4))
    scores[0, 0], scores[0, 1] = [30, 10, 5, 5], [0, 10, 10, 30]
    means = means_of(scores, 0.5)
    assert means["accuracy"] == (40 + 40) / 100
    assert means["sensitivity"] == 40 / 50
    assert means["specificity"] == 40 / 50
    assert 0.8 < means["auc"] < 1
    assert 0 < means["brier"] < 0.25
    empty = means_of(np.zeros((1, 2, 4)), 0.5)
    assert set(empty.values()) == {0.0}


def test_costs_are_shown_with_what_is_left_and_none_in_red() -> None:
    noisy = {
        "mode": "update_noise", "asked": 2.0, "by_request": 0.5, "spent": 1.5, "cap": 8.0,
        "left": 6.5, "delta": 1e-5, "run": "noise 4",
    }  # fmt: skip
    plain = dict.fromkeys(noisy) | {"mode": "none", "run": ""}
    costs = privacy_costs({"St Mary's": {"privacy": noisy}, "Seaside": {"privacy": plain}})
    assert costs["left"].iloc[0] == 6.5
    page = costs._repr_html_()
    assert "✕ none" in page
    assert "6.5" in page
