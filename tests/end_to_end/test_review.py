"""A request's way through a hospital that wants two people, as the notebook sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import factories
from datasites.audit_log import read_events
from datasites.control import shown_on
from datasites.errors import SiteError
from federation.errors import FederationError, RefusedError
from federation.job import Job
from hospitals import Hospital, make_hospital, start

REVIEW = {"four_eyes": True, "rehearsal": {"images": 4, "time_s": 5}}
SAM = "sam@st-marys.example"


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running site where an owner and a second approver have to agree."""
    hospital = make_hospital(tmp_path_factory.mktemp("careful") / "site", review=REVIEW)
    try:
        start(hospital)
        trial = hospital.trial
        trial.control.add_person(
            SAM, "Sam", "second approver", factories.PASSWORD, trial.owner, trial.owner_password
        )
        yield hospital
    finally:
        hospital.trial.stop()


def second(hospital: Hospital, number: int, reason: str = "fine") -> dict:
    control = hospital.trial.control
    shown = shown_on(control.request(number))
    return control.decide(number, "approve", SAM, factories.PASSWORD, reason, shown=shown)


def test_from_remarks_to_a_second_agreement_and_a_run(careful: Hospital) -> None:
    sites = careful.connect()
    study = careful.submit(sites, factories.DOUBLE_JOB, approve=False)
    number = study.requests["st-marys"]
    careful.trial.control.decide(
        number, "changes", careful.trial.owner, careful.trial.owner_password, "name the images",
        [(3, "why both?")],
    )  # fmt: skip
    assert study.states() == {"st-marys": "changes requested"}
    (remark,) = study.comments().to_dict("records")
    assert (remark["line"], remark["comment"]) == (3, "why both?")
    assert remark["text"] == 'images, labels = data.arrays("train")'

    again = study.resubmit(Job(study.job.text.replace("images, labels", "_, labels"), "j", "train"))
    assert study.states() == {"st-marys": "withdrawn"}
    new = again.requests["st-marys"]
    sheet = careful.trial.control.request(new)
    (replaced,) = sheet["comparisons"]
    assert (sheet["follows"], replaced["request"], replaced["approved"]) == (number, number, False)
    assert replaced["changed"] == 1

    careful.decide(again, "approve")
    assert list(again.status()["state"]) == ["approved by 1 of 2"]
    with pytest.raises(RefusedError, match=f"R-{new} is partly approved"):
        careful.run(again)
    with pytest.raises(SiteError, match="agreed to"):
        careful.decide(again, "approve")
    assert second(careful, new)["state"] == "approved"
    assert careful.run(again).examples == 120
    events = [e for e in read_events(careful.trial.site.audit) if e["subject"] == f"R-{new}"]
    assert [(e["event"], e["role"]) for e in events] == [
        ("request submitted", "researcher"),
        ("request rehearsed", "site"),
        ("request consented", "owner"),
        ("act refused", "owner"),
        ("request approved", "second approver"),
    ]


def test_a_withdrawn_request_runs_no_more(careful: Hospital) -> None:
    study = careful.submit(careful.connect(), factories.DOUBLE_JOB)
    second(careful, study.requests["st-marys"])
    assert careful.run(study).examples == 120
    study.withdraw("the wrong seed")
    with pytest.raises(RefusedError, match="is withdrawn: the wrong seed"):
        careful.run(study, round_number=2)
    careful.trial.stop()
    careful.trial.launch()
    careful.trial.wait_until_up()
    with pytest.raises(RefusedError, match="is withdrawn"):
        careful.run(study, round_number=3)


def test_a_study_is_resubmitted_where_changes_were_asked_for_only(careful: Hospital) -> None:
    study = careful.submit(careful.connect(), factories.DOUBLE_JOB, approve=False)
    with pytest.raises(FederationError, match="no site asked for changes"):
        study.resubmit(study.job)


def test_the_policy_is_told_beforehand(careful: Hospital) -> None:
    sites = careful.connect()
    study = careful.submit(sites, factories.DOUBLE_JOB, approve=False, runs=101)
    told = sites.check(study.job, study.wanted)
    refused = told[told["verdict"] == "refused"].to_dict("records")
    assert [(r["rule"], r["seen"]) for r in refused] == [("runs.maximum", "101 runs asked for")]
    sheet = careful.trial.control.request(study.requests["st-marys"])
    seen = [f["rule"] for f in sheet["findings"] if f["severity"] == "refuse"]
    assert seen == ["runs.maximum"]
