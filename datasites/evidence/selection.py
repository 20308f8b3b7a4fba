"""Which lines of the audit log are about one request; all others stay hidden in its evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from datasites.audit_events import Event
from datasites.evidence.claims import Line

_OF_THE_DATASET = (Event.DATASET_PUBLISHED, Event.DATASET_WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Matter:
    """What a request is connected with.

    Attributes:
        request: Its number.
        researcher: The account that asked.
        version: The dataset version that was asked for.
        policies: Digests of the policies under which somebody decided, or would decide now.
    """

    request: int
    researcher: str
    version: str
    policies: frozenset[str]


def select_lines(lines: Iterable[Line], matter: Matter) -> dict[int, Line]:
    """Number -> line of those about a request, in the order of the log.

    These are: everything about the request and its runs; the account that asked; the dataset
    version that was published or withdrawn; the adoption of each policy, and its end. Where no line
    says that a policy was adopted, it is the first that says that it was in force.
    """
    subject = f"R-{matter.request}"
    found: dict[int, Line] = {}
    in_force: dict[str, Line] = {}
    adopted: set[str] = set()
    for line in lines:
        kind, objects = line["event"], line["objects"]
        policy = objects.get("policy_sha256", "")
        if f"{line['subject']}/".startswith(f"{subject}/"):
            is_about = True
        elif kind in _OF_THE_DATASET:
            is_about = objects.get("version") == matter.version
        elif kind == Event.ACCOUNT_CREATED:
            is_about = line["subject"] == matter.researcher
        elif kind == Event.POLICY_CHANGED:
            is_about = bool({policy, objects.get("previous_policy_sha256")} & matter.policies)
            adopted.add(policy)
        else:
            is_about = False
            if kind == Event.POLICY_IN_FORCE and policy in matter.policies - adopted:
                in_force.setdefault(policy, line)
        if is_about:
            found[line["n"]] = line
    for policy, line in in_force.items():
        if policy not in adopted:
            found[line["n"]] = line
    return dict(sorted(found.items()))
