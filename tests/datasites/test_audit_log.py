"""What is appended is on the disk as one whole line, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit_logs import KEY, checkpoint, write
from datasites.audit_checkpoint import Checkpoint, read_checkpoint
from datasites.audit_lines import FIRST
from datasites.audit_log import CHECKPOINT_EVERY, AuditLog, Event, read_events, verify_log
from datasites.errors import RecordError
from datasites.people import STRANGER
from policies.strict import canonical_json


def test_line_says_what_happened(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log", KEY)
    log.append(
        Event.REQUEST_APPROVED, "owner@site", "R-7", role="owner", reason="as agreed",
        text_sha256="ab" * 32, version="cd" * 32, runs=3, objects={"head": "ef" * 32},
    )  # fmt: skip
    log.close()
    (line,) = read_events(tmp_path / "log")
    assert line == {
        "n": 1,
        "previous": FIRST,
        "hash": line["hash"],
        "time": line["time"],
        "event": "request approved",
        "actor": "owner@site",
        "role": "owner",
        "subject": "R-7",
        "run": "",
        "decision": "approved",
        "reason": "as agreed",
        "objects": {"text_sha256": "ab" * 32, "version": "cd" * 32, "head": "ef" * 32},
        "detail": {"runs": 3},
        "salt": line["salt"],
    }
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_line_is_chained_as_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 2)
    first, second = path.read_bytes().splitlines()
    content = second[second.index(b'"content":') + len(b'"content":') : -1]
    previous, own = json.loads(first)["hash"], json.loads(second)["hash"]
    digest = hashlib.sha256(content).hexdigest()
    assert own == hashlib.sha256(f"2 {previous} {digest}".encode()).hexdigest()
    plain = json.loads(content)
    assert content == canonical_json(plain)
    start = f'{{"n":2,"previous":"{previous}","hash":"{own}","content":'.encode()
    assert second == start + content + b"}"


def test_content_cannot_be_guessed_from_its_digest(tmp_path: Path) -> None:
    write(tmp_path / "log", 50)
    salts = {line["salt"] for line in read_events(tmp_path / "log")}
    assert len(salts) == 50
    assert {len(salt) for salt in salts} == {16}


@pytest.mark.parametrize(
    ("actor", "subject", "fields", "expected"),
    [
        ("site", "R-7", {}, ("site", "")),
        (STRANGER, "login", {}, ("unknown", "")),
        ("rita@uni.example", "R-7/3/1", {}, ("researcher", "R-7/3/1")),
        ("rita@uni.example", "R-7/3", {}, ("researcher", "")),
        ("rita@uni.example", "R-7/3/1 ", {}, ("researcher", "")),
        ("owner@site", "R-7", {"role": "owner", "run": "R-7/1/1"}, ("owner", "R-7/1/1")),
    ],
)
def test_role_and_run_are_filled_in(
    tmp_path: Path, actor: str, subject: str, fields: dict[str, str], expected: tuple[str, str]
) -> None:
    log = AuditLog(tmp_path / "log", KEY)
    log.append(Event.LOGIN, actor, subject, **fields)
    log.close()
    (line,) = read_events(tmp_path / "log")
    assert (line["role"], line["run"]) == expected


# ---------------------------------------------------------------------------- opened again


def test_reopened_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for k in range(3):
        write(path, 5, start=5 * k)
    found = verify_log(path, KEY.public_hex)
    assert (found.intact, found.lines) == (True, 15)


@pytest.mark.parametrize("kept", [1, 20, -2, -1])
def test_torn_last_line_is_cut_off_and_recorded(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log"
    write(path, 5)
    whole = path.read_bytes()
    write(path, 1, start=5)
    torn = path.read_bytes()[len(whole) :][:kept]
    path.write_bytes(whole + torn)
    AuditLog(path, KEY).close()
    assert verify_log(path, KEY.public_hex).intact
    assert path.read_bytes().startswith(whole)
    last = list(read_events(path))[-1]
    assert (last["n"], last["event"]) == (6, "log recovered")
    assert last["detail"] == {"unfinished_bytes": len(torn)}


def test_opening_a_whole_log_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 5)
    before = path.read_bytes()
    AuditLog(path, KEY).close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [1, 3, 5])
def test_log_with_a_damaged_line_is_not_opened_and_not_touched(tmp_path: Path, line: int) -> None:
    path = tmp_path / "log"
    write(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1][:-5] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(RecordError) as refused:
        AuditLog(path, KEY)
    assert str(refused.value) == (
        f"the audit log does not verify: line {line} is not a whole line of the log. The site does "
        "not start on it; keep the files and look into it: sitegate audit verify"
    )
    assert path.read_bytes() == b"".join(lines)


def test_log_with_a_damaged_and_a_torn_line_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{}\n", *lines[3:], lines[0][:30]]))
    with pytest.raises(RecordError, match="line 3 is not a whole line"):
        AuditLog(path, KEY)


# ------------------------------------------------------------------------------ checkpoints


def checkpoints(path: Path) -> list[int]:
    return [line["n"] for line in read_events(path) if line["event"] == "checkpoint"]


def test_every_hundred_lines_are_signed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 99)
    assert checkpoints(path) == []
    write(path, 1, start=99)
    assert checkpoints(path) == [101]
    write(path, 150, start=100)
    assert checkpoints(path) == [101, 202]
    assert verify_log(path, KEY.public_hex).unsigned_lines == 50


def test_checkpoint_signs_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 3)
    checkpoint(path)
    *_, before, line = read_events(path)
    signed = Checkpoint.model_validate(line["detail"])
    assert (signed.site, signed.lines, signed.head) == ("st-marys", 3, before["hash"])
    assert (signed.public_key, signed.is_signed) == (KEY.public_hex, True)
    assert not signed.model_copy(update={"lines": 2}).is_signed
    assert not signed.model_copy(update={"site": "seaside"}).is_signed
    found = verify_log(path, KEY.public_hex)
    assert (found.checkpoints, found.unsigned_lines) == (1, 0)


def test_checkpoint_beside_the_log_covers_its_last_line_too(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 3)
    checkpoint(path)
    *_, last = read_events(path)
    beside = read_checkpoint(tmp_path / "audit.checkpoint.json")
    assert (beside.lines, beside.head, beside.is_signed) == (4, last["hash"], True)
    assert (tmp_path / "audit.checkpoint.json").stat().st_mode & 0o777 == 0o600
    assert verify_log(path, KEY.public_hex).covered_lines == 4


@pytest.mark.parametrize("before", [99, 199, 200])
def test_restart_does_not_put_off_the_checkpoint(tmp_path: Path, before: int) -> None:
    """A crash leaves no checkpoint at shutdown; then, too, no more than a hundred go unsigned."""
    path = tmp_path / "log"
    log = AuditLog(path, KEY)
    lines = 0
    while lines < before:
        log.append(Event.LOGIN, "rita", "session")
        lines = len(path.read_bytes().splitlines())
    log.close()
    log = AuditLog(path, KEY)
    for _ in range(CHECKPOINT_EVERY):
        log.append(Event.LOGIN, "rita", "session")
        assert verify_log(path, KEY.public_hex).unsigned_lines <= CHECKPOINT_EVERY
    log.close()


# ------------------------------------------------------------------------------ disk full

FULL = """
import resource, sys
from pathlib import Path
from datasites.audit_log import AuditLog, Event, verify_log
from datasites.errors import RecordError
from datasites.keys import SiteKey

path, room = Path(sys.argv[1]), int(sys.argv[2])
key = SiteKey(b"k" * 32)
log = AuditLog(path, key)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
before = path.read_bytes()
for _ in range(2):
    try:
        log.append(Event.RUN_STARTED, "rita", "R-1/99/1")
    except RecordError as error:
        print(error)
    assert path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.append(Event.RUN_STARTED, "rita", "R-1/99/2")
log.close()
"""

FULL_AT_CHECKPOINT = """
import resource, sys
from pathlib import Path
from datasites.audit_log import AuditLog, Event
from datasites.keys import SiteKey

path = Path(sys.argv[1])
log = AuditLog(path, SiteKey(b"k" * 32))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 500, hard))
log.append(Event.RUN_STARTED, "rita", "R-1/99/1")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.append(Event.RUN_STARTED, "rita", "R-1/99/2")
log.close()
"""


@pytest.mark.parametrize("room", [0, 1, 150])
def test_full_disk_leaves_no_half_line(tmp_path: Path, room: int) -> None:
    path = tmp_path / "log"
    write(path, 5)
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert ran.returncode == 0, ran.stderr
    sentence = "the audit log cannot be written, so nothing was done; is the disk full?\n"
    assert ran.stdout == 2 * sentence
    found = verify_log(path, KEY.public_hex)
    assert (found.intact, found.lines) == (True, 6)
    assert list(read_events(path))[-1]["subject"] == "R-1/99/2"


def test_event_is_kept_where_the_checkpoint_after_it_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 99)
    ran = subprocess.run(
        [sys.executable, "-c", FULL_AT_CHECKPOINT, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert ran.returncode == 0, ran.stderr
    events = [line["event"] for line in read_events(path)][99:]
    # The checkpoint came as soon as there was room.
    assert events == ["run started", "run started", "checkpoint"]
    assert verify_log(path, KEY.public_hex).intact


def test_checkpoint_that_cannot_be_written_beside_the_log_leaves_the_old_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 99)
    checkpoint(path)
    beside = (tmp_path / "audit.checkpoint.json").read_bytes()
    in_the_way = tmp_path / f".audit.checkpoint.json.{os.getpid()}.tmp"
    in_the_way.mkdir()
    log = AuditLog(path, KEY)
    with pytest.raises(RecordError, match="the checkpoint cannot be written beside the audit log"):
        log.checkpoint()
    for _ in range(CHECKPOINT_EVERY):  # the event does not fail with the checkpoint after it
        log.append(Event.LOGIN, "rita", "login")
    assert (tmp_path / "audit.checkpoint.json").read_bytes() == beside
    assert verify_log(path, KEY.public_hex).intact
    in_the_way.rmdir()
    log.checkpoint()
    log.close()
    assert verify_log(path, KEY.public_hex).covered_lines == 203


@pytest.mark.parametrize("value", [float("nan"), b"bytes", "\ud800", object()])
def test_event_that_cannot_be_written_leaves_the_log_as_it_was(
    tmp_path: Path, value: object
) -> None:
    path = tmp_path / "log"
    write(path, 2)
    before = path.read_bytes()
    log = AuditLog(path, KEY)
    with pytest.raises((RecordError, ValueError, TypeError)):
        log.append(Event.LOGIN, "rita", "session", value=value)
    assert path.read_bytes() == before
    log.append(Event.LOGIN, "rita", "session")
    log.close()
    assert verify_log(path, KEY.public_hex).lines == 3


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_nothing_is_written_to_a_log_that_is_no_longer_in_its_place(
    tmp_path: Path, how: str
) -> None:
    path, elsewhere = tmp_path / "audit.jsonl", tmp_path / "elsewhere.jsonl"
    log = AuditLog(path, KEY)
    log.append(Event.LOGIN, "rita", "login")
    content = path.read_bytes()
    path.rename(elsewhere)
    if how == "removed":
        elsewhere.unlink()
    if how == "replaced":
        path.write_bytes(content)
    for work in (lambda: log.append(Event.LOGIN, "rita", "login"), log.checkpoint):
        with pytest.raises(RecordError, match="is no longer the file that the site writes"):
            work()
    log.close()
    assert not elsewhere.exists() or elsewhere.read_bytes() == content
    assert not path.exists() or path.read_bytes() == content


@pytest.mark.parametrize("kept", ["checkpoint", "older file"])
def test_log_that_was_removed_is_missed(tmp_path: Path, kept: str) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 5)
    if kept == "checkpoint":
        checkpoint(path)
        path.unlink()
    else:
        path.rename(tmp_path / "audit-000000001.jsonl")
    for content in (None, b""):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RecordError, match=r"the audit log audit\.jsonl is missing"):
            AuditLog(path, KEY)


def test_threads_write_one_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log", KEY)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            pool.submit(log.append, Event.LOGIN, "rita", "session")
    log.close()
    found = verify_log(tmp_path / "log", KEY.public_hex)
    assert (found.intact, found.lines, found.checkpoints) == (True, 202, 2)
