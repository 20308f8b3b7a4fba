"""What a policy says about a request's share of the privacy budget."""

from __future__ import annotations

from collections.abc import Iterator

from policies.contract import Terms
from policies.findings import Finding, Severity, passed, refuse
from policies.privacy.accounting import epsilon
from policies.privacy.asked import PrivacyAsked
from policies.privacy.mechanisms import Spent
from policies.privacy.rule import PrivacyRule


def check_privacy(terms: Terms, rule: PrivacyRule) -> Iterator[Finding]:
    """Findings on what a request asks of the privacy of its dataset's patients."""
    if rule.mode == "none":
        yield Finding(
            "privacy.mode", Severity.READ, "none: updates leave as computed", "none",
            "decide whether plain updates of this size may leave",
        )  # fmt: skip
        return
    yield passed("privacy.mode", rule.mode, rule.mode)
    asked = terms.privacy
    if asked is None:
        yield refuse(
            "privacy.epsilon", "no epsilon is asked for", f"above 0, at most {rule.cap:g}",
            "give the terms `epsilon=`, for all runs together",
        )  # fmt: skip
        return
    yield from _form(terms, asked, rule)
    if asked.epsilon > rule.cap:
        yield refuse(
            "privacy.epsilon", f"epsilon {asked.epsilon:g} for all runs",
            f"at most {rule.cap:g}", "ask for less epsilon",
        )  # fmt: skip
        return
    try:
        mechanism = asked.mechanism(terms.runs, rule)
    except ValueError as error:
        yield refuse("privacy.epsilon", f"epsilon {asked.epsilon:g}", str(error), "ask for more")
        return
    yield passed(
        "privacy.epsilon",
        f"epsilon {asked.epsilon:g} for {terms.runs} runs; a run is {mechanism.in_words()}",
        f"at most {rule.cap:g}",
    )


def check_budget(
    terms: Terms, rule: PrivacyRule, spent: Spent, runs_used: int = 0
) -> Iterator[Finding]:
    """Whether what is left of a dataset's budget is enough for all runs of a request.

    Args:
        terms: What is asked for.
        rule: The policy's section.
        spent: What was charged to the dataset so far in the policy's period, over everyone's runs.
        runs_used: Runs of this request that are in `spent` already.
    """
    if rule.mode == "none" or terms.privacy is None or terms.privacy.epsilon > rule.cap:
        return  # `check_privacy` says what is wrong
    before = epsilon(spent, rule.guaranteed_delta, rule.accountant)
    try:
        mechanism = terms.privacy.mechanism(terms.runs, rule)
    except ValueError:
        return
    rest = Spent({mechanism: max(0, terms.runs - runs_used)})
    after = epsilon(spent + rest, rule.guaranteed_delta, rule.accountant)
    seen = f"epsilon {before:.3g} is spent, and {after:.3g} with all runs of this request"
    if after <= rule.cap:
        yield passed("privacy.budget", seen, f"at most {rule.cap:g}")
    else:
        yield refuse(
            "privacy.budget", seen,
            f"at most {rule.cap:g}; {max(0.0, rule.cap - before):.3g} is left",
            "ask for less epsilon, or for fewer runs",
        )  # fmt: skip


def _form(terms: Terms, asked: PrivacyAsked, rule: PrivacyRule) -> Iterator[Finding]:
    """Whether the request fits the way in which noise is added."""
    contract = terms.contract
    if rule.mode == "update_noise":
        if (asked.sampling_rate, asked.steps) != (1.0, 1):
            yield refuse(
                "privacy.steps", f"{asked.steps} steps on {asked.sampling_rate:g} of the patients",
                "one step on all: noise is added to the update of a run",
                "leave out `sampling_rate` and `steps`",
            )  # fmt: skip
        if contract is not None and (contract.counts or contract.metrics):
            yield refuse(
                "privacy.outputs", "tables or metrics that a job computes",
                "weights only: noise that covers any number would hide every number",
                "declare no metrics and no counts (`metrics=()`)",
            )  # fmt: skip
    elif contract is not None:
        scores = not contract.weights and set(contract.counts) == {"scores"}
        if contract.metrics or (contract.counts and not scores):
            yield refuse(
                "privacy.outputs", "metrics, or tables beside or other than `scores`",
                "trained parameters, or the table `scores` alone",
                "declare the one or the other (`metrics=()`)",
            )  # fmt: skip
        if scores and (asked.sampling_rate, asked.steps) != (1.0, 1):
            yield refuse(
                "privacy.steps", f"{asked.steps} steps on {asked.sampling_rate:g} of the patients",
                "one step on all: a table is noised once",
                "leave out `sampling_rate` and `steps`",
            )  # fmt: skip
