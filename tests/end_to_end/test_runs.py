"""Runs at a real site: a process of its own, TLS, gate, sandbox, audit."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import factories
import federation
from datasites.audit_log import read_events
from datasites.errors import SiteError
from federation.errors import ConnectionLostError, FederationError, PolicyWarning, RefusedError
from policies.contract import Bound

SLOW_JOB = """\
# Waits, then gives the weights back.
def train(data, weights, config):
    import math
    import numpy as np

    total = 0.0
    for k in range(int(config["rate"] * 40_000_000)):
        total += math.sqrt(k)
    return {"weights": weights, "metrics": {"loss": 0.5}, "examples": len(data.arrays("train")[1])}
"""


def events_of(hospital, study) -> list[str]:
    subject = f"R-{study.requests[hospital.trial.name]}"
    return [
        line["event"]
        for line in read_events(hospital.trial.site.audit)
        if f"{line['subject']}/".startswith(f"{subject}/")
    ]


def test_approved_job_runs_and_releases_exactly_what_it_returned(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB)
    update = hospital.run(study)
    np.testing.assert_array_equal(update.weights["w"], [0, 2, 4, 6])
    assert update.examples == 120
    assert update.metrics == {"loss": 0.5}
    assert events_of(hospital, study) == [
        "request submitted",
        "request rehearsed",
        "request approved",
        "run started",
        "update released",
    ]


def test_researcher_sees_cards_and_mocks_and_the_policy(hospital, rita):
    site = rita["st-marys"]
    frame = rita.datasets()
    assert frame.loc[0, ["dataset", "train", "test"]].tolist() == ["chest-xray", 120, 60]
    mock = site.mock("chest-xray")
    assert mock["images"].shape == (64, 8, 8)
    assert site.policy.runs.maximum == 100


def test_what_the_hospital_published_last_is_the_newest_for_researchers(hospital):
    versions = []
    for seed in (1, 2, 1):
        version, _ = hospital.trial.write_dataset(
            factories.splits(20, 20, seed), name="twice", classes=("normal", "pneumonia")
        )
        hospital.trial.control.publish()
        newest = hospital.connect()[hospital.trial.name].dataset("twice").version
        versions.append(version)
        assert newest == version
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize(
    ("decide", "sentence"),
    [
        (None, "is pending"),
        ("deny", "is denied: please aggregate"),
        ("revoke", "is revoked: please aggregate"),
    ],
)
def test_job_without_an_approval_in_force_does_not_run(hospital, rita, decide, sentence):
    study = hospital.submit(rita, factories.DOUBLE_JOB, approve=decide == "revoke")
    if decide:
        hospital.decide(study, decide, "please aggregate")
    with pytest.raises(RefusedError, match=sentence) as refused:
        hospital.run(study)
    assert [f.rule for f in refused.value.findings] == ["approval.state"]
    assert events_of(hospital, study)[-1] == "run refused"
    assert "run started" not in events_of(hospital, study)


def test_researcher_reads_state_reason_and_budget(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB, approve=False)
    assert study.states() == {"st-marys": "pending"}
    hospital.decide(study, "deny", "not this month")
    row = study.status().iloc[0]
    assert (row["state"], row["reason"], row["runs used"]) == (
        "denied",
        "not this month",
        "0 of 10",
    )


def test_the_hospital_sees_the_findings_that_the_researcher_was_shown(hospital, rita):
    text = "# Opens a file.\ndef train(data, weights, config):\n    return open('/etc/passwd')"
    with pytest.warns(
        PolicyWarning, match=r"nobody at St Mary's can approve .*, as far as .* job\.calls"
    ):
        study = hospital.submit(rita, text, approve=False, runs=101)
    here = rita.check(study.job, study.wanted)
    sheet = hospital.trial.control.request(study.requests["st-marys"])
    assert here["rule"].tolist() == [f["rule"] for f in sheet["findings"]]
    refused = here[here["verdict"] == "refused"]
    assert set(refused["rule"]) == {"runs.maximum", "job.calls"}
    with pytest.raises(SiteError, match="cannot be approved under policy test v1"):
        hospital.decide(study, "approve")
    assert study.states() == {"st-marys": "pending"}
    with pytest.raises(RefusedError, match="the policy forbids to approve it") as asked:
        hospital.run(study)
    assert "runs.maximum: resubmit with runs=100 or fewer" in asked.value.reasons
    with pytest.warns(PolicyWarning, match="can approve"):
        again = study.resubmit(study.job, ["st-marys"])
    assert again.states() == {"st-marys": "pending"}


def test_same_run_id_is_answered_again_with_the_same_update_and_charged_once(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB)
    first, again = hospital.run(study), hospital.run(study)
    np.testing.assert_array_equal(first.weights["w"], again.weights["w"])
    assert study.status().iloc[0]["runs used"] == "1 of 10"
    assert events_of(hospital, study)[-2:] == ["update released", "update repeated"]


def test_a_study_is_taken_up_again_by_the_numbers_of_its_requests(hospital, rita):
    before = hospital.submit(rita, factories.DOUBLE_JOB)
    hospital.run(before)
    after = hospital.connect().study(before.job, before.wanted, before.requests)
    assert hospital.run(after, round_number=2).examples == 120
    assert after.status().iloc[0]["runs used"] == "2 of 10"
    with pytest.raises(FederationError, match="has no request R-9999 of yours"):
        rita.study(before.job, before.wanted, {"st-marys": 9999})
    other = replace(before.job, text=before.job.text + "# more")
    with pytest.raises(FederationError, match="was for another text of the job"):
        rita.study(other, before.wanted, before.requests)


def test_terms_that_do_not_fit_are_refused_in_a_sentence(rita, hospital):
    for changes, words in (({"title": ""}, "`title`"), ({"runs": 0}, "`runs`")):
        with pytest.raises(FederationError, match=words):
            hospital.submit(rita, factories.DOUBLE_JOB, approve=False, **changes)


def test_a_wrong_password_is_logged_under_the_persons_name_and_the_request(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB, approve=False)
    number = study.requests["st-marys"]
    with pytest.raises(SiteError, match="the e-mail address or the password is wrong"):
        hospital.trial.control.decide(number, "approve", hospital.trial.owner, "guess", "why")
    refused = [e for e in read_events(hospital.trial.site.audit) if e["event"] == "login refused"]
    assert (refused[-1]["actor"], refused[-1]["subject"]) == (hospital.trial.owner, f"R-{number}")


def test_an_account_without_an_address_is_refused_in_a_sentence(hospital):
    with pytest.raises(SiteError, match="`notmail` is not an e-mail address"):
        hospital.trial.add_account("notmail", "N", factories.PASSWORD)


def test_an_account_has_the_address_that_syft_keeps(hospital):
    kept = hospital.trial.add_account("Ines@UNI.Example", "Ines", factories.PASSWORD)
    assert kept == "Ines@uni.example"
    assert hospital.connect(kept)
    for same in ("Ines@uni.example", "Ines@UNI.EXAMPLE", "ines@uni.example"):
        with pytest.raises(SiteError, match=r"Ines@uni\.example has an account here already"):
            hospital.trial.add_account(same, "Ines", factories.PASSWORD)


def test_same_run_id_with_other_weights_is_refused(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB)
    hospital.run(study)
    with pytest.raises(RefusedError, match=r"run\.id"):
        hospital.run(study, weights={"w": np.ones(4, np.float32)})


def test_failed_runs_count_and_tell_only_their_kind(hospital, rita):
    study = hospital.submit(
        rita,
        "# Fails.\ndef train(data, weights, config):\n"
        "    return 1 / int(data.arrays('train')[0][0, 0, 0] * 0)",
        runs=2,
    )
    for attempt in (1, 2):
        with pytest.raises(RefusedError, match="ended with ZeroDivisionError"):
            hospital.run(study, attempt=attempt)
    with pytest.raises(RefusedError, match="2 of 2 runs are used"):
        hospital.run(study, attempt=3)


def test_one_refused_argument_names_the_approved_range(hospital, rita):
    study = hospital.submit(
        rita, factories.DOUBLE_JOB, arguments={"rate": Bound(low=0.0, high=0.2)}
    )
    with pytest.raises(RefusedError) as refused:
        hospital.run(study, config={"rate": 0.3})
    (finding,) = refused.value.findings
    assert (finding.rule, finding.seen, finding.allowed) == (
        "arguments.range",
        "`rate` = 0.3",
        "0.0 to 0.2",
    )


def test_kill_between_rounds_loses_nothing_approved_and_charges_no_run_twice(lonely_hospital):
    hospital = lonely_hospital
    sites = hospital.connect()
    study = hospital.submit(sites, factories.DOUBLE_JOB)
    config = {"rate": 0.5}
    first = federation.run_rounds(study, factories.weights(), config, rounds=1, progress=False)
    hospital.trial.kill()
    with pytest.raises(ConnectionLostError):
        hospital.run(study, round_number=2)
    restart = threading.Timer(1.0, hospital.trial.launch)
    restart.start()
    second = federation.run_rounds(
        study, first.weights, config, rounds=2, first_round=2, progress=False
    )
    restart.join()
    np.testing.assert_array_equal(second.weights["w"], factories.weights()["w"] * 8)
    assert study.status().iloc[0][["state", "runs used"]].tolist() == ["approved", "3 of 10"]
    assert hospital.trial.verify_audit().intact
    assert events_of(hospital, study).count("update released") == 3


def test_kill_during_a_run_leaves_the_run_to_be_made_again_under_one_charge(lonely_hospital):
    hospital = lonely_hospital
    hospital.trial.wait_until_up()
    study = hospital.submit(hospital.connect(), SLOW_JOB)
    lost: list[BaseException] = []

    def call() -> None:
        try:
            hospital.run(study)
        except ConnectionLostError as error:
            lost.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    while "run started" not in events_of(hospital, study):
        time.sleep(0.05)
    hospital.trial.kill()
    caller.join()
    assert len(lost) == 1
    hospital.trial.launch()
    hospital.trial.wait_until_up()
    update = hospital.run(study)
    assert update.examples == 120
    assert study.status().iloc[0]["runs used"] == "1 of 10"
    assert events_of(hospital, study)[3:] == [
        "run started",
        "run interrupted",
        "run started",
        "update released",
    ]


def test_changed_policy_stops_standing_approvals_until_they_are_confirmed(lonely_hospital):
    hospital = lonely_hospital
    hospital.trial.wait_until_up()
    study = hospital.submit(hospital.connect(), factories.DOUBLE_JOB)
    assert hospital.run(study).examples == 120
    text = (hospital.trial.site.path / "policy.yaml").read_text()
    hospital.trial.adopt_policy(text.replace("version: 1", "version: 2"), "a new year")
    with pytest.raises(RefusedError, match="the hospital's policy has changed since"):
        hospital.run(study, round_number=2)
    assert list(study.status()["state"]) == ["stopped: the policy changed"]
    sheet = hospital.decide(study, "approve", "still all right")
    assert (sheet["state"], sheet["stopped"], sheet["runs"]["used"]) == ("approved", False, 1)
    assert hospital.run(study, round_number=2).examples == 120
    assert events_of(hospital, study)[-5:] == [
        "run refused", "request rehearsed", "approval confirmed", "run started", "update released",
    ]  # fmt: skip
    hospital.trial.adopt_policy(text, "back again")


def test_site_does_not_start_on_a_policy_that_nobody_adopted(lonely_hospital):
    trial = lonely_hospital.trial
    trial.wait_until_up()
    trial.stop()
    file = trial.site.path / "policy.yaml"
    text = file.read_text()
    file.write_text(text.replace("maximum: 100", "maximum: 9000"))
    trial.launch()
    with pytest.raises(SiteError, match="which nobody adopted") as error:
        trial.wait_until_up()
    assert "sitegate policy adopt" in str(error.value)
    file.write_text(text)
    trial.launch()
    trial.wait_until_up()


def test_site_does_not_start_on_an_invalid_policy_or_a_damaged_log(lonely_hospital):
    trial = lonely_hospital.trial
    trial.stop()
    for file, damage, words in (
        (
            trial.site.path / "policy.yaml",
            lambda t: t.replace("mode: none", "mode: off"),
            "privacy",
        ),
        (trial.site.path / "policy.yaml", lambda _: "", "is empty"),
        (trial.site.audit, lambda t: t.replace("site started", "site Started", 1), "line 5"),
    ):
        text = file.read_text()
        file.write_text(damage(text))
        trial.launch()
        with pytest.raises(SiteError, match=words) as error:
            trial.wait_until_up()
        assert "Traceback" not in str(error.value)
        file.write_text(text)
    trial.launch()
    trial.wait_until_up()


def test_site_does_not_start_where_its_port_is_taken_or_it_runs_already(lonely_hospital):
    trial = lonely_hospital.trial
    trial.wait_until_up()
    again = subprocess.run(
        [sys.executable, "-m", "datasites.cli", "serve", "--site", str(trial.site.path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 2
    assert "this site runs already" in again.stderr
    trial.stop()
    with socket.create_server((trial.site.config.host, trial.site.config.port)):
        trial.launch()
        with pytest.raises(SiteError, match="cannot be had"):
            trial.wait_until_up()
    trial.launch()
    trial.wait_until_up()
