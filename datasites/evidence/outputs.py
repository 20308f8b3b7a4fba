"""Safe outputs: what left a hospital on a request, what did not, and the privacy that it cost."""

from __future__ import annotations

from collections.abc import Sequence

from datasites.audit_events import Event
from datasites.evidence.claims import Basis, Line, Safe, Statement, numbers, of_kind
from datasites.evidence.documents import POLICY, TERMS, Documents
from datasites.evidence.sentences import counted, listed
from datasites.privacy_ledger import entry_in_log
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Spent
from policies.privacy.rule import PrivacyRule

LEAKAGE = "leakage"
"""The table that `notebooks/jobs/test_leakage.py` returns."""


def output_statements(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    """What was declared, what left, what was kept back, and what protection was added."""
    contract = documents.terms.contract
    declared = contract.in_words() if contract else "nothing: the terms hold no contract"
    asked = numbers(of_kind(lines, Event.REQUEST_SUBMITTED))
    text = f"Declared as leaving in each run: {declared}."
    return [
        Statement(Safe.OUTPUTS, text, Basis.DOCUMENT, asked, (TERMS,)),
        *_leakage(asked, documents),
        *_left(lines),
        *_kept(lines),
        *_privacy(lines, documents),
    ]


def _leakage(asked: tuple[int, ...], documents: Documents) -> list[Statement]:
    """What the request says of itself where it declares the table of a leakage test."""
    contract = documents.terms.contract
    if contract is None or LEAKAGE not in contract.counts:
        return []
    text = (
        f"It declares the table `{LEAKAGE}` of a leakage test: how many images attacks tell apart "
        "as members of the training. What the text computes is in the text."
    )
    return [Statement(Safe.OUTPUTS, text, Basis.DOCUMENT, asked, (TERMS,))]


def _left(lines: Sequence[Line]) -> list[Statement]:
    released = of_kind(lines, Event.UPDATE_RELEASED)
    if not released:
        return [Statement(Safe.OUTPUTS, "No update left.", Basis.ABSENCE)]
    size = sum(line["detail"].get("bytes", 0) for line in released)
    text = f"{counted(len(released), 'update')} left, with {counted(size, 'byte')} of arrays."
    found = [Statement(Safe.OUTPUTS, text, Basis.LOG, numbers(released))]
    if metrics := sorted({m for line in released for m in line["detail"].get("metrics", ())}):
        text = (
            f"Beside the arrays these numbers left: {listed([*metrics, 'the number of images'])}."
        )
        found.append(Statement(Safe.OUTPUTS, text, Basis.LOG, numbers(released)))
    if repeated := of_kind(lines, Event.UPDATE_REPEATED):
        text = f"{_times(len(repeated))} an update that had left already was sent again."
        found.append(Statement(Safe.OUTPUTS, text, Basis.LOG, numbers(repeated)))
    return found


def _kept(lines: Sequence[Line]) -> list[Statement]:
    """Runs that gave nothing, and calls that were refused, each kind in one sentence."""
    told = (
        (Event.UPDATE_REFUSED, "run", "ended with an update that rules kept at the site", "rules"),
        (Event.RUN_FAILED, "run", "failed", "kind"),
        (
            Event.RUN_INTERRUPTED,
            "run",
            "was interrupted: the site stopped, or its sandbox broke",
            "",
        ),
        (Event.RUN_REFUSED, "call", "was refused before anything ran", "rules"),
    )
    found = []
    for event, noun, what, key in told:
        kept = of_kind(lines, event)
        if not kept:
            continue
        names = sorted({name for line in kept for name in _names(line, key)})
        because = f": {listed(names)}" if names else ""
        text = f"{_times(len(kept))} a {noun} {what}{because}."
        found.append(Statement(Safe.OUTPUTS, text, Basis.LOG, numbers(kept)))
    return found


def _names(line: Line, key: str) -> list[str]:
    value = line["detail"].get(key, [])
    return [value] if isinstance(value, str) else list(value)


def _times(number: int) -> str:
    return "Once" if number == 1 else f"{number:,} times"


def _privacy(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    released = of_kind(lines, Event.UPDATE_RELEASED)
    size = sum(line["detail"].get("bytes", 0) for line in released)
    left = f"{counted(len(released), 'update')} with in total {counted(size, 'byte')} left."
    started = of_kind(lines, Event.RUN_STARTED)
    charged = [line for line in started if "privacy" in line["detail"]]
    proving, found = numbers([*charged, *released]), []
    for rule in _guaranteed(documents):
        told = f"{rule.guarantee()} {_spent(charged, rule)} {left}"
        found.append(Statement(Safe.OUTPUTS, told, Basis.DOCUMENT, proving, (POLICY,)))
    runs = {line["run"] for line in charged}
    if bare := [line for line in released if line["run"] not in runs]:
        size = sum(line["detail"].get("bytes", 0) for line in bare)
        text = (
            f"No differential privacy was applied; {counted(len(bare), 'update')} with in total "
            f"{counted(size, 'byte')} left."
        )
        also = (POLICY,)
        found.append(
            Statement(Safe.OUTPUTS, text, Basis.DOCUMENT, numbers(bare), also, alarming=True)
        )
    elif not found:
        text = "The policy asks for no differential privacy, and no update left."
        found.append(Statement(Safe.OUTPUTS, text, Basis.ABSENCE, (), (POLICY,)))
    return found


def _guaranteed(documents: Documents) -> list[PrivacyRule]:
    """The different guarantees of the policies in the folder."""
    rules = [policy.privacy for policy in documents.policies.values()]
    return list(dict.fromkeys(rule for rule in rules if rule.mode != "none"))


def _spent(charged: Sequence[Line], rule: PrivacyRule) -> str:
    """What the runs of this request cost together, from what the log says of each."""
    entries = {line["run"]: entry for line in charged if (entry := entry_in_log(line)) is not None}
    cost = epsilon(
        Spent(entry.mechanism for entry in entries.values()), rule.guaranteed_delta, rule.accountant
    )
    return (
        f"{counted(len(entries), 'run')} of this request were charged, together epsilon "
        f"{cost:.3g} with delta {rule.guaranteed_delta:g}."
    )
