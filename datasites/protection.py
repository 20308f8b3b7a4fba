"""What is done to an update before it leaves, as the policy's section `privacy` says."""

from __future__ import annotations

import numpy as np

from datasites.catalogue import Card
from policies.arrays import Arrays
from policies.contract import Contract
from policies.document import Policy
from policies.privacy.mechanisms import Mechanism
from policies.privacy.rule import ROUNDED_TO
from policies.privacy.update_noise import clip_update, noise_update
from policies.update_rules import Update


def with_noise(
    update: Update | None,
    sent: Arrays,
    contract: Contract,
    policy: Policy,
    mechanism: Mechanism,
    examples: int,
) -> Update:
    """A run's weights, clipped and noised; of None, such as of a run that failed, noise alone.

    That a run failed would tell something of the data that no noise covers. So it looks from
    outside like a run that changed nothing.

    Args:
        update: What the run returned, if it kept the rules on what may leave.
        sent: The weights that it started from.
        contract: What leaves.
        policy: The policy in force.
        mechanism: What the run is charged with.
        examples: The number of images that is told.
    """
    norm = policy.privacy.clip_norm
    like: Arrays = {n: np.zeros(a.shape, a.dtype) for n, a in contract.weights.items()}
    if update is None:
        change = {name: np.zeros(array.shape) for name, array in like.items()}
    else:
        change = clip_update(update.weights, sent, norm)
    weights = noise_update(change, like, sent, norm, mechanism.noise_multiplier)
    return Update(weights=weights, metrics={}, examples=examples)


def examples_told(counted: int, card: Card, policy: Policy) -> int:
    """The number of images that leaves with an update."""
    shown = policy.privacy.examples_shown
    on_card = card.images("train") or policy.examples.minimum
    return {
        "counted": counted,
        "card": on_card,
        "rounded": max(1, round(on_card / ROUNDED_TO)) * ROUNDED_TO,
        "fixed": 1,
    }[shown]
