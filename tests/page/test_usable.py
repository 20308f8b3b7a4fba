"""Every page: no accessibility violation, no foreign content, at every size, by keyboard."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"},
}
PATHS = ["/", "/?state=expired", "/approvals", "/datasets", "/policy", "/people", "/audit",
         "/requests/999", "/nowhere"]  # fmt: skip


@pytest.fixture(params=LOOKS, scope="module")
def look(request, owner, chromium, reviewed):
    context = chromium.new_context(
        base_url=reviewed.page.url, storage_state=owner.storage_state(), **LOOKS[request.param]
    )
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("request", lambda sent: page.said.append(sent.url))
    yield page
    context.close()


def check(page, url: str) -> None:
    """No violation, no scrolling sideways, nothing from elsewhere, no complaint of the browser."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    elsewhere = [s for s in page.said if not s.startswith((url, "data:,"))]
    assert [s for s in elsewhere if "status of 404" not in s] == []
    assert page.locator("script").count() == 0


def test_every_page_is_usable_by_everyone(look, reviewed) -> None:
    sheets = [f"/requests/{number}" for number in reviewed.numbers.values()]
    paths = [*PATHS, *sheets[1:4], sheets[5]]
    if look.evaluate("matchMedia('(prefers-color-scheme: dark)').matches"):
        paths = ["/", "/approvals", "/audit", sheets[3], sheets[5]]  # these have every colour
    for path in paths:
        look.goto(path)
        check(look, reviewed.page.url)


def test_what_is_folded_is_usable_when_it_is_open(look, reviewed) -> None:
    for path in (f"/requests/{reviewed.numbers['copies an image']}", "/policy", "/datasets"):
        look.goto(path)
        for fold in look.locator("details:not(.remark)").all():
            fold.evaluate("e => e.open = true")
        if remark := look.locator("details.remark").all()[:1]:
            remark[0].evaluate("e => e.open = true")
        check(look, reviewed.page.url)


def test_login_and_question_are_usable(look, reviewed, chromium) -> None:
    stranger = chromium.new_context(base_url=reviewed.page.url)
    page = stranger.new_page()
    page.said = []
    page.goto("/login")
    check(page, reviewed.page.url)
    stranger.close()
    look.goto(f"/requests/{reviewed.numbers['honest evaluation']}")
    look.get_by_label("Reason").fill("A reason.")
    look.get_by_role("button", name="Approve", exact=True).click()
    check(look, reviewed.page.url)


def test_a_request_is_decided_by_keyboard_alone(owner, reviewed) -> None:
    page = owner.new_page()
    page.goto(f"/requests/{reviewed.numbers['honest evaluation']}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.attention') !== null")
    remark = page.get_by_label("Line 3: write a remark")
    remark.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "line-3"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_label("Reason").focus()
    page.keyboard.type("By keyboard.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Approve')")
    assert "“By keyboard.”" in page.content()
    page.close()


def test_paper_shows_the_sheet_without_buttons(owner, reviewed) -> None:
    page = owner.new_page()
    page.emulate_media(media="print")
    page.goto(f"/requests/{reviewed.numbers['copies an image']}")
    assert not page.locator("#decide").is_visible()
    assert not page.locator(".top").is_visible()
    assert page.locator("#L1").is_visible()
    page.close()
