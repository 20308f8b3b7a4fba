"""Who may do what over the control socket; acts are logged first, refusals are sentences."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

import factories
from datasites import control_door
from datasites.adopted_policy import adopted_policies
from datasites.audit_log import Event, read_events
from datasites.control import short_path
from datasites.control_app import control_app
from datasites.errors import AccountError
from datasites.open_site import OpenSite
from datasites.people import Acting, check_person, find_person, remove_person
from datasites.records import Records
from datasites.refusal_log import MOST_PER_MINUTE
from datasites.requests import requester
from open_sites import COMPLIANCE, OWNER, RITA, SECOND, THIRD, RecordedSyft, open_site, submit

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    opened = open_site(tmp_path_factory.mktemp("site"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def syft() -> RecordedSyft:
    return RecordedSyft()


@contextmanager
def served(site: OpenSite, syft: RecordedSyft) -> Iterator[httpx.Client]:
    """A client on the socket, behind which the application answers as in a running site."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(site.site.control_socket) as path:
        listener.bind(path)
    app = control_app(site, syft)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with (
        short_path(site.site.control_socket) as path,
        httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://site") as client,
    ):
        yield client
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def tools(site: OpenSite, syft: RecordedSyft) -> Iterator[httpx.Client]:
    with served(site, syft) as client:
        yield client


def by(acting: Acting, password: str = factories.PASSWORD) -> dict[str, str]:
    return {"person": acting.email, "password": password}


def events(site: OpenSite) -> list[dict[str, Any]]:
    return list(read_events(site.site.audit))


def last_event(site: OpenSite) -> dict[str, Any]:
    return events(site)[-1]


def log_in(tools: httpx.Client, acting: Acting, address: str = HERE) -> dict[str, str]:
    answer = tools.post("/sessions", json=by(acting), headers={"X-Address": address})
    assert answer.status_code == 200, answer.text
    return {"X-Session": answer.json()["token"], "X-Address": address}


def add(tools: httpx.Client, acting: Acting) -> None:
    """Give somebody the account back that a test took away."""
    body = {"email": acting.email, "name": acting.email.split("@")[0].title(),
            "role": acting.role, "new_password": factories.PASSWORD}  # fmt: skip
    assert tools.post("/people", json=body | by(OWNER)).status_code == 200


NEW = {"email": "new@st-marys.example", "name": "New", "role": "compliance",
       "new_password": factories.PASSWORD}  # fmt: skip


@pytest.mark.parametrize(
    ("acting", "words"),
    [
        (SECOND, "sam@st-marys.example is second approver; an owner has to do this"),
        (COMPLIANCE, "carla@st-marys.example is compliance; an owner has to do this"),
    ],
)
def test_only_owners_change_people(site: OpenSite, tools: httpx.Client, acting, words) -> None:
    for path in ("/people", "/people/remove"):
        answer = tools.post(path, json=NEW | by(acting))
        assert (answer.status_code, answer.json()["error"]) == (409, words)
        event = last_event(site)
        assert (event["event"], event["actor"], event["role"], event["reason"]) == (
            "act refused", acting.email, acting.role, words,
        )  # fmt: skip
    assert find_person(site.records, "new@st-marys.example") is None


def test_an_owner_adds_and_removes_people(site: OpenSite, tools: httpx.Client) -> None:
    assert tools.post("/people", json=NEW | by(OWNER)).status_code == 200
    event = last_event(site)
    assert (event["event"], event["actor"], event["role"], event["decision"]) == (
        "person changed", OWNER.email, "owner", "add",
    )  # fmt: skip
    assert check_person(site.records, NEW["email"], factories.PASSWORD).role == "compliance"
    again = tools.post("/people", json=NEW | by(OWNER))
    assert again.json()["error"] == "new@st-marys.example has an account here already"
    assert tools.post("/people/remove", json=NEW | by(OWNER)).status_code == 200
    assert find_person(site.records, NEW["email"]) is None


def test_the_last_owner_stays(site: OpenSite, tools: httpx.Client) -> None:
    gone = {"email": THIRD.email} | by(OWNER)
    try:
        assert tools.post("/people/remove", json=gone).status_code == 200
        answer = tools.post("/people/remove", json={"email": OWNER.email} | by(OWNER))
        assert answer.json()["error"] == f"{OWNER.email} is the only owner; add another owner first"
    finally:
        add(tools, THIRD)


@pytest.mark.parametrize(
    ("acting", "whose", "may"),
    [(OWNER, SECOND, True), (SECOND, SECOND, True), (SECOND, COMPLIANCE, False),
     (COMPLIANCE, OWNER, False)],
)  # fmt: skip
def test_passwords_are_changed_by_their_owner_or_an_owner(
    site: OpenSite, tools: httpx.Client, acting: Acting, whose: Acting, may: bool
) -> None:
    session = log_in(tools, whose)
    body = {"email": whose.email, "new_password": "another long password"}
    answer = tools.post("/people/password", json=body | by(acting))
    if may:
        assert check_person(site.records, whose.email, "another long password") == whose
        assert tools.get("/sessions/mine", headers=session).status_code == 409  # it has ended
        body["new_password"] = factories.PASSWORD
        tools.post("/people/password", json=body | by(OWNER))
    else:
        assert answer.json()["error"] == f"{acting.email} may change their own password only"
        assert last_event(site)["event"] == "act refused"
        check_person(site.records, whose.email, factories.PASSWORD)


def test_a_wrong_password_is_refused_and_logged(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    for person, actor, role in (
        (OWNER.email, OWNER.email, "owner"),
        (COMPLIANCE.email.upper(), COMPLIANCE.email, "compliance"),
        ("nobody@x.example", "unknown account", "unknown"),
    ):
        body = {"person": person, "password": "wrong", "reason": "x"}
        answer = tools.post(f"/requests/{row.id}/deny", json=body)
        assert answer.json()["error"] == "the e-mail address or the password is wrong"
        event = last_event(site)
        assert (event["event"], event["actor"], event["role"], event["detail"]["wanted_to"]) == (
            "login refused", actor, role, "deny",
        )  # fmt: skip


def test_guessing_is_slowed_down(site: OpenSite, tools: httpx.Client) -> None:
    body = {"person": "guess@x.example", "password": "wrong"}
    answers = [tools.post("/sessions", json=body).json()["error"] for _ in range(6)]
    assert "too many failed tries" in answers[-1]
    assert "too many failed tries" not in answers[-2]


def test_other_capitals_are_no_new_tries(tools: httpx.Client) -> None:
    spelled = ["try@x.example", "TRY@x.example", "Try@X.example", "tRy@x.example", "try@X.EXAMPLE"]
    for person in (*spelled, "trY@x.example"):
        answer = tools.post("/sessions", json={"person": person, "password": "wrong"}).json()
        slowed = "too many failed tries" in answer["error"]
        assert slowed is (person not in spelled)


def test_refused_logins_do_not_fill_the_log(tmp_path: Path) -> None:
    flooded = open_site(tmp_path)  # of its own: the others' refusals are to be logged
    with closing(flooded), served(flooded, RecordedSyft()) as stranger:
        for number in range(MOST_PER_MINUTE + 30):
            body = {"person": f"flood-{number % 3}@x.example", "password": "wrong"}
            assert stranger.post("/sessions", json=body).status_code == 409
        refused = [e for e in events(flooded) if e["event"] == "login refused"]
        assert len(refused) == MOST_PER_MINUTE


@pytest.mark.parametrize("spelled", [SECOND.email, "SAM@st-marys.example"])
def test_whoever_is_removed_is_logged_out(
    site: OpenSite, tools: httpx.Client, spelled: str
) -> None:
    session = log_in(tools, SECOND)
    try:
        assert tools.post("/people/remove", json={"email": spelled} | by(OWNER)).status_code == 200
        assert last_event(site)["subject"] == SECOND.email
        for _ in range(2):
            answer = tools.get("/sessions/mine", headers=session)
            assert answer.json()["error"] == "the session is over; log in again"
    finally:
        add(tools, SECOND)
    assert tools.get("/sessions/mine", headers=session).status_code == 409  # nor another's


def test_a_login_that_began_before_the_removal_is_worth_nothing(
    site: OpenSite, tools: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = control_door.check_person

    def checked_and_then_removed(records: Records, email: str, password: str) -> Acting:
        acting = check(records, email, password)
        remove_person(records, email)
        return acting

    with monkeypatch.context() as patched:
        patched.setattr(control_door, "check_person", checked_and_then_removed)
        session = log_in(tools, SECOND)
    try:
        assert tools.get("/sessions/mine", headers=session).status_code == 409
    finally:
        add(tools, SECOND)


def test_an_owner_who_was_removed_meanwhile_removes_nobody(
    site: OpenSite, tools: httpx.Client
) -> None:
    """The owner was let in, and then waits for the site's turn, in which they are removed."""
    with site.deciding, ThreadPoolExecutor(1) as pool:
        body = {"email": COMPLIANCE.email} | by(THIRD)
        waiting = pool.submit(tools.post, "/people/remove", json=body)
        time.sleep(1)
        remove_person(site.records, THIRD.email)
        before = len(events(site))
        site.deciding.release()
        try:
            answer = waiting.result()
        finally:
            site.deciding.acquire()
    try:
        assert answer.json()["error"] == f"{THIRD.email} is not owner here any more"
        assert find_person(site.records, COMPLIANCE.email) is not None
        assert len(events(site)) == before
    finally:
        add(tools, THIRD)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/people/remove", {"email": "nobody@x.example"},
         "nobody@x.example has no account here; see `sitegate person list`"),
        ("/people/password", {"email": "nobody@x.example", "new_password": factories.PASSWORD},
         "nobody@x.example has no account here; see `sitegate person list`"),
        ("/people/password", {"email": SECOND.email, "new_password": "short"},
         "the password has 5 characters; at least 12 are needed"),
        ("/people", NEW | {"email": "no address"}, "`no address` is not an e-mail address"),
        ("/people", NEW | {"email": OWNER.email.upper()},
         f"{OWNER.email.upper()} has an account here already"),
        ("/accounts", {"email": "x@uni.example", "name": "X", "new_password": "short"},
         "the password has 5 characters; at least 12 are needed"),
        ("/accounts", {"email": "no address", "name": "X", "new_password": factories.PASSWORD},
         "`no address` is not an e-mail address"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_not_logged_as_done(
    site: OpenSite, tools: httpx.Client, path: str, body: dict[str, str], words: str
) -> None:
    before = len(events(site))
    answer = tools.post(path, json=body | by(OWNER))
    assert (answer.status_code, answer.json()["error"]) == (409, words)
    assert len(events(site)) == before


def test_a_session_decides_from_its_address_alone(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    session = log_in(tools, OWNER)
    stolen = session | {"X-Address": "127.0.0.2"}
    answer = tools.post(f"/requests/{row.id}/deny", json={"reason": "x"}, headers=stolen)
    assert answer.json()["error"] == "the session is over; log in again"
    event = last_event(site)
    assert (event["event"], event["actor"], event["subject"], event["detail"]) == (
        "login refused", "unknown account", f"R-{row.id}",
        {"wanted_to": "deny", "address": "127.0.0.2"},
    )  # fmt: skip
    answer = tools.post(f"/requests/{row.id}/deny", json={"reason": "x"}, headers=session)
    assert answer.json()["state"] == "denied"
    assert last_event(site)["actor"] == OWNER.email


def test_logging_out_ends_the_session_and_is_logged(site: OpenSite, tools: httpx.Client) -> None:
    session = log_in(tools, COMPLIANCE)
    assert tools.get("/sessions/mine", headers=session).json()["role"] == "compliance"
    assert tools.delete("/sessions/mine", headers=session).status_code == 200
    assert (last_event(site)["event"], last_event(site)["role"]) == ("session ended", "compliance")
    assert tools.get("/sessions/mine", headers=session).status_code == 409


@pytest.mark.parametrize("acting", [SECOND, COMPLIANCE])
def test_only_owners_adopt_policies(site: OpenSite, tools: httpx.Client, acting: Acting) -> None:
    before = site.policy.sha256
    policy = factories.policy(version=9).model_dump(mode="json", exclude_none=True)
    body = {"text": yaml.safe_dump(policy), "reason": "mine"}
    answer = tools.post("/policy", json=body | by(acting))
    words = f"{acting.email} is {acting.role}; an owner has to do this"
    assert answer.json()["error"] == words
    event = last_event(site)
    assert (event["event"], event["actor"], event["detail"]["wanted_to"], event["reason"]) == (
        "act refused", acting.email, "adopt a policy", words,
    )  # fmt: skip
    assert site.policy.sha256 == before
    assert tools.get("/policy").json()["sha256"] == before


@pytest.mark.parametrize("text", ["", "name: x", "a: [", "version: 1\nversion: 2"])
def test_a_policy_that_is_none_is_refused(site: OpenSite, tools: httpx.Client, text: str) -> None:
    before = len(list(read_events(site.site.audit)))
    answer = tools.post("/policy", json={"text": text, "reason": "mine"} | by(OWNER))
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 2)
    assert len(list(read_events(site.site.audit))) == before


def test_compliance_that_tries_to_decide_is_logged(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    answer = tools.post(f"/requests/{row.id}/deny", json={"reason": "x"} | by(COMPLIANCE))
    event = last_event(site)
    assert (event["event"], event["actor"], event["role"], event["subject"]) == (
        "act refused", COMPLIANCE.email, "compliance", f"R-{row.id}",
    )  # fmt: skip
    assert (event["detail"], event["decision"]) == ({"wanted_to": "deny"}, "refused")
    assert event["reason"] == answer.json()["error"]
    assert "An owner or a second approver decides" in event["reason"]


def account(email: str = "rudi@uni.example", institution: str = "Uni") -> dict[str, str]:
    return {"email": email, "name": "Rudi", "institution": institution,
            "new_password": factories.PASSWORD}  # fmt: skip


@pytest.mark.parametrize("acting", [SECOND, COMPLIANCE])
def test_only_owners_make_accounts(tools: httpx.Client, syft: RecordedSyft, acting: Acting) -> None:
    answer = tools.post("/accounts", json=account() | by(acting))
    words = f"{acting.email} is {acting.role}; an owner has to do this"
    assert answer.json()["error"] == words
    assert tools.post("/accounts", json=account()).json()["error"].endswith("password is wrong")
    assert syft.accounts == set()


def test_an_account_is_made_once_under_the_address_that_syft_keeps(
    site: OpenSite, tools: httpx.Client, syft: RecordedSyft
) -> None:
    answer = tools.post("/accounts", json=account("Rudi@UNI.example") | by(OWNER))
    assert answer.json() == {"email": "Rudi@uni.example"}
    assert syft.accounts == {"Rudi@uni.example"}
    event = last_event(site)
    assert (event["event"], event["actor"], event["role"], event["subject"]) == (
        "account created", OWNER.email, "owner", "Rudi@uni.example",
    )  # fmt: skip
    for spelled in ("Rudi@uni.example", "Rudi@UNI.EXAMPLE", "rudi@uni.example"):
        assert requester(site, spelled).institution == "Uni"
        again = tools.post("/accounts", json=account(spelled, "Elsewhere") | by(OWNER))
        assert again.json()["error"] == "Rudi@uni.example has an account here already"
    assert requester(site, "Rudi@uni.example").institution == "Uni"
    assert last_event(site) == event


def test_an_account_that_a_crash_cut_off_is_made_by_the_same_command(
    site: OpenSite, tools: httpx.Client, syft: RecordedSyft, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AccountError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(syft, "add_researcher", broken)
        assert tools.post("/accounts", json=account("ada@uni.example") | by(OWNER)).is_error
    assert requester(site, "ada@uni.example").institution == "Uni"
    answer = tools.post("/accounts", json=account("ADA@uni.example", "Other") | by(OWNER))
    assert answer.json() == {"email": "ada@uni.example"}
    assert "ada@uni.example" in syft.accounts
    assert requester(site, "ada@uni.example").institution == "Other"


def test_compliance_does_not_rehearse(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    session = log_in(tools, COMPLIANCE)
    answer = tools.post(f"/requests/{row.id}/rehearsal", headers=session)
    assert answer.json()["error"] == (
        f"{COMPLIANCE.email} is compliance, which decides nothing; who decides rehearses"
    )


def test_compliance_has_no_account_of_a_researcher(site: OpenSite, tools: httpx.Client) -> None:
    answer = tools.post("/accounts", json=account(COMPLIANCE.email.upper()) | by(OWNER))
    assert answer.json()["error"] == (
        f"{COMPLIANCE.email} is compliance here, which has no researcher's account. Give another "
        "address"
    )
    answer = tools.post("/people", json=NEW | {"email": RITA} | by(OWNER))
    assert answer.json()["error"] == (
        f"{RITA} has a researcher's account here; compliance has none, so that it reads and never "
        "runs. Give another address"
    )


def test_a_policy_is_not_adopted_when_the_log_cannot_be_written(
    site: OpenSite, tools: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, file = site.policy.sha256, site.site.path / "policy.yaml"
    text = file.read_text()
    policy = factories.policy(version=9).model_dump(mode="json", exclude_none=True)
    body = {"text": yaml.safe_dump(policy), "reason": "a full disk"} | by(OWNER)
    with open("/dev/full", "wb", buffering=0) as full:
        with monkeypatch.context() as patched:
            patched.setattr(site.audit, "_file", full.fileno())
            answer = tools.post("/policy", json=body)
        assert (answer.status_code, answer.json()["exit_code"]) == (409, 3)
    assert site.policy.sha256 == before
    assert file.read_text() == text
    assert len(adopted_policies(site.records)) == 1


def test_the_audit_log_is_filtered(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    tools.post(f"/requests/{row.id}/deny", json={"reason": "no"} | by(OWNER))
    found = tools.get("/audit", params={"subject": f"R-{row.id}"}).json()
    assert [e["event"] for e in found["events"]] == ["request submitted", "request denied"]
    assert found["intact"] is True
    found = tools.get("/audit", params={"event": "request denied", "last": 1}).json()
    assert [e["subject"] for e in found["events"]] == [f"R-{row.id}"]
    assert found["matching"] >= 1
    assert tools.get("/audit", params={"text": "no such words"}).json()["events"] == []


def test_a_log_that_does_not_verify_is_shown_with_its_bad_line(tmp_path: Path) -> None:
    damaged = open_site(tmp_path)
    log = damaged.site.audit
    with closing(damaged), served(damaged, RecordedSyft()) as tools:
        damaged.audit.append(Event.SITE_STARTED, "site", "st-marys")
        whole = log.read_bytes()
        with log.open("ab") as file:
            file.write(whole.splitlines()[-1][:40])  # as the site writes its next line
        found = tools.get("/audit").json()
        assert (found["intact"], found["bad_line"], found["problem"]) == (True, None, "")
        assert found["lines"] == len(whole.splitlines())
        with log.open("r+b") as file:  # the same file, which the site goes on to write
            file.write(whole.replace(b"st-marys", b"st-mores", 1))
            file.truncate(len(whole))
        found = tools.get("/audit").json()
        assert (found["intact"], found["bad_line"]) == (False, 1)
        assert found["problem"]
        assert found["events"][-1]["event"] == "site started"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/people", {"name": "N"}, "`email` is missing"),
        ("/people", NEW | {"role": "chief"},
         "`role`: Input should be 'owner', 'second approver' or 'compliance' (seen: 'chief')"),
        ("/people", NEW | {"email": "x" * 201},
         "`email`: String should have at most 200 characters "
         "(seen: 'xxxxxxxxxxxx...xxxxxxxxxxxxx')"),
        ("/people", NEW | {"new_password": "x" * 1001},
         "`new_password`: String should have at most 1000 characters"),
        ("/accounts", {"email": "x@uni.example", "name": "", "new_password": "secret words"},
         "`name`: String should have at least 1 character (seen: '')"),
        ("/accounts", {"email": "x@uni.example", "name": "X", "new_password": "y", "rights": "all"},
         "`rights` is not a field of this call"),
        ("/accounts", {}, "`email` is missing; `name` is missing; `new_password` is missing"),
        ("/requests/x/deny", {"reason": "no"},
         "`number`: Input should be a valid integer, unable to parse string as an integer "
         "(seen: 'x')"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_sentence(
    tools: httpx.Client, path: str, body: dict[str, str], words: str
) -> None:
    answer = tools.post(path, json=body)
    assert (answer.status_code, answer.json()) == (409, {"error": words, "exit_code": 1})


@pytest.mark.parametrize("content", ["", "{", "[]", '"a secret"', "1"])
def test_what_is_no_call_at_all_is_a_sentence(tools: httpx.Client, content: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = tools.post("/people", content=content, headers=headers)
    assert answer.json()["error"] == "the call is refused: what was sent is not a JSON object"


@pytest.mark.parametrize("verb", ["evaluate", "APPROVE", "..", "withdraw"])
def test_what_is_no_decision_is_refused(site: OpenSite, tools: httpx.Client, verb: str) -> None:
    answer = tools.post(f"/requests/1/{verb}", json={"reason": "x"} | by(OWNER))
    assert answer.status_code in (404, 405, 409)
    if answer.status_code == 409:
        assert answer.json()["error"].startswith(f"`{verb}` is not a decision; use approve")


def test_an_unknown_request_is_a_sentence(tools: httpx.Client) -> None:
    answer = tools.get("/requests/9999")
    assert (answer.status_code, answer.json()["error"]) == (
        409, "there is no request R-9999 here; see `sitegate request list`",
    )  # fmt: skip
