"""Two hospitals vouch for each other's logs, with the commands that their people type."""

from __future__ import annotations

from typer.testing import CliRunner

from audit_logs import KEY as NORTH
from audit_logs import checkpoint, write
from datasites.audit_log import read_events
from datasites.cli import app


def audit(*arguments: object) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["audit", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_checkpoint_of_a_running_site_is_handed_over_and_proves_its_log(hospital, tmp_path):
    site = hospital.trial.site
    kept = tmp_path / "st-marys.checkpoint.json"
    assert audit("checkpoint", "--site", site.path, "--out", kept) == f"Wrote {kept}.\n"
    key = site.keys / "site_key.pub"
    said = audit("verify", site.audit, "--public-key", key, "--checkpoint", kept)
    assert said.startswith("Intact: ")


def test_running_site_countersigns_the_log_of_another(hospital, tmp_path):
    site = hospital.trial.site
    log, key = tmp_path / "audit.jsonl", tmp_path / "north.pub"
    write(log, 10)
    checkpoint(log)
    key.write_text(NORTH.public_hex)
    password = tmp_path / "password"
    password.write_text(hospital.trial.owner_password)
    kept = tmp_path / "north.countersignature.json"
    audit(
        *("countersign", tmp_path / "audit.checkpoint.json", "--public-key", key),
        *("--site", site.path, "--as", hospital.trial.owner, "--password-file", password),
        *("--out", kept),
    )
    last = [line for line in read_events(site.audit) if line["event"] == "log countersigned"][-1]
    assert (last["actor"], last["role"]) == (hospital.trial.owner, "owner")
    arguments = (
        *("verify", log, "--public-key", key),
        *("--countersignature", kept, "--countersigner", site.keys / "site_key.pub"),
    )
    assert audit(*arguments).startswith("Intact: 11 lines")
