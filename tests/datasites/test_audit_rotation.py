"""A log in several files is one log, whatever happens while a file is put aside."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_logs import KEY, OTHER, checkpoint, write
from datasites.audit_log import AuditLog, Event, read_events, verify_log
from datasites.errors import RecordError

SMALL = 4_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 40 events in several files, with a checkpoint at its end."""
    path = tmp_path / "audit.jsonl"
    write(path, 40, rotate_bytes=SMALL)
    checkpoint(path)
    return path


def older(path: Path) -> list[Path]:
    return sorted(path.parent.glob("audit-*.jsonl"))


def first_line(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


# ------------------------------------------------------------------------------------ as it is


def test_files_are_named_by_their_first_line_and_read_as_one_log(log: Path) -> None:
    events = list(read_events(log))
    assert [e["n"] for e in events] == list(range(1, len(events) + 1))
    runs = [e["subject"] for e in events if e["event"] == "run started"]
    assert runs == [f"R-1/{k}/1" for k in range(40)]
    assert len(older(log)) > 2
    for path in older(log):
        assert (
            f'{{"n":{first_line(path)},'.encode()
            == path.read_bytes()[: len(f'{{"n":{first_line(path)},')]
        )
        assert path.stat().st_mode & 0o777 == 0o600
    found = verify_log(log, KEY.public_hex)
    assert (found.intact, found.first_line, found.last_line) == (True, 1, len(events))
    assert found.lines == found.covered_lines == len(events)


def test_first_line_of_a_new_file_names_the_old_one_and_its_hash(log: Path) -> None:
    rotated = [e for e in read_events(log) if e["event"] == "log rotated"]
    assert [(e["detail"]["older_file"], e["objects"]["older_file_sha256"]) for e in rotated] == [
        (p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in older(log)
    ]


def test_old_file_ends_with_a_checkpoint(log: Path) -> None:
    for path in older(log):
        assert verify_log(path, KEY.public_hex).unsigned_lines == 0


def test_file_below_the_size_is_not_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 1)
    size = path.stat().st_size
    path.unlink()
    write(path, 2, rotate_bytes=2 * size + 100)
    assert older(path) == []
    write(path, 1, start=2, rotate_bytes=2 * size + 100)
    assert [p.name for p in older(path)] == ["audit-000000001.jsonl"]


def test_logs_in_one_directory_do_not_read_each_others_files(log: Path) -> None:
    other = log.with_name("audit-of-north.jsonl")
    write(other, 40, rotate_bytes=SMALL)
    assert verify_log(other, KEY.public_hex).intact
    assert verify_log(log, KEY.public_hex).intact


def test_log_verifies_at_every_moment_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 1)
    writer = threading.Thread(target=write, args=(path, 300, 1, SMALL))
    writer.start()
    checks = 0
    while writer.is_alive():
        found = verify_log(path, KEY.public_hex)
        assert found.intact, found
        numbers = [e["n"] for e in read_events(path)]
        assert numbers == list(range(1, len(numbers) + 1))
        checks += 1
    writer.join()
    assert checks > 3
    assert len(older(path)) > 20


# ------------------------------------------------------------------------- one file by itself


def test_old_file_alone_verifies_from_its_first_line_on(log: Path, tmp_path: Path) -> None:
    middle = older(log)[1]
    elsewhere = tmp_path / "of-another-name-000000001.jsonl"
    elsewhere.write_bytes(middle.read_bytes())
    for path in (middle, elsewhere):
        found = verify_log(path, KEY.public_hex)
        assert (found.intact, found.first_line) == (True, first_line(middle))
        assert found.lines == len(path.read_bytes().splitlines())
        assert not verify_log(path, OTHER.public_hex).intact


def test_newest_file_alone_verifies_where_that_is_asked_for(log: Path) -> None:
    for path in older(log):
        path.unlink()
    found = verify_log(log, KEY.public_hex)
    assert (found.bad_line, found.lines) == (1, 0)
    begins = int(log.read_bytes()[5 : log.read_bytes().index(b",")])
    assert found.problem == f"is missing: audit.jsonl begins with line {begins}"
    alone = verify_log(log, KEY.public_hex, alone=True)
    assert (alone.intact, alone.first_line) == (True, begins)


def test_edit_of_an_old_file_alone_is_found(log: Path) -> None:
    path = older(log)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"rita", b"nora"), *lines[3:]]))
    found = verify_log(path, KEY.public_hex)
    assert (found.bad_line, found.lines) == (first_line(path) + 2, 2)


# ----------------------------------------------------------------------------- files that miss


@pytest.mark.parametrize("which", [0, 1, -1])
def test_missing_file_is_found_at_its_first_line(log: Path, which: int) -> None:
    gone = older(log)[which]
    gone.unlink()
    found = verify_log(log, KEY.public_hex)
    assert found.bad_line == first_line(gone)
    assert found.problem.startswith("is missing: audit")
    with pytest.raises(RecordError, match=f"line {first_line(gone)} is missing"):
        AuditLog(log, KEY)


def test_files_that_were_swapped_are_found(log: Path) -> None:
    first, second, *_ = older(log)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert verify_log(log, KEY.public_hex).bad_line == 1


def test_unfinished_line_of_an_old_file_is_damage(log: Path) -> None:
    path = older(log)[0]
    path.write_bytes(path.read_bytes()[:-1])
    found = verify_log(log, KEY.public_hex)
    assert found.bad_line == first_line(older(log)[1]) - 1
    assert found.unfinished_bytes == 0


# ------------------------------------------------------------------------------------ crashes

CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "close", "ftruncate")


def dies_before(call: int, work: Callable[[Callable[[int], Any]], None]) -> tuple[bool, int]:
    """Run `work` in a child that ends, as by `kill -9`, before its so-manieth system call.

    Returns:
        Whether it died, and the last number that it reported as done.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count, report = 0, os.write

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == call:
                    os._exit(9)
                return function(*arguments, **options)

            return run

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        work(lambda number: report(writing, bytes([number])))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        done = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9, done[-1] if done else 0


def test_kill_between_any_two_system_calls_loses_and_damages_nothing(tmp_path: Path) -> None:
    def work(done: Callable[[int], Any]) -> None:
        log = AuditLog(path, KEY, rotate_bytes=1_200)
        for k in range(1, 6):
            log.append(Event.RUN_STARTED, "rita", f"R-1/{k}/1")
            done(k)
        log.close()

    call, died = 0, True
    states = set()
    while died:
        call += 1
        folder = tmp_path / str(call)
        folder.mkdir()
        path = folder / "audit.jsonl"
        died, done = dies_before(call, work)
        states.add(tuple(sorted(p.name for p in folder.iterdir() if "." in p.name)))
        if path.exists():
            found = verify_log(path, KEY.public_hex)
            assert found.intact, (call, found)
        log = AuditLog(path, KEY, rotate_bytes=1_200)  # the next start
        for k in range(6, 9):
            log.append(Event.RUN_STARTED, "rita", f"R-1/{k}/1")
        log.close()
        assert verify_log(path, KEY.public_hex).intact
        runs = [e["subject"] for e in read_events(path) if e["event"] == "run started"]
        # The event under way at the kill may be there, since it is written before its effect.
        started = [f"R-1/{k}/1" for k in range(1, done + 1)]
        assert runs[: len(started)] == started
        assert runs[len(started) :][-3:] == [f"R-1/{k}/1" for k in range(6, 9)]
        assert len(runs) in (done + 3, done + 4)
        assert list(folder.glob(".*.next")) == []
    assert call > 30
    assert any(".audit.jsonl.next" in names for names in states)
    assert any(
        "audit-000000001.jsonl" in names and ".audit.jsonl.next" in names for names in states
    )


def test_second_name_that_a_crash_left_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(path, 5)
    os.link(path, tmp_path / "audit-000000001.jsonl")
    (tmp_path / ".audit.jsonl.next").write_bytes(b"half a li")
    assert verify_log(path, KEY.public_hex).lines == 5
    assert len(list(read_events(path))) == 5
    AuditLog(path, KEY).close()
    assert [p.name for p in tmp_path.iterdir()] == ["audit.jsonl"]


def test_rotation_that_fails_is_put_off_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, KEY, rotate_bytes=SMALL)
    (tmp_path / "audit-000000001.jsonl").mkdir()  # something in the way
    for k in range(30):
        log.append(Event.RUN_STARTED, "rita", f"R-1/{k}/1")
    (tmp_path / "audit-000000001.jsonl").rmdir()
    for k in range(30, 40):
        log.append(Event.RUN_STARTED, "rita", f"R-1/{k}/1")
    log.close()
    assert older(path) != []
    runs = [e["subject"] for e in read_events(path) if e["event"] == "run started"]
    assert runs == [f"R-1/{k}/1" for k in range(40)]
    assert verify_log(path, KEY.public_hex).intact
