"""Who may decide what about a request, and when; each decision is signed, and logged first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import factories
from datasites.adopted_policy import adopt_policy
from datasites.approvals import Approval
from datasites.audit_log import read_events
from datasites.decisions import Shown, deny, request_changes, revoke
from datasites.decisions import approve as approve_as_shown
from datasites.errors import DecisionError, RecordError, RunRefused
from datasites.keys import is_signed
from datasites.open_site import OpenSite
from datasites.people import Acting
from datasites.records import DecisionRow, RehearsalRow, RequestRow
from datasites.rehearsal import Rehearsal, latest_rehearsal, rehearse
from datasites.request_states import DECIDABLE, UNDECIDED, RequestState, Verb
from datasites.requests import get_request, withdraw_request
from datasites.review import review, summarise
from datasites.signed_decisions import PURPOSE, LineComment, read_decisions
from datasites.standing import expire_due, latest_approval
from datasites.track_record import track_record
from open_sites import COMPLIANCE, OWNER, SECOND, THIRD, RecordedSyft, open_site, submit
from policies.findings import refuse
from policies.review_rule import TrackRecord

TWO = {"review": {"four_eyes": True, "rehearsal": {"images": 2, "time_s": 3}}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    """One person is enough here."""
    opened = open_site(tmp_path_factory.mktemp("one"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    """Two people have to agree here."""
    opened = open_site(tmp_path_factory.mktemp("two"), **TWO)
    yield opened
    opened.close()


@pytest.fixture
def syft() -> RecordedSyft:
    return RecordedSyft()


def rehearsed(site: OpenSite, syft: RecordedSyft, **changes: Any) -> RequestRow:
    """A request with a report of its rehearsal; rehearsing itself is tested elsewhere."""
    row = submit(site, syft, **changes)
    report(site, row)
    return row


def report(site: OpenSite, row: RequestRow) -> None:
    """Say that a request was rehearsed under the policy in force."""
    told = Rehearsal(
        request=row.id,
        at=row.submitted_at,
        text_sha256=row.text_sha256,
        version="0" * 64,
        policy_sha256=site.policy.sha256,
        images=64,
        config={},
        outcome="returned",
        seconds=0.1,
        memory_mb=1,
        influence="none",
    )
    with site.records.write() as session:
        session.add(RehearsalRow(request=row.id, at=told.at, report=told.model_dump_json()))


def approve(
    site: OpenSite, syft: RecordedSyft, number: int, acting: Acting, reason: str
) -> Approval | None:
    """Agree to what is so now, as somebody does who just looked at the sheet."""
    report = latest_rehearsal(site, number)
    shown = Shown(site.policy.sha256, report.sha256 if report else "")
    return approve_as_shown(site, syft, number, acting, reason, shown)


def state(site: OpenSite, row: RequestRow) -> str:
    return get_request(site, row.id).state


def events(site: OpenSite, row: RequestRow) -> list[dict[str, Any]]:
    return [e for e in read_events(site.site.audit) if e["subject"] == f"R-{row.id}"]


def test_an_approval_is_signed_logged_and_mirrored(site: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(site, syft)
    approval = approve(site, syft, row.id, OWNER, " small, as declared ")
    assert approval is not None
    assert [c.person for c in approval.consents] == [OWNER.email]
    assert approval.consents[0].reason == "small, as declared"
    stored = latest_approval(site, row.id)
    assert stored is not None
    assert Approval.model_validate_json(stored.document) == approval
    last = events(site, row)[-1]
    assert (last["event"], last["actor"], last["role"], last["decision"], last["reason"]) == (
        "request approved", OWNER.email, "owner", "approve", "small, as declared",
    )  # fmt: skip
    assert last["objects"]["text_sha256"] == row.text_sha256
    assert set(last["objects"]) == {
        "text_sha256", "terms_sha256", "policy_sha256", "rehearsal_sha256",
    }  # fmt: skip
    assert last["detail"]["approval_signature"] == stored.signature
    assert syft.decisions == [(row.syft_request, True)]


def test_every_decision_is_a_signed_document(site: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(site, syft)
    request_changes(site, row.id, OWNER, "almost", [LineComment(line=2, text="why?")])
    deny(site, syft, row.id, SECOND, "no answer")
    found = read_decisions(site, row.id)
    assert [(d.verb, d.person, d.role) for d, _ in found] == [
        ("changes", OWNER.email, "owner"), ("deny", SECOND.email, "second approver"),
    ]  # fmt: skip
    assert found[0][0].comments == (LineComment(line=2, text="why?"),)
    with site.records.read() as session:
        rows = session.query(DecisionRow).where(DecisionRow.request == row.id).all()
    for stored in rows:
        document = stored.document.encode()
        assert is_signed(site.key.public_hex, PURPOSE, document, stored.signature)
        assert not is_signed(site.key.public_hex, PURPOSE, document + b" ", stored.signature)
        assert not is_signed(site.key.public_hex, "approval", document, stored.signature)


def test_two_people_are_needed_where_the_policy_says_so(
    careful: OpenSite, syft: RecordedSyft
) -> None:
    row = rehearsed(careful, syft)
    assert approve(careful, syft, row.id, OWNER, "fine") is None
    assert state(careful, row) == "partly approved"
    assert summarise(careful, get_request(careful, row.id)).state_in_words == "approved by 1 of 2"
    assert events(careful, row)[-1]["event"] == "request consented"
    assert syft.decisions == []
    approval = approve(careful, syft, row.id, SECOND, "fine too")
    assert approval is not None
    assert [(c.person, c.role) for c in approval.consents] == [
        (OWNER.email, "owner"), (SECOND.email, "second approver"),
    ]  # fmt: skip
    assert state(careful, row) == "approved"
    assert syft.decisions == [(row.syft_request, True)]


def test_the_same_person_does_not_count_twice(careful: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(careful, syft)
    approve(careful, syft, row.id, OWNER, "fine")
    with pytest.raises(DecisionError, match=f"{OWNER.email} agreed to R-{row.id} already"):
        approve(careful, syft, row.id, OWNER, "fine again")
    assert state(careful, row) == "partly approved"


def test_second_approvers_alone_are_not_enough(careful: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(careful, syft)
    assert approve(careful, syft, row.id, SECOND, "fine") is None
    assert approve(careful, syft, row.id, THIRD, "fine, as an owner") is not None


def test_two_owners_are_four_eyes(careful: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(careful, syft)
    assert approve(careful, syft, row.id, OWNER, "fine") is None
    assert approve(careful, syft, row.id, THIRD, "fine") is not None


def test_agreement_before_changes_were_requested_does_not_count(
    careful: OpenSite, syft: RecordedSyft
) -> None:
    row = rehearsed(careful, syft)
    approve(careful, syft, row.id, OWNER, "fine")
    request_changes(careful, row.id, SECOND, "not yet")
    assert summarise(careful, get_request(careful, row.id)).agreed == []
    with pytest.raises(DecisionError, match="only a request that is partly approved or pending"):
        approve(careful, syft, row.id, SECOND, "now")


@pytest.mark.parametrize("verb", list(Verb))
def test_compliance_decides_nothing(site: OpenSite, syft: RecordedSyft, verb: Verb) -> None:
    row = rehearsed(site, syft)
    if verb is Verb.REVOKE:
        approve(site, syft, row.id, OWNER, "fine")
    before = state(site, row), len(events(site, row))
    with pytest.raises(DecisionError, match="has the role compliance: it reads everything"):
        decide(site, syft, row, verb, COMPLIANCE)
    assert (state(site, row), len(events(site, row))) == before


@pytest.mark.parametrize("account", [OWNER.email, OWNER.email.upper()])
def test_nobody_decides_about_a_request_of_their_own(
    site: OpenSite, syft: RecordedSyft, account: str
) -> None:
    row = rehearsed(site, syft, account=account)
    for verb in (Verb.APPROVE, Verb.DENY, Verb.CHANGES):
        with pytest.raises(DecisionError, match="another person decides about it"):
            decide(site, syft, row, verb, OWNER)
    assert approve(site, syft, row.id, THIRD, "not mine") is not None


def decide(
    site: OpenSite, syft: RecordedSyft, row: RequestRow, verb: Verb, acting: Any = OWNER
) -> None:
    if verb is Verb.APPROVE:
        approve(site, syft, row.id, acting, "a reason")
    elif verb is Verb.DENY:
        deny(site, syft, row.id, acting, "a reason")
    elif verb is Verb.REVOKE:
        revoke(site, syft, row.id, acting, "a reason")
    else:
        request_changes(site, row.id, acting, "a reason")


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("start", list(RequestState))
def test_each_decision_is_possible_in_its_states_only(
    site: OpenSite, syft: RecordedSyft, start: RequestState, verb: Verb
) -> None:
    row = rehearsed(site, syft)
    with site.records.write() as session:
        session.get_one(RequestRow, row.id).state = start
    if start in DECIDABLE[verb]:
        decide(site, syft, row, verb)
        assert state(site, row) != start
    else:
        with pytest.raises(DecisionError, match=f"R-{row.id} is {start}"):
            decide(site, syft, row, verb)
        assert state(site, row) == start


def test_every_state_has_a_sentence_and_every_undecided_one_can_be_denied() -> None:
    assert len({s.meaning for s in RequestState}) == len(RequestState)
    assert DECIDABLE[Verb.DENY] == UNDECIDED


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
@pytest.mark.parametrize("verb", list(Verb))
def test_a_reason_is_always_asked_for(
    site: OpenSite, syft: RecordedSyft, verb: Verb, reason: str
) -> None:
    row = rehearsed(site, syft)
    if verb is Verb.REVOKE:
        approve(site, syft, row.id, OWNER, "fine")
    calls: dict[Verb, Any] = {
        Verb.APPROVE: lambda: approve(site, syft, row.id, OWNER, reason),
        Verb.DENY: lambda: deny(site, syft, row.id, OWNER, reason),
        Verb.REVOKE: lambda: revoke(site, syft, row.id, OWNER, reason),
        Verb.CHANGES: lambda: request_changes(site, row.id, OWNER, reason),
    }
    with pytest.raises(DecisionError, match=rf"the reason has {len(reason.strip())} characters"):
        calls[verb]()


def test_comments_are_about_lines_that_exist(site: OpenSite, syft: RecordedSyft) -> None:
    row = submit(site, syft)
    lines = len(row.text.splitlines())
    with pytest.raises(DecisionError, match=f"R-{row.id} has {lines} lines; there is no line 99"):
        request_changes(site, row.id, OWNER, "see", [LineComment(line=99, text="?")])
    assert state(site, row) == "pending"
    request_changes(site, row.id, OWNER, "see", [LineComment(line=lines, text="?")])
    assert state(site, row) == "changes requested"


def test_nothing_is_approved_without_a_rehearsal(site: OpenSite, syft: RecordedSyft) -> None:
    row = submit(site, syft)
    with pytest.raises(DecisionError, match=f"R-{row.id} was not rehearsed yet"):
        approve(site, syft, row.id, OWNER, "fine")
    deny(site, syft, row.id, OWNER, "saying no needs none")


def test_what_is_agreed_to_is_what_was_shown(site: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(site, syft)
    report = latest_rehearsal(site, row.id)
    assert report is not None
    for shown, words in (
        (Shown("0" * 64, report.sha256), "shown under another policy than the one in force now"),
        (Shown(site.policy.sha256, "0" * 64), "rehearsed again since its sheet was shown"),
        (Shown("", ""), "look at it again"),
    ):
        with pytest.raises(DecisionError, match=words):
            approve_as_shown(site, syft, row.id, OWNER, "fine", shown)
    assert state(site, row) == "pending"


def test_a_revoked_text_is_not_one_that_was_approved(site: OpenSite, syft: RecordedSyft) -> None:
    text = f"{factories.DOUBLE_JOB}# a text of its own\n"
    first = rehearsed(site, syft, text=text, unique=False)
    approve(site, syft, first.id, OWNER, "fine")
    again = submit(site, syft, text, account=first.account, unique=False)
    assert track_record(site.records, again) == TrackRecord(True, 1)
    revoke(site, syft, first.id, OWNER, "malicious")
    assert track_record(site.records, again) == TrackRecord(False, 0)
    assert first.id not in [c.request for c in review(site, again.id).comparisons]


def test_the_diff_is_to_an_approved_text_whatever_a_request_follows(
    site: OpenSite, syft: RecordedSyft
) -> None:
    approved = rehearsed(site, syft)
    approve(site, syft, approved.id, OWNER, "fine")
    evil = approved.text.replace("array * 2", "array * images[0, 0, 0]")
    hidden = submit(site, syft, evil)
    follower = submit(site, syft, f"{evil}# a comment\n", account=hidden.account,
                      follows=hidden.id, unique=False)  # fmt: skip
    comparison, replaced = review(site, follower.id).comparisons
    assert comparison.approved
    assert (replaced.request, replaced.approved, replaced.changed) == (hidden.id, False, 1)
    changed = [r.new or "" for r in comparison.rows if r.change != "same"]
    assert any("images[0, 0, 0]" in line for line in changed)


def test_a_number_is_never_given_twice(site: OpenSite, syft: RecordedSyft) -> None:
    class Refusing(RecordedSyft):
        def submit_code(self, account: str, text: str, terms: Any, number: int) -> Any:
            raise RunRefused([refuse("job.syntax", "a text", "a job", "mend it")])

    with pytest.raises(RunRefused):
        submit(site, Refusing())
    row = submit(site, syft)
    assert [e["event"] for e in events(site, row)] == ["request submitted"]


def test_agreements_before_the_policy_changed_do_not_count_when_it_comes_back(
    tmp_path: Path, syft: RecordedSyft
) -> None:
    site = open_site(tmp_path, **TWO)

    def adopt(version: int) -> None:
        policy = factories.policy(version=version, **TWO)
        text = yaml.safe_dump(policy.model_dump(mode="json", exclude_none=True))
        site.take_policy(*adopt_policy(site.site, site.records, site.audit, OWNER, text, "new"))

    try:
        row = rehearsed(site, syft)
        approve(site, syft, row.id, OWNER, "fine")
        approve(site, syft, row.id, SECOND, "fine")
        half = rehearsed(site, syft)
        approve(site, syft, half.id, OWNER, "fine")
        adopt(2)
        adopt(1)
        assert summarise(site, get_request(site, row.id)).stopped
        assert approve(site, syft, row.id, OWNER, "again") is None
        assert approve(site, syft, row.id, SECOND, "again") is not None
        assert summarise(site, get_request(site, half.id)).agreed == []
    finally:
        site.close()


def test_an_edited_agreement_does_not_count(careful: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(careful, syft)
    approve(careful, syft, row.id, OWNER, "fine")
    with careful.records.write() as session:
        stored = session.query(DecisionRow).where(DecisionRow.request == row.id).one()
        stored.document = stored.document.replace(OWNER.email, "ghost@st-marys.example")
    assert summarise(careful, get_request(careful, row.id)).agreed == []
    assert approve(careful, syft, row.id, SECOND, "fine") is None


def test_what_the_policy_refuses_nobody_approves(site: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(site, syft, runs=101)
    with pytest.raises(DecisionError, match=r"runs.maximum: 101 runs asked for, allowed: at most"):
        approve(site, syft, row.id, OWNER, "fine")
    assert state(site, row) == "pending"


@pytest.mark.parametrize(
    ("hours", "ago", "kept"), [(24, 23.99, False), (24, 24.01, True), (0, 0, True)]
)
def test_the_last_agreement_waits(
    tmp_path: Path, syft: RecordedSyft, hours: float, ago: float, kept: bool
) -> None:
    rule = {"waiting_hours": hours, "rehearsal": {"images": 0, "time_s": 3}}
    site = open_site(tmp_path, review=rule)
    try:
        row = rehearsed(site, syft, ago=dt.timedelta(hours=ago))
        if kept:
            assert approve(site, syft, row.id, OWNER, "fine") is not None
        else:
            with pytest.raises(DecisionError, match=f"R-{row.id} waits {hours} h after it was"):
                approve(site, syft, row.id, OWNER, "fine")
            assert state(site, row) == "pending"
    finally:
        site.close()


def test_a_failed_rehearsal_stops_an_approval_where_the_policy_says_so(
    tmp_path: Path, syft: RecordedSyft
) -> None:
    rule = {"rehearsal": {"images": 0, "time_s": 3, "must_succeed": True}}
    site = open_site(tmp_path, review=rule)
    try:
        failing = submit(site, syft, factories.DOUBLE_JOB.replace("array * 2", "array / None"))
        rehearse(site, failing, OWNER)
        with pytest.raises(DecisionError, match="ended with `TypeError` and 0 refusals"):
            approve(site, syft, failing.id, OWNER, "fine")
        honest = submit(site, syft)
        rehearse(site, honest, OWNER)
        assert approve(site, syft, honest.id, OWNER, "fine") is not None
    finally:
        site.close()


def test_an_approval_stops_when_the_policy_changes_and_is_confirmed_by_as_many_people(
    tmp_path: Path, syft: RecordedSyft
) -> None:
    site = open_site(tmp_path, **TWO)
    try:
        row = rehearsed(site, syft)
        approve(site, syft, row.id, OWNER, "fine")
        first = approve(site, syft, row.id, SECOND, "fine")
        assert first is not None
        policy = factories.policy(version=2, **TWO).model_dump(mode="json", exclude_none=True)
        text = yaml.safe_dump(policy)
        site.take_policy(*adopt_policy(site.site, site.records, site.audit, OWNER, text, "new"))
        assert summarise(site, get_request(site, row.id)).stopped
        with pytest.raises(DecisionError, match="not rehearsed yet under the policy in force"):
            approve(site, syft, row.id, OWNER, "still fine")
        report(site, row)
        assert approve(site, syft, row.id, OWNER, "still fine") is None
        assert summarise(site, get_request(site, row.id)).stopped
        confirmed = approve(site, syft, row.id, THIRD, "still fine")
        assert confirmed is not None
        assert confirmed.policy_sha256 == site.policy.sha256 != first.policy_sha256
        assert confirmed.expires_at == first.expires_at  # confirming gives no more time
        assert not summarise(site, get_request(site, row.id)).stopped
        assert [e["event"] for e in events(site, row)][-2:] == [
            "request consented", "approval confirmed",
        ]  # fmt: skip
    finally:
        site.close()


def test_a_policy_is_adopted_by_owners_alone_and_with_a_reason(site: OpenSite) -> None:
    text = (site.site.path / "policy.yaml").read_text()
    for acting, reason, words in (
        (SECOND, "why not", "sam@st-marys.example is second approver; an owner adopts a policy"),
        (COMPLIANCE, "why not", "an owner adopts a policy"),
        (OWNER, "  ", "give a reason for the change"),
    ):
        before = len(list(read_events(site.site.audit)))
        with pytest.raises(DecisionError, match=words):
            adopt_policy(site.site, site.records, site.audit, acting, text, reason)
        assert len(list(read_events(site.site.audit))) == before


def test_a_researcher_takes_a_request_back(site: OpenSite, syft: RecordedSyft) -> None:
    row = rehearsed(site, syft)
    approve(site, syft, row.id, OWNER, "fine")
    withdraw_request(site, syft, row.account, row.id, "a mistake of mine")
    assert state(site, row) == "withdrawn"
    assert row.id in site.ended
    assert syft.decisions[-1] == (row.syft_request, False)
    last = events(site, row)[-1]
    assert (last["event"], last["actor"], last["role"], last["reason"]) == (
        "request withdrawn", row.account, "researcher", "a mistake of mine",
    )  # fmt: skip
    with pytest.raises(RunRefused, match=f"R-{row.id} is withdrawn"):
        withdraw_request(site, syft, row.account, row.id, "again")


def test_nobody_takes_back_what_another_asked_for(site: OpenSite, syft: RecordedSyft) -> None:
    row = submit(site, syft)
    with pytest.raises(RunRefused, match="a request of your own"):
        withdraw_request(site, syft, "mallory@uni.example", row.id, "mine?")
    with pytest.raises(RunRefused, match="a request of your own"):
        submit(site, syft, account="mallory@uni.example", follows=row.id)
    assert state(site, row) == "pending"


def test_a_new_text_takes_the_place_of_the_one_that_had_to_change(
    site: OpenSite, syft: RecordedSyft
) -> None:
    old = submit(site, syft)
    request_changes(site, old.id, OWNER, "see line 2", [LineComment(line=2, text="rename")])
    new = submit(site, syft, account=old.account, follows=old.id)
    replaced = get_request(site, old.id)
    assert (replaced.state, replaced.reason) == ("withdrawn", f"replaced by R-{new.id}")
    assert events(site, new)[0]["detail"]["follows"] == f"R-{old.id}"
    comparison = review(site, new.id).comparisons[-1]
    assert (comparison.request, comparison.approved, comparison.same) == (old.id, False, False)


@pytest.mark.parametrize(("days", "over"), [(59.9, False), (60.1, True)])
def test_what_nobody_decides_expires(
    site: OpenSite, syft: RecordedSyft, days: float, over: bool
) -> None:
    row = submit(site, syft, ago=dt.timedelta(days=days))
    ended = expire_due(site, syft, dt.datetime.now(dt.UTC))
    assert (row.id in ended) is over
    assert state(site, row) == ("expired" if over else "pending")
    if over:
        last = events(site, row)[-1]
        assert (last["event"], last["reason"]) == (
            "request expired", "nobody decided within 60 days",
        )  # fmt: skip


@pytest.mark.parametrize(("days", "over"), [(29.9, False), (30.1, True)])
def test_an_approval_expires(site: OpenSite, syft: RecordedSyft, days: float, over: bool) -> None:
    row = rehearsed(site, syft)
    approve(site, syft, row.id, OWNER, "fine")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    assert (row.id in expire_due(site, syft, later)) is over
    assert state(site, row) == ("expired" if over else "approved")


@pytest.mark.parametrize("verb", list(Verb))
def test_a_decision_that_cannot_be_logged_is_not_made(
    site: OpenSite, syft: RecordedSyft, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = rehearsed(site, syft)
    if verb is Verb.REVOKE:
        approve(site, syft, row.id, OWNER, "fine")
    before, told = get_request(site, row.id).state, list(syft.decisions)
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115  closed below
    log = site.audit._file
    monkeypatch.setattr(site.audit, "_file", full.fileno())
    with pytest.raises((RecordError, OSError)):
        decide(site, syft, row, verb)
    monkeypatch.setattr(site.audit, "_file", log)
    full.close()
    assert state(site, row) == before
    assert syft.decisions == told
    assert (row.id in site.ended) is False
    decided = len(read_decisions(site, row.id))
    assert decided == (1 if verb is Verb.REVOKE else 0)
