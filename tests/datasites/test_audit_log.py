"""Every edit of the log is found at the right line, and no accident leaves half a line behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasites.audit_log import (
    CHECKPOINT_EVERY,
    FIRST,
    PURPOSE,
    AuditLog,
    Event,
    _hash,
    checkpoint_statement,
    read_events,
    verify_log,
)
from datasites.errors import RecordError
from datasites.keys import SiteKey, is_signed
from policies.strict import canonical_json

KEY = SiteKey(b"k" * 32)
OTHER = SiteKey(b"o" * 32)


def write(path: Path, events: int, start: int = 0) -> None:
    """Append so many events to the log."""
    log = AuditLog(path, KEY)
    for k in range(start, start + events):
        log.append(Event.RUN_STARTED, "rita@uni.example", f"R-1/{k}/1", number=10_000 + k, name="é")
    log.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def original(folder: Path) -> list[bytes]:
    """A log of 60 lines; lines 41 and 60 are checkpoints."""
    path = folder / "original.jsonl"
    write(path, 40)
    for events in (0, 18):
        write(path, events, start=40)
        log = AuditLog(path, KEY)
        log.checkpoint()
        log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["event"] for line in lines].count("checkpoint") == 2
    return lines


def verify(folder: Path, lines: list[bytes], public_hex: str = KEY.public_hex) -> Any:
    path = folder / "edited.jsonl"
    path.write_bytes(b"".join(lines))
    return verify_log(path, public_hex)


def rechained(plain: list[dict[str, Any]], key: SiteKey | None = None) -> list[bytes]:
    """The lines with numbers and hashes made right again, as anyone can; and signed, with a key."""
    head, lines = FIRST, []
    for number, line in enumerate(plain, start=1):
        line = {**line, "n": number, "previous": head}
        if key and line["event"] == "checkpoint":
            signature = key.sign(PURPOSE, checkpoint_statement(number - 1, head))
            line["detail"] = {"signature": signature, "public_key": key.public_hex}
        line["hash"] = head = _hash(line)
        lines.append(canonical_json(line) + b"\n")
    return lines


# ---------------------------------------------------------------------------------- as it is


def test_untouched_log_verifies(folder: Path, original: list[bytes]) -> None:
    found = verify(folder, original)
    assert (found.intact, found.bad_line, found.problem) == (True, None, "")
    assert (found.lines, found.checkpoints, found.unsigned_lines) == (60, 2, 0)


def test_lines_after_the_last_checkpoint_are_told_as_unsigned(
    folder: Path, original: list[bytes]
) -> None:
    found = verify(folder, original[:59])
    assert (found.intact, found.lines, found.checkpoints, found.unsigned_lines) == (True, 59, 1, 18)


def test_empty_log_verifies_and_a_missing_one_is_an_error(folder: Path) -> None:
    assert verify(folder, []).intact
    with pytest.raises(RecordError, match="there is no audit log at"):
        verify_log(folder / "none.jsonl", KEY.public_hex)


def test_line_says_what_happened(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log", KEY)
    log.append(Event.REQUEST_APPROVED, "owner@site", "R-7", reason="as agreed")
    log.close()
    (line,) = read_events(tmp_path / "log")
    assert {k: line[k] for k in ("n", "event", "actor", "subject", "detail", "previous")} == {
        "n": 1,
        "event": "request approved",
        "actor": "owner@site",
        "subject": "R-7",
        "detail": {"reason": "as agreed"},
        "previous": FIRST,
    }
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


# ------------------------------------------------------------------------------ edited by hand

positions = st.floats(0, 1, exclude_max=True)


@settings(max_examples=250)
@given(positions, st.integers(1, 255))
def test_changed_byte_is_found_in_its_line(
    folder: Path, original: list[bytes], where: float, change: int
) -> None:
    content = bytearray(b"".join(original))
    position = int(where * len(content))
    line = bytes(content[:position]).count(b"\n") + 1
    content[position] ^= change
    assert verify(folder, [bytes(content)]).bad_line == line


@settings(max_examples=100)
@given(positions)
def test_log_cut_inside_a_line_is_found_there(
    folder: Path, original: list[bytes], where: float
) -> None:
    content = b"".join(original)
    kept = content[: int(where * len(content))]
    whole = kept.count(b"\n")
    found = verify(folder, [kept])
    assert found.bad_line == (None if kept.endswith(b"\n") or not kept else whole + 1)


def test_removed_line_is_found(folder: Path, original: list[bytes]) -> None:
    for k in range(59):
        found = verify(folder, original[:k] + original[k + 1 :])
        assert found.bad_line == k + 1
        assert found.problem == f"says it is line {k + 2}: lines were removed, added or swapped"


def test_removed_run_of_lines_is_found(folder: Path, original: list[bytes]) -> None:
    assert verify(folder, original[:10] + original[30:]).bad_line == 11


@settings(max_examples=100)
@given(st.tuples(st.integers(0, 59), st.integers(0, 59)).filter(lambda pair: pair[0] != pair[1]))
def test_swapped_lines_are_found_at_the_first(
    folder: Path, original: list[bytes], pair: tuple[int, int]
) -> None:
    lines = list(original)
    i, j = pair
    lines[i], lines[j] = lines[j], lines[i]
    assert verify(folder, lines).bad_line == min(pair) + 1


@settings(max_examples=100)
@given(st.integers(0, 59), st.integers(0, 60))
def test_duplicated_line_is_found_where_it_was_put(
    folder: Path, original: list[bytes], line: int, place: int
) -> None:
    lines = [*original[:place], original[line], *original[place:]]
    # Put right before itself, the copy is the line and the line is the copy.
    assert verify(folder, lines).bad_line == (place + 2 if line == place else place + 1)


@settings(max_examples=100)
@given(
    st.integers(0, 60),
    st.sampled_from([b"\n", b"{}\n", b"null\n", b"[]\n", b"\xff\n", b"{\n", b"0" * 5000 + b"\n"])
    | st.binary(max_size=50).map(lambda raw: raw.replace(b"\n", b" ") + b"\n"),
)
def test_inserted_line_is_found(
    folder: Path, original: list[bytes], place: int, line: bytes
) -> None:
    assert verify(folder, [*original[:place], line, *original[place:]]).bad_line == place + 1


@settings(max_examples=100)
@given(st.integers(0, 59))
def test_inserted_line_that_fits_is_found_after_it(
    folder: Path, original: list[bytes], place: int
) -> None:
    plain = [json.loads(line) for line in original]
    made = {**plain[0], "subject": "R-9/9/9"}
    forged = rechained([*plain[:place], made])[-1]
    assert verify(folder, [*original[:place], forged, *original[place:]]).bad_line == place + 2


# ------------------------------------------------- edited by someone who can compute hashes


@settings(max_examples=60)
@given(st.integers(0, 59))
def test_rewritten_chain_is_found_at_the_next_checkpoint(
    folder: Path, original: list[bytes], edited: int
) -> None:
    plain = [json.loads(line) for line in original]
    plain[edited]["actor"] = "nobody"
    found = verify(folder, rechained(plain))
    # A checkpoint signs the lines before it: an edit of itself is found at the next, if any.
    expected = 41 if edited < 40 else 60 if edited < 59 else None
    assert found.bad_line == expected
    if expected:
        assert found.problem == "is a checkpoint that this site's key did not sign"


def test_checkpoint_of_another_key_is_found(folder: Path, original: list[bytes]) -> None:
    forged = rechained([json.loads(line) for line in original], OTHER)
    assert verify(folder, forged, OTHER.public_hex).intact  # the forgery is a good one
    found = verify(folder, forged)
    assert (found.bad_line, found.checkpoints) == (41, 0)
    assert found.problem == "is a checkpoint that this site's key did not sign"


def test_checkpoint_without_a_signature_is_found(folder: Path, original: list[bytes]) -> None:
    plain = [json.loads(line) for line in original]
    for detail in ({}, {"signature": None}, {"signature": ""}, {"signature": ["00"]}):
        plain[40]["detail"] = detail
        assert verify(folder, rechained(plain)).bad_line == 41


def test_checkpoint_of_another_place_is_found(folder: Path, original: list[bytes]) -> None:
    plain = [json.loads(line) for line in original]
    plain[40]["detail"], plain[59]["detail"] = plain[59]["detail"], plain[40]["detail"]
    assert verify(folder, rechained(plain)).bad_line == 41


def test_log_of_another_site_does_not_verify(folder: Path, original: list[bytes]) -> None:
    assert verify(folder, original, OTHER.public_hex).bad_line == 41


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"-Infinity", id="infinity"),
        pytest.param(b"1e999", id="a number too large"),
        pytest.param(b"9" * 5000, id="a number with too many digits"),
        pytest.param(b'"\\ud800"', id="half a character"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
        pytest.param(b"1e1", id="another way to write a number"),
        pytest.param(b'"\\u0041"', id="another way to write a letter"),
    ],
)
def test_line_that_python_reads_in_its_own_way_is_found(
    folder: Path, original: list[bytes], value: bytes
) -> None:
    edited = original[6].replace(b'"number":10006', b'"number":' + value)
    assert edited != original[6]
    lines = [*original[:6], edited, *original[7:]]
    assert verify(folder, lines).bad_line == 7
    path = folder / "edited.jsonl"
    assert len(list(read_events(path))) == 59
    with pytest.raises(RecordError, match="line 7 of the audit log is damaged"):
        AuditLog(path, KEY)


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
        f"line {line} of the audit log is damaged; the site does not start on it. "
        "See `sitegate audit verify`"
    )
    assert path.read_bytes() == b"".join(lines)


def test_log_with_a_damaged_and_a_torn_line_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{}\n", *lines[3:], lines[0][:30]]))
    with pytest.raises(RecordError, match="line 3 of the audit log is damaged"):
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
    path.unlink()
    write(path, 250)
    assert checkpoints(path) == [101, 202]
    assert verify_log(path, KEY.public_hex).unsigned_lines == 50


def test_checkpoint_signs_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 3)
    log = AuditLog(path, KEY)
    log.checkpoint()
    log.close()
    *_, before, checkpoint = read_events(path)
    statement = f"3 {before['hash']}".encode()
    signature = checkpoint["detail"]["signature"]
    assert is_signed(KEY.public_hex, "audit checkpoint", statement, signature)
    assert not is_signed(KEY.public_hex, "approval", statement, signature)
    found = verify_log(path, KEY.public_hex)
    assert (found.checkpoints, found.unsigned_lines) == (1, 0)


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


def test_threads_write_one_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log", KEY)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            pool.submit(log.append, Event.LOGIN, "rita", "session")
    log.close()
    found = verify_log(tmp_path / "log", KEY.public_hex)
    assert (found.intact, found.lines, found.checkpoints) == (True, 202, 2)
