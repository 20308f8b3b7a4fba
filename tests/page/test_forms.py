"""What the page says about a form that cannot be a decision, before the site is asked."""

from __future__ import annotations

import html

import pytest

from datasites.page.request_pages import LONGEST_REMARK
from datasites.requests import MAXIMUM_REASON
from datasites.signed_decisions import MAXIMUM_COMMENTS, LineComment
from pages import OWNER, Visit


@pytest.fixture(scope="module")
def owner(reviewed):
    visit = Visit(reviewed.page)
    visit.client.timeout = 60
    assert visit.log_in(OWNER, reviewed.password(OWNER)).status_code == 303
    yield visit
    visit.close()


def test_a_remark_is_as_long_as_the_site_takes() -> None:
    limits = LineComment.model_fields["text"].metadata
    assert LONGEST_REMARK in [getattr(limit, "max_length", None) for limit in limits]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"verb": "deny"}, "the reason has 0 characters; give 1 to 1000"),
        ({"verb": "deny", "reason": " \n "}, "the reason has 0 characters"),
        ({"verb": "deny", "reason": "x" * (MAXIMUM_REASON + 1)}, "the reason has 1001 characters"),
        ({"verb": "changes", "reason": "x", "line-3": "x" * (LONGEST_REMARK + 1)},
         "the remark on line 3 is too long; give at most 500 characters"),
        ({"verb": "changes", "reason": "x"}
         | {f"line-{n}": "x" for n in range(1, MAXIMUM_COMMENTS + 2)},
         "51 remarks; give at most 50, or deny it"),
        ({"verb": "changes", "reason": "x", "line-999": "x", "sure": "yes"},
         "lines; there is no line 999 to comment on"),
        ({"verb": "deny", "reason": "x", "line-1": "x"},
         "remarks on lines go with a request for changes"),
        ({"verb": "revoke", "reason": "x"}, "cannot be revoked: it is pending"),
        ({"verb": "revoke", "reason": "x", "sure": "yes"},
         "only a request that is approved can be revoked"),
    ],
)  # fmt: skip
def test_a_form_that_decides_nothing_says_why(reviewed, owner, form, sentence) -> None:
    number = reviewed.numbers["copies an image"]
    answer = owner.post(f"/requests/{number}/decision", **form)
    assert answer.status_code == 409
    assert sentence in html.unescape(answer.text)
    assert reviewed.hospital.trial.control.request(number)["state"] == "pending"


@pytest.mark.parametrize(
    ("length", "status"), [(1, 200), (MAXIMUM_REASON, 200), (MAXIMUM_REASON + 1, 409)]
)
def test_a_reason_has_a_longest(reviewed, owner, length, status) -> None:
    form = {"verb": "deny", "reason": "x" * length}
    path = f"/requests/{reviewed.numbers['copies an image']}/decision"
    assert owner.post(path, **form).status_code == status


@pytest.mark.parametrize("verb", ["", "delete", "APPROVE"])
def test_an_unknown_verb_shows_the_sheet_again(reviewed, owner, verb) -> None:
    path = f"/requests/{reviewed.numbers['copies an image']}/decision"
    answer = owner.post(path, verb=verb, reason="kept words", sure="yes")
    assert answer.status_code == 200
    assert "kept words" in answer.text


@pytest.mark.parametrize("done", ["approve", "deny", "<script>", "expired"])
def test_a_link_cannot_claim_that_something_was_done(reviewed, owner, done) -> None:
    number = reviewed.numbers["copies an image"]
    answer = owner.get(f"/requests/{number}?done={done}")
    assert 'role="status"' not in answer.text
