"""Folders and archives as sources: every file once, series together, nothing outside."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources.folder import Folder
from datasites.imaging.sources.source import Unit
from datasites.imaging.workers import Workers
from dicom_samples import as_bytes, sample


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as made:
        yield made


def series(number: int, instance: int = 0) -> bytes:
    image = sample(seed=number, SOPInstanceUID=f"2.25.5{number}.{instance}")
    return as_bytes(image)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def units(path: Path, workers: Workers) -> list[Unit]:
    return list(Folder(path, workers).units(lambda _: False))


def names(found: list[Unit]) -> list[list[str]]:
    return sorted(sorted(item.name for item in unit.items) for unit in found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two series, mixed in nested folders with any names, a picture and a text."""
    put(tmp_path / "f" / "a" / "1.dcm", series(1, 0))
    put(tmp_path / "f" / "a" / "b" / "no extension", series(1, 1))
    put(tmp_path / "f" / "c" / "Größe 3.IMA", series(2, 0))
    put(tmp_path / "f" / "c" / ".hidden", series(1, 2))
    put(tmp_path / "f" / "top.dcm", series(2, 1))
    put(tmp_path / "f" / "a" / "x.png", b"\x89PNG\r\n\x1a\n")
    put(tmp_path / "f" / "a" / "readme.txt", b"hello")
    return tmp_path / "f"


def test_files_of_one_series_are_one_unit_wherever_they_lie(folder, workers):
    assert names(units(folder, workers)) == [
        ["a/1.dcm", "a/b/no extension", "c/.hidden"],
        ["a/readme.txt"],
        ["a/x.png"],
        ["c/Größe 3.IMA", "top.dcm"],
    ]
    assert Folder(folder, workers).items == 7


def test_files_know_the_folder_at_the_top_that_they_lie_in(folder, workers):
    found = {i.name: i.folder for unit in units(folder, workers) for i in unit.items}
    assert found == {
        "a/1.dcm": "a", "a/b/no extension": "a", "c/.hidden": "c", "a/readme.txt": "a",
        "a/x.png": "a", "c/Größe 3.IMA": "c", "top.dcm": None,
    }  # fmt: skip


def test_an_archive_gives_what_its_folder_gives(folder, workers, tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder))
    within, without = units(tmp_path / "f.zip", workers), units(folder, workers)
    assert names(within) == names(without)
    read = {i.name: i.read() for unit in without for i in unit.items}
    assert {i.name: i.read() for unit in within for i in unit.items} == read
    folders = {i.name: i.folder for unit in within for i in unit.items}
    assert folders == {i.name: i.folder for unit in without for i in unit.items}


def test_archives_in_a_folder_are_looked_into(folder, workers):
    with zipfile.ZipFile(folder / "c" / "more.ZIP", "w") as archive:
        archive.writestr("x/1.dcm", series(1, 3))
        archive.writestr("x/2.dcm", series(3, 0))
    found = names(units(folder, workers))
    assert ["a/1.dcm", "a/b/no extension", "c/.hidden", "c/more.ZIP/x/1.dcm"] in found
    assert ["c/more.ZIP/x/2.dcm"] in found


def test_members_of_an_archive_in_a_class_folder_are_of_that_class(folder, workers):
    with zipfile.ZipFile(folder / "c" / "more.zip", "w") as archive:
        archive.writestr("1.dcm", series(3, 0))
        archive.writestr("x/2.dcm", series(4, 0))
    found = {i.name: i.folder for unit in units(folder, workers) for i in unit.items}
    assert found["c/more.zip/1.dcm"] == found["c/more.zip/x/2.dcm"] == "c"


def test_units_that_are_done_are_not_given_again(folder, workers):
    every = units(folder, workers)
    asked = []

    def is_done(name: str) -> bool:
        asked.append(name)
        return name == every[0].name

    again = list(Folder(folder, workers).units(is_done))
    assert [unit.name for unit in again] == [unit.name for unit in every[1:]]
    assert asked == [unit.name for unit in every]


@pytest.mark.parametrize("change", ["added", "removed", "written", "touched"])
def test_a_unit_has_another_name_when_a_file_of_it_changes(folder, workers, change):
    before = {tuple(i.name for i in u.items): u.name for u in units(folder, workers)}
    path = folder / "a" / "b" / "no extension"
    if change == "added":
        put(folder / "a" / "new.dcm", series(1, 9))
    elif change == "removed":
        path.unlink()
    elif change == "written":
        path.write_bytes(series(1, 8))
    else:
        os.utime(path, (1, 1))
    after = {tuple(i.name for i in u.items): u.name for u in units(folder, workers)}
    assert len(set(before.values()) - set(after.values())) == 1
    assert len(set(after.values()) - set(before.values())) == 1


def test_the_folder_is_not_changed(folder, workers):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}
    for unit in units(folder, workers):
        for item in unit.items:
            item.read()
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")} == before


def test_names_that_are_not_utf8_are_read_too(folder, workers):
    raw = os.fsencode(folder) + b"/M\xfcller.dcm"
    with open(raw, "wb") as file:
        file.write(series(7))
    found = [i for unit in units(folder, workers) for i in unit.items if i.name.startswith("M")]
    assert found[0].read() == series(7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "there is no folder or archive"),
        ("file.txt", "is neither a folder, a zip archive nor an .npz"),
        ("empty", "there is no file in"),
        ("only-folders", "there is no file in"),
    ],
)
def test_what_is_no_source_is_refused_in_a_sentence(tmp_path, workers, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-folders" / "a").mkdir(parents=True)
    put(tmp_path / "file.txt", b"hello")
    with pytest.raises(UnreadableSourceError, match=words):
        units(tmp_path / name, workers)


def test_thousands_of_files_are_listed_in_order(tmp_path, workers):
    for number in range(1500):
        put(tmp_path / f"{number % 7}" / f"{number:04d}.txt", b"x")
    found = units(tmp_path, workers)
    assert len(found) == 1500
    listed = [item.name for item in Folder(tmp_path, workers).listed]
    assert listed == sorted(listed)
