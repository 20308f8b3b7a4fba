"""What one line of the audit log says, as a sentence. Nothing is said that the line does not hold.

A line holds what the site wrote down: who, in which role, did what to what, when and why.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from datasites.audit_events import Event
from datasites.people import STRANGER

Line = Mapping[str, Any]
Titles = Mapping[str, str]
"""Digest -> title of the policies that are known."""

Sentence = Callable[[Line, Titles], str]


def sentence(line: Line, titles: Titles) -> str | None:
    """The sentence for a line; None for events that are counted together with others."""
    write = _SENTENCES.get(line["event"])
    if write is None:
        return None
    text = f"On {when(line['time'])} {write(line, titles)}"
    return text if text.endswith("…") else f"{text}."


def when(time: str) -> str:
    """A moment as people read it: `2026-11-22 09:14 UTC`."""
    return f"{dt.datetime.fromisoformat(time):%Y-%m-%d %H:%M} UTC"


def short(digest: str) -> str:
    """The start of a digest, enough to find it by."""
    return f"{digest[:12]}…" if digest else "that is not named"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _who(line: Line) -> str:
    role = line["role"]
    if line["actor"] == "site":
        return "the site"
    return f"{line['actor']} ({role})" if role else str(line["actor"])


def _why(line: Line) -> str:
    return f": “{line['reason']}”" if line["reason"] else ""


def _policy(line: Line, titles: Titles, key: str = "policy_sha256") -> str:
    digest = line["objects"].get(key, "")
    title = titles.get(digest)
    return f"policy {title} ({short(digest)})" if title else f"the policy {short(digest)}"


def _until(line: Line) -> str:
    runs, end = line["detail"].get("runs"), line["detail"].get("expires_at")
    if runs is None or end is None:
        return ""
    return f", for {counted(runs, 'run')} until {when(end)}"


def _submitted(line: Line, _: Titles) -> str:
    detail, objects = line["detail"], line["objects"]
    instead = f", in place of {detail['follows']}" if detail.get("follows") else ""
    return (
        f"{_who(line)} asked for {counted(detail.get('runs', 0), 'run')} of the text "
        f"{short(objects.get('text_sha256', ''))} under the terms "
        f"{short(objects.get('terms_sha256', ''))} on {detail.get('dataset', '')} version "
        f"{short(objects.get('version', ''))}{instead}"
    )


def _consented(line: Line, titles: Titles) -> str:
    missing = line["detail"].get("agreement", "")
    still = f"; after that, {missing}" if missing else ""
    return f"{_who(line)} agreed under {_policy(line, titles)}{_why(line)}{still}"


def _approved(line: Line, titles: Titles) -> str:
    return (
        f"{_who(line)} agreed as the last who had to, and so approved it under "
        f"{_policy(line, titles)}{_until(line)}{_why(line)}"
    )


def _confirmed(line: Line, titles: Titles) -> str:
    return (
        f"{_who(line)} confirmed the approval under {_policy(line, titles)}{_until(line)}"
        f"{_why(line)}"
    )


def _changes(line: Line, titles: Titles) -> str:
    number = line["detail"].get("comments", 0)
    comments = f" with {counted(number, 'comment')} on lines of the text" if number else ""
    return f"{_who(line)} asked for changes{comments} under {_policy(line, titles)}{_why(line)}"


def _adopted(line: Line, titles: Titles) -> str:
    before = line["objects"].get("previous_policy_sha256")
    instead = f" in place of {_policy(line, titles, 'previous_policy_sha256')}" if before else ""
    return f"{_who(line)} adopted {_policy(line, titles)}{instead}{_why(line)}"


def _account(line: Line, _: Titles) -> str:
    institution = line["detail"].get("institution")
    of = f", of {institution}" if institution else ""
    return f"{_who(line)} made an account for {line['subject']}{of}"


def _rehearsed(line: Line, _: Titles) -> str:
    objects = line["objects"]
    return (
        f"{_who(line)} had the text {short(objects.get('text_sha256', ''))} run on the mock of "
        f"version {short(objects.get('version', ''))}, which is made from no patient"
    )


def _dataset(verb: str) -> Sentence:
    def write(line: Line, _: Titles) -> str:
        version = short(line["objects"].get("version", ""))
        return f"{_who(line)} {verb} {line['subject']} version {version}{_why(line)}"

    return write


def _did(what: str) -> Sentence:
    def write(line: Line, titles: Titles) -> str:
        under = f" under {_policy(line, titles)}" if "policy_sha256" in line["objects"] else ""
        return f"{_who(line)} {what}{under}{_why(line)}"

    return write


def _refused_login(line: Line, _: Titles) -> str:
    wanted = line["detail"].get("wanted_to", "log in")
    who = "somebody whom the site does not know" if line["actor"] == STRANGER else line["actor"]
    return f"{who} was not let in, wanting to {wanted} ({line['reason']})"


def _refused_act(line: Line, _: Titles) -> str:
    wanted = line["detail"].get("wanted_to", "act")
    return f"{_who(line)} wanted to {wanted}, and was refused ({line['reason']})"


def _refused_request(line: Line, _: Titles) -> str:
    return f"the request was not taken in, because of {listed(line['detail'].get('rules', []))}"


def _in_force(line: Line, titles: Titles) -> str:
    return f"the site started with {_policy(line, titles)} in force"


_SENTENCES: dict[str, Sentence] = {
    Event.ACCOUNT_CREATED: _account,
    Event.LOGIN_REFUSED: _refused_login,
    Event.ACT_REFUSED: _refused_act,
    Event.POLICY_CHANGED: _adopted,
    Event.POLICY_IN_FORCE: _in_force,
    Event.DATASET_PUBLISHED: _dataset("published"),
    Event.DATASET_WITHDRAWN: _dataset("withdrew"),
    Event.REQUEST_SUBMITTED: _submitted,
    Event.REQUEST_REFUSED: _refused_request,
    Event.REQUEST_REHEARSED: _rehearsed,
    Event.REQUEST_CONSENTED: _consented,
    Event.REQUEST_APPROVED: _approved,
    Event.APPROVAL_CONFIRMED: _confirmed,
    Event.CHANGES_REQUESTED: _changes,
    Event.REQUEST_DENIED: _did("denied it"),
    Event.REQUEST_REVOKED: _did("took the approval back"),
    Event.REQUEST_WITHDRAWN: _did("withdrew the request"),
    Event.REQUEST_EXPIRED: _did("ended it"),
    Event.EVIDENCE_EXPORTED: _did("exported evidence about it"),
}
