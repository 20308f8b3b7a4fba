"""A line becomes a sentence that says no more than it; what no line says is marked as such."""

from __future__ import annotations

from typing import Any

import pytest

import factories
from datasites.audit_events import Event, event_content
from datasites.evidence.claims import Basis, Safe, Statement
from datasites.evidence.documents import Documents, Settings
from datasites.evidence.runs import RunEnd, run_records
from datasites.evidence.selection import Matter, select_lines
from datasites.evidence.sentences import listed, sentence
from datasites.evidence.statements import final_state, is_stopped, make_statements
from datasites.request_states import RequestState
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Mechanism, Spent

RITA, OLIVIA, SAM = "rita@uni.example", "olivia@stmarys.example", "sam@stmarys.example"
AT = "2026-11-22T09:14:05.123456Z"
POLICY = factories.policy()
OLD, NEW = POLICY.sha256, "e" * 64
VERSION = "41c9" + "0" * 60
HASHES = {"text_sha256": "9be1" + "0" * 60, "terms_sha256": "77aa" + "0" * 60}
TITLES = {OLD: "chest-xray v3"}


def line(event: Event, actor: str = RITA, subject: str = "R-7", n: int = 12, **fields: Any) -> Any:
    """A line as the log holds it."""
    known = ("role", "run", "decision", "reason", "objects")
    split = {k: fields.pop(k) for k in known if k in fields}
    return {
        "n": n,
        "hash": "0" * 64,
        **event_content(event, actor, subject, AT, **split, detail=fields),
    }


def decided(event: Event, n: int = 12, policy: str = OLD, **fields: Any) -> Any:
    return line(
        event, OLIVIA, n=n, role="owner", reason="as agreed",
        objects={**HASHES, "policy_sha256": policy}, **fields,
    )  # fmt: skip


SUBMITTED = line(Event.REQUEST_SUBMITTED, **HASHES, version=VERSION, dataset="chest-xray", runs=20)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            SUBMITTED,
            "rita@uni.example (researcher) asked for 20 runs of the text 9be100000000… under the "
            "terms 77aa00000000… on chest-xray version 41c900000000…",
        ),
        (
            line(Event.REQUEST_SUBMITTED, **HASHES, version=VERSION, dataset="a", runs=1,
                 follows="R-3"),
            "rita@uni.example (researcher) asked for 1 run of the text 9be100000000… under the "
            "terms 77aa00000000… on a version 41c900000000…, in place of R-3.",
        ),
        (
            decided(Event.REQUEST_CONSENTED, agreement="1 of 2 people agreed"),
            f"olivia@stmarys.example (owner) agreed under policy chest-xray v3 ({OLD[:12]}…): "
            "“as agreed”; after that, 1 of 2 people agreed.",
        ),
        (
            decided(Event.REQUEST_APPROVED, runs=20, expires_at="2026-12-22T09:14:05+00:00",
                    agreement="everyone who has to agree did"),
            "olivia@stmarys.example (owner) agreed as the last who had to, and so approved it "
            f"under policy chest-xray v3 ({OLD[:12]}…), for 20 runs until 2026-12-22 09:14 UTC: "
            "“as agreed”.",
        ),
        (
            decided(Event.APPROVAL_CONFIRMED, policy=NEW, runs=20,
                    expires_at="2026-12-22T09:14:05+00:00"),
            "olivia@stmarys.example (owner) confirmed the approval under the policy eeeeeeeeeeee…, "
            "for 20 runs until 2026-12-22 09:14 UTC: “as agreed”.",
        ),
        (
            decided(Event.CHANGES_REQUESTED, comments=2),
            "olivia@stmarys.example (owner) asked for changes with 2 comments on lines of the text "
            f"under policy chest-xray v3 ({OLD[:12]}…): “as agreed”.",
        ),
        (
            decided(Event.REQUEST_DENIED),
            "olivia@stmarys.example (owner) denied it under policy chest-xray v3 "
            f"({OLD[:12]}…): “as agreed”.",
        ),
        (
            decided(Event.REQUEST_REVOKED),
            "olivia@stmarys.example (owner) took the approval back under policy chest-xray v3 "
            f"({OLD[:12]}…): “as agreed”.",
        ),
        (
            line(Event.REQUEST_WITHDRAWN, reason="replaced by R-8"),
            "rita@uni.example (researcher) withdrew the request: “replaced by R-8”.",
        ),
        (
            line(Event.REQUEST_EXPIRED, "site", reason="nobody decided within 60 days"),
            "the site ended it: “nobody decided within 60 days”.",
        ),
        (
            line(Event.POLICY_CHANGED, OLIVIA, "chest-xray v3", role="owner", reason="tables",
                 objects={"policy_sha256": OLD, "previous_policy_sha256": NEW}),
            f"olivia@stmarys.example (owner) adopted policy chest-xray v3 ({OLD[:12]}…) in place "
            "of the policy eeeeeeeeeeee…: “tables”.",
        ),
        (
            line(Event.POLICY_IN_FORCE, "site", "chest-xray v3", policy_sha256=OLD),
            f"the site started with policy chest-xray v3 ({OLD[:12]}…) in force.",
        ),
        (
            line(Event.ACCOUNT_CREATED, "site", RITA, institution="Example University"),
            "the site made an account for rita@uni.example, of Example University.",
        ),
        (
            line(Event.ACCOUNT_CREATED, "site", RITA, institution=""),
            "the site made an account for rita@uni.example.",
        ),
        (
            line(Event.LOGIN_REFUSED, "unknown account", wanted_to="approve",
                 reason="the e-mail address or the password is wrong"),
            "somebody whom the site does not know was not let in, wanting to approve (the e-mail "
            "address or the password is wrong).",
        ),
        (
            line(Event.ACT_REFUSED, "carla@stmarys.example", role="compliance",
                 wanted_to="approve", reason="it decides nothing"),
            "carla@stmarys.example (compliance) wanted to approve, and was refused (it decides "
            "nothing).",
        ),
        (
            line(Event.REQUEST_REHEARSED, "site", text_sha256="a" * 64, version=VERSION),
            "the site had the text aaaaaaaaaaaa… run on the mock of version 41c900000000…, which "
            "is made from no patient.",
        ),
        (
            line(Event.DATASET_PUBLISHED, "site", "chest-xray", version=VERSION),
            "the site published chest-xray version 41c900000000…",
        ),
        (
            line(Event.DATASET_WITHDRAWN, "site", "chest-xray", version=VERSION,
                 reason="consent withdrawn"),
            "the site withdrew chest-xray version 41c900000000…: “consent withdrawn”.",
        ),
        (
            line(Event.REQUEST_REFUSED, rules=["request.terms", "request.size"]),
            "the request was not taken in, because of request.terms and request.size.",
        ),
        (
            line(Event.EVIDENCE_EXPORTED, "carla@stmarys.example", role="compliance"),
            "carla@stmarys.example (compliance) exported evidence about it.",
        ),
    ],
)  # fmt: skip
def test_sentence_of_a_line(said: Any, expected: str) -> None:
    assert sentence(said, TITLES) == f"On 2026-11-22 09:14 UTC {expected}"


COUNTED = {
    Event.RUN_STARTED, Event.RUN_REFUSED, Event.RUN_FAILED, Event.RUN_INTERRUPTED,
    Event.UPDATE_RELEASED, Event.UPDATE_REPEATED, Event.UPDATE_REFUSED,
}  # fmt: skip
ABOUT_OTHERS = {
    Event.SITE_CREATED, Event.SITE_STARTED, Event.SITE_STOPPED, Event.SITE_RECOVERED,
    Event.SANDBOX_PROVED, Event.SANDBOX_FAILED,
    Event.LOG_RECOVERED, Event.LOG_ROTATED, Event.LOG_COUNTERSIGNED, Event.PERSON_CHANGED,
    Event.PASSWORD_CHANGED,
    Event.LOGIN, Event.SESSION_ENDED, Event.CALL_REFUSED, Event.CHECKPOINT,
}  # fmt: skip


@pytest.mark.parametrize("event", list(Event))
def test_every_event_has_a_sentence_or_is_counted_or_is_about_something_else(event: Event) -> None:
    has_one = sentence(line(event), {}) is not None
    assert has_one == (event not in COUNTED | ABOUT_OTHERS)


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_names_in_a_sentence(names: list[str], expected: str) -> None:
    assert listed(names) == expected


def documents(**changes: Any) -> Documents:
    """What is known of R-7 beside its lines: no dataset, no decision."""
    settings = Settings(
        site="st-marys", title="St Mary's", url="https://127.0.0.1:8443", public_key="a" * 64,
        sandbox="bubblewrap", own_certificate=False, request=7, researcher=RITA,
        policy_in_force=OLD, at=AT,
    )  # fmt: skip
    plain: dict[str, Any] = {
        "settings": settings, "job": factories.DOUBLE_JOB, "terms": factories.terms(),
        "terms_sha256": HASHES["terms_sha256"], "policies": {OLD: POLICY}, "decisions": (),
        "approvals": (), "rehearsals": {}, "card": None, "certificate": None, "version_sha256": "",
    }  # fmt: skip
    return Documents(**{**plain, **changes})


def statements(*lines: Any, **changes: Any) -> list[Statement]:
    return make_statements(lines, documents(**changes))


def started(round_number: int, n: int, sandbox: str = "bubblewrap") -> Any:
    return line(Event.RUN_STARTED, subject=f"R-7/{round_number}/1", n=n, sandbox=sandbox)


def released(round_number: int, n: int, size: int = 100) -> Any:
    return line(
        Event.UPDATE_RELEASED, subject=f"R-7/{round_number}/1", n=n, update_sha256="b" * 64,
        bytes=size, arrays=2, metrics=["loss"], examples=120,
    )  # fmt: skip


def find(found: list[Statement], text: str) -> Statement:
    return next(s for s in found if text in s.text)


def test_every_statement_from_the_log_names_its_lines() -> None:
    found = statements(
        SUBMITTED, decided(Event.REQUEST_APPROVED, 13), started(1, 14), released(1, 15)
    )
    assert all(s.lines for s in found if s.basis is Basis.LOG)
    assert all(s.documents for s in found if s.basis is Basis.DOCUMENT)
    assert all(not s.lines or "not kept" in s.text for s in found if s.basis is Basis.ABSENCE)
    assert {n for s in found for n in s.lines} == {12, 13, 14, 15}


def test_sections_come_in_the_order_of_the_five_safes() -> None:
    found = [s.safe for s in statements(SUBMITTED)]
    assert found == sorted(found, key=list(Safe).index)


def test_updates_are_counted_and_their_bytes_summed() -> None:
    found = statements(SUBMITTED, released(1, 15), released(2, 16, 900))
    assert find(found, "2 updates left, with 1,000 bytes of arrays.").lines == (15, 16)
    privacy = find(found, "No differential privacy was applied")
    assert privacy.text.endswith("2 updates with in total 1,000 bytes left.")
    assert (privacy.lines, privacy.documents) == ((15, 16), ("policy.yaml",))


def test_without_an_update_the_privacy_sentence_claims_no_line() -> None:
    found = find(statements(SUBMITTED), "The policy asks for no differential privacy")
    assert found.text.endswith("and no update left.")
    assert (found.basis, found.lines) == (Basis.ABSENCE, ())


NOISE = {"noise_multiplier": 4.0, "sampling_rate": 1.0, "steps": 1}


def charged(round_number: int, n: int) -> Any:
    return line(
        Event.RUN_STARTED, subject=f"R-7/{round_number}/1", n=n, sandbox="bubblewrap",
        privacy={"dataset": "chest-xray", **NOISE},
    )  # fmt: skip


def private_policies() -> dict[str, Any]:
    rule = {"mode": "update_noise", "maximum_epsilon": 3.0, "delta": 1e-6}
    private = factories.policy(privacy=rule)
    return {private.sha256: private}


def test_what_runs_cost_is_added_up_from_the_log() -> None:
    lines = (SUBMITTED, charged(1, 13), released(1, 14), charged(2, 15), charged(2, 16))
    found = statements(*lines, policies=private_policies())
    cost = epsilon(Spent({Mechanism(noise_multiplier=4.0): 2}), 1e-6)
    told = find(found, f"2 runs of this request were charged, together epsilon {cost:.3g}")
    assert "Epsilon at most 3 with delta 1e-06 per patient" in told.text
    assert not told.alarming
    assert told.lines == (13, 14, 15, 16)


def test_an_update_that_no_noise_covers_is_alarming_also_beside_others() -> None:
    lines = (SUBMITTED, charged(1, 13), released(1, 14), started(2, 15), released(2, 16, 70))
    found = statements(*lines, policies=private_policies())
    bare = find(found, "No differential privacy was applied; 1 update with in total 70 bytes left.")
    assert bare.alarming
    assert bare.lines == (16,)


def test_runs_without_a_sandbox_are_told_apart() -> None:
    found = statements(SUBMITTED, started(1, 13), started(2, 14, "process"), started(3, 15))
    assert find(found, "2 runs started in the bubblewrap sandbox.").lines == (13, 15)
    assert find(found, "1 run started without a sandbox").lines == (14,)


def test_a_policy_that_the_site_has_not_kept_is_said_to_be_missing() -> None:
    found = statements(SUBMITTED, decided(Event.REQUEST_DENIED, 13, policy=NEW))
    missing = find(found, "has not kept the policy eeeeeeeeeeee…")
    assert (missing.basis, missing.lines) == (Basis.ABSENCE, (13,))


def adopted(n: int, policy: str) -> Any:
    return line(Event.POLICY_CHANGED, OLIVIA, "test v2", n=n, objects={"policy_sha256": policy})


APPROVED = decided(Event.REQUEST_APPROVED, 13)


@pytest.mark.parametrize(
    ("lines", "stopped"),
    [
        ([SUBMITTED, APPROVED], 0),
        ([SUBMITTED, APPROVED, adopted(14, NEW)], 1),
        # the same policy again
        ([SUBMITTED, APPROVED, adopted(14, OLD)], 0),
        # nothing stood yet, or any more
        ([SUBMITTED, adopted(14, NEW)], 0),
        ([SUBMITTED, APPROVED, decided(Event.REQUEST_REVOKED, 14), adopted(15, NEW)], 0),
        # confirmed, and changed again
        (
            [
                SUBMITTED, APPROVED, adopted(14, NEW),
                decided(Event.APPROVAL_CONFIRMED, 15, NEW), adopted(16, OLD),
            ],
            2,
        ),
    ],
)  # fmt: skip
def test_a_policy_that_changed_under_an_approval_is_told(lines: list[Any], stopped: int) -> None:
    found = [s for s in statements(*lines) if "while an approval stood" in s.text]
    assert len(found) == stopped


@pytest.mark.parametrize(
    ("lines", "stopped"),
    [
        ([SUBMITTED, adopted(13, NEW)], False),
        ([adopted(11, OLD), SUBMITTED, APPROVED], False),
        ([SUBMITTED, APPROVED, adopted(14, NEW)], True),
        # back to the policy of the approval, or confirmed under the new one
        ([SUBMITTED, APPROVED, adopted(14, NEW), adopted(15, OLD)], False),
        (
            [SUBMITTED, APPROVED, adopted(14, NEW), decided(Event.APPROVAL_CONFIRMED, 15, NEW)],
            False,
        ),
    ],
)
def test_an_approval_is_stopped_until_it_fits_the_policy(lines: list[Any], stopped: bool) -> None:
    assert is_stopped(lines) is stopped


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], None),
        ([Event.REQUEST_SUBMITTED], RequestState.PENDING),
        ([Event.REQUEST_SUBMITTED, Event.REQUEST_REHEARSED], RequestState.PENDING),
        ([Event.REQUEST_SUBMITTED, Event.REQUEST_CONSENTED], RequestState.PARTLY_APPROVED),
        ([Event.REQUEST_SUBMITTED, Event.REQUEST_APPROVED], RequestState.APPROVED),
        ([Event.REQUEST_APPROVED, Event.REQUEST_CONSENTED], RequestState.APPROVED),
        ([Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED], RequestState.APPROVED),
        ([Event.REQUEST_SUBMITTED, Event.CHANGES_REQUESTED], RequestState.CHANGES_REQUESTED),
        ([Event.REQUEST_SUBMITTED, Event.REQUEST_DENIED], RequestState.DENIED),
        ([Event.REQUEST_APPROVED, Event.REQUEST_REVOKED], RequestState.REVOKED),
        ([Event.REQUEST_APPROVED, Event.REQUEST_WITHDRAWN], RequestState.WITHDRAWN),
        ([Event.REQUEST_APPROVED, Event.REQUEST_EXPIRED], RequestState.EXPIRED),
    ],
)
def test_where_lines_leave_a_request(events: list[Event], state: RequestState | None) -> None:
    lines = [line(event, n=n) for n, event in enumerate(events, start=1)]
    assert final_state(lines)[0] is state


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([Event.RUN_REFUSED], RunEnd.NOT_STARTED),
        ([Event.RUN_STARTED], RunEnd.UNKNOWN),
        ([Event.RUN_STARTED, Event.UPDATE_RELEASED], RunEnd.RELEASED),
        ([Event.RUN_STARTED, Event.UPDATE_RELEASED, Event.UPDATE_REPEATED], RunEnd.RELEASED),
        ([Event.RUN_STARTED, Event.UPDATE_RELEASED, Event.RUN_REFUSED], RunEnd.RELEASED),
        ([Event.RUN_STARTED, Event.UPDATE_REFUSED], RunEnd.REFUSED),
        ([Event.RUN_STARTED, Event.RUN_FAILED], RunEnd.FAILED),
        ([Event.RUN_STARTED, Event.RUN_INTERRUPTED], RunEnd.INTERRUPTED),
        ([Event.RUN_STARTED, Event.RUN_INTERRUPTED, Event.RUN_STARTED], RunEnd.UNKNOWN),
        (
            [Event.RUN_STARTED, Event.RUN_INTERRUPTED, Event.RUN_STARTED, Event.UPDATE_RELEASED],
            RunEnd.RELEASED,
        ),
    ],
)
def test_what_came_of_a_run(events: list[Event], end: RunEnd) -> None:
    (record,) = run_records(
        line(event, subject="R-7/1/1", n=n) for n, event in enumerate(events, start=1)
    )
    assert record.end is end
    assert record.lines == list(range(1, len(events) + 1))


def test_lines_that_are_about_no_run_are_no_runs() -> None:
    assert run_records([SUBMITTED, line(Event.LOGIN_REFUSED)]) == []


MATTER = Matter(7, RITA, VERSION, frozenset({OLD}))


@pytest.mark.parametrize(
    ("said", "is_shown"),
    [
        (SUBMITTED, True),
        (line(Event.RUN_STARTED, subject="R-7/1/1"), True),
        (line(Event.LOGIN_REFUSED, "unknown account", "R-7"), True),
        (line(Event.REQUEST_SUBMITTED, subject="R-70"), False),
        (line(Event.RUN_STARTED, subject="R-70/1/1"), False),
        (line(Event.LOGIN, subject="login"), False),
        (line(Event.ACCOUNT_CREATED, "site", RITA), True),
        (line(Event.ACCOUNT_CREATED, "site", "eve@uni.example"), False),
        (line(Event.DATASET_PUBLISHED, "site", "chest-xray", version=VERSION), True),
        (line(Event.DATASET_PUBLISHED, "site", "chest-xray", version="0" * 64), False),
        (line(Event.DATASET_WITHDRAWN, "site", "chest-xray", version=VERSION), True),
        # the policy of the request comes into force, or ends; another one is not its business
        (adopted(12, OLD), True),
        (
            line(Event.POLICY_CHANGED, OLIVIA, "test v2",
                 objects={"policy_sha256": NEW, "previous_policy_sha256": OLD}),
            True,
        ),
        (adopted(12, NEW), False),
        (line(Event.POLICY_IN_FORCE, "site", "test v1", policy_sha256=OLD), True),
        (line(Event.POLICY_IN_FORCE, "site", "test v1", policy_sha256=NEW), False),
        (line(Event.CHECKPOINT, "site", "audit log"), False),
    ],
)  # fmt: skip
def test_which_lines_are_about_a_request(said: Any, is_shown: bool) -> None:
    assert (12 in select_lines([said], MATTER)) is is_shown


def test_of_many_starts_under_a_policy_the_first_is_shown_and_none_if_it_was_adopted() -> None:
    starts = [
        line(Event.POLICY_IN_FORCE, "site", "test v1", n=n, policy_sha256=OLD) for n in (3, 8, 9)
    ]
    assert list(select_lines(starts, MATTER)) == [3]
    assert list(select_lines([*starts, adopted(10, OLD)], MATTER)) == [10]
    assert list(select_lines([adopted(2, OLD), *starts], MATTER)) == [2]
