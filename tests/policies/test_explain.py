"""A policy in plain sentences: every value stands in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import factories
from policies.document import Policy, load_policy
from policies.explain import explain
from policy_fields import FULL, LOOSER, NEUTRAL, PRIVATE, TRAINER, WITH_DP, changed, leaves

FOLDER = Path(__file__).parents[2] / "policies"
ALTERED = {**LOOSER, **NEUTRAL}


def sentences(policy: Policy) -> list[str]:
    return [sentence for section in explain(policy) for sentence in section.sentences]


def test_every_field_of_the_model_has_another_value_to_be_tested_with() -> None:
    known = {path.removesuffix(".chest-xray") for path in ALTERED if "arguments" not in path}
    tested_below = {
        "arguments", "privacy.mode", "privacy.images_per_patient",
        *(f"privacy.{name}" for name in PRIVATE), "review.tiers.0.name",
    }  # fmt: skip
    assert known | tested_below == set(leaves())


@pytest.mark.parametrize("path", ALTERED)
def test_any_changed_field_changes_the_explanation(path: str) -> None:
    assert sentences(changed(path, ALTERED[path])) != sentences(Policy.model_validate(FULL))


def test_a_changed_name_of_a_tier_changes_the_explanation() -> None:
    full = sentences(Policy.model_validate(FULL))
    assert sentences(changed("review.tiers.0.name", "huge")) != full


@pytest.mark.parametrize("field", PRIVATE)
def test_changed_protection_changes_the_explanation(field: str) -> None:
    private = changed("privacy", {**WITH_DP, field: PRIVATE[field][0]})
    assert sentences(private) != sentences(changed("privacy", WITH_DP))


def with_trainer(**privacy: Any) -> Policy:
    return Policy.model_validate({**FULL, "access": ["trainer"], "privacy": TRAINER | privacy})


def test_the_number_of_images_of_a_patient_is_explained() -> None:
    assert sentences(with_trainer(images_per_patient=3)) != sentences(with_trainer())


def test_explanation_follows_the_questions_of_a_privacy_officer() -> None:
    assert [section.heading for section in explain(factories.policy())] == [
        "What this policy is",
        "Who may ask, and for what",
        "What a job sees",
        "What the text of a job may contain",
        "How often, how long, with which arguments",
        "What may leave",
        "Who decides",
        "What one run may use up",
        "What images need before they are published",
        "What is refused outright",
        "What this policy does not protect against",
    ]


@pytest.mark.parametrize(
    "name", ["university-hospital", "community-hospital", "childrens-hospital"]
)
def test_examples_are_explained_in_whole_sentences(name: str) -> None:
    for section in explain(load_policy(FOLDER / f"{name}.yaml")):
        assert section.sentences
        for sentence in section.sentences:
            assert sentence[0].isupper() or sentence[0].isdigit()
            assert sentence.endswith(".")
            assert "None" not in sentence
            assert "  " not in sentence


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("about", "Chest X-rays", "In the hospital's own words: Chest X-rays."),
        ("requesters.accounts", ["*@uni.example", "a@b.example"],
            "Only these may ask: every account of uni.example and a@b.example."),
        ("requesters.accounts", [], "Every account that the hospital made may ask."),
        ("requesters.institutions", ["A", "B"], "The account has to stand for A or B."),
        ("purposes", ["research", "teaching"],
            "The results may be used for research and teaching."),
        ("purposes", ["research", "teaching"],
            "Use for quality improvement or product development."),
        ("versions.chest-xray", ["5eed0a11"],
            "Of chest-xray, only versions that start with 5eed0a11 may be used."),
        ("access", ["trainer"],
            "Nothing can be approved: the hospital's own training loop needs privacy mode dp_sgd."),
        ("runs", {"maximum": 1, "per_day": 1000},
            "One approval pays for at most 1 run, and for at most 1,000 within 24 hours; failed "
            "runs count."),
        ("arguments", {}, "A job may have no arguments."),
        ("arguments", {"epochs": {"low": 1, "high": 5}},
            "The argument epochs may be 1 to 5 (whole numbers)."),
        ("job.forbidden_calls", [], "The policy forbids no name in it."),
        ("dominance.maximum_share", 0.005,
            "At most 0.5% of the training images come from one patient."),
        ("dominance.unknown_patients", "read",
            "Datasets whose patients nobody knows are not protected against a dominating patient."),
        ("counts.minimum", 5,
            "A cell of a table is 0 or at least 5: smaller groups are not shown."),
        ("review", {}, "An approval needs 1 person, a data owner."),
        ("review", {}, "They may agree at once."),
        ("review", {"roles": []}, "An approval needs 1 person of any role that decides."),
        ("review", {"approvers": 3, "roles": ["owner", "owner", "second approver"]},
            "An approval needs 3 people, among them 2 data owners and a second approver."),
        ("review", {"four_eyes": True, "waiting_hours": 24},
            "The last of them agrees 24 hours after submission or later."),
        ("review", {"tiers": [{"name": "odd", "when": {"warnings_above": 0, "runs_above": 5},
            "approvers": 2, "waiting_hours": 72}]},
            "If it asks for more than 5 runs or its text has a warning (kind `odd`), it needs at "
            "least 2 people, among them a data owner, 3 days after submission."),
        ("publishing.options", ["113100", "113199"],
            "Its certificate lists the de-identification methods 113100 (basic profile) and "
            "113199."),
        ("publishing.text_search", "off",
            "Names in the pixels of an image may be published unseen."),
        ("publishing.recognisable_heads", "allow", "Patients may be recognised by their faces."),
        ("privacy", WITH_DP,
            "Epsilon at most 3 with delta 1e-05 per patient, over all runs of everyone on all "
            "versions of a dataset, in any 700 days; Renyi (RDP) accountant. It holds for any code "
            "and any two datasets, so for all images of a patient. Assumed: the numbers on a "
            "dataset's card are public. Not covered: the time that a run takes."),
        ("privacy", {**WITH_DP, "release_after_s": 90},
            "Epsilon at most 3 with delta 1e-05 per patient, over all runs of everyone on all "
            "versions of a dataset, in any 700 days; Renyi (RDP) accountant. It holds for any code "
            "and any two datasets, so for all images of a patient. Assumed: the numbers on a "
            "dataset's card are public. Updates are given out 90 s after a run began."),
        ("privacy", {"mode": "none", "examples": "rounded"},
            "The number of images that leaves is rounded to 100s."),
    ],
)  # fmt: skip
def test_value_is_said_in_a_sentence(path: str, value: Any, sentence: str) -> None:
    assert sentence in sentences(changed(path, value))
