"""Every edit of an audit log is found, at the right line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_logs import KEY, OTHER, checkpoint, contents, rechained, write
from datasites.audit_checkpoint import read_checkpoint, sign_checkpoint
from datasites.audit_log import AuditLog, Verification, check_log, read_events, verify_log
from datasites.audit_segments import checkpoint_path
from datasites.errors import RecordError


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
        checkpoint(path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert [c["event"] for c in contents(lines)].count("checkpoint") == 2
    return lines


def verify(
    folder: Path, lines: list[bytes], public_hex: str = KEY.public_hex, **kept: Any
) -> Verification:
    path = folder / "edited.jsonl"
    path.write_bytes(b"".join(lines))
    return verify_log(path, public_hex, **kept)


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
        assert found.problem == (
            f"says it is line {k + 2}: lines were removed, added or swapped"
            if k
            else "is missing: edited.jsonl begins with line 2"
        )


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
    plain = contents(original)
    made = {**plain[0], "subject": "R-9/9/9"}
    forged = rechained([*plain[:place], made])[-1]
    assert verify(folder, [*original[:place], forged, *original[place:]]).bad_line == place + 2


# ------------------------------------------------- edited by someone who can compute hashes


@settings(max_examples=60)
@given(st.integers(0, 59))
def test_rewritten_chain_is_found_at_the_next_checkpoint(
    folder: Path, original: list[bytes], edited: int
) -> None:
    plain = contents(original)
    plain[edited]["actor"] = "nobody"
    found = verify(folder, rechained(plain))
    # A checkpoint signs the lines before it: an edit of itself is found at the next, if any.
    expected = 41 if edited < 40 else 60 if edited < 59 else None
    assert found.bad_line == expected
    if expected:
        assert found.problem == "is a checkpoint that this site's key did not sign"


def test_checkpoint_of_another_key_is_found(folder: Path, original: list[bytes]) -> None:
    forged = rechained(contents(original), OTHER)
    assert verify(folder, forged, OTHER.public_hex).intact  # the forgery is a good one
    found = verify(folder, forged)
    assert (found.bad_line, found.checkpoints) == (41, 0)
    assert found.problem == "is a checkpoint that this site's key did not sign"


def test_checkpoint_without_a_signature_is_found(folder: Path, original: list[bytes]) -> None:
    plain = contents(original)
    signed = plain[40]["detail"]
    unsigned = {k: v for k, v in signed.items() if k != "signature"}
    for detail in ({}, unsigned, *({**unsigned, "signature": s} for s in (None, "", ["00"]))):
        plain[40]["detail"] = detail
        assert verify(folder, rechained(plain)).bad_line == 41


def test_checkpoint_of_another_place_is_found(folder: Path, original: list[bytes]) -> None:
    plain = contents(original)
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
    assert len(list(read_events(path))) >= 59  # what is JSON is shown; it does not verify
    with pytest.raises(RecordError, match=r"the audit log does not verify: line 7 was changed"):
        AuditLog(path, KEY)


# ------------------------------------------------------------ against a checkpoint kept outside


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A log of 12 lines; line 8 is a checkpoint, and so is line 12, which is also kept beside."""
    path = tmp_path / "audit.jsonl"
    write(path, 7)
    checkpoint(path)
    write(path, 3, start=7)
    checkpoint(path)
    return path


@pytest.mark.parametrize("kept", range(1, 12))
def test_cut_end_is_found_at_the_first_missing_line(signed: Path, kept: int) -> None:
    lines = signed.read_bytes().splitlines(keepends=True)
    signed.write_bytes(b"".join(lines[:kept]))
    found = verify_log(signed, KEY.public_hex)
    at = read_checkpoint(checkpoint_path(signed)).at
    problem = f"is missing: its checkpoint of {at} covers 12 lines"
    assert (found.bad_line, found.problem) == (kept + 1, problem)
    with pytest.raises(RecordError) as refused:
        AuditLog(signed, KEY)
    assert str(refused.value).startswith(
        f"the audit log does not verify: line {kept + 1} {problem}. The site does not start on it"
    )
    assert signed.read_bytes() == b"".join(lines[:kept])


@pytest.mark.parametrize("kept", [10, 11])
def test_line_under_a_checkpoint_that_is_cut_short_is_no_crash(signed: Path, kept: int) -> None:
    lines = signed.read_bytes().splitlines(keepends=True)
    signed.write_bytes(b"".join(lines[:kept]) + lines[kept][:50])
    found = verify_log(signed, KEY.public_hex)
    assert (found.bad_line, found.unfinished_bytes) == (kept + 1, 0)
    with pytest.raises(RecordError, match="does not verify"):
        check_log(signed, KEY.public_hex)


def test_line_after_the_checkpoint_that_is_cut_short_is_a_crash(signed: Path) -> None:
    signed.write_bytes(signed.read_bytes() + b'{"n":13,"prev')
    found = verify_log(signed, KEY.public_hex)
    assert (found.intact, found.bad_line, found.unfinished_bytes) == (False, 13, 13)
    assert check_log(signed, KEY.public_hex).last_line == 12


def test_log_that_was_rewritten_with_the_key_contradicts_its_checkpoint(signed: Path) -> None:
    plain = contents(signed.read_bytes().splitlines())
    plain[2]["actor"] = "nobody"
    signed.write_bytes(b"".join(rechained(plain, KEY)))
    found = verify_log(signed, KEY.public_hex)
    assert found.bad_line == 12
    assert found.problem.startswith("is not what the site signed: its checkpoint of ")


def test_checkpoint_kept_elsewhere_finds_what_the_one_beside_the_log_hides(signed: Path) -> None:
    elsewhere = read_checkpoint(checkpoint_path(signed))
    plain = contents(signed.read_bytes().splitlines())
    signed.write_bytes(b"".join(rechained(plain[:8], KEY)))
    checkpoint_path(signed).unlink()
    checkpoint(signed)
    assert verify_log(signed, KEY.public_hex).intact  # the forger holds the key
    found = verify_log(signed, KEY.public_hex, checkpoints=[elsewhere])
    assert (found.intact, found.bad_line) == (False, 10)


@pytest.mark.parametrize("change", [{"lines": 13}, {"head": "0" * 64}, {"site": "seaside"}])
def test_checkpoint_that_was_changed_is_found(signed: Path, change: dict[str, Any]) -> None:
    beside = read_checkpoint(checkpoint_path(signed)).model_copy(update=change)
    checkpoint_path(signed).write_text(beside.model_dump_json())
    found = verify_log(signed, KEY.public_hex)
    assert found.bad_line == beside.lines
    assert found.problem == "is vouched for by a checkpoint that this site's key did not sign"


def test_checkpoint_of_another_key_beside_the_log_is_found(signed: Path) -> None:
    beside = read_checkpoint(checkpoint_path(signed))
    forged = sign_checkpoint(OTHER, beside.site, beside.lines, beside.head, beside.at)
    assert forged.is_signed
    checkpoint_path(signed).write_text(forged.model_dump_json())
    assert verify_log(signed, KEY.public_hex).bad_line == 12


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b"\xff", b"[" * 100_000, b"null"])
def test_checkpoint_that_cannot_be_read_is_said(signed: Path, content: bytes) -> None:
    checkpoint_path(signed).write_bytes(content)
    with pytest.raises(RecordError, match=r"audit\.checkpoint\.json is missing or is not a check"):
        verify_log(signed, KEY.public_hex)


# ------------------------------------------------------------------------- five hundred edits

KINDS = [
    "byte", "removed", "swapped", "duplicated", "added", "cut", "cut inside a line",
    "hashes recomputed", "signed with another key", "file removed", "checkpoint forged",
]  # fmt: skip


class Edited:
    """A log of three files, its lines with the file of each, to be edited and written again."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.names = sorted(path.name for path in original.parent.glob("audit*.jsonl"))
        self.lines = [
            (k, raw)
            for k, name in enumerate(self.names)
            for raw in (original.parent / name).read_bytes().splitlines(keepends=True)
        ]
        self.signed = [
            n for n, c in enumerate(contents(self.raws), 1) if c["event"] == "checkpoint"
        ]
        self.kept = read_checkpoint(checkpoint_path(original))
        self.path = folder / "audit.jsonl"

    @property
    def raws(self) -> list[bytes]:
        return [raw for _, raw in self.lines]

    def put(self, raws: list[bytes]) -> None:
        self.lines = [(k, raw) for (k, _), raw in zip(self.lines, raws, strict=True)]

    def first_bad_line(self) -> int | None:
        for k, name in enumerate(self.names):
            raws = [raw for file, raw in self.lines if file == k]
            if raws or name == self.path.name:
                (self.path.parent / name).write_bytes(b"".join(raws))
        checkpoint_path(self.path).write_text(self.kept.model_dump_json())
        return verify_log(self.path, KEY.public_hex).bad_line

    def edit(self, kind: str, rng: random.Random) -> int:
        """Edit the log; the number of the line that is the first bad one."""
        count = len(self.lines)
        n = rng.randint(1, count)
        file, raw = self.lines[n - 1]
        if kind == "byte":
            at = rng.randrange(len(raw))
            raw = raw[:at] + bytes([raw[at] ^ rng.randint(1, 255)]) + raw[at + 1 :]
            self.lines[n - 1] = (file, raw)
            return n
        if kind == "removed":
            del self.lines[n - 1]
            return n
        if kind == "swapped":
            other = rng.choice([m for m in range(1, count + 1) if m != n])
            raws = self.raws
            raws[n - 1], raws[other - 1] = raws[other - 1], raws[n - 1]
            self.put(raws)
            return min(n, other)
        if kind == "duplicated":
            place = rng.randint(1, count)
            self.lines.insert(place - 1, (self.lines[place - 1][0], raw))
            return place + 1 if place == n else place
        if kind == "added":  # with a right number and hash, so that the next line does not fit
            made = rechained([*contents(self.raws[: n - 1]), contents(self.raws[:1])[0]])[-1]
            self.lines.insert(n - 1, (file, made))
            return n if n == count else n + 1  # the kept checkpoint knows line `count`
        if kind == "cut":
            del self.lines[n - 1 :]
            return n
        if kind == "cut inside a line":
            self.lines[n - 1 :] = [(file, raw[: rng.randrange(1, len(raw))])]
            return n
        if kind == "hashes recomputed":
            plain = contents(self.raws)
            plain[n - 1]["actor"] = "nobody"
            self.put(rechained(plain))
            return min((s for s in self.signed if s > n), default=count)
        if kind == "signed with another key":
            plain = contents(self.raws)
            plain[n - 1]["actor"] = "nobody"
            self.put(rechained(plain, OTHER))
            return self.signed[0]
        if kind == "file removed":
            gone = rng.randrange(len(self.names) - 1)
            first = next(m for m, (k, _) in enumerate(self.lines, 1) if k == gone)
            self.lines = [line for line in self.lines if line[0] != gone]
            return first
        assert kind == "checkpoint forged"
        self.kept = sign_checkpoint(OTHER, "st-marys", n, json.loads(raw)["hash"], self.kept.at)
        return n


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rotated") / "audit.jsonl"
    for start in range(0, 90, 10):
        write(path, 10, start, rotate_bytes=17_000)
    checkpoint(path)
    return path


def test_five_hundred_random_edits_are_found_at_the_right_line(
    rotated: Path, tmp_path: Path
) -> None:
    rng = random.Random(20261125)
    assert Edited(rotated, tmp_path).first_bad_line() is None
    assert len(Edited(rotated, tmp_path).names) == 3
    for k in range(500):
        for old in tmp_path.iterdir():
            old.unlink()
        edited = Edited(rotated, tmp_path)
        kind = KINDS[k % len(KINDS)]
        expected = edited.edit(kind, rng)
        assert edited.first_bad_line() == expected, (k, kind)
