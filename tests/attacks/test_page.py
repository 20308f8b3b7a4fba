"""Attacks on the review page: forged forms, stolen sessions, texts that want to be code."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

import factories
from datasites.audit_log import read_events
from federation.errors import FederationError
from hospitals import Hospital
from pages import PASSWORD, RunningPage, Visit
from policies.contract import Bound

SCRIPT = "<script>window.pwned = 1</script>"
IMAGE = "\"'><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def page(hospital: Hospital) -> Iterator[RunningPage]:
    """The review page of the shared hospital."""
    made = RunningPage(hospital.trial.site.path)
    try:
        made.wait_until_up()
        yield made
    finally:
        made.stop()


@pytest.fixture
def owner(hospital, page) -> Iterator[Visit]:
    """The data owner, logged in from 127.0.0.1."""
    visit = Visit(page)
    trial = hospital.trial
    assert visit.log_in(trial.owner, trial.owner_password).status_code == 303
    yield visit
    visit.close()


@pytest.fixture
def pending(hospital, rita) -> Iterator[int]:
    """Number of a request that waits; no attack may decide it."""
    study = hospital.submit(rita, factories.DOUBLE_JOB, approve=False)
    yield study.requests[hospital.trial.name]
    assert study.states() == {hospital.trial.name: "pending"}
    study.withdraw("only a test")


def decision(**changes: str) -> dict[str, str]:
    """The form of an approval that was confirmed."""
    return {"verb": "deny", "reason": "forged", "sure": "yes", **changes}


def test_a_form_without_the_sessions_secret_does_nothing(owner, pending) -> None:
    for csrf in ({}, {"csrf": ""}, {"csrf": "x" * 43}, {"csrf": "é"}):
        answer = owner.client.post(
            f"/requests/{pending}/decision", data=decision(**csrf), headers=owner.headers
        )
        assert answer.status_code == 403


def test_the_secret_of_another_session_does_nothing(hospital, page, owner, pending) -> None:
    other = Visit(page)
    other.log_in(hospital.trial.owner, hospital.trial.owner_password)
    answer = owner.client.post(
        f"/requests/{pending}/decision", data=decision(csrf=other.csrf()), headers=owner.headers
    )
    assert answer.status_code == 403
    other.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {},
    ],
)
def test_a_form_of_another_page_does_nothing_even_with_the_secret(owner, pending, headers) -> None:
    form = decision(csrf=owner.csrf())
    for path in (f"/requests/{pending}/decision", f"/requests/{pending}/rehearsal", "/logout"):
        assert owner.client.post(path, data=form, headers=headers).status_code == 403
    assert owner.get("/people").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        {"content": b"a=1", "type": "text/plain"},
        {"content": b"{}", "type": "application/json"},
        {"content": b"--x--", "type": "multipart/form-data; boundary=x"},
        {"content": b"csrf=%ff", "type": "application/x-www-form-urlencoded"},
        {"content": b"&".join(b"a=%d" % k for k in range(6000)),
         "type": "application/x-www-form-urlencoded"},
        {"content": "csrf=é".encode(), "type": "application/x-www-form-urlencoded"},
    ],
)  # fmt: skip
def test_what_is_no_form_does_nothing(owner, pending, content) -> None:
    headers = {**owner.headers, "Content-Type": content["type"]}
    answer = owner.client.post(
        f"/requests/{pending}/decision", content=content["content"], headers=headers
    )
    assert answer.status_code == 403


def test_a_decision_is_not_made_by_following_a_link(owner, pending) -> None:
    for path in (f"/requests/{pending}/decision?verb=deny&reason=x&sure=yes",
                 f"/requests/{pending}/rehearsal", f"/requests/{pending}/evidence"):  # fmt: skip
        assert owner.get(path).status_code == 404
    owner.get(f"/requests/{pending}?verb=deny&reason=x&sure=yes&done=deny")


def test_a_stolen_session_is_worth_nothing_from_another_address(page, owner, pending) -> None:
    csrf, thief = owner.csrf(), Visit(page, "127.0.0.2")
    thief.client.cookies = owner.client.cookies
    for forwarded in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Address": "127.0.0.1"},
                      {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):  # fmt: skip
        answer = thief.get(f"/requests/{pending}", **forwarded)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        thief.client.cookies = owner.client.cookies
    answer = thief.client.post(
        f"/requests/{pending}/decision", data=decision(csrf=csrf), headers=thief.headers
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert owner.get("/people").status_code == 200, "the owner's own session goes on"
    thief.close()


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "../../x", "%00", "a b"])
def test_a_made_up_session_is_none(page, token) -> None:
    visit = Visit(page)
    answer = visit.get("/", Cookie=f"sitegate-{page.port}={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    visit.close()


def test_a_session_that_was_ended_is_over(hospital, page, owner) -> None:
    token = dict(owner.client.cookies)
    assert owner.post("/logout").status_code == 303
    kept = Visit(page)
    kept.client.cookies.update(token)
    assert kept.get("/").status_code == 303
    kept.close()


def test_login_does_not_take_over_a_session_it_was_handed(hospital, page) -> None:
    visit = Visit(page)
    visit.client.cookies.set(f"sitegate-{page.port}", "chosen-by-attacker", domain="127.0.0.1")
    answer = visit.log_in(hospital.trial.owner, hospital.trial.owner_password)
    cookie = answer.headers["set-cookie"]
    assert "chosen-by-attacker" not in cookie
    assert re.search(r"; HttpOnly; Path=/; SameSite=strict", cookie)
    visit.close()


def test_guessing_passwords_is_slowed_down_and_logged(hospital, page) -> None:
    visit, someone = Visit(page), "guessed@st-marys.example"
    for _ in range(5):
        assert "is wrong" in visit.log_in(someone, "guess").text
    assert "too many failed tries" in visit.log_in(someone, "guess").text.lower()
    events = [e for e in read_events(hospital.trial.site.audit) if e["event"] == "login refused"]
    assert len(events) >= 6
    assert someone not in str(events), "a name that nobody has may be a password"
    visit.close()


def test_researchers_have_no_account_here(page) -> None:
    visit = Visit(page)
    answer = visit.log_in("rita@uni.example", factories.PASSWORD)
    assert (answer.status_code, "set-cookie" in answer.headers) == (409, False)
    visit.close()


def test_who_reads_only_cannot_decide_by_a_form_of_their_own(hospital, page, pending) -> None:
    trial, reader = hospital.trial, "reader@st-marys.example"
    trial.control.add_person(
        reader, "Reader", "compliance", PASSWORD, trial.owner, trial.owner_password
    )
    visit = Visit(page)
    visit.log_in(reader, PASSWORD)
    for verb in ("approve", "deny", "changes"):
        answer = visit.post(f"/requests/{pending}/decision", **decision(verb=verb))
        assert answer.status_code == 409
        assert "has the role compliance" in answer.text
    visit.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/page.css/../../../site.yaml", "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../app.py", "/templates/base.html", "//evil.example/", "/requests/..%2f..%2fx",
        "/requests/1%00", "/requests/-1", "/requests/1e3", "/requests/99999999999999999999",
        "/docs", "/openapi.json", "/redoc", "/requests/1/../../audit", "/.git/config",
        "/login/..;/audit",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_else(page, path) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as raw:
        host = f"Host: 127.0.0.1:{page.port}\r\nConnection: close\r\n\r\n"
        raw.sendall(f"GET {path} HTTP/1.1\r\n{host}".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    status = int(answer.split()[1])
    assert status in (303, 404)
    if status == 303:
        assert "\r\nlocation: /login\r\n" in answer
    assert "root:" not in answer
    assert "Traceback" not in answer


@pytest.mark.parametrize(
    "query",
    [
        "last=-5", "last=99999999999999999999", "subject=R-", "subject=%00", "text=%F0%9F%92%A9",
        "event=%3Cscript%3E", "actor=" + "x" * 5000, "subject=R-1%2F..%2F..",
    ],
)  # fmt: skip
def test_odd_filters_show_a_log_all_the_same(owner, query) -> None:
    answer = owner.get(f"/audit?{query}")
    assert answer.status_code == 200
    assert "<script" not in answer.text


def test_no_other_name_reaches_the_page(owner) -> None:
    answer = owner.get("/", Host="evil.example")
    assert answer.status_code == 421
    assert "Requests" not in answer.text


def test_a_name_of_a_megabyte_is_refused_before_it_is_a_request(hospital, rita, owner) -> None:
    before = len(hospital.trial.control.requests())
    with pytest.raises(FederationError):
        hospital.submit(rita, factories.DOUBLE_JOB, approve=False, title="x" * 1_000_000)
    with pytest.raises(FederationError):
        hospital.submit(rita, f"{factories.DOUBLE_JOB}# {'x' * 1_000_000}", approve=False)
    assert len(hospital.trial.control.requests()) == before
    assert owner.get("/").status_code == 200


def test_texts_of_a_request_are_never_code(hospital, rita, page) -> None:
    choices = Bound(choices=(SCRIPT, IMAGE))
    text = f"{factories.DOUBLE_JOB}\n# {SCRIPT} {IMAGE} </code></pre></textarea>{SCRIPT}\n"
    study = hospital.submit(
        rita, text, approve=False, title=SCRIPT, purpose=f"{IMAGE} ../../etc/passwd",
        arguments={"rate": choices, "x" * 120: choices},
    )  # fmt: skip
    number = study.requests[hospital.trial.name]
    study.withdraw(f"{SCRIPT} {IMAGE}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        tab = chromium.new_page()
        said: list[str] = []
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("request", lambda sent: said.append(sent.url))
        tab.goto(f"{page.url}/login")
        tab.get_by_label("E-mail address").fill(hospital.trial.owner)
        tab.get_by_label("Password").fill(hospital.trial.owner_password)
        tab.get_by_role("button", name="Log in").click()
        tab.wait_for_url(f"{page.url}/")
        for path in ("/", f"/requests/{number}", f"/audit?subject=R-{number}"):
            tab.goto(page.url + path)
            assert SCRIPT in tab.locator("body").inner_text()
            assert tab.locator("script, img, iframe").count() == 0
            assert tab.evaluate("window.pwned === undefined")
            # were a script to slip in, the browser would not run it
            tab.evaluate(
                "() => { const s = document.createElement('script'); s.textContent ="
                " 'window.pwned = 1'; document.body.append(s) }"
            )
            assert tab.evaluate("window.pwned === undefined")
        assert all(s.startswith((page.url, "data:,")) or "Content Security" in s for s in said)
        _is_not_framed(tab, page)
        _is_not_posted_to_from_elsewhere(tab, page, number)
        chromium.close()


def _is_not_framed(tab, page) -> None:
    tab.route(
        "http://evil.example/",
        lambda route: route.fulfill(body=f"<iframe src='{page.url}/'></iframe>",
                                    content_type="text/html"),
    )  # fmt: skip
    tab.goto("http://evil.example/")
    assert "Requests" not in tab.frames[-1].content()


def _is_not_posted_to_from_elsewhere(tab, page, number: int) -> None:
    """A page of somebody else posts a form in the browser that is logged in."""
    form = (
        f"<form method=post action='{page.url}/requests/{number}/decision'>"
        "<input name=verb value=deny><input name=reason value=x><input name=sure value=yes></form>"
        "<script>document.forms[0].submit()</script>"
    )
    tab.route(
        "http://evil.example/form",
        lambda route: route.fulfill(body=form, content_type="text/html"),
    )
    tab.goto("http://evil.example/form", wait_until="commit")
    tab.wait_for_url(f"{page.url}/requests/{number}/decision")
    assert "The form was not sent by this page" in tab.locator("body").inner_text()
