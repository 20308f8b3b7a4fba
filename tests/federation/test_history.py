"""The history names every absence, in a word for programs and in a sentence for people."""

from __future__ import annotations

import pytest

import federation.rounds
from datasites.request_states import RequestState
from federation.causes import Cause, cause_of, is_busy
from federation.curves import curves
from federation.errors import (
    ConnectionLostError,
    FederationError,
    RefusedError,
    UntrustedError,
)
from federation.history import History, SiteRound
from policies.findings import refuse


def rounds(**absences: dict[int, str]) -> History:
    """Ten rounds of three sites; `absences` says who is missing where, and why."""
    return History(
        [
            SiteRound(k, site, "missing", "a < reason", cause=absences[site][k])
            if k in absences.get(site, {})
            else SiteRound(k, site, "contributed", examples=100, loss=1 / k)
            for k in range(1, 11)
            for site in ("one", "two", "three")
        ]
    )


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        (History(), "No round is over yet."),
        (rounds(), "Every site (one, two, three) contributed to each of 10 rounds."),
        (
            History([SiteRound(1, "one", "contributed")]),
            "Every site (one) contributed to the one round.",
        ),
        (
            rounds(two=dict.fromkeys((4, 5, 6), "no answer") | {8: "late"}, three={2: "revoked"}),
            "Not every site contributed to the 10 rounds: three is missing in round 2 (revoked); "
            "two is missing in rounds 4 to 6 (no answer) and round 8 (late).",
        ),
        (
            rounds(one=dict.fromkeys((1, 2, 9), "late")),
            "Not every site contributed to the 10 rounds: one is missing in rounds 1, 2, 9 (late).",
        ),
        (
            History([SiteRound(3, "one", "missing", "from an older file")]),
            "Not every site contributed to the 1 round: one is missing in round 3 "
            "(no cause recorded).",
        ),
    ],
)
def test_one_sentence_names_every_absence(history: History, sentence: str) -> None:
    assert history.sentence == sentence


def test_the_frame_has_a_row_per_round_and_site() -> None:
    frame = rounds(two={4: "late"}).frame()
    assert len(frame) == 30
    assert frame.index.names == ["round", "site"]
    assert list(frame.columns)[:3] == ["state", "cause", "reason"]
    assert frame.loc[(4, "two"), "cause"] == "late"
    assert (frame["cause"] == "").sum() == 29


def test_a_notebook_shows_a_column_per_site_and_no_markup_of_others() -> None:
    html = rounds(two={4: "late"})._repr_html_()
    assert html.count("<tr>") == 11
    assert "missing: late" in html
    assert "a &lt; reason" in html
    many = History([SiteRound(k, "one", "contributed") for k in range(1, 41)])._repr_html_()
    assert "10 earlier rounds are in" in many
    assert many.count("<tr>") == 31


def test_curves_have_a_gap_where_a_site_is_missing_and_end_where_the_rounds_will() -> None:
    whole = curves(rounds(), {}, 1, 20)
    assert whole.count("<svg") == 1
    assert whole.count("<polyline") == 4  # three sites and the mean
    assert ">20</text>" in whole
    assert curves(rounds(two={4: "late", 5: "late"}), {}, 1, 20).count("<polyline") == 5
    auc = {k: {"all": 0.9, "one": float("nan") if k == 3 else 0.8} for k in range(1, 7)}
    both = curves(rounds(), auc, 1, 20)
    assert both.count("<svg") == 2
    assert both.count("<polyline") == 4 + 3
    assert "nan" not in both
    assert curves(History(), {}, 0, 0).count("<polyline") == 0


def refused(rule: str, seen: str = "") -> RefusedError:
    return RefusedError("St Mary's", [refuse(rule, seen, "", "")])


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionLostError("gone"), Cause.NO_ANSWER),
        (UntrustedError("another key"), Cause.NOT_TRUSTED),
        (FederationError("HTTP 413"), Cause.REFUSED),
        (refused("approval.expired", "the approval expired on 2026-11-23"), Cause.EXPIRED),
        (refused("approval.policy", "the hospital's policy has changed since"), Cause.NOT_APPROVED),
        (refused("approval.state", "R-3 is revoked: scanner audit"), Cause.REVOKED),
        (refused("approval.state", "R-3 is expired: the approval ended"), Cause.EXPIRED),
        (refused("approval.state", "R-3 is no longer approved"), Cause.REVOKED),
        (refused("approval.state", "the approval ended, or the hospital's policy changed"),
         Cause.REVOKED),
        (refused("approval.state", "R-3 is denied: expired consent"), Cause.NOT_APPROVED),
        (refused("approval.state", "R-3 is pending"), Cause.NOT_APPROVED),
        (refused("runs.maximum", "12 of 12 runs are used"), Cause.OVER_BUDGET),
        (refused("runs.per_day", "5 runs in the last 24 hours"), Cause.OVER_BUDGET),
        (refused("run.failed", "run R-3/1/1 ended with ValueError"), Cause.FAILED),
        (refused("site.trouble"), Cause.FAILED),
        (refused("update.norm", "31.2"), Cause.REFUSED),
    ],
)  # fmt: skip
def test_every_end_of_a_question_has_a_cause(error: FederationError, cause: Cause) -> None:
    assert cause_of(error) is cause


@pytest.mark.parametrize("state", [s for s in RequestState if s is not RequestState.APPROVED])
def test_every_state_of_a_request_has_a_cause_of_its_own(state: RequestState) -> None:
    expected = {"expired": Cause.EXPIRED, "revoked": Cause.REVOKED}.get(state, Cause.NOT_APPROVED)
    assert cause_of(refused("approval.state", f"R-12 is {state}: why")) is expected


def test_only_a_run_under_way_is_waited_for() -> None:
    assert is_busy(refused("run.busy"))
    assert not is_busy(refused("run.id"))
    assert not is_busy(ConnectionLostError("gone"))


def test_every_cause_is_explained_and_stands_in_the_table_of_what_happens() -> None:
    table = federation.rounds.__doc__ or ""
    for cause in Cause:
        assert cause.meaning
        assert f"| {cause.value} " in table
