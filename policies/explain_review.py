"""Who decides, in plain sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from policies.document import Policy
from policies.plain_words import counted, in_digits, listed
from policies.review_rule import Requirement, Risk

_SINGULAR = {"owner": "a data owner", "second approver": "a second approver"}
_PLURAL = {"owner": "data owners", "second approver": "second approvers"}


def who_decides(policy: Policy) -> Iterator[str]:
    """Approvers, waiting, rehearsal, and the kinds of requests that need more."""
    rule = policy.review
    yield "The hospital's own people decide, nobody else."
    yield f"An approval needs {needs_in_words(rule)}."
    if rule.waiting_hours:
        yield f"The last of them agrees {_hours(rule.waiting_hours)} after submission or later."
    else:
        yield "They may agree at once."
    for tier in rule.tiers:
        wait = f", {_hours(tier.waiting_hours)} after submission" if tier.waiting_hours else ""
        yield (
            f"If {condition_in_words(tier.when)} (kind `{tier.name}`), it needs at least "
            f"{needs_in_words(tier)}{wait}."
        )
    trial = rule.rehearsal
    images = counted(trial.images, "image")
    yield (
        f"Before that, the job runs on invented images for at most "
        f"{counted(trial.time_s, 'second')}; {images} are changed one at a time to see what each "
        "moves in the result."
    )
    if trial.must_succeed:
        yield "A job that fails there cannot be approved."
    else:
        yield "A job that fails there can still be approved; the sheet says that it failed."


def needs_in_words(requirement: Requirement) -> str:
    """`2 people, among them a data owner and a second approver`."""
    people = counted(requirement.approvers, "person", "people")
    words = [_role(role, number) for role, number in Counter(requirement.roles).items()]
    if requirement.approvers == 1:
        among = f", {listed(words)}" if words else " of any role that decides"
    else:
        among = f", among them {listed(words)}" if words else " of any role that decides"
    always = "; always two, a data owner and a second person" if requirement.four_eyes else ""
    return f"{people}{among}{always}"


def _role(role: str, number: int) -> str:
    return _SINGULAR[role] if number == 1 else f"{number} {_PLURAL[role]}"


def condition_in_words(risk: Risk) -> str:
    """`it asks for more than 10 runs or its text has a warning`."""
    conditions = []
    if risk.runs_above is not None:
        conditions.append(f"it asks for more than {counted(risk.runs_above, 'run')}")
    if risk.total_mb_above is not None:
        conditions.append(f"more than {in_digits(risk.total_mb_above)} MB leave over all runs")
    if risk.warnings_above is not None:
        more = f"more than {counted(risk.warnings_above, 'warning')}"
        conditions.append(f"its text has {more if risk.warnings_above else 'a warning'}")
    if risk.new_text:
        conditions.append("its text was never approved here before")
    if risk.new_requester:
        conditions.append("nothing of its account was ever approved here before")
    return listed(conditions, "or")


def _hours(hours: float) -> str:
    return (
        counted(hours // 24, "day") if hours >= 48 and hours % 24 == 0 else counted(hours, "hour")
    )
