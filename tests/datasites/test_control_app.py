"""Who may do what over the control socket; acts are logged first, refusals are sentences."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

import factories
from datasites.adopted_policy import adopted_policies
from datasites.audit_log import read_events
from datasites.control import short_path
from datasites.control_app import control_app
from datasites.open_site import OpenSite
from datasites.people import Acting, check_person, find_person
from datasites.records import Researcher
from open_sites import COMPLIANCE, OWNER, RITA, SECOND, THIRD, RecordedSyft, open_site, submit

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    opened = open_site(tmp_path_factory.mktemp("site"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tools(site: OpenSite) -> Iterator[httpx.Client]:
    """A client on the socket, behind which the application answers as in a running site."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(site.site.control_socket) as path:
        listener.bind(path)
    app = control_app(site, RecordedSyft())
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


def by(acting: Acting, password: str = factories.PASSWORD) -> dict[str, str]:
    return {"person": acting.email, "password": password}


def last_event(site: OpenSite) -> dict[str, Any]:
    return list(read_events(site.site.audit))[-1]


def log_in(tools: httpx.Client, acting: Acting, address: str = HERE) -> dict[str, str]:
    answer = tools.post("/sessions", json=by(acting), headers={"X-Address": address})
    assert answer.status_code == 200, answer.text
    return {"X-Session": answer.json()["token"], "X-Address": address}


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
        back = {"email": THIRD.email, "name": "Oscar", "role": "owner",
                "new_password": factories.PASSWORD}  # fmt: skip
        tools.post("/people", json=back | by(OWNER))


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
        check_person(site.records, whose.email, factories.PASSWORD)


def test_a_wrong_password_is_refused_and_logged(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    for person, actor in ((OWNER.email, OWNER.email), ("nobody@x.example", "unknown account")):
        body = {"person": person, "password": "wrong", "reason": "x"}
        answer = tools.post(f"/requests/{row.id}/deny", json=body)
        assert answer.json()["error"] == "the e-mail address or the password is wrong"
        event = last_event(site)
        assert (event["event"], event["actor"], event["detail"]["wanted_to"]) == (
            "login refused", actor, "deny",
        )  # fmt: skip


def test_guessing_is_slowed_down(site: OpenSite, tools: httpx.Client) -> None:
    body = {"person": "guess@x.example", "password": "wrong"}
    answers = [tools.post("/sessions", json=body).json()["error"] for _ in range(6)]
    assert "too many failed tries" in answers[-1]
    assert "too many failed tries" not in answers[-2]


def test_a_session_decides_from_its_address_alone(site: OpenSite, tools: httpx.Client) -> None:
    row = submit(site, RecordedSyft())
    session = log_in(tools, OWNER)
    stolen = session | {"X-Address": "127.0.0.2"}
    answer = tools.post(f"/requests/{row.id}/deny", json={"reason": "x"}, headers=stolen)
    assert answer.json()["error"] == "the session is over; log in again"
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
    assert answer.json()["error"] == f"{acting.email} is {acting.role}; an owner adopts a policy"
    assert site.policy.sha256 == before
    assert tools.get("/policy").json()["sha256"] == before


@pytest.mark.parametrize("text", ["", "name: x", "a: [", "version: 1\nversion: 2"])
def test_a_policy_that_is_none_is_refused(site: OpenSite, tools: httpx.Client, text: str) -> None:
    before = len(list(read_events(site.site.audit)))
    answer = tools.post("/policy", json={"text": text, "reason": "mine"} | by(OWNER))
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 2)
    assert len(list(read_events(site.site.audit))) == before


def test_accounts_of_researchers_have_an_institution(site: OpenSite, tools: httpx.Client) -> None:
    body = {"email": "rudi@uni.example", "name": "Rudi", "institution": "Uni",
            "password": factories.PASSWORD}  # fmt: skip
    assert tools.post("/accounts", json=body).status_code == 200
    with site.records.read() as session:
        assert session.get_one(Researcher, "rudi@uni.example").institution == "Uni"


def test_compliance_has_no_account_of_a_researcher(site: OpenSite, tools: httpx.Client) -> None:
    body = {"email": COMPLIANCE.email.upper(), "name": "C", "password": factories.PASSWORD}
    answer = tools.post("/accounts", json=body)
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
