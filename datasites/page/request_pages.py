"""The queue, the review sheet, and what can be done there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from datasites.attention import what_to_look_at
from datasites.control import shown_on
from datasites.errors import SiteError
from datasites.page.bundle import zipped
from datasites.page.choices import EFFECTS, choices, waits_for
from datasites.page.code_lines import code_lines
from datasites.page.rendering import render
from datasites.page.side_by_side import changed_lines, side_by_side
from datasites.page.visitor import Form, OwnForm, Person, Visitor
from datasites.request_states import PAST, UNDECIDED, RequestState, Verb
from datasites.requests import MAXIMUM_REASON
from datasites.signed_decisions import MAXIMUM_COMMENTS
from policies.findings import Severity

COMMENTABLE_LINES = 2000
"""Lines of a text that have a field for a remark; nobody approves longer texts."""
LONGEST_REMARK = 500
"""Characters that the site takes as a remark on a line."""
_REMARK = re.compile(r"line-([1-9][0-9]{0,4})")

router = APIRouter()


@router.get("/")
def queue(who: Person, state: str = "") -> Response:
    """Every request: what waits for this person first."""
    requests = who.control.requests()
    states = Counter(row["state"] for row in requests)
    wanted = [row for row in requests if state in ("", row["state"])]
    return render(
        "queue.html",
        who=who,
        groups=_groups(wanted, who),
        states=[(s.value, states[s]) for s in RequestState if states[s]],
        state=state,
        total=len(requests),
    )


def _groups(rows: list[dict[str, Any]], who: Visitor) -> list[tuple[str, list[dict[str, Any]]]]:
    mine = [row for row in rows if waits_for(row, who.email, who.role)]
    open_ = [row for row in rows if row["state"] in UNDECIDED and row not in mine]
    standing = [r for r in rows if r["state"] == RequestState.APPROVED and r not in mine]
    over = [row for row in rows if not any(row in group for group in (mine, open_, standing))]
    named = (
        ("Waits for you", mine),
        ("Waits for others", open_),
        ("Approved", standing),
        ("Over", over),
    )
    return [(name, group) for name, group in named if group]


@router.get("/requests/{number}")
def sheet(who: Person, number: int, done: str = "") -> Response:
    """The review sheet of a request."""
    try:
        found = who.control.request(number)
    except SiteError as error:
        if error.exit_code != SiteError.exit_code:
            raise
        return render(
            "message.html", 404, who=who, title=f"No request R-{number}",
            sentence="There is no such request here; the list of requests has them all.",
        )  # fmt: skip
    return _sheet(who, found, {}, done=done)


@router.post("/requests/{number}/rehearsal")
def rehearse(who: Person, number: int, form: OwnForm) -> Response:
    """Run the text on the mock, then show what happened."""
    who.control.rehearse(number)
    return RedirectResponse(f"/requests/{number}?done=rehearsed#rehearsal", 303)


@router.post("/requests/{number}/decision")
def decide(who: Person, number: int, form: OwnForm) -> Response:
    """Ask once more, then decide; what is refused comes back with all that was written."""
    found = who.control.request(number)
    verb = form.get("verb", "")
    if verb not in set(Verb):  # back from the question
        return _sheet(who, found, form)
    try:
        _check_form(form)
        if form.get("sure") != "yes":
            return _question(who, found, Verb(verb), form)
        who.control.decide(
            number,
            verb,
            reason=form["reason"].strip(),
            comments=_remarks(form),
            shown=(form.get("policy", ""), form.get("rehearsal", "")),
        )
    except SiteError as error:
        return _sheet(who, found, form, refused=str(error), status=409)
    return RedirectResponse(f"/requests/{number}?done={verb}", 303)


@router.post("/requests/{number}/evidence")
def evidence(who: Person, number: int, form: OwnForm) -> Response:
    """Everything that proves what happened under a request, as one file."""
    name = f"evidence-R-{number}"
    return Response(
        zipped(name, who.control.evidence(number)),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}.zip"'},
    )


def _sheet(
    who: Visitor,
    found: dict[str, Any],
    form: Form,
    *,
    done: str = "",
    refused: str = "",
    status: int = 200,
) -> Response:
    compared = found["comparisons"]
    rows = compared[0]["rows"] if compared else []
    possible = choices(found, who.email, who.role)
    return render(
        "sheet.html",
        status,
        who=who,
        sheet=found,
        number=found["request"],
        state=RequestState(found["state"]),
        attention=what_to_look_at(found),
        rules=sorted(found["findings"], key=lambda finding: -Severity(finding["severity"]).rank),
        lines=code_lines(found["text"], found["findings"], changed_lines(rows)),
        diffs=[(comparison, side_by_side(comparison["rows"])) for comparison in compared],
        choices=possible,
        shown=shown_on(found),
        remarks_on=COMMENTABLE_LINES
        if any(c.verb is Verb.CHANGES and not c.why_not for c in possible)
        else 0,
        remarks=dict(_remarks(form)),
        reason=form.get("reason", ""),
        longest={"reason": MAXIMUM_REASON, "remark": LONGEST_REMARK},
        others=[row for row in who.control.requests() if row["state"] in (*UNDECIDED, "approved")][
            :30
        ],
        done=_done(done, found, who),
        refused=refused,
    )


def _question(who: Visitor, found: dict[str, Any], verb: Verb, form: Form) -> Response:
    """What is about to be decided, once more."""
    choice = next((c for c in choices(found, who.email, who.role) if c.verb is verb), None)
    if choice is None or choice.why_not:
        why = choice.why_not if choice else f"{who.role} decides nothing"
        raise SiteError(f"R-{found['request']} cannot be {PAST[verb]}: {why}")
    return render(
        "confirm.html",
        who=who,
        sheet=found,
        number=found["request"],
        choice=choice,
        effect=EFFECTS[verb],
        attention=what_to_look_at(found),
        reason=form["reason"].strip(),
        remarks=_remarks(form),
        shown=(form.get("policy", ""), form.get("rehearsal", "")),
    )


def _check_form(form: Mapping[str, str]) -> None:
    length = len(form.get("reason", "").strip())
    if not 0 < length <= MAXIMUM_REASON:
        raise SiteError(
            f"the reason has {length} characters; give 1 to {MAXIMUM_REASON}, for the log and for "
            "the researcher"
        )
    remarks = _remarks(form)
    if len(remarks) > MAXIMUM_COMMENTS:
        raise SiteError(f"{len(remarks)} remarks; give at most {MAXIMUM_COMMENTS}, or deny it")
    if long := [line for line, text in remarks if len(text) > LONGEST_REMARK]:
        raise SiteError(
            f"the remark on line {long[0]} is too long; give at most {LONGEST_REMARK} characters"
        )
    if remarks and form.get("verb") != Verb.CHANGES:
        raise SiteError(
            "remarks on lines go with a request for changes; take them out, or request changes"
        )


def _remarks(form: Mapping[str, str]) -> list[tuple[int, str]]:
    """The remarks on lines that a form has, by line."""
    found = [(_REMARK.fullmatch(name), text.strip()) for name, text in form.items()]
    return sorted((int(name[1]), text) for name, text in found if name and text)


def _done(done: str, found: Mapping[str, Any], who: Visitor) -> str:
    """The sentence about what was just done; a link that only claims it gets none."""
    number, decisions = f"R-{found['request']}", found["decisions"]
    if done == "rehearsed" and found["rehearsal"]:
        return f"{number} was rehearsed on the mock."
    if decisions and (decisions[-1]["verb"], decisions[-1]["person"]) == (done, who.email):
        return f"{number}: {found['state_in_words']}. Your decision is signed and in the log."
    return ""
