"""The leakage test's numbers, limits on both sides, and the counts that its job lets out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from federation.errors import FederationError
from federation.leakage import ATTACKS
from federation.release import NotReleasedError, Release, judged
from hospitals import JOBS
from leakages import leakage, site_release, two_sites
from policies.document import load_policy
from policies.findings import Severity
from policies.job_rules import check_job
from policies.release_rule import ReleaseRule

POLICIES = Path(__file__).parents[2] / "policies"
TEXT = (JOBS / "test_leakage.py").read_text()
JOB: dict[str, Any] = {}
exec(compile(TEXT, "test_leakage", "exec"), JOB)
EVEN = [0, 5, 5, 10, 20, 70, 200, 690]
OPEN = ReleaseRule(maximum_tpr_at_0_1_percent=None, maximum_tpr_at_1_percent=None)


# --------------------------------------------------------------------------- what the job lets out


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=150), st.lists(st.integers(0, 30), max_size=150),
    st.integers(2, 10),
)  # fmt: skip
def test_no_cell_is_small_and_no_leak_looks_smaller(
    hold_outs: list[int], members: list[int], minimum: int
) -> None:
    out, inside = np.array(hold_outs, float), np.array(members, float)
    table = JOB["ranges"](out, inside, minimum)
    assert np.all((table == 0) | (table >= minimum))
    if min(len(out), len(inside)) < minimum:
        assert table.sum() == 0
        return
    assert table.sum(1).tolist() == [len(out), len(inside)]
    for false, found in np.cumsum(table, axis=1).T:
        # The slow way: the lowest threshold that takes at most so many hold-outs for members.
        allowed = [t for t in {*out, *inside} if np.sum(out >= t) <= false]
        assert found >= max((int(np.sum(inside >= t)) for t in allowed), default=0)


@pytest.mark.parametrize("name", ["childrens", "community", "university"])
def test_the_job_is_one_that_example_policies_let_a_person_approve(name: str) -> None:
    policy = load_policy(POLICIES / f"{name}-hospital.yaml")
    found = check_job(TEXT, "test_leakage", policy.job)
    assert [f.rule for f in found if f.severity is Severity.REFUSE] == []
    assert {"shadows", "minimum_count", "epochs"} <= set(policy.arguments)


def test_a_ratio_tells_an_image_that_shadow_models_with_it_know() -> None:
    inside = np.array([[True, True], [False, False]] * 4)
    shadows = np.where(inside, 5.0, 0.0) + np.linspace(-1, 1, 8)[:, None]
    offline, online = JOB["likelihood_ratios"](np.array([5.0, 0.0]), shadows, inside)
    assert online[0] > 0 > online[1]
    assert offline[0] > 2 > offline[1]


# ------------------------------------------------------------------------------ numbers and limits


def test_rates_are_read_where_hold_outs_resolve_them() -> None:
    found = leakage(EVEN, [40, 10, 50, 100, 100, 200, 200, 300])
    point = found.at("loss threshold", 0.01)
    assert (point.fpr.value, point.tpr.value) == (0.01, 0.1)
    point = found.at("loss threshold", 0.001)  # five hold-outs are the first that may be shown
    assert (point.fpr.value, point.tpr.value) == (0.005, 0.05)
    assert (found.resolves(0.01), found.resolves(0.001)) == (True, False)
    np.testing.assert_allclose(found.roc(ATTACKS[0])[-1], [1, 1])


@pytest.mark.parametrize(
    ("found", "rule", "told"),
    [
        # the upper end of 10 of 1,000 is 0.0183
        (leakage(EVEN, EVEN), ReleaseRule(maximum_tpr_at_1_percent=0.019), []),
        (leakage(EVEN, EVEN), ReleaseRule(maximum_tpr_at_1_percent=0.018),
            ["at 1% at most 1.8% is allowed"]),
        # five of 1,000 at 0.5 %, with an upper end of 0.0117, stand for those at 0.1 %
        (leakage(EVEN, EVEN), ReleaseRule(maximum_tpr_at_0_1_percent=0.012), []),
        (leakage(EVEN, EVEN), ReleaseRule(maximum_tpr_at_0_1_percent=0.011),
            ["1,000 hold-outs cannot resolve"]),
        (leakage(EVEN, EVEN), OPEN, []),
        (leakage(EVEN, EVEN),
            OPEN.model_copy(update={"maximum_parameters_per_patient": 10}), []),
        (leakage(EVEN, EVEN, parameters=1001),
            OPEN.model_copy(update={"maximum_parameters_per_patient": 10}),
            ["10 parameters per patient"]),
        (leakage(EVEN, EVEN, patients=None),
            OPEN.model_copy(update={"maximum_parameters_per_patient": 1e6}),
            ["inf parameters per patient"]),
        (leakage([0] * 8, [0] * 8), OPEN, ["too few hold-outs or members"]),
    ],
)  # fmt: skip
def test_limits_hold_on_one_side_and_not_on_the_other(
    found: Any, rule: ReleaseRule, told: list[str]
) -> None:
    reasons = list(found.breaches(rule))
    assert len(reasons) == len(told)
    assert all(part in reason for part, reason in zip(told, reasons, strict=True))


def test_a_model_is_released_only_where_every_site_lets_it_go() -> None:
    both = two_sites()
    assert not both.released
    assert both.sentence == "Not released: the limits of North Clinic do not hold."
    assert all(reason.startswith("North Clinic: ") for reason in both.reasons)
    with pytest.raises(NotReleasedError, match="North Clinic"):
        both.require()
    one = Release(both.weights_sha256, {"st-marys": both.sites["st-marys"]})
    one.require()
    assert not Release(both.weights_sha256, {}).released
    assert "North Clinic" in both._repr_html_()
    assert len([axes for axes in both.figure().axes if axes.lines]) == 2


def test_a_site_that_was_not_tested_is_drawn_and_shown_as_such() -> None:
    untested = Release("0" * 64, {"a": site_release("A", None, ReleaseRule(required=False))})
    assert untested.table().loc["A", "members"] == "not tested"
    assert any("not tested" in text.get_text() for text in untested.figure().axes[0].texts)


@pytest.mark.parametrize(
    ("privacy", "released"),
    [
        ({"mode": "none"}, False),
        ({"mode": "update_noise", "maximum_epsilon": 8.0, "delta": 1e-5}, True),
    ],
)
def test_differential_privacy_stands_in_the_place_of_a_test(
    privacy: dict[str, Any], released: bool
) -> None:
    site = SimpleNamespace(
        title="St Mary's", is_absent=False, policy=factories.policy(privacy=privacy)
    )
    study: Any = SimpleNamespace(federation={"st-marys": site})
    verdict = judged(study, "st-marys", None, FederationError("tables are refused"))
    assert Release("0" * 64, {"st-marys": verdict}).released is released
    assert ("Epsilon at most 8" in verdict.guarantee) is released
    assert ("tables are refused" in "".join(verdict.reasons)) is not released
