"""What can be seen to be wrong before a hospital is asked to compute: each a sentence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from federation.errors import FederationError
from policies.argument_rules import check_arguments
from policies.arrays import Arrays
from policies.contract import Contract
from policies.findings import Finding
from policies.strict import some
from policies.update_rules import check_weights

if TYPE_CHECKING:
    from federation.submission import Study

Quorum = int | Sequence[str] | None
"""How many sites a round needs, or which ones; None: all."""


def check_quorum(quorum: Quorum, sites: Sequence[str]) -> None:
    """Refuse a quorum that no round can have, or that names something else than the study's sites.

    Raises:
        FederationError: As said.
    """
    if quorum is None:
        return
    if isinstance(quorum, bool | str) or not isinstance(quorum, int | Sequence):
        raise FederationError(
            f"quorum={quorum!r} is neither a number of sites nor a list of their names; write for "
            f"example quorum={max(len(sites) - 1, 1)} or quorum={list(sites[:1])}"
        )
    if isinstance(quorum, int):
        if not 1 <= quorum <= len(sites):
            raise FederationError(
                f"quorum={quorum} cannot be: there are {len(sites)} sites "
                f"({', '.join(sites)}); give a number from 1 to {len(sites)}"
            )
        return
    if not quorum:
        raise FederationError(
            "the quorum is an empty list; name the sites that a round needs, or leave it out to "
            "need all"
        )
    if strangers := [name for name in quorum if name not in sites]:
        raise FederationError(
            f"the quorum names {some(map(str, strangers))}, and the sites are "
            f"{', '.join(sites)}; name some of these"
        )


def holds(quorum: Quorum, present: Collection[str], sites: Sequence[str]) -> bool:
    """Whether those that are present are enough; nobody never is."""
    needed = sites if quorum is None else quorum
    if isinstance(needed, int):
        return len(present) >= needed
    return bool(present) and set(present) >= set(needed)


def check_numbers(
    *,
    rounds: int,
    first_round: int,
    at_once: int | None,
    patience_s: float,
    round_timeout_s: float | None,
) -> None:
    """Refuse numbers with which nothing would happen.

    Raises:
        FederationError: As said.
    """
    for name, value, least in (
        ("rounds", rounds, 1), ("first_round", first_round, 0), ("at_once", at_once, 1),
    ):  # fmt: skip
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            raise FederationError(
                f"{name}={value!r} cannot be; give a whole number of at least {least}"
            )
    if not patience_s >= 0:
        raise FederationError(f"patience_s={patience_s} cannot be; give 0 or more seconds")
    if round_timeout_s is not None and not round_timeout_s > 0:
        raise FederationError(
            f"round_timeout_s={round_timeout_s} cannot be; give some seconds, or None to wait for "
            "every site"
        )


def check_model(study: Study, weights: Arrays) -> None:
    """Refuse weights that are not those of the model that the hospitals were asked about.

    Raises:
        FederationError: There are none, some are no arrays, are not finite, or do not fit.
    """
    _check_arrays(weights)
    declared = study.wanted.contract.weights
    if not declared:
        raise FederationError(
            f"the job of this study, `{study.job.name}`, gives no weights back; train with a study "
            "of a training job"
        )
    _refuse(check_weights(weights, Contract(weights=declared)), "the weights do not fit the study")


def check_run(
    study: Study, names: Sequence[str], weights: Callable[[str], Arrays], config: Mapping[str, Any]
) -> None:
    """Refuse weights and arguments of single runs that are not what the hospitals were asked about.

    Args:
        study: The study.
        names: The sites.
        weights: Gives what a site is sent.
        config: The job's arguments.

    Raises:
        FederationError: Some do not fit.
    """
    check_config(study, config)
    for name in names:
        sent = weights(name)
        _check_arrays(sent)
        found = check_weights(sent, study.wanted.contract)
        _refuse(found, "the weights do not fit the study")


def check_sent(study: Study, sent: Mapping[str, Arrays]) -> None:
    """Refuse an algorithm that sends other arrays than the hospitals were asked about.

    Args:
        study: The study.
        sent: Site -> what the algorithm sends it first.

    Raises:
        FederationError: Some do not fit.
    """
    for arrays in sent.values():
        _refuse(
            check_weights(arrays, study.wanted.contract),
            "what the algorithm sends does not fit the study; give `sent` to `training_terms`",
        )


def check_config(study: Study, config: Mapping[str, Any]) -> None:
    """Refuse arguments outside what the hospitals were asked about.

    Raises:
        FederationError: One is missing, unknown, out of its range, or no plain value.
    """
    for name, value in config.items():
        if not isinstance(value, bool | int | float | str):
            raise FederationError(
                f"`{name}` in `config` is a {type(value).__name__}; give a plain number or text"
            )
    found = check_arguments(config, study.wanted.arguments)
    _refuse(found, "`config` is not what the study asked for")


def check_data(titles: Sequence[str], cards: Sequence[Mapping[str, Any]]) -> None:
    """Refuse sites whose images or classes differ, or that hold images of one class only.

    Args:
        titles: Of the sites.
        cards: Their datasets' cards, in the same order.

    Raises:
        FederationError: As said.
    """
    for field, what in (("shape", "images of {}"), ("classes", "the classes {}"),
                        ("dtype", "pixels of the type {}")):  # fmt: skip
        seen = [_in_words(card.get(field)) for card in cards]
        if len(set(seen)) > 1:
            told = "; ".join(
                f"{title} has {what.format(s)}" for title, s in zip(titles, seen, strict=True)
            )
            raise FederationError(
                f"one model cannot be trained on data that differ: {told}. Ask the hospitals to "
                "publish alike, or name `sites` that agree when you submit"
            )
    _check_classes(titles, cards)


def _check_classes(titles: Sequence[str], cards: Sequence[Mapping[str, Any]]) -> None:
    held = {
        name
        for card in cards
        for name, count in card["counts"].get("train", {}).items()
        if count
    }  # fmt: skip
    if len(held) == 1:
        fewest = max(card["minimum_count"] for card in cards)
        others = [name for name in cards[0]["classes"] if name not in held]
        raise FederationError(
            f"a classifier needs images of at least two classes to learn from, and "
            f"{', '.join(titles)} together have only `{held.pop()}` (of {some(others)} each has "
            f"fewer than {fewest}); submit to a site that has others too"
        )


def _check_arrays(weights: object) -> None:
    if not isinstance(weights, Mapping):
        raise FederationError(
            f"the weights are a {type(weights).__name__}, and must be a dictionary: name -> array, "
            "as the job's `initial_weights` gives them"
        )
    if not weights:
        raise FederationError(
            "there are no weights; give those of a training, or draw first ones with the training "
            "job's `initial_weights`"
        )
    for name, array in weights.items():
        if not isinstance(array, np.ndarray):
            raise FederationError(
                f"the weight `{name}` is a {type(array).__name__}, and weights are NumPy arrays; "
                "convert it with `np.asarray`"
            )


def _in_words(value: object) -> str:
    if isinstance(value, list | tuple):
        joint = " x " if all(isinstance(part, int) for part in value) else ", "
        return joint.join(map(str, value))
    return str(value)


def _refuse(findings: Sequence[Finding], what: str) -> None:
    if findings:
        told = "; ".join(f"{f.seen} (allowed: {f.allowed})" for f in findings[:4])
        more = f" and {len(findings) - 4} more" if len(findings) > 4 else ""
        dos = ", or ".join(dict.fromkeys(f.do for f in findings))
        raise FederationError(f"{what}: {told}{more}. {dos[0].upper()}{dos[1:]}")
