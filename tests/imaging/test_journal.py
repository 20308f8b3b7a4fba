"""The journal: whatever was cut off, what it says is there is there, and nothing is twice."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasites.imaging.journal import Journal
from datasites.imaging.preparing import PreparedImage, PreparedUnit, array_sha256
from datasites.imaging.problems import Reason, UnreadableSourceError

SHAPE = (6, 5)


def unit(number: int, images: int = 2, **changes: Any) -> PreparedUnit:
    """A unit of some images and one file in quarantine, every value told from the number."""
    made = [
        PreparedImage(
            array=array(number, k), label=k % 2, patient=f"p{number}", instance=f"i{number}.{k}",
            frame=0, perceptual_hash=f"h{number}.{k}", header=json.dumps({"n": [number, k]}),
        )
        for k in range(images)
    ]  # fmt: skip
    quarantined = [(f"q{number}", Reason.BROKEN, "the file cannot be read")]
    actions = Counter({("(0010,0010) PatientName", "removed"): images})
    prepared = PreparedUnit(
        f"u{number}", images + 1, made, quarantined, actions, Counter({"modality CR": images})
    )
    for name, value in changes.items():
        setattr(prepared, name, value)
    return prepared


def array(number: int, k: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(100 * number + k).integers(0, 256, SHAPE, dtype=np.uint8)


def opened(folder: Path) -> Journal:
    return Journal(folder, SHAPE, "uint8")


def check(journal: Journal, units: int) -> None:
    """The journal holds exactly the first units, each whole."""
    assert [journal.is_done(f"u{n}") for n in range(units + 2)] == [True] * units + [False] * 2
    assert journal.looked_at == 3 * units
    assert len(journal.entries) == 2 * units
    expected = [array(n, k) for n in range(units) for k in range(2)]
    rows = journal.rows([entry.row for entry in journal.entries])
    assert len(rows) == 2 * units
    for entry, image, wanted in zip(journal.entries, rows[:], expected, strict=True):
        np.testing.assert_array_equal(image, wanted)
        assert entry.digest == array_sha256(wanted)
    assert [entry.instance for entry in journal.entries] == [
        f"i{n}.{k}" for n in range(units) for k in range(2)
    ]
    assert len(journal.quarantined) == units
    assert journal.counts["modality CR"] == 2 * units
    assert journal.actions["(0010,0010) PatientName", "removed"] == 2 * units
    headers = {row: json.loads(header)["n"] for row, header in journal.headers()}
    assert [headers[entry.row] for entry in journal.entries] == [
        [n, k] for n in range(units) for k in range(2)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of four units."""
    journal = opened(tmp_path / "journal")
    journal.write([unit(0)])
    journal.write([unit(1), unit(2)])
    journal.write([unit(3)])
    check(journal, 4)
    journal.close()
    return tmp_path / "journal"


def test_a_journal_is_the_same_when_it_is_opened_again(written):
    for _ in range(2):
        journal = opened(written)
        check(journal, 4)
        journal.close()


def test_a_journal_goes_on_where_it_was(written):
    journal = opened(written)
    journal.write([unit(4)])
    check(journal, 5)
    journal.close()
    journal = opened(written)
    check(journal, 5)
    journal.close()


def cut(written: Path, to: Path, name: str, size: int) -> Path:
    shutil.copytree(written, to)
    os.truncate(to / name, size)
    return to


def test_lines_cut_at_any_byte_leave_whole_units_and_the_rest_is_written_again(written, tmp_path):
    content = (written / "journal.jsonl").read_bytes()
    ends = [k + 1 for k, byte in enumerate(content) if byte == ord("\n")]
    near = {end + k for end in ends[1:] for k in range(-25, 15)}
    for size in sorted({*near, *range(ends[1], len(content), 17)} & {*range(len(content) + 1)}):
        whole = sum(end <= size for end in ends)
        folder = cut(written, tmp_path / str(size), "journal.jsonl", size)
        journal = opened(folder)
        check(journal, whole)
        assert (folder / "images.bin").stat().st_size == whole * 2 * 30
        journal.write([unit(n) for n in range(whole, 5)])
        check(journal, 5)
        journal.close()
        journal = opened(folder)
        check(journal, 5)
        journal.close()
        shutil.rmtree(folder)


def test_images_cut_at_any_byte_take_their_units_along(written, tmp_path):
    """Images are synced first, so this is a damaged disk; black images are not published for it."""
    whole = (written / "images.bin").stat().st_size
    for size in range(whole - 61, whole + 1):
        folder = cut(written, tmp_path / str(size), "images.bin", size)
        journal = opened(folder)
        check(journal, size // 60)
        journal.write([unit(n) for n in range(size // 60, 5)])
        check(journal, 5)
        journal.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("rubbish", [b"\0" * 40, b"{}", b'{"unit": "u9"', b"\xff\xfe\n"])
def test_rubbish_after_the_last_line_is_cut_off(written, rubbish):
    """Such as the zeros that a file system leaves after a power cut."""
    with (written / "journal.jsonl").open("ab") as file:
        file.write(rubbish)
    with (written / "images.bin").open("ab") as file:
        file.write(rubbish)
    journal = opened(written)
    check(journal, 4)
    journal.write([unit(4)])
    check(journal, 5)
    journal.close()
    check(journal := opened(written), 5)
    journal.close()


def test_a_unit_without_images_is_done_too(tmp_path):
    journal = opened(tmp_path / "journal")
    journal.write([unit(0, images=0)])
    assert journal.is_done("u0")
    assert journal.entries == []
    assert journal.rows([])[0:5].shape == (0, *SHAPE)
    journal.close()


def test_only_units_that_the_source_still_has_are_kept(written):
    journal = opened(written)
    journal.keep_only({"u0", "u2"})
    assert {entry.patient for entry in journal.entries} == {"p0", "p2"}
    np.testing.assert_array_equal(
        journal.rows([entry.row for entry in journal.entries])[2:3][0], array(2, 0)
    )
    assert len(journal.quarantined) == 2
    assert journal.counts["modality CR"] == 4
    journal.close()


def test_two_processes_do_not_write_one_journal(written):
    journal = opened(written)
    with pytest.raises(UnreadableSourceError, match="is being published by another process"):
        opened(written)
    journal.close()
    opened(written).close()


def test_a_journal_is_readable_by_its_user_only(written):
    assert stat.S_IMODE(written.stat().st_mode) == 0o700


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4, 3), "uint8"), ((4, 4), "float16")])
def test_images_of_every_kind_come_back_bit_by_bit(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    images = [(rng.random(shape) * 250).astype(dtype) for _ in range(5)]
    made = [PreparedImage(a, 0, "p", f"i{k}", 0, "h", "{}") for k, a in enumerate(images)]
    journal = Journal(tmp_path / "journal", shape, dtype)
    journal.write([PreparedUnit("u", 5, made)])
    rows = journal.rows([4, 0, 2])
    assert (rows.shape, rows.dtype) == ((3, *shape), np.dtype(dtype))
    for found, k in zip(rows[0:3], (4, 0, 2), strict=True):
        np.testing.assert_array_equal(found, images[k])
    journal.close()
