"""Files made or damaged to hurt: each is an image or in quarantine with a reason, none is lost."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pebble import ProcessExpired
from PIL import Image
from pydicom import Dataset, config
from pydicom.uid import RLELossless

from datasites.imaging.dicom_file import check_image, parse_dicom, quietly, text
from datasites.imaging.labels import Labels
from datasites.imaging.preparing import PreparedUnit, Settings, prepare
from datasites.imaging.problems import Quarantined, Reason, UnreadableSourceError
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.scan import look
from datasites.imaging.sources.folder import Folder, series_of
from datasites.imaging.sources.source import MAXIMUM_FILE_BYTES, Item, Unit
from datasites.imaging.standardise import Standardisation
from datasites.imaging.workers import Workers
from dicom_samples import as_bytes, bundled_files, mutate, sample

MUTANTS = 2000
SECRET = b"s" * 32
SETTINGS = Settings(
    standardisation=Standardisation(size=28),
    labels=Labels(("good", "bad")),
    options=(),
    search_text=False,
    suspect_modalities=(),
    allow_heads=True,
    patient_per_file=True,
    secret=SECRET,
)
Verdict = tuple[str, str]
"""Reason and detail; `("image", "")` for what is published."""


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as made:
        yield made


def good(number: int = 0, **changes: Any) -> Dataset:
    return sample(seed=number, **changes)


def write(path: Path, image: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_bytes(image))
    return path


def verdicts(folder: Path, workers: Workers) -> dict[str, list[Verdict]]:
    """What became of each file; every file is a series of its own."""
    units = list(Folder(folder, workers).units(lambda _: False))
    return verdicts_of(units, workers)


def verdicts_of(units: list[Unit], workers: Workers) -> dict[str, list[Verdict]]:
    pseudonyms = Pseudonyms(SECRET)
    name_of = {pseudonyms.key("unit", unit.name): unit.items[0].name for unit in units}
    assert len(name_of) == len(units)
    found: dict[str, list[Verdict]] = {}
    for batch in workers.prepare(iter(units), SETTINGS):
        for unit in batch:
            assert name_of[unit.key] not in found, "done twice"
            found[name_of[unit.key]] = verdicts_in(unit)
    assert set(found) == set(name_of.values()), "lost"
    return found


def verdicts_in(unit: PreparedUnit) -> list[Verdict]:
    return [("image", "")] * len(unit.images) + [(r.value, d) for _, r, d in unit.quarantined]


# --- pydicom's files, whole and damaged --------------------------------------------------------


def values_of(content: bytes) -> set[str]:
    """Values of a file that would name someone."""
    found: set[str] = set()
    with contextlib.suppress(Quarantined), quietly():
        dataset = parse_dicom(content, pixels=False)
        for keyword in (
            *("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "PatientSex"),
            *("SOPInstanceUID", "InstitutionName", "StudyDescription", "AccessionNumber"),
            *("StudyDate", "PatientBirthDate", "Manufacturer", "ReferringPhysicianName"),
        ):
            found.add(text(dataset, keyword))
    return {value for value in found if len(value) >= 5}


@pytest.fixture(scope="module")
def damaged() -> dict[str, bytes]:
    """pydicom's files, and mutants of them, half of these from files with pixels."""
    files = {path.name: path.read_bytes() for path in bundled_files()}
    with_pixels = []
    for name, content in files.items():
        with contextlib.suppress(Quarantined):
            image = parse_dicom(content)
            check_image(image)
            if text(image, "PatientID"):
                with_pixels.append(name)
    assert len(files) >= 150
    assert len(with_pixels) >= 60
    rng = np.random.default_rng(3)
    made = {f"good/{name}": content for name, content in files.items()}
    for number in range(MUTANTS):
        pool = with_pixels if number % 2 else list(files)
        name = pool[int(rng.integers(len(pool)))]
        made[f"good/{number} {name}"] = mutate(files[name], rng)
    return made


@pytest.fixture(scope="module")
def judged(damaged: dict[str, bytes], workers: Workers) -> dict[str, list[Verdict]]:
    units = [
        Unit(name, (Item(name, content=content, folder="good"),))
        for name, content in damaged.items()
    ]
    return verdicts_of(units, workers)


def test_every_file_of_pydicom_and_every_damaged_one_is_an_image_or_in_quarantine(judged, damaged):
    assert len(judged) == len(damaged) >= MUTANTS + 150
    assert [name for name, found in judged.items() if not found] == []
    for name, found in judged.items():
        reasons = {reason for reason, _ in found}
        assert reasons <= {"image", *(r.value for r in Reason)}, name
        assert all(detail for reason, detail in found if reason != "image"), name
    assert sum(found[0][0] == "image" for found in judged.values()) > 200


def test_no_file_of_pydicom_ends_or_stops_its_worker(judged):
    ended = {
        name: detail
        for name, found in judged.items()
        for _, detail in found
        if re.search(r"crashes|come to an end", detail)
    }
    assert ended == {}


def test_no_reason_tells_a_value_of_the_file(judged, damaged):
    for name, found in list(judged.items())[::2]:
        values = values_of(damaged[name])
        for _, detail in found:
            assert not any(value in detail for value in values), (name, detail)
            assert name == "good/DICOMDIR" or name.split("/")[1] not in detail


def test_the_index_and_the_scan_end_with_every_damaged_file(damaged, workers):
    items = [Item(name, content=content) for name, content in damaged.items()]
    batches = [items[k : k + 256] for k in range(0, len(items), 256)]
    named = [n for batch in workers.map(series_of, batches, otherwise=None) for n in batch]
    looked = [
        one
        for b in workers.map(partial(look, suspects=()), batches[::5], otherwise=None)
        for one in b
    ]
    assert len(named) == len(items)
    assert len(looked) == sum(len(batch) for batch in batches[::5])
    assert None not in named
    assert None not in looked


def test_pydicoms_own_files_in_a_folder_are_all_counted(tmp_path, workers):
    """By the folder, that is: many files of one series, and of one SOP instance, among them."""
    names = []
    for number, path in enumerate(bundled_files()):
        names.append(f"good/{number}-{path.name}")
        (tmp_path / names[-1]).parent.mkdir(exist_ok=True)
        (tmp_path / names[-1]).write_bytes(path.read_bytes())
    source = Folder(tmp_path, workers)
    units = list(source.units(lambda _: False))
    assert sum(len(unit.items) for unit in units) == source.items >= len(names)
    found = [unit for batch in workers.prepare(units, SETTINGS) for unit in batch]
    assert sum(unit.items for unit in found) == source.items
    left_out = sum(len(unit.quarantined) for unit in found)
    published = sum(len({i.instance for i in unit.images}) for unit in found)
    assert left_out + published <= source.items


# --- headers that lie --------------------------------------------------------------------------


def lying(**claims: Any) -> bytes:
    image = good()
    for keyword, value in claims.items():
        setattr(image, keyword, value)
    return as_bytes(image)


def deflated_bomb() -> bytes:
    """2 MB that inflate to 2 GB."""
    meta = b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
    head = bytes(128) + b"DICM\x02\0\0\0UL\x04\0" + struct.pack("<I", len(meta)) + meta
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(2**24)) for _ in range(128))
    return head + bomb + packer.flush()


def png(width: int, height: int) -> bytes:
    """A black 1-bit PNG of any size, small as a file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(content, "JPEG")
    return content.getvalue()


LIES = {
    "65,535 x 65,535 pixels": (
        lying(Rows=65_535, Columns=65_535),
        "too large",
        "65,535 x 65,535 pixels; at most 100,000,000",
    ),
    "a thousand million frames": (
        lying(NumberOfFrames=10**9),
        "too large",
        "1,000,000,000 frames; at most 20,000",
    ),
    "just too many pixels": (lying(Rows=10_001, Columns=10_000), "too large", "10,001 x 10,000"),
    "as many pixels as are read": (
        lying(Rows=10_000, Columns=10_000),
        "broken file",
        "the pixels cannot be decoded",
    ),
    "too much when decoded": (
        lying(Rows=10_000, Columns=10_000, NumberOfFrames=21),
        "too large",
        "4 GB",
    ),
    "more frames than there are": (
        lying(NumberOfFrames=3),
        "broken file",
        "the pixels cannot be decoded",
    ),
    "no rows": (lying(Rows=0), "broken file", "Rows is missing or is no number"),
    "negative frames": (lying(NumberOfFrames=-5), "broken file", "number of frames"),
    "rescale by nothing": (lying(RescaleSlope=0, RescaleIntercept=0), "broken file", "slope is 0"),
    "a deflated bomb": (deflated_bomb(), "too large", "inflates to more than 1,000,000,000 bytes"),
    "no patient": (lying(PatientID=""), "no patient", "(0010,0020) is empty"),
    "an empty file": (b"", "not an image", "not a DICOM file"),
    "half a file": (as_bytes(good())[:700], "broken file", ""),
    "text": (b"Smith, John\n" * 40, "not an image", "not a DICOM file"),
    "a large PNG": (png(30_000, 30_000), "too large", "pixels"),
    "a PNG of just too many pixels": (png(10_001, 10_000), "too large", "10,001 x 10,000"),
    "half a PNG": (png(64, 64)[:50], "broken file", "the PNG cannot be decoded"),
    "half a JPEG": (jpeg()[:400], "broken file", "the JPEG cannot be decoded"),
    "a whole JPEG": (jpeg(), "image", ""),
}


@pytest.fixture(scope="module")
def lies(workers: Workers) -> Mapping[str, list[Verdict]]:
    units = [
        Unit(name, (Item(name, content=content, folder="good", size=len(content)),))
        for name, (content, _, _) in LIES.items()
    ]
    return verdicts_of(units, workers)


@pytest.mark.parametrize("what", LIES)
def test_a_header_that_lies_is_refused_in_a_sentence(lies, what):
    _, reason, words = LIES[what]
    ((found, detail),) = lies[what]
    assert (found, words in detail) == (reason, True), detail


@pytest.mark.parametrize("keyword", ["NumberOfFrames", "Rows", "RescaleSlope", "PatientID"])
@pytest.mark.parametrize("vr", [b"I[", b"\0\0", b"SQ", b"FD", b"AT"])
def test_an_element_of_an_unknown_kind_is_an_image_or_in_quarantine(keyword, vr):
    """pydicom converts a value when it is asked for, and raises what it likes."""
    image = good(frames=2, modality="XA", rescale=(1.0, 0.0))
    tag = struct.pack("<HH", image[keyword].tag.group, image[keyword].tag.element)
    content = as_bytes(image)
    at = content.index(tag + image[keyword].VR.encode())
    content = content[: at + 4] + vr + content[at + 6 :]
    item = Item("x", content=content, folder="good")
    (unit,) = prepare([Unit("x", (item,))], SETTINGS)
    assert unit.images or unit.quarantined
    assert look([item], ())
    assert series_of([item])


def test_a_name_in_the_modality_is_not_repeated(workers):
    content = lying(Modality="SMITH")
    unit = Unit("x", (Item("x", content=content, folder="good"),))
    ((reason, detail),) = verdicts_of([unit], workers)["x"]
    assert reason == "not supported"
    assert "SMITH" not in detail
    (seen,) = look([Item("x", content=content)], ())
    assert "SMITH" not in repr(seen)


def test_words_in_one_frame_send_all_frames_of_the_file_to_quarantine(monkeypatch):
    """A cine with a name in it shows the name in other frames too, where it is read less well."""

    class Search:
        version = "a search that reads words in the second image only"

        def count_words(self, images: list[Any]) -> list[int]:
            return [int(k == 1) for k in range(len(images))]

    monkeypatch.setattr("datasites.imaging.preparing.find_tesseract", Search)
    settings = Settings(
        **{
            **{name: getattr(SETTINGS, name) for name in Settings.__slots__},
            "search_text": True,
            "secret": b"t" * 32,
        }
    )
    content = as_bytes(good(modality="XA", frames=4))
    (unit,) = prepare([Unit("x", (Item("x", content=content, folder="good"),))], settings)
    assert unit.images == []
    assert {reason for _, reason, _ in unit.quarantined} == {Reason.TEXT_FOUND}


# --- archives ----------------------------------------------------------------------------------


def archive(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def test_members_that_lead_out_or_are_encrypted_are_refused_and_the_others_read(tmp_path, workers):
    images = [as_bytes(good(k)) for k in range(6)]
    path = archive(
        tmp_path / "all.zip",
        {
            "good/0.dcm": images[0],
            "../outside.dcm": images[1],
            "/etc/outside.dcm": images[2],
            "good/../../outside.dcm": images[3],
            "good\\..\\..\\outside.dcm": images[4],
            "good/secret.dcm": images[5],
        },
    )
    content = path.read_bytes()
    for signature, name_at, flag_at in ((b"PK\3\4", 30, 6), (b"PK\1\2", 46, 8)):
        for found in re.finditer(re.escape(signature), content):
            start = found.start()
            if content[start + name_at :].startswith(b"good/secret.dcm"):
                flag = content[start + flag_at] | 1
                content = (
                    content[: start + flag_at] + bytes([flag]) + content[start + flag_at + 1 :]
                )
    path.write_bytes(content)
    found = verdicts(path, workers)
    assert found.pop("good/0.dcm") == [("image", "")]
    assert found.pop("good/secret.dcm") == [("broken file", "an encrypted archive member")]
    assert len(found) == 4
    assert {v for f in found.values() for v in f} == {
        ("outside the source", "an archive member that leads out of it")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"all.zip"}


def test_a_zip_bomb_is_refused_and_its_neighbours_are_read(tmp_path, workers):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        made.writestr("good/0.dcm", as_bytes(good()))
        with made.open("good/bomb.dcm", "w") as member:
            for _ in range(40):
                member.write(bytes(2**24))
    found = verdicts(tmp_path / "x.zip", workers)
    assert found["good/0.dcm"] == [("image", "")]
    ((reason, detail),) = found["good/bomb.dcm"]
    assert (reason, "200 times its size" in detail) == ("too large", True)


def test_an_archive_within_an_archive_is_not_opened(tmp_path, workers):
    inner = archive(tmp_path / "inner.zip", {"good/0.dcm": as_bytes(good())})
    path = archive(tmp_path / "outer" / "x.zip", {"good/inner.zip": inner.read_bytes()})
    assert verdicts(path, workers)["good/inner.zip"][0][0] == "not an image"


def spoil_directory(content: bytes) -> bytes:
    """An archive whose list of members is damaged, so that none can be found."""
    at = content.rindex(b"PK\1\2")
    return content[:at] + b"XX" + content[at + 2 :]


def spoil_name(content: bytes) -> bytes:
    """An archive with a name that says it is UTF-8 and is not."""
    content = content.replace("nü.dcm".encode(), b"n\xff\xff.dcm")
    return content


@pytest.mark.parametrize("spoil", [spoil_directory, spoil_name, lambda c: c[: len(c) // 2]])
def test_a_damaged_archive_among_good_files_is_in_quarantine(tmp_path, workers, spoil):
    write(tmp_path / "good" / "0.dcm", good())
    whole = archive(tmp_path / "good" / "smith.zip", {"good/nü.dcm": as_bytes(good(1))})
    whole.write_bytes(spoil(whole.read_bytes()))
    found = verdicts(tmp_path, workers)
    assert found.pop("good/0.dcm") == [("image", "")]
    (left,) = found.values()
    assert left[0][0] in ("broken file", "not an image")


def test_a_damaged_member_takes_none_of_the_others_along(tmp_path, workers):
    path = archive(tmp_path / "x.zip", {f"good/{k}.dcm": as_bytes(good(k)) for k in range(3)})
    content = bytearray(path.read_bytes())
    at = content.index(b"good/1.dcm") + 200
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    found = verdicts(path, workers)
    assert [found[f"good/{k}.dcm"][0][0] for k in range(3)] == ["image", "broken file", "image"]


def test_an_empty_archive_and_an_empty_folder_are_refused_in_a_sentence(tmp_path, workers):
    for path in (archive(tmp_path / "x.zip", {}), tmp_path / "empty"):
        if path.suffix != ".zip":
            path.mkdir()
        with pytest.raises(UnreadableSourceError, match="there is no file in"):
            list(Folder(path, workers).units(lambda _: False))


# --- links, devices, files that go away --------------------------------------------------------


@pytest.fixture
def twisted(tmp_path: Path) -> Path:
    """A folder with links and things that are no files, and one good image."""
    outside = tmp_path / "outside"
    write(outside / "smith.dcm", good(9))
    folder = tmp_path / "folder"
    write(folder / "good" / "0.dcm", good())
    (folder / "good" / "out.dcm").symlink_to(outside / "smith.dcm")
    (folder / "good" / "up.dcm").symlink_to("../../outside/smith.dcm")
    (folder / "good" / "dir").symlink_to(outside)
    (folder / "good" / "loop").symlink_to(folder)
    (folder / "good" / "nothing.dcm").symlink_to(outside / "not there")
    (folder / "good" / "zero.dcm").symlink_to("/dev/zero")
    os.mkfifo(folder / "good" / "pipe.dcm")
    (folder / "good" / "empty.dcm").touch()
    return folder


TWISTED = {
    "good/0.dcm": "image",
    "good/out.dcm": "outside the source",
    "good/up.dcm": "outside the source",
    "good/dir": "outside the source",
    "good/nothing.dcm": "broken file",
    "good/zero.dcm": "outside the source",
    "good/pipe.dcm": "not an image",
    "good/empty.dcm": "not an image",
}


def test_links_out_of_the_folder_and_devices_are_refused_each_in_a_sentence(twisted, workers):
    found = verdicts(twisted, workers)
    assert {name: v[0][0] for name, v in found.items()} == TWISTED
    assert found["good/out.dcm"] == [("outside the source", "a link that leads out of the folder")]


def test_the_scan_of_a_twisted_folder_ends_with_a_table_and_names_nothing(twisted):
    from typer.testing import CliRunner

    from datasites.cli import app

    done = CliRunner().invoke(app, ["dataset", "scan", str(twisted)], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "8 files" in done.stdout
    assert "outside the source" in done.stdout
    assert not re.search(r"Traceback|smith|\.dcm", done.output)


def test_a_link_that_stays_inside_is_read(tmp_path, workers):
    write(tmp_path / "good" / "0.dcm", good())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "link.dcm").symlink_to(tmp_path / "good" / "0.dcm")
    units = list(Folder(tmp_path, workers).units(lambda _: False))
    assert sorted(item.name for unit in units for item in unit.items) == [
        "bad/link.dcm",
        "good/0.dcm",
    ]


def test_a_link_to_itself_is_refused(tmp_path, workers):
    write(tmp_path / "good" / "0.dcm", good())
    (tmp_path / "good" / "me.dcm").symlink_to("me.dcm")
    assert verdicts(tmp_path, workers)["good/me.dcm"][0][0] == "broken file"


def test_a_file_of_more_bytes_than_are_read_is_refused_unread(tmp_path, workers):
    write(tmp_path / "good" / "0.dcm", good())
    with (tmp_path / "good" / "large.dcm").open("wb") as file:
        file.truncate(MAXIMUM_FILE_BYTES + 1)
    (large,) = (i for i in Folder(tmp_path, workers).listed if i.name == "good/large.dcm")
    assert large.refused is not None
    assert large.refused.reason is Reason.TOO_LARGE


def test_files_that_go_away_or_change_while_they_are_read_cost_only_themselves(tmp_path, workers):
    for number in range(4):
        write(tmp_path / "good" / f"{number}.dcm", good(number))
    units = list(Folder(tmp_path, workers).units(lambda _: False))
    (tmp_path / "good" / "1.dcm").unlink()
    (tmp_path / "good" / "2.dcm").write_bytes(b"something else")
    (tmp_path / "good" / "3.dcm").unlink()
    (tmp_path / "good" / "3.dcm").mkdir()
    found = verdicts_of(units, workers)
    assert [found[f"good/{k}.dcm"][0] for k in range(4)] == [
        ("image", ""),
        ("broken file", "the file cannot be read"),
        ("not an image", "not a DICOM file"),
        ("broken file", "the file cannot be read"),
    ]


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_in_quarantine(tmp_path):
    path = write(tmp_path / "good" / "0.dcm", good())
    unit = Unit("x", (Item("good/0.dcm", path=path, folder="good"),))
    assert verdicts_in(prepare([unit], SETTINGS)[0]) == [("image", "")]
    path.chmod(0)
    with as_nobody():
        (found,) = prepare([unit], SETTINGS)
    assert verdicts_in(found) == [("broken file", "the file cannot be read")]


def test_a_directory_that_may_not_be_read_is_told(tmp_path, workers, monkeypatch):
    write(tmp_path / "good" / "0.dcm", good())
    closed = write(tmp_path / "closed" / "1.dcm", good(1)).parent
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with contextlib.suppress(UnreadableSourceError):
        listed = Folder(tmp_path, workers).listed
        assert [item.name for item in listed if item.refused] == ["closed"]


# --- workers that die --------------------------------------------------------------------------


def children(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        return {int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def worker_processes() -> set[int]:
    """The processes of the pools of this process: children of a forkserver."""
    return {worker for server in children(os.getpid()) for worker in children(server)}


def slow(number: int, frames: int = 60) -> Dataset:
    """A file that takes a worker about a second."""
    rng = np.random.default_rng(number)
    values = rng.integers(0, 4096, (frames, 256, 256))
    return sample(
        modality="XA", frames=frames, rows=256, columns=256, values=values, seed=number,
        transfer_syntax=RLELossless,
    )  # fmt: skip


@pytest.mark.parametrize("files", [6, 1])
def test_a_worker_killed_from_outside_loses_no_file_and_blames_none(tmp_path, files):
    with config.disable_value_validation():
        for number in range(files):
            write(tmp_path / "good" / f"{number}.dcm", slow(number))
    before = worker_processes()
    killed: list[int] = []

    def kill_one() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for pid in worker_processes() - before:
                if _is_busy(pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.01)

    with Workers(1) as workers:
        units = list(Folder(tmp_path, workers).units(lambda _: False))
        killer = threading.Thread(target=kill_one)
        killer.start()
        found = verdicts_of(units, workers)
        killer.join()
    assert len(killed) == 1
    assert found == {f"good/{k}.dcm": [("image", "")] * 60 for k in range(files)}


def _is_busy(pid: int) -> bool:
    """Whether it has computed for a tenth of a second since it was seen first."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        start = _seen.setdefault(pid, ticks)
        return ticks - start >= 0.1 * os.sysconf("SC_CLK_TCK")
    return False


_seen: dict[int, int] = {}


def test_an_error_that_nobody_thought_of_costs_only_the_item_that_it_is_about(workers):
    by_number = partial(sorted, key=int)
    found = workers.map(by_number, [["1", "Quillfeather", "3"], ["4"]], otherwise=None)
    assert list(found) == [["1", None, "3"], ["4"]]


def test_an_error_that_nobody_thought_of_puts_the_culprit_into_quarantine(monkeypatch):
    items = [Item(n, content=as_bytes(good(k)), folder="good") for k, n in enumerate("abc")]

    def schedule(self: Workers, batch: list[Unit], settings: Settings) -> Future[Any]:
        future: Future[Any] = Future()
        if any(item.name == "b" for unit in batch for item in unit.items):
            future.set_exception(ValueError("Quillfeather"))
        else:
            future.set_result(prepare(batch, settings))
        return future

    monkeypatch.setattr(Workers, "_schedule", schedule)
    with Workers(1) as own:
        found = [u for batch in own.prepare([Unit("u", tuple(items))], SETTINGS) for u in batch]
    (unit,) = found
    assert len(unit.images) == 2
    ((_, reason, detail),) = unit.quarantined
    assert reason is Reason.BROKEN
    assert "Quillfeather" not in detail


def test_what_is_left_of_a_unit_whose_worker_dies_again_and_again_is_in_quarantine(monkeypatch):
    """Alone only `b` ends its worker; without it the rest ends one, too."""
    items = tuple(
        Item(name, content=as_bytes(good(k)), folder="good") for k, name in enumerate("abc")
    )

    def schedule(self: Workers, batch: list[Unit], settings: Settings) -> Future[Any]:
        future: Future[Any] = Future()
        names = [item.name for unit in batch for item in unit.items]
        if len(names) > 1 or "b" in names:
            future.set_exception(ProcessExpired("died", -9))
        else:
            future.set_result(prepare(batch, settings))
        return future

    monkeypatch.setattr(Workers, "_schedule", schedule)
    with Workers(1) as workers:
        ((unit,),) = workers.prepare([Unit("u", items)], SETTINGS)
    assert unit.items == 3
    assert len(unit.images) + len(unit.quarantined) == 3
    assert len({key for key, _, _ in unit.quarantined} | {i.instance for i in unit.images}) == 3
