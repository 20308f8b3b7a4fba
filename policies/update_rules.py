"""Rules on what goes into a run and on what wants to leave it; a site releases nothing else.

A refusal of what a run returned goes to the researcher, so it says nothing that the run could have
chosen freely: no returned name, shape or value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from policies.arrays import Arrays, change_norm
from policies.contract import ArrayContract, Contract
from policies.document import Policy
from policies.findings import Finding, refuse
from policies.strict import some


@dataclass(frozen=True, slots=True)
class Update:
    """What one run returns.

    Attributes:
        weights: Layer name -> parameters, dtype and shape as in the contract.
        counts: Table name -> whole numbers of images.
        metrics: Name -> one finite number.
        examples: Number of images used.
    """

    weights: Arrays
    metrics: dict[str, float]
    examples: int
    counts: Arrays = field(default_factory=dict)


def check_weights(weights: Mapping[str, NDArray[np.generic]], contract: Contract) -> list[Finding]:
    """What in the weights sent to a run is not as the contract says; empty when all is well."""
    return _check_sent(weights, contract.sent)


def check_update(update: Update, sent: Arrays, contract: Contract, policy: Policy) -> list[Finding]:
    """What in an update may not leave; empty when all of it may.

    Args:
        update: What the run returned.
        sent: The weights the run started from, already checked against the contract.
        contract: The approved contract.
        policy: The hospital's policy.
    """
    findings = _check_returned("update", update.weights, contract.weights)
    findings += _check_returned("counts", update.counts, contract.counts)
    findings += _check_metrics(update.metrics, contract)
    if findings:
        return findings  # the rules below need the declared shapes
    clipped = policy.privacy.mode == "update_noise"  # whatever its change is
    noised = policy.privacy.mode == "dp_sgd"  # a small number says nothing of a group
    return [
        *_check_examples(update.examples, policy),
        *([] if noised else _check_cells(update.counts, policy)),
        *_check_size(update, policy),
        *([] if clipped else _check_change(update.weights, sent, policy)),
    ]


def what_may_leave(update: Update, policy: Policy) -> Update:
    """An update without what the policy keeps back whatever it is: with noise, all but weights."""
    if policy.privacy.mode != "update_noise":
        return update
    return replace(update, metrics={}, counts={})


def _check_sent(
    weights: Mapping[str, NDArray[np.generic]], declared: Mapping[str, ArrayContract]
) -> list[Finding]:
    findings = []
    if extra := set(weights) - set(declared):
        findings.append(
            refuse(
                "weights.names",
                f"sent and not declared: {some(extra)}",
                "the arrays of the contract",
                "send the approved model",
            )
        )
    if missing := set(declared) - set(weights):
        findings.append(
            refuse(
                "weights.names",
                f"declared and not sent: {some(missing)}",
                "all arrays of the contract",
                "send every declared array",
            )
        )
    for name in sorted(set(weights) & set(declared)):
        array, expected = weights[name], declared[name]
        if not _fits(array, expected):
            seen = f"`{name}` is {array.dtype.name} {array.shape}"
            findings.append(
                refuse(
                    "weights.shape",
                    seen[:200],
                    f"{expected.dtype} {expected.shape}",
                    "send the approved model, or ask for approval of this one",
                )
            )
        elif not _finite(array):
            findings.append(
                refuse(
                    "weights.finite",
                    f"`{name}` has numbers that are not finite",
                    "finite numbers",
                    "send other weights",
                )
            )
    return findings


def _check_returned(
    rule: str,
    arrays: Mapping[str, NDArray[np.generic]],
    declared: Mapping[str, ArrayContract],
) -> list[Finding]:
    """Findings that name only what was declared: names and shapes that a job made up are data."""
    findings = []
    if set(arrays) - set(declared):
        findings.append(
            refuse(
                f"{rule}.names",
                "arrays returned and not declared",
                "the arrays of the contract",
                "declare them, and ask again",
            )
        )
    if missing := set(declared) - set(arrays):
        findings.append(
            refuse(
                f"{rule}.names",
                f"declared and not returned: {some(missing)}",
                "all arrays of the contract",
                "return every declared array",
            )
        )
    for name in sorted(set(arrays) & set(declared)):
        array, expected = arrays[name], declared[name]
        if not _fits(array, expected):
            findings.append(
                refuse(
                    f"{rule}.shape",
                    f"`{name}` has another shape or dtype",
                    f"{expected.dtype} {expected.shape}",
                    "return the declared shapes",
                )
            )
        elif not _finite(array):
            findings.append(
                refuse(
                    f"{rule}.finite",
                    f"`{name}` has numbers that are not finite",
                    "finite numbers",
                    "lower the learning rate",
                )
            )
    return findings


def _fits(array: NDArray[np.generic], expected: ArrayContract) -> bool:
    return array.shape == expected.shape and array.dtype.name == expected.dtype


def _finite(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _check_metrics(metrics: Mapping[str, float], contract: Contract) -> list[Finding]:
    if set(metrics) != set(contract.metrics):
        return [
            refuse(
                "metrics.names",
                "other metrics returned than declared",
                some(contract.metrics) or "none",
                "return the declared metrics",
            )
        ]
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        return [
            refuse(
                "metrics.finite",
                f"{some(bad)} not finite",
                "finite numbers",
                "lower the learning rate",
            )
        ]
    return []


def _check_examples(examples: int, policy: Policy) -> list[Finding]:
    if examples >= policy.examples.minimum:
        return []
    return [
        refuse(
            "examples.minimum",
            "too few images used",
            f"at least {policy.examples.minimum}",
            "use more of the dataset",
        )
    ]


def _check_cells(counts: Arrays, policy: Policy) -> list[Finding]:
    minimum = policy.counts.minimum
    return [
        refuse(
            "counts.minimum",
            f"table `{name}` has cells that are too small",
            f"0 or at least {minimum} in every cell",
            "merge neighbouring cells",
        )
        for name, table in sorted(counts.items())
        if ((table != 0) & (table.astype(np.int64) < minimum)).any()
    ]


def _check_size(update: Update, policy: Policy) -> list[Finding]:
    arrays = (*update.weights.values(), *update.counts.values())
    size_mb = sum(a.nbytes for a in arrays) / 1e6
    if size_mb <= policy.update.maximum_mb:
        return []
    return [
        refuse(
            "update.size",
            f"{size_mb:.2f} MB",
            f"at most {policy.update.maximum_mb:g} MB",
            "use a smaller model",
        )
    ]


def _check_change(weights: Arrays, sent: Arrays, policy: Policy) -> list[Finding]:
    norm = change_norm(weights, sent)
    if norm <= policy.update.maximum_change_norm:
        return []
    # As a power of two at most: enough to act on, and next to nothing that a run could choose.
    ratio = min(norm / policy.update.maximum_change_norm, 1024.0)
    times = 2 ** math.ceil(math.log2(ratio))
    return [
        refuse(
            "update.norm",
            f"the change has up to {times} times the L2 norm that may leave",
            f"at most {policy.update.maximum_change_norm:g}",
            "lower the learning rate or the local epochs",
        )
    ]
