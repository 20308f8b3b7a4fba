"""A request's life at the page, in a real browser: from login to evidence."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from pages import COMPLIANCE, OWNER, SECOND
from tests.page.prepared import HONEST_TRAINING

SITE = "st-marys"


def unique(text: str, words: str) -> str:
    """A text that no other test submits."""
    return f"{text}\n# {words}\n"


@pytest.fixture
def tab(owner):
    page = owner.new_page()
    yield page
    page.close()


def decide(page, verb: str, reason: str, *, sure: bool = True) -> None:
    """Write the reason, press the button, and confirm."""
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=verb, exact=True).click()
    if sure:
        page.get_by_role("button", name=re.compile(rf"^{verb} R-")).click()
        page.wait_for_url(re.compile("done="))


def state(page) -> str:
    return page.locator(".sheet .heading .badge").inner_text()


def test_login_asks_for_the_right_password(reviewed, chromium) -> None:
    context = chromium.new_context(base_url=reviewed.page.url)
    page = context.new_page()
    page.goto("/requests/1")
    expect(page).to_have_url(f"{reviewed.page.url}/login")
    page.get_by_label("E-mail address").fill(SECOND)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The e-mail address or the password is wrong.")
    page.get_by_label("Password").fill(reviewed.password(SECOND))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Requests")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{reviewed.page.url}/login")
    page.goto("/")
    expect(page).to_have_url(f"{reviewed.page.url}/login")
    context.close()


def test_queue_shows_first_what_waits_for_this_person(reviewed, tab, compliance) -> None:
    study = reviewed.submit(unique(HONEST_TRAINING, "queue"))
    tab.goto("/")
    assert tab.locator("h2").first.inner_text().startswith("Waits for you")
    tab.get_by_role("link", name=re.compile("^Approved [0-9]")).click()
    assert f"R-{study.requests[SITE]}" not in tab.locator("main").inner_text()
    assert set(tab.locator("h2").all_inner_texts()[0].split()) >= {"Approved"}
    reader = compliance.new_page()
    reader.goto("/")
    assert "Waits for you" not in reader.locator("main").inner_text()
    reader.close()
    study.withdraw("only a test")


def test_changes_are_requested_resubmitted_and_compared(reviewed, tab) -> None:
    text = unique(HONEST_TRAINING, "changes")
    study = reviewed.submit(text)
    number = study.requests[SITE]
    tab.goto(f"/requests/{number}")
    assert "Not rehearsed yet" in tab.locator("#rehearsal").inner_text()
    tab.get_by_role("button", name="Rehearse now").click()
    expect(tab.get_by_role("status")).to_have_text(f"R-{number} was rehearsed on the mock.")
    assert "returned what it declared" in tab.locator("#rehearsal").inner_text()

    tab.get_by_label("Line 17: write a remark").click()
    tab.get_by_label("Remark on line 17").fill("How many epochs? <b>At most 3.</b>")
    decide(tab, "Request changes", "Please say why so many epochs.", sure=False)
    assert "line 17: How many epochs? <b>At most 3.</b>" in tab.locator("main").inner_text()
    tab.get_by_role("button", name="Back to the sheet").click()
    expect(tab.get_by_label("Remark on line 17")).to_have_value(
        "How many epochs? <b>At most 3.</b>"
    )
    expect(tab.get_by_label("Reason")).to_have_value("Please say why so many epochs.")
    decide(tab, "Request changes", "Please say why so many epochs.")
    assert state(tab) == "changes requested"
    comments = study.comments()
    assert comments["line"].tolist() == [17]
    assert comments["comment"].tolist() == ["How many epochs? <b>At most 3.</b>"]

    job = replace(study.job, text=text.replace("for some epochs", "for up to 3 epochs"))
    changed = job.text.replace("    loss = 0.0\n", "    loss = 0.0  # three epochs suffice\n")
    again = study.resubmit(replace(job, text=changed))
    newer = again.requests[SITE]
    tab.goto(f"/requests/{newer}")
    assert f"1 line differs from R-{number}, whose place it takes" in tab.content()
    assert "three epochs suffice" in tab.locator("#diff tr.changed .new").inner_text()
    tab.goto(f"/requests/{number}")
    assert state(tab) == "withdrawn"

    decided = reviewed.hospital.trial.control.request(newer)
    assert decided["state"] == "pending"
    tab.goto(f"/requests/{newer}")
    decide(tab, "Deny", "Ask again next month.")
    assert state(tab) == "denied"
    assert "Ask again next month." in tab.locator(".heading").inner_text()
    assert tab.get_by_role("button", name="Deny", exact=True).is_disabled()
    assert "it is denied" in tab.locator("#why-not").inner_text()


def test_two_people_approve_what_is_large_and_one_revokes_it(reviewed, tab, second) -> None:
    study = reviewed.submit(unique(HONEST_TRAINING, "large"), runs=30)
    number = study.requests[SITE]
    tab.goto(f"/requests/{number}")
    assert "2 people (owner, second approver); because of: large" in tab.content()
    tab.get_by_role("button", name="Rehearse now").click()
    tab.wait_for_url(re.compile("done=rehearsed"))
    decide(tab, "Approve", "Counts are large, nothing single leaves.", sure=False)
    question = tab.locator("main").inner_text()
    for words in ("rita@uni.example", "2 weight arrays of 68 numbers", "30 runs, 8,160 bytes"):
        assert words in question
    tab.get_by_role("button", name=f"Approve R-{number}").click()
    tab.wait_for_url(re.compile("done=approve"))
    assert state(tab) == "approved by 1 of 2"
    assert tab.get_by_role("button", name="Approve", exact=True).is_disabled()
    assert "you agreed already; another person has to" in tab.locator("#why-not").inner_text()

    other = second.new_page()
    other.goto("/")
    assert f"R-{number}" in other.locator("section").first.inner_text()
    other.goto(f"/requests/{number}")
    assert f"agreed {OWNER}" in re.sub(r"\s+", " ", other.locator("#agreement").inner_text())
    decide(other, "Approve", "I agree.")
    assert state(other) == "approved, 0 of 30 runs used"
    other.goto("/approvals")
    row = other.get_by_role("row").filter(has_text=f"R-{number}")
    assert "0 of 30 used, 30 left" in row.inner_text()
    assert "in force" in row.inner_text()
    other.goto(f"/requests/{number}")
    decide(other, "Revoke", "The study is over.")
    assert state(other) == "revoked"
    assert study.states() == {SITE: "revoked"}
    other.close()


def test_what_the_policy_refuses_cannot_be_approved(reviewed, tab) -> None:
    tab.goto(f"/requests/{reviewed.numbers['asks for more than the policy allows']}")
    assert tab.get_by_role("button", name="Approve", exact=True).is_disabled()
    said = tab.locator("#why-not").inner_text()
    assert "the policy refuses it (job.imports, runs.maximum)" in said
    assert tab.get_by_role("button", name="Deny", exact=True).is_enabled()


def test_compliance_reads_everything_and_decides_nothing(reviewed, compliance) -> None:
    page = compliance.new_page()
    page.goto(f"/requests/{reviewed.numbers['honest evaluation']}")
    assert page.locator("#decide button").count() == 0
    assert "reads everything and exports evidence; decides nothing" in page.content()
    for path in ("/", "/approvals", "/datasets", "/policy", "/people", "/audit"):
        assert page.goto(path).status == 200
    page.close()


def test_evidence_is_downloaded_as_one_folder_and_logged(reviewed, compliance) -> None:
    number = reviewed.numbers["honest training"]
    page = compliance.new_page()
    page.goto(f"/requests/{number}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export evidence").click()
    assert download.value.suggested_filename == f"evidence-R-{number}.zip"
    packed = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    names = packed.namelist()
    assert f"evidence-R-{number}/evidence.html" in names
    assert all(name.startswith(f"evidence-R-{number}/") for name in names)
    page.goto(f"/audit?subject=R-{number}&event=evidence+exported")
    assert COMPLIANCE in page.locator("tbody tr").first.inner_text()
    page.close()


def test_audit_log_is_filtered_verified_and_linked(reviewed, tab) -> None:
    number = reviewed.numbers["honest training"]
    tab.goto(f"/requests/{number}")
    tab.get_by_role("link", name=f"Log lines of R-{number}").click()
    assert "intact" in tab.locator(".notice").inner_text()
    events = tab.locator("tbody th").all_inner_texts()
    assert set(events) >= {"request submitted", "request rehearsed", "request approved"}
    tab.get_by_label("Event", exact=True).select_option("request approved")
    tab.get_by_role("button", name="Filter").click()
    assert tab.locator("tbody th").all_inner_texts() == ["request approved"]
    row = tab.locator("tbody tr").first.inner_text()
    assert OWNER in row
    assert "nothing single leaves" in row
    tab.locator("tbody td a").first.click()
    expect(tab).to_have_url(f"{reviewed.page.url}/requests/{number}")
    tab.goto("/audit?actor=nobody")
    assert tab.locator("tbody tr").count() == 0


def test_policy_people_and_datasets_are_told_in_words(reviewed, tab) -> None:
    tab.goto("/policy")
    assert "If it asks for more than 20 runs (kind `large`), it needs at least" in tab.content()
    assert "name: test" in tab.locator("details pre").text_content()
    tab.goto("/people")
    assert {OWNER, SECOND, COMPLIANCE} <= set(
        re.findall(r"[a-z]+@st-marys\.example", tab.content())
    )
    tab.goto("/datasets")
    assert "chest-xray" in tab.locator("h2").first.inner_text()
    assert tab.locator("tbody tr").filter(has_text="train").inner_text().split() == [
        "train", "60", "60", "not", "known",
    ]  # fmt: skip


def test_a_decision_that_is_refused_comes_back_with_what_was_written(reviewed, tab) -> None:
    study = reviewed.submit(unique(HONEST_TRAINING, "refused"))
    number = study.requests[SITE]
    tab.goto(f"/requests/{number}")
    tab.get_by_label("Line 12: write a remark").click()
    tab.get_by_label("Remark on line 12").fill("A remark.")
    decide(tab, "Deny", "No.", sure=False)
    assert "remarks on lines go with a request for changes" in tab.get_by_role("alert").inner_text()
    expect(tab.get_by_label("Remark on line 12")).to_have_value("A remark.")
    expect(tab.get_by_label("Reason")).to_have_value("No.")
    assert reviewed.hospital.trial.control.request(number)["state"] == "pending"
    study.withdraw("only a test")
