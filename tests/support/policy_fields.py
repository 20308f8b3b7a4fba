"""A policy with every part filled, and another value for each of its fields."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from policies.document import Policy

FULL: dict[str, Any] = {
    "name": "test",
    "version": 1,
    "about": "A test",
    "datasets": ["chest-xray", "head-mr"],
    "versions": {"chest-xray": ["5eed0a11"]},
    "requesters": {"accounts": ["*@uni.example"], "institutions": ["Example University"]},
    "purposes": ["research"],
    "access": ["arrays"],
    "runs": {"maximum": 30, "per_day": 10},
    "expiry": {"maximum_days": 30, "undecided_days": 45},
    "arguments": {"rate": {"low": 0.0, "high": 1.0}, "split": {"choices": ["train", "test"]}},
    "job": {"imports": ["math", "numpy"], "forbidden_calls": ["open"], "maximum_lines": 200},
    "contract": {"dtypes": ["float32"], "maximum_arrays": 100, "maximum_tables": 2,
                 "maximum_cells": 200, "maximum_metrics": 3},
    "examples": {"minimum": 200, "minimum_classes": 3, "minimum_per_class": 50},
    "dominance": {"maximum_share": 0.02, "unknown_patients": "refuse"},
    "counts": {"minimum": 10},
    "update": {"maximum_mb": 5, "maximum_total_mb": 100, "maximum_change_norm": 30},
    "sandbox": {"memory_mb": 2048, "time_s": 300, "processes": 32, "proof_days": 30},
    "publishing": {"minimum_per_class": 50, "minimum_patients": 100, "options": ["113100"],
                   "text_search": "required", "suspect_modalities": ["US"],
                   "recognisable_heads": "refuse"},
    "privacy": {"mode": "none"},
    "release": {"required": True, "maximum_tpr_at_0_1_percent": 0.05,
                "maximum_tpr_at_1_percent": 0.1, "maximum_parameters_per_patient": 1000},
    "review": {
        "approvers": 2, "roles": ["owner"], "four_eyes": True, "waiting_hours": 48,
        "rehearsal": {"images": 48, "time_s": 120, "must_succeed": True},
        "tiers": [{
            "name": "large", "approvers": 3, "roles": ["owner"], "four_eyes": True,
            "waiting_hours": 72,
            "when": {"runs_above": 10, "total_mb_above": 20, "warnings_above": 1,
                     "new_text": True, "new_requester": True},
        }],
    },
}  # fmt: skip

LOOSER: dict[str, Any] = {
    "datasets": ["chest-xray", "head-mr", "skin"],
    "versions.chest-xray": ["5eed0a11", "0b5e55ed"],
    "requesters.accounts": [],
    "requesters.institutions": ["Example University", "Other University"],
    "purposes": ["research", "teaching"],
    "access": ["arrays", "trainer"],
    "runs.maximum": 31,
    "runs.per_day": 11,
    "expiry.maximum_days": 31,
    "expiry.undecided_days": 46,
    "arguments.rate": {"low": 0.0, "high": 1.5},
    "arguments.split": {"choices": ["train", "test", "val"]},
    "arguments.speed": {"value": 1},
    "job.imports": ["math", "numpy", "torch"],
    "job.forbidden_calls": [],
    "job.maximum_lines": 201,
    "contract.dtypes": ["float32", "int64"],
    "contract.maximum_arrays": 101,
    "contract.maximum_tables": 3,
    "contract.maximum_cells": 201,
    "contract.maximum_metrics": 4,
    "examples.minimum": 199,
    "examples.minimum_classes": 2,
    "examples.minimum_per_class": 49,
    "dominance.maximum_share": 0.03,
    "dominance.unknown_patients": "read",
    "counts.minimum": 9,
    "update.maximum_mb": 5.5,
    "update.maximum_total_mb": 100.5,
    "update.maximum_change_norm": 30.5,
    "sandbox.memory_mb": 2049,
    "sandbox.proof_days": 31,
    "sandbox.time_s": 301,
    "sandbox.processes": 33,
    "publishing.minimum_per_class": 49,
    "publishing.minimum_patients": 99,
    "publishing.options": [],
    "publishing.text_search": "if installed",
    "publishing.suspect_modalities": [],
    "publishing.recognisable_heads": "allow",
    "release.required": False,
    "release.maximum_tpr_at_0_1_percent": 0.06,
    "release.maximum_tpr_at_1_percent": None,
    "release.maximum_parameters_per_patient": 1001,
    "review.approvers": 1,
    "review.roles": [],
    "review.four_eyes": False,
    "review.waiting_hours": 24,
    "review.rehearsal.must_succeed": False,
    "review.tiers.0.approvers": 2,
    "review.tiers.0.roles": [],
    "review.tiers.0.four_eyes": False,
    "review.tiers.0.waiting_hours": 71.5,
    "review.tiers.0.when.runs_above": 11,
    "review.tiers.0.when.total_mb_above": None,
    "review.tiers.0.when.warnings_above": 2,
    "review.tiers.0.when.new_text": False,
    "review.tiers.0.when.new_requester": False,
}
"""Field of FULL -> a value that allows more."""

NEUTRAL: dict[str, Any] = {
    "name": "other",
    "version": 2,
    "about": None,
    "review.rehearsal.images": 47,
    "review.rehearsal.time_s": 119,
}
"""Field of FULL -> another value that neither allows nor refuses more."""

WITH_DP = {"mode": "update_noise", "maximum_epsilon": 3.0, "delta": 1e-5, "period_days": 700}
TRAINER = {**WITH_DP, "mode": "dp_sgd"}

PRIVATE: dict[str, tuple[Any, str]] = {
    "maximum_epsilon": (4.0, "becomes allowed"),
    "delta": (1e-4, "becomes allowed"),
    "period_days": (365, "becomes allowed"),
    "accountant": ("pld", "changes otherwise"),
    "clip_norm": (2.0, "changes otherwise"),
    "examples": ("fixed", "changes otherwise"),
    "release_after_s": (60, "changes otherwise"),
}
"""Field of the section `privacy` -> another value than in WITH_DP, and what the change does."""


def changed(path: str, value: Any) -> Policy:
    """The full policy with one field changed."""
    plain: Any = copy.deepcopy(FULL)
    inner = plain
    *above, last = path.split(".")
    for name in above:
        inner = inner[int(name)] if name.isdecimal() else inner[name]
    inner[last] = value
    return Policy.model_validate(plain)


def leaves(model: type[BaseModel] = Policy, path: str = "") -> Iterator[str]:
    """Every field of the model that is not a part with fields of its own."""
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if _is_model(a)]
        is_list = bool(get_args(field.annotation))
        if inner and not (is_list and name == "arguments"):
            yield from leaves(inner[0], f"{path}{name}." + ("0." if is_list else ""))
        else:
            yield path + name


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
