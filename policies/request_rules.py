"""Rules on a request's terms, and on the arguments of a run under approved terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from policies.contract import Terms
from policies.document import Policy
from policies.findings import Finding, Severity, passed, refuse
from policies.job_rules import check_job
from policies.strict import some


def check_request(
    text: str,
    terms: Terms,
    policy: Policy,
    examples: int | None,
    methods: Collection[str] = (),
) -> list[Finding]:
    """The policy's verdict on a request, rule by rule, the kept rules included.

    Args:
        text: The job, as it will run.
        terms: What the request asks for.
        policy: The hospital's policy.
        examples: Training images of the dataset version, None when the number is suppressed.
        methods: Codes of the de-identification methods that the version's certificate lists.
    """
    contract = terms.contract
    size_mb = contract.size_bytes / 1e6 if contract else 0.0
    findings = [
        _rule(
            "dataset.allowed",
            terms.dataset in policy.datasets,
            f"dataset `{terms.dataset}`",
            some(policy.datasets),
            "ask for one of these",
        ),
        _rule(
            "access.allowed",
            terms.access in policy.access,
            f"access `{terms.access}`",
            ", ".join(policy.access),
            "ask for this kind of access",
        ),
        _rule(
            "runs.maximum",
            terms.runs <= policy.runs.maximum,
            f"{terms.runs} runs asked for",
            f"at most {policy.runs.maximum}",
            f"resubmit with runs={policy.runs.maximum} or fewer",
        ),
        _rule(
            "expiry.maximum",
            terms.expires_in_days <= policy.expiry.maximum_days,
            f"{terms.expires_in_days} days asked for",
            f"at most {policy.expiry.maximum_days}",
            f"resubmit with expires_in_days={policy.expiry.maximum_days} or fewer",
        ),
        *_check_ranges(terms, policy),
        _rule(
            "contract.declared",
            contract is not None,
            "a contract is given" if contract else "no contract",
            "a contract of everything that leaves",
            "declare it",
        ),
        _rule(
            "update.size",
            size_mb <= policy.update.maximum_mb,
            f"{size_mb:.2f} MB per run",
            f"at most {policy.update.maximum_mb:g} MB",
            "use a smaller model",
        ),
        _rule(
            "examples.minimum",
            examples is not None and examples >= policy.examples.minimum,
            f"{examples if examples is not None else 'too few'} training images",
            f"at least {policy.examples.minimum}",
            "ask for a larger dataset",
        ),
        *_check_methods(methods, policy),
        *check_job(text, terms.entry, policy.job),
    ]
    if policy.privacy.mode == "none":
        findings.append(
            Finding(
                "privacy.mode",
                Severity.READ,
                "none: updates leave as computed",
                "none",
                "decide whether plain updates of this size may leave",
            )
        )
    return findings


def _check_methods(methods: Collection[str], policy: Policy) -> list[Finding]:
    """What a policy demands of the certificate; nothing when it demands nothing."""
    demanded = policy.publishing.options
    if not demanded:
        return []
    return [
        _rule(
            "publishing.options",
            set(demanded) <= set(methods),
            f"certificate lists {some(sorted(methods)) or 'no method'}",
            some(demanded),
            "ask the hospital to publish a version with these methods",
        )
    ]


def _check_ranges(terms: Terms, policy: Policy) -> list[Finding]:
    refused = []
    for name, asked in terms.arguments.items():
        widest = policy.arguments.get(name)
        if widest is None:
            refused.append(
                refuse(
                    "arguments.range",
                    f"argument `{name}`",
                    some(policy.arguments, 20),
                    "use only these arguments",
                )
            )
        elif not widest.contains(asked):
            refused.append(
                refuse(
                    "arguments.range",
                    f"`{name}` {asked.in_words()}",
                    widest.in_words(),
                    "narrow the range",
                )
            )
    kept = f"{len(terms.arguments)} arguments within the policy's ranges"
    return refused or [passed("arguments.range", kept, "the policy's ranges")]


def check_arguments(config: Mapping[str, object], terms: Terms) -> list[Finding]:
    """What in `config` is not what the approved terms allow; empty when all is well."""
    findings = []
    for name in sorted(set(config) - set(terms.arguments)):
        findings.append(
            refuse(
                "arguments.range",
                f"argument `{name[:60]}`",
                some(terms.arguments, 20),
                "send only approved arguments",
            )
        )
    for name, bound in terms.arguments.items():
        if name not in config:
            findings.append(
                refuse(
                    "arguments.range",
                    f"`{name}` is missing",
                    bound.in_words(),
                    "send every approved argument",
                )
            )
        elif not bound.allows(config[name]):
            findings.append(
                refuse(
                    "arguments.range",
                    f"`{name}` = {str(config[name])[:60]}",
                    bound.in_words(),
                    "stay within the approved range",
                )
            )
    return findings


def _rule(rule: str, kept: bool, seen: str, allowed: str, do: str) -> Finding:
    return passed(rule, seen, allowed) if kept else refuse(rule, seen, allowed, do)
