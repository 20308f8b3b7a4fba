"""Valid objects for tests; a test changes the one field that it is about."""

from __future__ import annotations

from typing import Any

import numpy as np

from datasites.catalogue import SplitArrays
from policies.contract import ArrayContract, Bound, Contract, Terms
from policies.document import Policy
from policies.request_rules import Ask, DatasetFacts, Requester

PASSWORD = "correct horse battery staple"

DOUBLE_JOB = """\
# Doubles the weights; a job that is quick to run and easy to check.
def train(data, weights, config):
    images, labels = data.arrays("train")
    return {
        "weights": {name: array * 2 for name, array in weights.items()},
        "metrics": {"loss": 0.5},
        "examples": len(labels),
    }
"""


def policy(**changes: Any) -> Policy:
    """A policy that allows `terms()`; nested changes are given as mappings."""
    plain: dict[str, Any] = {
        "name": "test",
        "version": 1,
        "datasets": ["chest-xray"],
        "access": ["arrays"],
        "runs": {"maximum": 100},
        "expiry": {"maximum_days": 90},
        "arguments": {"rate": {"low": 0.0, "high": 1.0}},
        "examples": {"minimum": 10},
        "dominance": {"unknown_patients": "read"},
        "counts": {"minimum": 5},
        "update": {"maximum_mb": 1, "maximum_change_norm": 1000},
        "sandbox": {"memory_mb": 1024, "time_s": 20},
        "privacy": {"mode": "none"},
        "review": {"rehearsal": {"images": 0, "time_s": 3}},
    }
    return Policy.model_validate({**plain, **changes})


def ask(text: str = DOUBLE_JOB, **changes: Any) -> Ask:
    """A request that `policy()` allows; changes of the terms, or `dataset` facts, `requester`."""
    dataset = changes.pop("facts", DatasetFacts(120, (60, 60), 0.02, True))
    requester = changes.pop("requester", Requester("rita@uni.example", "Example University"))
    return Ask(text, terms(**changes), dataset, requester)


def contract(**changes: Any) -> Contract:
    """One array `w` of four float32 and one metric `loss`."""
    plain: dict[str, Any] = {
        "weights": {"w": ArrayContract(shape=(4,), dtype="float32")},
        "metrics": ("loss",),
    }
    return Contract(**{**plain, **changes})


def terms(**changes: Any) -> Terms:
    """Terms that `policy()` allows."""
    plain: dict[str, Any] = {
        "title": "Double the weights",
        "purpose": "a test",
        "entry": "train",
        "dataset": "chest-xray",
        "version": "0" * 64,
        "access": "arrays",
        "runs": 10,
        "expires_in_days": 30,
        "arguments": {"rate": Bound(low=0.0, high=1.0)},
        "contract": contract(),
    }
    return Terms(**{**plain, **changes})


def weights() -> dict[str, np.ndarray]:
    """Weights that fit `contract()`."""
    return {"w": np.arange(4, dtype=np.float32)}


def splits(train: int = 120, test: int = 60, seed: int = 0) -> dict[str, SplitArrays]:
    """Small random images of two classes, half and half."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.integers(0, 256, (count, 8, 8), dtype=np.uint8),
            (np.arange(count) % 2).astype(np.int64),
        )
        for name, count in (("train", train), ("test", test))
    }
