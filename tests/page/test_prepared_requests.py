"""A reviewer finds on the first screen of a sheet what is wrong, without reading the text."""

from __future__ import annotations

import pytest

from tests.page.prepared import PREPARED

HONEST = [p for p in PREPARED if p.name.startswith("honest")]


@pytest.fixture
def tab(owner):
    page = owner.new_page()
    page.set_viewport_size({"width": 1280, "height": 900})
    yield page
    page.close()


@pytest.mark.parametrize("prepared", PREPARED, ids=lambda prepared: prepared.name)
def test_what_to_look_at_names_what_is_wrong(reviewed, tab, prepared) -> None:
    tab.goto(f"/requests/{reviewed.numbers[prepared.name]}")
    block = tab.locator(".attention")
    assert block.bounding_box()["y"] < 300
    assert prepared.headline in block.get_by_role("heading").inner_text()
    said = block.inner_text()
    for words in prepared.named:
        assert words in said
    for anchor in prepared.where:
        block.locator(f'a[href="#{anchor}"]').first.click()
        assert tab.locator(f"#{anchor}").evaluate(
            "e => { const r = e.getBoundingClientRect();"
            " return r.top < innerHeight - 100 && r.bottom > 0 }"
        )


@pytest.mark.parametrize("prepared", HONEST, ids=lambda prepared: prepared.name)
def test_honest_requests_show_no_alarm(reviewed, tab, prepared) -> None:
    tab.goto(f"/requests/{reviewed.numbers[prepared.name]}")
    kinds = set(tab.locator(".attention .badge").all_inner_texts())
    assert kinds <= {"to read", "in order", "changed"}


def test_the_hidden_characters_are_seen_in_the_code(reviewed, tab) -> None:
    tab.goto(f"/requests/{reviewed.numbers['hides characters']}")
    assert tab.locator("#code mark.odd").all_inner_texts() == [
        "⟨U+202E⟩", "⟨U+2066⟩", "⟨U+2069⟩", "⟨U+200B⟩",
    ]  # fmt: skip
    assert "\u202e" not in tab.content()


def test_the_changed_words_are_seen_side_by_side(reviewed, tab) -> None:
    tab.goto(f"/requests/{reviewed.numbers['differs in one line, which leaks labels']}")
    changed = tab.locator("#diff tr.changed")
    assert changed.count() == 1
    assert "cross_entropy(score, labels)" in changed.locator(".old").inner_text()
    assert "labels[:50]" in changed.locator(".new").inner_text()
