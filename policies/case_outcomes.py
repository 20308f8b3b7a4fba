"""Runs the cases of a policy: what the rules say, beside what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.argument_rules import check_arguments
from policies.contract import ArrayContract, Contract
from policies.document import Policy
from policies.findings import Finding, Severity
from policies.policy_cases import Case, CaseError, CaseFile, Returned, Start
from policies.request_rules import check_request
from policies.review_rule import ReviewNeeded, review_needed
from policies.update_rules import Update, check_update

RELEASE_RULES = ("examples.minimum", "counts.minimum", "update.size", "update.norm")
"""Rules on what a run returns; kept ones are not listed among findings."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, as expected and as found.

    Attributes:
        case: Its name.
        expected: The verdict that was expected, in words.
        found: The verdict of the rules, in words.
        as_expected: Whether they agree.
        rules: The rules and tiers that the case is about.
    """

    case: str
    expected: str
    found: str
    as_expected: bool
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All cases of one policy.

    Attributes:
        policy: Name and version of the policy.
        outcomes: One per case.
        untested: Rules and tiers of the policy that no case is about.
    """

    policy: str
    outcomes: tuple[Outcome, ...]
    untested: tuple[str, ...]

    @property
    def kept(self) -> int:
        """How many cases came out as expected."""
        return sum(outcome.as_expected for outcome in self.outcomes)


def run_cases(file: CaseFile, policy: Policy) -> Report:
    """Every case of a file under a policy.

    Raises:
        CaseError: What a case changes does not fit.
    """
    outcomes = tuple(case_outcomes(file, policy))
    tested = {rule for outcome in outcomes for rule in outcome.rules}
    untested = tuple(rule for rule in _rules(file, policy) if rule not in tested)
    return Report(policy.title, outcomes, untested)


def case_outcomes(file: CaseFile, policy: Policy) -> Iterator[Outcome]:
    """What comes of each case, one after the other; raises as `run_cases`."""
    return (_outcome(case, file.request, policy) for case in file.cases)


def _rules(file: CaseFile, policy: Policy) -> list[str]:
    """All rules that say something under this policy, in their order, and its tiers."""
    plain = check_request(file.cases[0].ask(file.request), policy)
    tiers = [f"tier {tier.name}" for tier in policy.review.tiers]
    return list(dict.fromkeys([*(f.rule for f in plain), *RELEASE_RULES, *tiers]))


def _outcome(case: Case, start: Start, policy: Policy) -> Outcome:
    findings = _findings(case, start, policy)
    verdict, deciding = _verdict(case, findings)
    kept = verdict == case.expect and deciding == set(case.rules)
    expected, found = _words(case.expect, case.rules), _words(verdict, deciding)
    rules = list(case.rules)
    if case.review is not None:
        needed = _needed(case, start, policy)
        wanted = {k: v for k, v in case.review.model_dump().items() if v is not None}
        has = {name: getattr(needed, name) for name in wanted}
        kept = kept and all(_same(wanted[name], has[name]) for name in wanted)
        expected += f"; {_fields(wanted)}"
        found += f"; {_fields(has)}"
        rules += [f"tier {tier}" for tier in case.review.tiers or ()]
    return Outcome(case.name, expected, found, kept, tuple(rules))


def _verdict(case: Case, findings: list[Finding]) -> tuple[str, set[str]]:
    """The verdict that matters to a case, and the rules that it rests on."""
    by_severity = {s: {f.rule for f in findings if f.severity is s} for s in Severity}
    if refused := by_severity[Severity.REFUSE]:
        return "refused", refused
    about = set(case.rules)
    for word in (Severity.WARN, Severity.READ):
        if noticed := by_severity[word] & about:
            return word.value, noticed
    # Rules on a run list what they refuse only; rules on a request also say what is kept.
    spoken = about if case.about_a_run else {finding.rule for finding in findings}
    return "approvable", about & spoken


def _findings(case: Case, start: Start, policy: Policy) -> list[Finding]:
    ask = case.ask(start)
    if case.config is not None:
        return check_arguments({**start.config, **case.config}, ask.terms.arguments)
    if case.update is None:
        return check_request(ask, policy)
    contract = ask.terms.contract
    if contract is None:
        raise CaseError(f"case `{case.name}`: an update needs a contract in `terms`")
    sent = {name: _zeros(array) for name, array in contract.sent.items()}
    update = _update(case.update, contract, ask.dataset.examples or 0)
    return check_update(update, sent, contract, policy)


def _update(returned: Returned, contract: Contract, examples: int) -> Update:
    """An update of the contract's form that differs from zero weights by one number."""
    weights = {name: _zeros(array) for name, array in contract.weights.items()}
    for array in list(weights.values())[:1]:
        array.flat[:1] = returned.change_norm
    counts = {name: _zeros(array) for name, array in contract.counts.items()}
    for table in counts.values():
        table.flat[:1] = returned.smallest_cell
    return Update(
        weights=weights,
        metrics=dict.fromkeys(contract.metrics, 0.0),
        examples=examples if returned.examples is None else returned.examples,
        counts=counts,
    )


def _zeros(array: ArrayContract) -> Any:
    return np.zeros(array.shape, array.dtype)


def _needed(case: Case, start: Start, policy: Policy) -> ReviewNeeded:
    ask = case.ask(start)
    found = check_request(ask, policy)
    return review_needed(ask.terms, found, case.track_record(start), policy.review)


def _same(wanted: Any, has: Any) -> bool:
    if isinstance(wanted, tuple):
        return sorted(wanted) == sorted(has)
    return bool(wanted == has)


def _words(verdict: str, rules: Iterable[str]) -> str:
    named = ", ".join(sorted(rules))
    return f"{verdict}: {named}" if named else verdict


def _fields(fields: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return "/".join(value) or "none" if isinstance(value, tuple) else f"{value:g}"

    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in fields.items())
