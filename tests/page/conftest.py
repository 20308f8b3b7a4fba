"""A running hospital with six prepared requests, its review page, and browsers at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from federation.job import Job
from federation.submission import Federation, Study
from federation.terms import Wanted
from hospitals import Hospital, make_hospital, start
from pages import COMPLIANCE, OWNER, PASSWORD, SECOND, RunningPage, add_people
from tests.page.prepared import HONEST_TRAINING, PREPARED, TRAINING

CHROMIUM = "/usr/bin/chromium"
LARGE = {
    "name": "large",
    "when": {"runs_above": 20},
    "approvers": 2,
    "roles": ["owner", "second approver"],
}


@dataclass
class Reviewed:
    """The hospital, its page, and the prepared requests by name."""

    hospital: Hospital
    page: RunningPage
    rita: Federation
    numbers: dict[str, int]

    def submit(self, text: str = HONEST_TRAINING, **changes: object) -> Study:
        """A request of Rita's, as the prepared ones are."""
        wanted = Wanted(**{"dataset": "chest-xray", **TRAINING, **changes})
        return self.rita.submit(Job(text, "job", "train"), wanted)

    def password(self, person: str) -> str:
        """What a person logs in with."""
        return self.hospital.trial.owner_password if person == OWNER else PASSWORD


@pytest.fixture(scope="session")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reviewed]:
    """One running site with a page; the first prepared request is approved."""
    hospital = make_hospital(
        tmp_path_factory.mktemp("reviewed") / "site",
        arguments={"rate": {"low": 0.0, "high": 1.0}, "epochs": {"low": 1, "high": 20}},
        review={"rehearsal": {"images": 4, "time_s": 20}, "tiers": [LARGE]},
    )
    page = RunningPage(hospital.trial.site.path)
    try:
        start(hospital)
        add_people(hospital.trial)
        made = Reviewed(hospital, page, hospital.connect(), {})
        for prepared in PREPARED:
            study = made.submit(prepared.text, **prepared.terms)
            made.numbers[prepared.name] = study.requests["st-marys"]
            if prepared is PREPARED[0]:
                hospital.decide(study, "approve", "Header and text agree; nothing single leaves.")
            else:
                hospital.trial.control.rehearse(study.requests["st-marys"])
        page.wait_until_up()
        yield made
    finally:
        page.stop()
        hospital.trial.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; while it is open, nothing else of asyncio runs in this process."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def _logged_in(chromium: Browser, reviewed: Reviewed, person: str) -> BrowserContext:
    context = chromium.new_context(base_url=reviewed.page.url)
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto("/login")
    tab.get_by_label("E-mail address").fill(person)
    tab.get_by_label("Password").fill(reviewed.password(person))
    tab.get_by_role("button", name="Log in").click()
    tab.wait_for_url(reviewed.page.url + "/")
    tab.close()
    return context


@pytest.fixture(scope="module")
def owner(chromium: Browser, reviewed: Reviewed) -> BrowserContext:
    """The data owner's browser."""
    return _logged_in(chromium, reviewed, OWNER)


@pytest.fixture(scope="module")
def second(chromium: Browser, reviewed: Reviewed) -> BrowserContext:
    """The second approver's browser."""
    return _logged_in(chromium, reviewed, SECOND)


@pytest.fixture(scope="module")
def compliance(chromium: Browser, reviewed: Reviewed) -> BrowserContext:
    """The compliance reviewer's browser."""
    return _logged_in(chromium, reviewed, COMPLIANCE)
