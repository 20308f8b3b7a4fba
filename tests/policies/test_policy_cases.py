"""Cases of a policy: the examples come out as expected, and would notice any loosened rule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import factories
from policies import request_rules
from policies.case_outcomes import case_outcomes, run_cases
from policies.contract import DType, Use
from policies.document import Policy, load_policy
from policies.field_order import FIELDS
from policies.policy_cases import CaseError, CaseFile, load_cases

FOLDER = Path(__file__).parents[2] / "policies"
EXAMPLES = ["university-hospital", "community-hospital", "childrens-hospital"]


@pytest.fixture(autouse=True, scope="module")
def _read_each_text_once() -> Iterator[None]:
    """The rules on a text take long, and hundreds of cases here have the same few texts."""
    check_job = request_rules.check_job
    request_rules.check_job = cache(check_job)
    yield
    request_rules.check_job = check_job


@cache
def example(name: str) -> tuple[CaseFile, Policy]:
    cases = load_cases(FOLDER / "cases" / f"{name}.yaml")
    return cases, load_policy(FOLDER / "cases" / cases.policy)


def notices(cases: CaseFile, policy: Policy) -> bool:
    """Whether a case comes out otherwise under a policy."""
    return any(not outcome.as_expected for outcome in case_outcomes(cases, policy))


# ------------------------------------------------------------------------------- the examples


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_case_of_an_example_comes_out_as_expected(name: str) -> None:
    cases, policy = example(name)
    assert policy.name == name
    assert [o for o in case_outcomes(cases, policy) if not o.as_expected] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_rule_and_tier_of_an_example_has_a_case(name: str) -> None:
    report = run_cases(*example(name))
    assert [rule for rule in report.untested if not rule.startswith("job.")] == []


@pytest.mark.parametrize("rule", sorted(request_rules.RULES))
@pytest.mark.parametrize("name", EXAMPLES)
def test_without_a_rule_a_case_comes_out_otherwise(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, policy = example(name)
    others = {name: check for name, check in request_rules.RULES.items() if name != rule}
    monkeypatch.setattr(request_rules, "RULES", others)
    if rule == "publishing" and not policy.publishing.options:
        return  # this policy demands nothing there
    assert notices(cases, policy)


def _more(*names: str) -> Callable[[list[str]], list[str]]:
    return lambda old: [*old, *names]


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


WIDEST: dict[str, Callable[[Any], Any]] = {
    "datasets": _more("mammograms"),
    "versions": _always({}),
    "requesters.accounts": _always([]),
    "requesters.institutions": _always([]),
    "purposes": _always(list(get_args(Use))),
    "runs.maximum": _always(10_000),
    "expiry.maximum_days": _always(730),
    "arguments.learning_rate": _always({"low": 0.0, "high": 10.0}),
    "arguments.split": _always({"choices": ["train", "val", "test", "everything"]}),
    "arguments.by": _always({"choices": ["", "sex", "age_band", "insurance"]}),
    "arguments.temperature": _always({"low": 0, "high": 10}),
    "job.imports": _more("os"),
    "job.maximum_lines": _always(5000),
    "contract.dtypes": _always(list(get_args(DType))),
    "contract.maximum_arrays": _always(5000),
    "contract.maximum_tables": _always(50),
    "contract.maximum_cells": _always(1_000_000),
    "contract.maximum_metrics": _always(20),
    "examples.minimum": _always(2),
    "examples.minimum_classes": _always(1),
    "examples.minimum_per_class": _always(1),
    "dominance.maximum_share": _always(1),
    "dominance.unknown_patients": _always("read"),
    "counts.minimum": _always(2),
    "update.maximum_mb": _always(2000),
    "update.maximum_total_mb": _always(1_000_000),
    "update.maximum_change_norm": _always(1e9),
    "publishing.options": _always([]),
    "review.waiting_hours": _always(0),
    "review.tiers": _always([]),
}
"""Field -> its widest value, given the old one."""

PEOPLE = ("review.approvers", "review.roles", "review.four_eyes")
"""They overlap, so that they are only loosened together."""

DECIDED_ELSEWHERE = {
    "name", "version", "about",  # say nothing about requests
    "access",  # this version has one kind only
    "job.forbidden_calls",  # on top of what no text may use; see test_job_rules.py
    *(path for path in FIELDS if path.startswith("privacy.")),  # none is the widest
    "runs.per_day", "expiry.undecided_days",  # while time passes
    "sandbox.memory_mb", "sandbox.time_s", "sandbox.processes",  # in the sandbox
    "sandbox.proof_days",  # when it runs
    *(path for path in FIELDS if path.startswith("release.")),  # after training
    "publishing.minimum_per_class", "publishing.minimum_patients", "publishing.text_search",
    "publishing.suspect_modalities", "publishing.recognisable_heads",  # before publishing
    "review.rehearsal.images", "review.rehearsal.time_s", "review.rehearsal.must_succeed",
}  # fmt: skip


def loosened(policy: Policy, changes: dict[str, Callable[[Any], Any]]) -> Policy:
    plain = policy.model_dump(mode="json", exclude_none=True)
    for path, widen in changes.items():
        *above, last = path.split(".")
        inner = plain
        for name in above:
            inner = inner[name]
        inner[last] = widen(inner.get(last))
    return Policy.model_validate(plain)


def test_every_field_is_loosened_here_or_decides_elsewhere() -> None:
    fields = {path for path in WIDEST if not path.startswith("arguments.")}
    assert fields | set(PEOPLE) | DECIDED_ELSEWHERE == set(FIELDS) | {"versions", "review.tiers"}


@pytest.mark.parametrize("path", WIDEST)
@pytest.mark.parametrize("name", EXAMPLES)
def test_field_at_its_widest_makes_a_case_come_out_otherwise(name: str, path: str) -> None:
    cases, policy = example(name)
    wide = loosened(policy, {path: WIDEST[path]})
    assert notices(cases, wide) is (wide != policy)


@pytest.mark.parametrize("name", EXAMPLES)
def test_anybody_may_decide_alone_makes_a_case_come_out_otherwise(name: str) -> None:
    cases, policy = example(name)
    wide = loosened(policy, dict(zip(PEOPLE, map(_always, (1, [], False)), strict=True)))
    assert notices(cases, wide)


def _weaker_tiers() -> Iterator[Any]:
    """Each tier of each example gone, and with each of its conditions and demands gone."""
    for name in EXAMPLES:
        tiers = example(name)[1].model_dump(mode="json", exclude_none=True)["review"]["tiers"]
        for k, tier in enumerate(tiers):
            yield pytest.param(name, [t for t in tiers if t != tier], id=f"{name} {tier['name']}")
            conditions = [c for c, value in tier["when"].items() if value is not False]
            for condition in conditions if len(conditions) > 1 else ():
                weaker = copy.deepcopy(tiers)
                del weaker[k]["when"][condition]
                yield pytest.param(name, weaker, id=f"{name} {tier['name']} {condition}")
            for demand in ({"waiting_hours": 0}, {"approvers": 1, "roles": [], "four_eyes": False}):
                usual = {"approvers": 1, "roles": ["owner"], "four_eyes": False, "waiting_hours": 0}
                weaker = copy.deepcopy(tiers)
                weaker[k] |= demand
                if any(tier[field] != usual[field] for field in demand):
                    yield pytest.param(name, weaker, id=f"{name} {tier['name']} {list(demand)}")


@pytest.mark.parametrize(("name", "tiers"), list(_weaker_tiers()))
def test_weaker_tier_makes_a_case_come_out_otherwise(name: str, tiers: list[Any]) -> None:
    cases, policy = example(name)
    assert notices(cases, loosened(policy, {"review.tiers": _always(tiers)}))


# --------------------------------------------------------------------------- a file of cases


START: dict[str, Any] = {
    "text": factories.DOUBLE_JOB,
    "terms": factories.terms().model_dump(mode="json", exclude_none=True),
    "dataset": {"examples": 120, "classes": [60, 60], "largest_share": 0.02},
    "requester": {"account": "rita@uni.example"},
    "config": {"rate": 0.5},
}


def outcome(case: dict[str, Any], **policy: Any) -> tuple[bool, str, str]:
    """One case under the policy of the factories: as expected, what was expected, what found."""
    file = CaseFile.model_validate(
        {"policy": "x", "request": START, "cases": [{"name": "a case", **case}]}
    )
    (found,) = run_cases(file, factories.policy(**policy)).outcomes
    return found.as_expected, found.expected, found.found


@pytest.mark.parametrize(
    ("case", "found"),
    [
        # an ordinary request, with and without the rule that the case is about
        ({}, (True, "approvable", "approvable")),
        ({"rule": "runs.maximum"},
            (True, "approvable: runs.maximum", "approvable: runs.maximum")),
        ({"rule": "runs.minimum"}, (False, "approvable: runs.minimum", "approvable")),
        ({"terms": {"runs": 101}}, (False, "approvable", "refused: runs.maximum")),
        # to be read
        ({"expect": "read", "rule": "privacy.mode"},
            (True, "read: privacy.mode", "read: privacy.mode")),
        ({"rule": "privacy.mode"}, (False, "approvable: privacy.mode", "read: privacy.mode")),
        ({"expect": "read", "rule": "runs.maximum"},
            (False, "read: runs.maximum", "approvable: runs.maximum")),
        ({"expect": "warn", "rule": "privacy.mode"},
            (False, "warn: privacy.mode", "read: privacy.mode")),
        ({"expect": "read", "rule": "privacy.mode", "terms": {"runs": 101}},
            (False, "read: privacy.mode", "refused: runs.maximum")),
        # refused, by exactly the rules that are named
        ({"expect": "refused", "rule": "runs.maximum", "terms": {"runs": 101}},
            (True, "refused: runs.maximum", "refused: runs.maximum")),
        ({"expect": "refused", "rule": "runs.maximum"},
            (False, "refused: runs.maximum", "approvable: runs.maximum")),
        ({"expect": "refused", "rule": "runs.maximum",
            "terms": {"runs": 101, "expires_in_days": 91}},
            (False, "refused: runs.maximum", "refused: expiry.maximum, runs.maximum")),
        ({"expect": "refused", "rule": ["runs.maximum", "expiry.maximum"],
            "terms": {"runs": 101, "expires_in_days": 91}},
            (True, "refused: expiry.maximum, runs.maximum",
                "refused: expiry.maximum, runs.maximum")),
        # arguments of a run
        ({"config": {"rate": 1.0}, "rule": "arguments.range"},
            (True, "approvable: arguments.range", "approvable: arguments.range")),
        ({"config": {"rate": 1.1}, "expect": "refused", "rule": "arguments.range"},
            (True, "refused: arguments.range", "refused: arguments.range")),
        # what a run returned
        ({"update": {"change_norm": 1000}}, (True, "approvable", "approvable")),
        ({"update": {"change_norm": 1001}, "expect": "refused", "rule": "update.norm"},
            (True, "refused: update.norm", "refused: update.norm")),
        ({"update": {"examples": 9}, "expect": "refused", "rule": "examples.minimum"},
            (True, "refused: examples.minimum", "refused: examples.minimum")),
        ({"update": {}, "dataset": {"examples": 9}, "expect": "refused",
            "rule": "examples.minimum"},
            (True, "refused: examples.minimum", "refused: examples.minimum")),
        # who has to agree; what is not written is not compared
        ({"review": {"approvers": 1, "roles": ["owner"], "waiting_hours": 0, "tiers": []}},
            (True, "approvable; approvers 1, roles owner, waiting hours 0, tiers none",
                "approvable; approvers 1, roles owner, waiting hours 0, tiers none")),
        ({"review": {"approvers": 2}},
            (False, "approvable; approvers 2", "approvable; approvers 1")),
        # texts
        ({"text": "x = 1\n", "expect": "refused", "rule": "job.form"},
            (True, "refused: job.form", "refused: job.form")),
        ({"lines": 300, "rule": "job.form"},
            (True, "approvable: job.form", "approvable: job.form")),
        ({"lines": 301, "expect": "refused", "rule": "job.form"},
            (True, "refused: job.form", "refused: job.form")),
        ({"weight_arrays": 2000, "rule": "contract.form"},
            (True, "approvable: contract.form", "approvable: contract.form")),
    ],
)  # fmt: skip
def test_case_is_told_as_expected_and_as_found(
    case: dict[str, Any], found: tuple[bool, str, str]
) -> None:
    assert outcome(case) == found


def test_roles_are_compared_in_any_order() -> None:
    case = {"review": {"roles": ["second approver", "owner"]}}
    assert outcome(case, review={"four_eyes": True})[0]


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ({"terms": {"rnus": 3}},
            "case `a case`: terms: `rnus` is not a field; did you mean `runs`?"),
        ({"dataset": {"images": 3}}, "case `a case`: dataset: `images` is not a field"),
        ({"requester": {"acount": "a"}},
            "case `a case`: requester: `acount` is not a field; did you mean `account`?"),
        ({"record": {"account_approved": -1}, "review": {"approvers": 1}},
            "case `a case`: record: `account_approved`: Input should be greater than or equal to"),
        ({"replace": ["nowhere", "x"]}, "case `a case`: `nowhere` is not in the text"),
        ({"update": {}, "terms": {"contract": None}},
            "case `a case`: an update needs a contract in `terms`"),
    ],
)  # fmt: skip
def test_case_that_does_not_fit_is_named(case: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CaseError) as refused:
        outcome(case)
    assert str(refused.value).startswith(sentence)


def write(path: Path, **changes: Any) -> Path:
    plain = {"policy": "policy.yaml", "request": START, "cases": [{"name": "a case"}], **changes}
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cases": []}, "`cases`: Tuple should have at least 1 item"),
        ({"cases": [{"name": "x", "expect": "refused"}]},
            "`cases.0`: `expect: refused` needs the `rule` that decides"),
        ({"cases": [{"name": "x", "expcet": "refused"}]},
            "`cases.0.expcet` is not a field; did you mean `expect`?"),
        ({"cases": [{"name": "x", "config": {}, "update": {}}]},
            "`cases.0`: a case is about arguments (`config`) or about an `update`, not both"),
        ({"request": {**START, "terms": None}}, "`request.terms`: Input should be a valid dict"),
    ],
)  # fmt: skip
def test_file_that_does_not_fit_is_refused_with_the_field(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = write(tmp_path / "cases.yaml", **changes)
    with pytest.raises(CaseError) as refused:
        load_cases(path)
    assert str(refused.value).startswith(f"the cases {path} are not valid: {sentence}")


def test_file_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"the cases .*none\.yaml cannot be read"):
        load_cases(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(CaseError, match=r"the cases .*bad\.yaml are not YAML: while parsing"):
        load_cases(tmp_path / "bad.yaml")


def test_untested_rules_are_told(tmp_path: Path) -> None:
    cases = load_cases(write(tmp_path / "cases.yaml", cases=[
        {"name": "a", "rule": "runs.maximum"},
        {"name": "b", "update": {"change_norm": 1}, "rule": "update.norm"},
    ]))  # fmt: skip
    policy = factories.policy(
        review={"tiers": [{"name": "large", "when": {"runs_above": 1}, "approvers": 2}]}
    )
    untested = run_cases(cases, policy).untested
    assert {"expiry.maximum", "counts.minimum", "tier large"} <= set(untested)
    assert not {"runs.maximum", "update.norm"} & set(untested)
    assert len(untested) == len(set(untested))
