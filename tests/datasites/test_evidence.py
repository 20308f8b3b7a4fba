"""Evidence of requests that went every way; each verifies, and says what the log says."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import factories
from datasites import audit_log
from datasites.audit_checkpoint import read_checkpoint
from datasites.audit_log import Event, read_events, verify_log
from datasites.decisions import deny, request_changes, revoke
from datasites.errors import DecisionError, RecordError
from datasites.evidence.documents import documents_sha256
from datasites.evidence.export import export_evidence
from datasites.evidence.verification import verify_evidence
from datasites.requests import withdraw_request
from datasites.signed_decisions import LineComment
from evidence_sites import CARLA, OLIVIA, RITA, SAM, EvidenceSite, plain, write_folder

TWO = {"approvers": 2, "four_eyes": True, "rehearsal": {"images": 2, "time_s": 3}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceSite]:
    """One approver is enough."""
    made = EvidenceSite(tmp_path_factory.mktemp("one"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceSite]:
    """An owner and a second approver have to agree."""
    made = EvidenceSite(tmp_path_factory.mktemp("two"), review=TWO)
    yield made
    made.close()


def exported(site: EvidenceSite, number: int, tmp_path: Path, acting: Any = CARLA) -> Any:
    """The record of a request, after its folder was verified."""
    files = export_evidence(site.open, number, acting)
    folder = write_folder(tmp_path / f"R-{number}", files)
    problems = [p for c in verify_evidence(folder, site.open.key.public_hex) for p in c.problems]
    assert problems == []
    return plain(files, "evidence.json")


def texts(record: Any, section: str) -> str:
    """All sentences of a section."""
    found = [s for s in record["sections"] if s["name"] == section]
    return "\n".join(statement["text"] for statement in found[0]["statements"])


def approved(site: EvidenceSite) -> int:
    number = site.submit()
    site.rehearse(number)
    site.approve(number)
    return number


def test_a_request_that_nobody_decided_about(site, tmp_path) -> None:
    record = exported(site, site.submit(), tmp_path)
    assert record["state"]["word"] == "pending"
    assert "Nobody of the hospital decided about it." in texts(record, "Safe people")
    assert "No run started." in texts(record, "Safe settings")
    assert "No update left." in texts(record, "Safe outputs")
    assert record["runs"] == []


def test_a_denied_request(site, tmp_path) -> None:
    number = site.submit()
    deny(site.open, site.syft, number, SAM, "the purpose is not ours")
    record = exported(site, number, tmp_path)
    assert record["state"]["word"] == "denied"
    assert "sam@stmarys.example (second approver) denied it" in texts(record, "Safe projects")
    assert "“the purpose is not ours”" in texts(record, "Safe projects")


def test_a_withdrawn_request(site, tmp_path) -> None:
    number = site.submit()
    withdraw_request(site.open, site.syft, RITA, number, "a mistake")
    record = exported(site, number, tmp_path)
    assert record["state"]["word"] == "withdrawn"
    assert "withdrew the request: “a mistake”" in texts(record, "Safe projects")


def test_a_request_that_was_sent_back(site, tmp_path) -> None:
    number = site.submit()
    comments = (LineComment(line=2, text="name the split"),)
    request_changes(site.open, number, OLIVIA, "one question", comments)
    record = exported(site, number, tmp_path)
    assert record["state"]["word"] == "changes requested"
    assert "asked for changes with 1 comment on lines" in texts(record, "Safe projects")


def test_a_revoked_request(site, tmp_path) -> None:
    number = approved(site)
    site.release(number, 0)
    revoke(site.open, site.syft, number, OLIVIA, "the study ended")
    record = exported(site, number, tmp_path)
    assert record["state"]["word"] == "revoked"
    assert "took the approval back" in texts(record, "Safe projects")
    assert "1 update left, with 16 bytes of arrays." in texts(record, "Safe outputs")


def test_an_approved_request_says_who_ran_what_and_what_left(site, tmp_path) -> None:
    number = approved(site)
    for round_number in range(3):
        site.release(number, round_number)
    record = exported(site, number, tmp_path)
    assert record["state"]["word"] == "approved"
    assert "olivia@stmarys.example (owner) agreed as the last who had to" in texts(
        record, "Safe projects"
    )
    assert "for 10 runs until" in texts(record, "Safe projects")
    assert "3 runs started in the bubblewrap sandbox." in texts(record, "Safe settings")
    assert "No differential privacy was applied; 3 updates with in total 48 bytes left." in texts(
        record, "Safe outputs"
    )
    assert [run["update_sha256"] for run in record["runs"]] == [f"{n + 100:064x}" for n in range(3)]
    assert record["totals"] == {
        "runs_asked": 10,
        "runs_started": 3,
        "updates_released": 3,
        "bytes_released": 48,
        "privacy": ["none"],
    }


def test_runs_that_gave_nothing_are_named_with_their_rules(site, tmp_path) -> None:
    number = approved(site)
    site.append(Event.UPDATE_REFUSED, site.start(number, 0), rules=["examples.minimum"])
    site.append(Event.RUN_FAILED, site.start(number, 1), kind="TimeLimit")
    site.append(Event.RUN_INTERRUPTED, site.start(number, 2), "site")
    site.append(Event.RUN_REFUSED, f"R-{number}/3/1", rules=["arguments.range", "weights.form"])
    site.append(Event.UPDATE_REPEATED, site.release(number, 4), update_sha256=f"{104:064x}")
    record = exported(site, number, tmp_path)
    ends = {run["run"].split("/")[1]: run["end"] for run in record["runs"]}
    assert ends == {
        "0": "refused", "1": "failed", "2": "interrupted", "3": "not started", "4": "released",
    }  # fmt: skip
    said = texts(record, "Safe outputs")
    assert "Once a run ended with an update that rules kept at the site: examples.minimum." in said
    assert "Once a run failed: TimeLimit." in said
    assert "Once a call was refused before anything ran: arguments.range and weights.form." in said
    assert "Once an update that had left already was sent again." in said
    assert record["runs"][4]["repeats"] == 1


def test_two_people_who_had_to_agree_are_both_named(careful, tmp_path) -> None:
    number = careful.submit()
    careful.rehearse(number)
    careful.approve(number, OLIVIA)
    first = exported(careful, number, tmp_path / "first")
    assert first["state"]["word"] == "partly approved"
    assert "after that, 1 of 2 people agreed" in texts(first, "Safe projects")
    careful.approve(number, SAM)
    record = exported(careful, number, tmp_path / "second")
    assert record["state"]["word"] == "approved"
    assert (
        "olivia@stmarys.example (owner) and sam@stmarys.example (second approver) decided"
        in texts(record, "Safe people")
    )
    assert texts(record, "This record").count("exported evidence") == 2


def test_a_changed_policy_and_a_confirmed_approval_come_with_both_policies(
    careful, tmp_path
) -> None:
    number = careful.submit()
    careful.rehearse(number)
    careful.approve(number, OLIVIA)
    careful.approve(number, SAM)
    careful.adopt(counts={"minimum": 6}, review=TWO)
    stopped = exported(careful, number, tmp_path / "stopped")
    assert "Another policy was adopted while an approval stood" in texts(stopped, "Safe projects")
    assert stopped["state"]["stopped"] is True
    careful.approve(number, SAM)
    half = exported(careful, number, tmp_path / "half")
    assert half["state"]["word"] == "approved"
    careful.approve(number, OLIVIA)
    record = exported(careful, number, tmp_path / "confirmed")
    assert "(owner) confirmed the approval under policy test v1" in texts(record, "Safe projects")
    assert record["state"]["stopped"] is False
    names = sorted(p.name for p in (tmp_path / "confirmed" / f"R-{number}").glob("policy*"))
    assert len(names) == 4
    newest = (tmp_path / "confirmed" / f"R-{number}" / "policy.json").read_text()
    assert json.loads(newest)["counts"]["minimum"] == 6


def test_every_role_may_export(site, tmp_path) -> None:
    number = site.submit()
    for acting in (OLIVIA, SAM, CARLA):
        record = exported(site, number, tmp_path / acting.email, acting)
        assert (record["exported"]["by"], record["exported"]["role"]) == (
            acting.email, acting.role,
        )  # fmt: skip


def test_a_request_that_is_not_there_has_no_evidence_and_leaves_no_line(site) -> None:
    before = verify_log(site.log, site.open.key.public_hex).last_line
    with pytest.raises(DecisionError, match="no request R-99 here"):
        export_evidence(site.open, 99, CARLA)
    assert verify_log(site.log, site.open.key.public_hex).last_line == before


def test_a_dataset_without_card_or_certificate_is_said_to_have_none(tmp_path) -> None:
    made = EvidenceSite(tmp_path)
    try:
        number = made.submit()
        folder = made.open.site.datasets / made.version
        folder.chmod(0o700)
        (folder / "deidentification.json").unlink()
        (folder / "card.json").unlink()
        record = exported(made, number, tmp_path)
        assert "no longer has the card" in texts(record, "Safe data")
        assert "has no de-identification certificate" in texts(record, "Safe data")
        row = record["trust_matrix"]["rows"][0]["cells"][2]
        assert row["sight"] == "partly"
    finally:
        made.close()


def test_the_line_of_the_export_names_the_documents_and_ends_the_excerpt(site) -> None:
    files = export_evidence(site.open, site.submit(), CARLA)
    *_, line, checkpoint = read_events(site.log)
    assert (line["event"], checkpoint["event"]) == ("evidence exported", "checkpoint")
    assert line["objects"] == {"documents_sha256": documents_sha256(files)}
    assert (
        files["log-excerpt.jsonl"]
        .encode()
        .endswith(site.log.read_bytes().splitlines(keepends=True)[-1])
    )


def test_lines_of_other_people_are_not_in_the_folder(site) -> None:
    number = site.submit()
    site.noise(30)
    other = site.submit(title="another study", purpose="something else")
    files = export_evidence(site.open, number, CARLA)
    for name, text in files.items():
        assert "mallory@uni.example" not in text, name
        assert "198.51.100." not in text, name
        assert f"R-{other}" not in text, name
        assert "another study" not in text, name


def test_the_checkpoint_of_the_folder_agrees_with_the_whole_log(site, tmp_path) -> None:
    number = site.submit()
    folder = write_folder(tmp_path / "ev", export_evidence(site.open, number, CARLA))
    site.noise(3)
    kept = read_checkpoint(folder / "checkpoint.json")
    found = verify_log(site.log, site.open.key.public_hex, checkpoints=[kept])
    assert found.intact
    assert found.covered_lines >= kept.lines


def test_exports_at_the_same_time_name_their_own_person(site, tmp_path) -> None:
    number = site.submit()
    found: dict[str, dict[str, str]] = {}

    def export(acting: Any) -> None:
        found[acting.email] = export_evidence(site.open, number, acting)

    threads = [threading.Thread(target=export, args=(a,)) for a in (OLIVIA, SAM, CARLA)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for email, files in found.items():
        assert plain(files, "evidence.json")["exported"]["by"] == email
        folder = write_folder(tmp_path / email, files)
        assert not any(c.problems for c in verify_evidence(folder, site.open.key.public_hex))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_when_the_disk_is_full_nothing_is_exported_and_nothing_changed(
    tmp_path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    made = EvidenceSite(tmp_path)
    try:
        number = made.submit()
        before = {p: p.read_bytes() for p in sorted(made.open.site.state.glob("audit*"))}

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(audit_log.os, call, full)
            with pytest.raises(RecordError, match="nothing was done; is the disk full"):
                export_evidence(made.open, number, CARLA)
        assert {p: p.read_bytes() for p in sorted(made.open.site.state.glob("audit*"))} == before
        exported(made, number, tmp_path)
    finally:
        made.close()


def test_when_the_checkpoint_cannot_be_written_nothing_is_exported(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = EvidenceSite(tmp_path)
    try:
        number = made.submit()

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(audit_log, "write_private", full)
            with pytest.raises(RecordError, match="checkpoint cannot be written"):
                export_evidence(made.open, number, CARLA)
        record = exported(made, number, tmp_path)
        assert texts(record, "This record").count("exported evidence") == 2
    finally:
        made.close()


def test_a_log_that_was_edited_gives_no_evidence(tmp_path) -> None:
    made = EvidenceSite(tmp_path)
    try:
        number = made.submit()
        raw = made.log.read_bytes()
        edited = raw.replace(b'"Example University"', b'"Example Univarsity"')
        assert edited != raw
        with made.log.open("r+b") as file:  # the site goes on writing into the same file
            file.write(edited)
        with pytest.raises(RecordError, match=r"line \d of the audit log was changed"):
            export_evidence(made.open, number, CARLA)
    finally:
        made.close()


def test_a_job_that_is_full_of_markup_is_shown_as_text(site) -> None:
    number = site.submit(title="<script>alert(1)</script>", purpose="</style><img src=x>")
    page = export_evidence(site.open, number, CARLA)["evidence.html"]
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_text_is_there_byte_for_byte(site, tmp_path) -> None:
    job = factories.DOUBLE_JOB.replace("\n", "\r\n") + "# für alle, ohne Zeilenende"
    number = site.submit(job=job)
    exported(site, number, tmp_path)
    assert (tmp_path / f"R-{number}" / "job.py").read_bytes() == job.encode()
