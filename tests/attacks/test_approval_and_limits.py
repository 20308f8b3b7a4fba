"""Approvals that were not given, texts that were not approved, and more runs than were granted."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import factories
from datasites.audit_log import read_events
from datasites.errors import SiteError
from datasites.keys import SiteKey
from federation.errors import RefusedError
from federation.submission import Study
from policies.arrays import pack
from policies.contract import Bound
from policies.job_rules import job_sha256
from tests.attacks.attacker import UID, attack
from tests.attacks.jobs import HONEST, job
from tests.attacks.victim import Victim

EVIL_JOB = job('return {"weights": weights, "metrics": {"loss": 666.0}, "examples": 120}')


def rules(victim: Victim, study: Study, **changes: Any) -> list[str]:
    """The rules that a run is refused for."""
    return [f.rule for f in victim.refused(study, **changes).findings]


def number(study: Study) -> int:
    """The request's number."""
    return study.requests["st-marys"]


# --- approving ----------------------------------------------------------------------------------


def test_approving_one_request_approves_no_other(victim):
    benign = victim.submit(factories.DOUBLE_JOB, approve=False)
    evil = victim.submit(EVIL_JOB, approve=False)
    victim.hospital.decide(benign, "approve")
    assert victim.run(benign).metrics == {"loss": 0.5}
    assert rules(victim, evil) == ["approval.state"]
    assert evil.states() == {"st-marys": "pending"}


def test_the_same_text_again_is_a_request_of_its_own(victim):
    first = victim.submit(factories.DOUBLE_JOB)
    text = first.job.text
    again = victim.rita_federation.submit(first.job, first.wanted)
    assert number(again) != number(first)
    assert text == first.job.text
    assert rules(victim, again) == ["approval.state"]


@pytest.mark.parametrize("path", ["sitegate.approve", "request.approve", "code.approve"])
def test_a_researcher_cannot_call_an_approval(victim, path):
    study = victim.submit(factories.DOUBLE_JOB, approve=False)
    answer = attack(victim.rita, path, number=number(study), reason="fine")
    assert answer.refusal == f"`{path}` is not something a researcher may call."
    assert study.states() == {"st-marys": "pending"}


@pytest.mark.parametrize(
    ("person", "password"),
    [
        pytest.param("rita@uni.example", factories.PASSWORD, id="the researcher"),
        pytest.param("root@sitegate.example", factories.PASSWORD, id="syft's root"),
        pytest.param("", "", id="nobody"),
        pytest.param("owner@st-marys.example", factories.PASSWORD, id="owner, wrong password"),
    ],
)
def test_only_a_person_of_the_hospital_approves_even_at_the_socket(victim, person, password):
    study = victim.submit(factories.DOUBLE_JOB, approve=False)
    with victim.logged() as events, pytest.raises(SiteError, match="e-mail address or"):
        victim.trial.control.decide(number(study), "approve", person, password, "fine")
    assert [e["event"] for e in events] == ["login refused"]
    assert study.states() == {"st-marys": "pending"}


def test_what_the_policy_refuses_cannot_be_approved_by_the_owner_either(victim):
    study = victim.submit(job("import os\n" + HONEST), approve=False)
    with pytest.raises(SiteError, match=r"job\.imports"):
        victim.hospital.decide(study, "approve")
    assert rules(victim, study) == ["approval.state"]


def test_a_denied_request_does_not_run(victim):
    study = victim.submit(factories.DOUBLE_JOB, approve=False)
    victim.hospital.decide(study, "deny")
    assert rules(victim, study) == ["approval.state"]


# --- someone edits the database -----------------------------------------------------------------


@pytest.fixture
def approved(victim) -> Study:
    """An approved request that has run once."""
    study = victim.submit(factories.DOUBLE_JOB)
    victim.run(study)
    return study


def run_edited(
    victim: Victim, study: Study, table: str, changes: dict[str, Any]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Rules and events of a run while a row is other than the site wrote it; then it is mended."""
    key = "request" if table == "approvals" else "id"
    columns = list(changes)
    (before,) = victim.sql(
        f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = ?", number(study)
    )
    update = f"UPDATE {table} SET {', '.join(f'{c} = ?' for c in columns)} WHERE {key} = ?"
    victim.sql(update, *changes.values(), number(study))
    try:
        with victim.logged() as events:
            refused = rules(victim, study, round_number=2)
    finally:
        victim.sql(update, *before, number(study))
    victim.run(study, round_number=2)  # mended, it runs again
    return refused, events


def test_a_text_that_was_edited_after_approval_does_not_run(victim, approved):
    refused, events = run_edited(victim, approved, "requests", {"text": EVIL_JOB})
    assert refused == ["approval.text"]
    assert [(e["event"], e["detail"]["rules"]) for e in events] == [
        ("run refused", ["approval.text"])
    ]


def test_a_text_that_was_edited_together_with_its_digest_does_not_run(victim, approved):
    changes = {"text": EVIL_JOB, "text_sha256": job_sha256(EVIL_JOB)}
    assert run_edited(victim, approved, "requests", changes)[0] == ["approval.text"]


def edited_document(victim: Victim, study: Study, **changes: Any) -> str:
    """The stored approval with other values."""
    (document,) = victim.sql("SELECT document FROM approvals WHERE request = ?", number(study))[0]
    plain = json.loads(document)
    for name, value in changes.items():
        if name in plain["terms"]:
            plain["terms"][name] = value
        else:
            plain[name] = value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"runs": 10_000}, id="more runs"),
        pytest.param({"expires_at": "2099-01-01T00:00:00Z"}, id="a later end"),
        pytest.param({"researcher": "mallory@uni.example"}, id="another account"),
        pytest.param({"contract": None}, id="no contract"),
        pytest.param({"consents": []}, id="nobody who agreed"),
        pytest.param({"text_sha256": "0" * 64}, id="another text"),
    ],
)
def test_an_edited_approval_is_not_valid_any_more(victim, approved, changes):
    document = edited_document(victim, approved, **changes)
    refused, events = run_edited(victim, approved, "approvals", {"document": document})
    assert refused == ["approval.signature"]
    assert [e["event"] for e in events] == ["run refused"]


def test_an_approval_signed_by_another_key_is_not_valid(victim, approved):
    document = edited_document(victim, approved, runs=10_000)
    signature = SiteKey(b"x" * 32).sign("approval", document.encode())
    changes = {"document": document, "signature": signature}
    assert run_edited(victim, approved, "approvals", changes)[0] == ["approval.signature"]


def test_a_signature_of_the_site_for_another_purpose_is_no_approval(victim, approved):
    """Checkpoints of the audit log are signed with the same key."""
    victim.trial.control.checkpoint()
    *_, last = read_events(victim.trial.site.audit)
    checkpoint = last["detail"]["signature"]
    refused, _ = run_edited(victim, approved, "approvals", {"signature": checkpoint})
    assert refused == ["approval.signature"]


def test_somebody_elses_approval_does_not_count(victim, approved):
    other = victim.hospital.submit(victim.mallory_federation, factories.DOUBLE_JOB)
    (row,) = victim.sql(
        "SELECT document, signature FROM approvals WHERE request = ?", number(other)
    )
    changes = dict(zip(("document", "signature"), row, strict=True))
    refused, _ = run_edited(victim, approved, "approvals", changes)
    assert refused == ["approval.account", "approval.text"]


def test_a_request_that_is_set_to_approved_in_the_database_does_not_run(victim):
    study = victim.submit(EVIL_JOB, approve=False)
    victim.sql("UPDATE requests SET state = 'approved' WHERE id = ?", number(study))
    assert rules(victim, study) == ["approval.state"]


def test_swapping_the_codes_of_two_requests_swaps_no_approval(victim, approved):
    evil = victim.submit(EVIL_JOB, approve=False)
    first, second = (s._codes["st-marys"] for s in (approved, evil))

    def swap(one: str, other: str) -> None:
        for code, study in (("held", approved), (one, evil), (other, approved)):
            victim.sql("UPDATE requests SET syft_code = ? WHERE id = ?", code, number(study))

    swap(first, second)
    try:
        for study in (approved, evil):
            assert rules(victim, study, round_number=5) == ["approval.state"]
    finally:
        swap(second, first)
    victim.run(approved, round_number=6)


def test_a_revocation_undone_in_the_database_is_in_force_after_a_restart(restarted):
    assert rules(restarted.victim, restarted.revoked, round_number=2) == ["approval.state"]


# --- limits -------------------------------------------------------------------------------------


def outcomes(victim: Victim, study: Study, rounds: list[int]) -> Counter[str]:
    """Runs made at the same time: how many were released, and what the others were refused for."""

    def one(round_number: int) -> str:
        try:
            victim.run(study, round_number=round_number)
        except RefusedError as refused:
            return refused.findings[0].rule
        return "released"

    with ThreadPoolExecutor(len(rounds)) as pool:
        return Counter(pool.map(one, rounds))


def test_twenty_calls_at_once_make_three_runs_where_three_were_granted(victim):
    """One run of a request at a time; the sixty calls come in three waves of twenty."""
    study = victim.submit(factories.DOUBLE_JOB, runs=3)
    found: Counter[str] = Counter()
    with victim.logged() as events:
        for wave in range(3):
            found += outcomes(victim, study, list(range(20 * wave + 1, 20 * wave + 21)))
    assert found["released"] == 3
    assert set(found) <= {"released", "runs.maximum", "run.busy"}
    assert Counter(e["event"] for e in events) == {
        "run started": 3,
        "update released": 3,
        "run refused": 57,
    }
    assert rules(victim, study, round_number=61) == ["runs.maximum"]
    charged = "SELECT count(*) FROM runs WHERE request = ?"
    assert victim.sql(charged, number(study)) == [(3,)]


def test_one_run_id_asked_for_ten_times_at_once_runs_once(victim):
    study = victim.submit(factories.DOUBLE_JOB, runs=3)
    with victim.logged() as events:
        assert outcomes(victim, study, [1] * 10) == {"released": 10}
    counts = Counter(e["event"] for e in events)
    assert counts == {"run started": 1, "update released": 1, "update repeated": 9}


def test_one_run_id_is_not_a_second_run_with_other_arguments(victim):
    study = victim.submit(factories.DOUBLE_JOB)
    victim.run(study)
    assert rules(victim, study, config={"rate": 0.25}) == ["run.id"]
    assert rules(victim, study, weights={"w": factories.weights()["w"] + 1}) == ["run.id"]


def test_failed_runs_are_charged_so_that_errors_are_no_free_oracle(victim):
    oracle = 'if data.arrays("train")[0][0, 0, 0] >= 0:\n    raise ValueError\n' + HONEST
    study = victim.submit(job(oracle), runs=2)
    found = [rules(victim, study, round_number=n) for n in (1, 2, 3)]
    assert found == [["run.failed"], ["run.failed"], ["runs.maximum"]]


@pytest.mark.parametrize(
    ("round_number", "attempt"),
    [
        pytest.param(-1, 1, id="round below 0"),
        pytest.param(1_000_001, 1, id="round too large"),
        pytest.param(1, 0, id="attempt below 1"),
        pytest.param(1, 1001, id="attempt too large"),
        pytest.param(2**62, 1, id="far too large"),
    ],
)
def test_run_ids_out_of_range_are_refused_and_cost_nothing(victim, approved, round_number, attempt):
    arguments = {"round_number": round_number, "attempt": attempt}
    assert rules(victim, approved, **arguments) == ["run.id"]
    victim.run(approved, round_number=3)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        pytest.param({"rate": 1.0001}, "arguments.range", id="above the range"),
        pytest.param({"rate": -0.0001}, "arguments.range", id="below the range"),
        pytest.param({"rate": True}, "arguments.range", id="a truth value"),
        pytest.param({"rate": "0.5"}, "arguments.range", id="text"),
        pytest.param({}, "arguments.range", id="missing"),
        pytest.param({"rate": 0.5, "path": "/etc"}, "arguments.range", id="not approved"),
        pytest.param({"rate": [0.5]}, "arguments.form", id="a list"),
        pytest.param({"rate": {"rate": 0.5}}, "arguments.form", id="nested"),
    ],
)
def test_arguments_outside_the_approved_range_are_refused(victim, approved, config, rule):
    assert set(rules(victim, approved, config=config, round_number=4)) == {rule}


@pytest.mark.parametrize(
    "config",
    ['{"rate": NaN}', '{"rate": Infinity}', '{"rate": -Infinity}', '{"rate": 1e999}', "[0.5]", ""],
)
def test_arguments_that_are_no_finite_numbers_are_refused(victim, approved, config):
    answer = attack(
        victim.rita,
        "code.call",
        uid=UID.from_string(approved._codes["st-marys"]),
        round=7,
        attempt=1,
        weights=pack(factories.weights()),
        config=config,
    )
    assert answer.rules in (["arguments.range"], ["arguments.form"])


def test_an_argument_that_was_bound_cannot_be_changed(victim):
    study = victim.submit(factories.DOUBLE_JOB, arguments={"rate": Bound(value=0.5)})
    assert rules(victim, study, config={"rate": 0.25}) == ["arguments.range"]
    victim.run(study, config={"rate": 0.5})


def test_more_than_twenty_undecided_requests_cannot_be_made_by_parallel_calls(fortress):
    """A flood of requests is a flood of reading for the people who decide."""
    wanted = fortress.submit(factories.DOUBLE_JOB).wanted
    version = fortress.mallory.dataset("chest-xray").version
    terms = wanted.at(version, "train").model_dump_json()

    def ask(i: int) -> list[str]:
        text = f"{factories.DOUBLE_JOB}# {i}\n"
        path = "code.request_code_execution"
        answer = attack(fortress.mallory, path, job=text, terms=terms, follows=0)
        return answer.rules

    with ThreadPoolExecutor(26) as pool:
        refused = [found for found in pool.map(ask, range(26)) if found]
    pending = fortress.deny_pending().count("mallory@uni.example")
    assert pending == 20
    assert refused == [["request.pending"]] * 6
