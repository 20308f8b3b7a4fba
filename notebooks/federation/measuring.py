"""The AUC after each round, by a study of the evaluation job or by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from federation.errors import FederationError
from federation.evaluation import Evaluation, evaluate, evaluation_config
from federation.history import Measured
from federation.side_by_side import ask_all
from federation.study_checks import check_config, check_sent
from federation.submission import Study
from policies.arrays import Arrays

Measure = Callable[[int, Arrays], Evaluation | float]
"""Is given the number of a round and the weights after it, and gives their AUC."""


def judge_of(
    weights: Arrays,
    evaluation: tuple[Study, Mapping[str, Any]] | None,
    measure: Measure | None,
) -> Measure | None:
    """What gives the AUC after a round, None if nobody wants it."""
    if evaluation is None:
        return measure
    if measure is not None:
        raise FederationError("give `evaluation` or `measure`, not both")
    try:
        judges, arguments = evaluation
    except (TypeError, ValueError) as error:
        raise FederationError(
            "`evaluation` is a study of the evaluation job and its arguments; write "
            "evaluation=(study, config)"
        ) from error
    arguments = evaluation_config(judges, arguments)
    check_sent(judges, {name: weights for name in judges.sites[:1]})
    check_config(judges, arguments)
    return lambda number, now: evaluate(judges, now, arguments, round_number=number)


def measured_by(judge: Measure, number: int, weights: Arrays) -> Measured:
    """The AUC after a round, or why there is none."""
    try:
        found = ask_all(["measure"], lambda _: judge(number, weights))["measure"]
    except FederationError as error:
        return Measured({"all": float("nan")}, " ".join(str(error).split()))
    if not isinstance(found, Evaluation):
        return Measured({"all": float(found)})
    auc = {name: measures.auc.value for name, measures in found.sites.items()}
    return Measured({**auc, "all": found.overall.auc.value})
