"""An excerpt shows some lines of a log, hides the others, and holds only as the site signed it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import audit_logs
from datasites.audit_log import AuditLog, Event, read_events
from datasites.errors import RecordError
from datasites.evidence.excerpt import (
    ExcerptError,
    make_excerpt,
    read_excerpt,
    verified_events,
)

KEY = audit_logs.KEY.public_hex


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 events with checkpoints at 101, 202 and 253; the first file was put aside."""
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    audit_logs.write(path, 150, rotate_bytes=30_000)
    audit_logs.write(path, 100, start=150)
    audit_logs.checkpoint(path)
    return path


@pytest.fixture(scope="module")
def short_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 events with one checkpoint, at 101."""
    path = tmp_path_factory.mktemp("short") / "audit.jsonl"
    audit_logs.write(path, 120)
    return path


def checkpoints(log: Path) -> list[int]:
    return [e["n"] for e in read_events(log) if e["event"] == Event.CHECKPOINT]


def records(excerpt: str) -> list[str]:
    return excerpt.splitlines(keepends=True)


def test_the_log_of_these_tests_has_several_files_and_checkpoints(log: Path) -> None:
    assert len(list(log.parent.glob("audit-*.jsonl"))) >= 1
    assert len(checkpoints(log)) >= 3


def test_lines_that_are_shown_are_those_of_the_log(log: Path) -> None:
    events = {event["n"]: event for event in read_events(log)}
    for event in read_excerpt(make_excerpt(log, {3, 5}, 5), KEY):
        same = events[event["n"]]
        assert {k: v for k, v in same.items() if k != "previous"} == event


def test_an_excerpt_shows_the_lines_wanted_and_the_checkpoints_of_their_blocks(log: Path) -> None:
    first, *_, last = checkpoints(log)
    events = read_excerpt(make_excerpt(log, {3, last - 1}, last - 1), KEY)
    assert [e["n"] for e in events] == [3, first, last - 1, last]


def test_blocks_without_a_line_wanted_are_left_out(log: Path) -> None:
    _, *_, before, last = checkpoints(log)
    excerpt = make_excerpt(log, {last - 1}, last - 1)
    assert json.loads(records(excerpt)[0])["after"] == before
    assert len(records(excerpt)) == last - before + 1


def test_an_excerpt_ends_at_the_first_checkpoint_behind_the_last_line_wanted(log: Path) -> None:
    first = checkpoints(log)[0]
    assert read_excerpt(make_excerpt(log, {3, first + 5}, 3), KEY)[-1]["n"] == first


def test_hidden_lines_show_nothing_but_their_digest(log: Path) -> None:
    excerpt = make_excerpt(log, {3}, 3)
    assert "R-1/2/1" in excerpt  # line 3
    assert "R-1/3/1" not in excerpt
    assert all(len(record) < 120 for record in records(excerpt)[3:-1])


def test_events_of_a_log_that_does_not_verify_are_not_given(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "audit.jsonl"
    audit_logs.write(copy, 5)
    lines = copy.read_bytes().splitlines(keepends=True)
    copy.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(RecordError, match=r"line 3 of the audit log .* no evidence is given"):
        list(verified_events(copy))


def changed(record: str) -> str:
    return record.replace("R-1/2/1", "R-1/9/1")


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        # a shown line says something else
        (lambda r: [r[0], r[1], changed(r[2]), *r[3:]], "line 3 was changed after it was written"),
        # a shown line is left out
        (lambda r: [*r[:2], *r[3:]], "says it is line 4, and line 3 is due"),
        # a hidden line is left out
        (lambda r: [*r[:4], *r[5:]], "says it is line 6, and line 5 is due"),
        # two hidden lines are swapped
        (lambda r: [*r[:4], r[5], r[4], *r[6:]], "says it is line 6, and line 5 is due"),
        # a line twice
        (lambda r: [*r[:5], r[4], *r[5:]], "says it is line 5, and line 6 is due"),
        # the digest of a hidden line is another
        (
            lambda r: [*r[:4], r[4].replace('sha256":"', 'sha256":"0')[:-4] + '"}\n', *r[5:]],
            "line 101 does not follow from the line before it",
        ),
        # the end is cut off
        (lambda r: r[:-1], "does not end with a signed checkpoint; it was cut"),
        # a block begins in the middle of another
        (
            lambda r: [*r[:10], '{"after":50,"head":"' + "0" * 64 + '"}\n', *r[50:]],
            "begins a new block behind line 50",
        ),
        # a record of no kind
        (lambda r: ["{}\n", *r], "line 1 is not a whole line of the log"),
        (lambda r: [r[0].rstrip("\n") + " \n", *r[1:]], "line 1 is not a whole line of the log"),
        # nothing at all
        (lambda r: [], "it was cut"),
    ],
)
def test_an_edited_excerpt_does_not_hold(short_log: Path, edit, sentence: str) -> None:
    with pytest.raises(ExcerptError, match=sentence):
        read_excerpt("".join(edit(records(make_excerpt(short_log, {3}, 3)))), KEY)


def test_a_hidden_line_cannot_be_shown_as_another(short_log: Path) -> None:
    hidden, shown = (records(make_excerpt(short_log, {n}, 4)) for n in (3, 4))
    honest = [*hidden[:3], shown[3], *hidden[4:]]
    assert [e["n"] for e in read_excerpt("".join(honest), KEY)] == [3, 4, 101]
    forged = [*hidden[:3], shown[3].replace("R-1/3/1", "R-1/4/1"), *hidden[4:]]
    with pytest.raises(ExcerptError, match="line 4 was changed"):
        read_excerpt("".join(forged), KEY)


def test_a_chain_that_anyone_can_make_is_not_signed(short_log: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    lines = short_log.read_bytes().splitlines(keepends=True)
    plain = audit_logs.contents(lines)
    plain[2]["subject"] = "R-2/2/1"
    for key in (None, audit_logs.OTHER):
        log.write_bytes(b"".join(audit_logs.rechained(plain, key)))
        with pytest.raises(ExcerptError, match="line 101 is a checkpoint that the key did not"):
            read_excerpt(make_excerpt(log, {3}, 3), KEY)


def test_a_checkpoint_of_another_block_does_not_close_this_one(log: Path) -> None:
    first, second, *_ = checkpoints(log)
    one = records(make_excerpt(log, {first - 1}, first - 1))
    two = records(make_excerpt(log, {second - 1}, second - 1))
    with pytest.raises(ExcerptError):
        read_excerpt("".join([*one[:-1], two[-1]]), KEY)
    with pytest.raises(ExcerptError, match="is not a signed checkpoint that comes earlier"):
        read_excerpt("".join([*two, *two]), KEY)


def test_a_log_without_a_checkpoint_has_no_excerpt(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    AuditLog(log, audit_logs.KEY).append(Event.LOGIN, "rita@uni.example", "login")
    assert make_excerpt(log, {1}, 1) == ""


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_choice_of_lines_gives_an_excerpt_that_holds(log: Path, data: st.DataObject) -> None:
    last = checkpoints(log)[-1]
    shown = data.draw(st.sets(st.integers(1, last - 1), min_size=1, max_size=12))
    excerpt = make_excerpt(log, shown, max(shown))
    numbers = {e["n"] for e in read_excerpt(excerpt, KEY)}
    assert shown <= numbers
    assert numbers - shown <= set(checkpoints(log))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_an_excerpt_is_found(log: Path, data: st.DataObject) -> None:
    raw = bytearray(make_excerpt(log, {3, 120}, 120).encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(32, 126).filter(lambda byte: byte != raw[place]))
    text = raw.decode(errors="replace")
    with pytest.raises(ExcerptError):
        read_excerpt(text, KEY)
