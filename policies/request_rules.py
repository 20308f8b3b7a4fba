"""Rules on what a request asks for: one function per rule, each with the value that decides.

A rule looks at the request, at what is known of the dataset version and of who asks, and at the
policy. It gives findings: kept, refused, or to be read by a person. What a researcher's side cannot
know (None), the hospital's will; the rule then says so instead of guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policies.contract import Terms
from policies.document import Policy
from policies.findings import Finding, Severity, passed, refuse
from policies.job_rules import check_job
from policies.privacy.request_rule import check_privacy
from policies.strict import some


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What rules need to know of a dataset version; None where it is not known here.

    Attributes:
        examples: Training images.
        classes: Training images of each class.
        largest_share: The part of the training images that comes from one patient, the one with the
            most.
        patients_known: Whether it is known which image is whose.
        methods: Codes of the de-identification methods that the version's certificate lists.
    """

    examples: int | None
    classes: tuple[int | None, ...]
    largest_share: float | None = None
    patients_known: bool | None = None
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: the account, and the institution that the hospital wrote down for it."""

    account: str
    institution: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with all that decides about it.

    Attributes:
        text: The job, as it will run.
        terms: What is asked for.
        dataset: What is known of the dataset version.
        requester: Who asks.
    """

    text: str
    terms: Terms
    dataset: DatasetFacts
    requester: Requester


Rule = Callable[[Ask, Policy], Iterator[Finding]]


def check_request(ask: Ask, policy: Policy) -> list[Finding]:
    """The policy's verdict on a request, rule by rule, the kept rules included."""
    return [finding for rule in RULES.values() for finding in rule(ask, policy)]


def check_dataset(name: str, version: str, facts: DatasetFacts, policy: Policy) -> list[Finding]:
    """The policy's verdict on a dataset version, whoever may ask for it and for what."""
    terms = Terms(
        title="any", purpose="any", entry="any", dataset=name, version=version, access="arrays",
        runs=1, expires_in_days=1,
    )  # fmt: skip
    ask = Ask("", terms, facts, Requester(""))
    sections = ("dataset", "examples", "dominance", "publishing")
    return [finding for section in sections for finding in RULES[section](ask, policy)]


def _requester(ask: Ask, policy: Policy) -> Iterator[Finding]:
    accounts, institutions = policy.requesters.accounts, policy.requesters.institutions
    who = ask.requester
    known = not accounts or any(_is_account(who.account, allowed) for allowed in accounts)
    yield _verdict(
        "requester.account",
        known,
        f"account `{who.account}`",
        some(accounts) or "every account of this hospital",
        "ask the hospital to add the account to its policy",
    )
    if institutions:
        yield _verdict(
            "requester.institution",
            who.institution in institutions,
            f"institution `{who.institution}`" if who.institution else "no institution on record",
            some(institutions),
            "ask the hospital which institution your account stands for",
        )


def _is_account(account: str, allowed: str) -> bool:
    """Whether an address is the allowed one, or of its domain; addresses have no case."""
    account, allowed = account.lower(), allowed.lower()
    if allowed.startswith("*@"):
        return account.rpartition("@")[2] == allowed.removeprefix("*@")
    return account == allowed


def _purpose(ask: Ask, policy: Policy) -> Iterator[Finding]:
    yield _verdict(
        "purpose.allowed",
        ask.terms.use in policy.purposes,
        f"use `{ask.terms.use}`",
        ", ".join(policy.purposes),
        "ask for a use that this hospital supports",
    )


def _dataset(ask: Ask, policy: Policy) -> Iterator[Finding]:
    terms = ask.terms
    yield _verdict(
        "dataset.allowed",
        terms.dataset in policy.datasets,
        f"dataset `{terms.dataset}`",
        some(policy.datasets),
        "ask for one of these",
    )
    if versions := policy.versions.get(terms.dataset):
        yield _verdict(
            "dataset.version",
            terms.version.startswith(versions),
            f"version {terms.version[:12]}",
            some(versions),
            "ask for one of these versions",
        )


def _access(ask: Ask, policy: Policy) -> Iterator[Finding]:
    private = policy.privacy.mode == "dp_sgd"
    possible = [a for a in policy.access if a == "arrays" or private]
    yield _verdict(
        "access.allowed",
        ask.terms.access in possible,
        f"access `{ask.terms.access}`",
        ", ".join(possible) or "none, as `trainer` needs mode dp_sgd",
        "ask for this kind of access",
    )


def _runs(ask: Ask, policy: Policy) -> Iterator[Finding]:
    most = policy.runs.maximum
    yield _verdict(
        "runs.maximum",
        ask.terms.runs <= most,
        f"{ask.terms.runs} runs asked for",
        f"at most {most}",
        f"resubmit with runs={most} or fewer",
    )


def _expiry(ask: Ask, policy: Policy) -> Iterator[Finding]:
    most = policy.expiry.maximum_days
    yield _verdict(
        "expiry.maximum",
        ask.terms.expires_in_days <= most,
        f"{ask.terms.expires_in_days} days asked for",
        f"at most {most}",
        f"resubmit with expires_in_days={most} or fewer",
    )


def _ranges(ask: Ask, policy: Policy) -> Iterator[Finding]:
    wrong = False
    for name, asked in ask.terms.arguments.items():
        widest = policy.arguments.get(name)
        if widest is None:
            wrong = True
            yield refuse(
                "arguments.range",
                f"argument `{name}`",
                some(policy.arguments, 20) or "no argument",
                "use only these arguments",
            )
        elif not widest.contains(asked):
            wrong = True
            yield refuse(
                "arguments.range", f"`{name}` {asked.in_words()}", widest.in_words(),
                "narrow the range",
            )  # fmt: skip
    if not wrong:
        kept = f"{len(ask.terms.arguments)} arguments within the policy's ranges"
        yield passed("arguments.range", kept, "the policy's ranges")


def _contract(ask: Ask, policy: Policy) -> Iterator[Finding]:
    contract, rule = ask.terms.contract, policy.contract
    if contract is None:
        yield refuse(
            "contract.declared", "no contract", "a contract of everything that leaves", "declare it"
        )
        return
    yield passed("contract.declared", "a contract is given", "a contract of everything that leaves")
    arrays = [*contract.weights.values(), *contract.counts.values()]
    cells = sum(table.elements for table in contract.counts.values())
    limits = (
        (len(contract.weights), "weight arrays", rule.maximum_arrays),
        (len(contract.counts), "tables of counts", rule.maximum_tables),
        (cells, "cells of counts", rule.maximum_cells),
        (len(contract.metrics), "metrics", rule.maximum_metrics),
    )
    wrong = [
        refuse("contract.form", f"{number:,} {what}", f"at most {most:,}", "declare fewer")
        for number, what, most in limits
        if number > most
    ]
    if strangers := {array.dtype for array in arrays} - set(rule.dtypes):
        wrong.append(
            refuse(
                "contract.form",
                f"arrays of {some(strangers)}",
                some(rule.dtypes, 5),
                "return arrays of these types",
            )
        )
    kept = f"{limits[0][0]:,} arrays, {limits[1][0]} tables, {limits[3][0]} metrics"
    yield from wrong or [passed("contract.form", kept, "as many and such as the policy allows")]


def _size(ask: Ask, policy: Policy) -> Iterator[Finding]:
    size_mb = ask.terms.contract.size_bytes / 1e6 if ask.terms.contract else 0.0
    yield _verdict(
        "update.size",
        size_mb <= policy.update.maximum_mb,
        f"{_exactly(size_mb)} MB per run",
        f"at most {policy.update.maximum_mb:g} MB",
        "use a smaller model",
    )
    yield _verdict(
        "update.total",
        ask.terms.total_mb <= policy.update.maximum_total_mb,
        f"{_exactly(ask.terms.total_mb)} MB over all runs",
        f"at most {policy.update.maximum_total_mb:g} MB",
        "ask for fewer runs, or use a smaller model",
    )


def _examples(ask: Ask, policy: Policy) -> Iterator[Finding]:
    seen, rule = ask.dataset, policy.examples
    yield _verdict(
        "examples.minimum",
        seen.examples is not None and seen.examples >= rule.minimum,
        f"{seen.examples if seen.examples is not None else 'too few'} training images",
        f"at least {rule.minimum}",
        "ask for a larger dataset",
    )
    yield _verdict(
        "examples.classes",
        len(seen.classes) >= rule.minimum_classes,
        f"{len(seen.classes)} class" + ("" if len(seen.classes) == 1 else "es"),
        f"at least {rule.minimum_classes}",
        "ask for a dataset with more classes",
    )
    small = [n for n in seen.classes if n is None or n < rule.minimum_per_class]
    yield _verdict(
        "examples.per_class",
        not small,
        f"{len(small)} of {len(seen.classes)} classes with fewer training images"
        if small
        else "every class has as many",
        f"at least {rule.minimum_per_class} training images of each class",
        "ask for a larger dataset",
    )


def _dominance(ask: Ask, policy: Policy) -> Iterator[Finding]:
    seen, rule = ask.dataset, policy.dominance
    allowed = f"at most {_exactly(rule.maximum_share * 100)}% from one patient"
    if seen.largest_share is not None:
        yield _verdict(
            "dominance.share",
            seen.largest_share <= rule.maximum_share,
            f"{_exactly(seen.largest_share * 100)}% of the training images come from one patient",
            allowed,
            "ask for a dataset with more patients",
        )
    elif seen.patients_known:
        yield passed("dominance.share", "the hospital knows its patients and checks it", allowed)
    elif rule.unknown_patients == "refuse":
        yield refuse(
            "dominance.share",
            "nobody knows which image is whose",
            allowed,
            "ask for a dataset that was published with its patients",
        )
    else:
        yield Finding(
            "dominance.share",
            Severity.READ,
            "nobody knows which image is whose",
            allowed,
            "decide whether one patient could stand for much of the dataset",
        )


def _methods(ask: Ask, policy: Policy) -> Iterator[Finding]:
    """What a policy demands of the certificate; nothing when it demands nothing."""
    if demanded := policy.publishing.options:
        yield _verdict(
            "publishing.options",
            set(demanded) <= set(ask.dataset.methods),
            f"certificate lists {some(ask.dataset.methods) or 'no method'}",
            some(demanded),
            "ask the hospital to publish a version with these methods",
        )


def _job(ask: Ask, policy: Policy) -> Iterator[Finding]:
    access = ask.terms.access
    seen_as = access if access in policy.access else "arrays"  # `_access` says what is wrong
    yield from check_job(ask.text, ask.terms.entry, policy.job, seen_as)


def _privacy(ask: Ask, policy: Policy) -> Iterator[Finding]:
    yield from check_privacy(ask.terms, policy.privacy)


RULES: dict[str, Rule] = {
    "requester": _requester,
    "purpose": _purpose,
    "dataset": _dataset,
    "access": _access,
    "runs": _runs,
    "expiry": _expiry,
    "arguments": _ranges,
    "contract": _contract,
    "update": _size,
    "examples": _examples,
    "dominance": _dominance,
    "publishing": _methods,
    "job": _job,
    "privacy": _privacy,
}
"""Section of the policy -> its rule, in the order of a review sheet."""


def _verdict(rule: str, kept: bool, seen: str, allowed: str, do: str) -> Finding:
    return passed(rule, seen, allowed) if kept else refuse(rule, seen, allowed, do)


def _exactly(number: float) -> str:
    """A number with as many digits as it takes to see on which side of a threshold it is."""
    return f"{number:,.6f}".rstrip("0").rstrip(".")
