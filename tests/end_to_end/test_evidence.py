"""Evidence from a real site: what it states is what the researcher received, and it verifies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import factories
from datasites.evidence.folder import write_folder
from datasites.evidence.verification import verify_evidence
from federation.errors import RefusedError
from policies.arrays import pack

FAILING = "# Fails.\ndef train(data, weights, config):\n    return {}['nothing']\n"


def exported(hospital, study, folder: Path):
    """The record of a study's request at the hospital, from a folder that verifies."""
    trial = hospital.trial
    number = study.requests[trial.name]
    write_folder(folder, trial.control.evidence(number, trial.owner, trial.owner_password))
    key = (trial.site.keys / "site_key.pub").read_text()
    assert [p for check in verify_evidence(folder, key) for p in check.problems] == []
    return json.loads((folder / "evidence.json").read_text())


def test_what_evidence_states_is_what_the_researcher_received(hospital, rita, tmp_path):
    study = hospital.submit(rita, factories.DOUBLE_JOB)
    updates = [hospital.run(study, round_number=k) for k in (1, 2)]
    with pytest.raises(RefusedError):
        hospital.run(study, round_number=3, config={"rate": 7.0})
    record = exported(hospital, study, tmp_path / "ev")
    assert [run["end"] for run in record["runs"]] == ["released", "released", "not started"]
    assert [run["examples"] for run in record["runs"][:2]] == [u.examples for u in updates]
    received = [pack({f"weights/{n}": a for n, a in u.weights.items()}) for u in updates]
    assert [(run["update_sha256"], run["bytes"]) for run in record["runs"][:2]] == [
        (hashlib.sha256(arrays).hexdigest(), len(arrays)) for arrays in received
    ]
    assert all(run["sandbox"] == "bubblewrap" for run in record["runs"][:2])
    assert record["totals"]["updates_released"] == 2
    assert (tmp_path / "ev" / "job.py").read_text().startswith(factories.DOUBLE_JOB.rstrip())


def test_a_job_that_fails_leaves_evidence_of_that(hospital, rita, tmp_path):
    study = hospital.submit(rita, FAILING)
    with pytest.raises(RefusedError):
        hospital.run(study)
    record = exported(hospital, study, tmp_path / "ev")
    (run,) = record["runs"]
    assert (run["end"], run["kind"]) == ("failed", "KeyError")
    assert "no update left" in json.dumps(record["sections"])
