"""A folder or a zip archive of DICOM files and pictures: any names, nested, never followed outside.

Files are grouped to series by their headers, which takes one pass over the beginnings of all files.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from pydicom import dcmread

from datasites.imaging.dicom_file import quietly, text
from datasites.imaging.problems import Quarantined, Reason, UnreadableSourceError
from datasites.imaging.sources.source import MAXIMUM_FILE_BYTES, Item, Unit
from datasites.imaging.workers import Workers

HEADER_BYTES = 262_144
INDEX_BATCH = 256
MAXIMUM_MEMBERS = 5_000_000
MAXIMUM_ARCHIVE_BYTES = 10**12
BOMB_RATIO, BOMB_BYTES = 200, 100_000_000


class Folder:
    """Files below a directory, and the members of zip archives in it; or one archive."""

    kind = "folder"
    lists_everything = True

    def __init__(self, path: Path, workers: Workers) -> None:
        if not path.exists():
            raise UnreadableSourceError(f"there is no folder or archive {path}")
        if path.is_file() and not zipfile.is_zipfile(path):
            raise UnreadableSourceError(
                f"{path.name} is neither a folder, a zip archive nor an .npz of arrays"
            )
        self._path, self._workers = path, workers

    @property
    def items(self) -> int:
        """How many files there are."""
        return len(self.listed)

    @cached_property
    def listed(self) -> list[Item]:
        """Every file and archive member, by name."""
        found = list(_walk(self._path) if self._path.is_dir() else _members(self._path, ""))
        if not found:
            raise UnreadableSourceError(f"there is no file in {self._path}")
        return found

    def units(self, is_done: Callable[[str], bool]) -> Iterator[Unit]:
        """The series and pictures, in the order of their first file's name."""
        series: dict[str, list[Item]] = {}
        batches = [
            self.listed[k : k + INDEX_BATCH] for k in range(0, len(self.listed), INDEX_BATCH)
        ]
        found = self._workers.map(series_of, batches, otherwise="")
        for batch, names in zip(batches, found, strict=True):
            for item, name in zip(batch, names, strict=True):
                series.setdefault(name or f"file {item.name}", []).append(item)
        for name, items in series.items():
            unit = Unit(f"{name} {_state(items)}", tuple(items))
            if not is_done(unit.name):
                yield unit


def series_of(items: list[Item]) -> list[str]:
    """The Series Instance UID of each item; empty for what is no DICOM file with a series."""
    return [_series(item) for item in items]


def _series(item: Item) -> str:
    if item.refused is not None:
        return ""
    try:
        with item.open() as file:
            start = file.read(HEADER_BYTES)
        with quietly():
            header = dcmread(
                io.BytesIO(start),
                force=True,
                stop_before_pixels=True,
                specific_tags=["SeriesInstanceUID"],
            )
    except Exception:  # whatever is wrong with it is found and named when it is read
        return ""
    return text(header, "SeriesInstanceUID")


def _state(items: list[Item]) -> str:
    """Changes when a file of a unit is added, removed or written."""
    seen = hashlib.sha256()
    for item in items:
        when = item.path.stat().st_mtime_ns if item.path and item.path.exists() else 0
        seen.update(f"{item.name}\0{item.size}\0{when}\n".encode("utf-8", "surrogateescape"))
    return seen.hexdigest()[:16]


def _walk(root: Path) -> Iterator[Item]:
    """Every file below a directory, by name; links only where they stay inside."""
    whole = root.resolve()
    closed: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=closed.append):
        folders.sort()
        for name in sorted([*names, *(f for f in folders if Path(folder, f).is_symlink())]):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            top = relative.split("/")[0] if "/" in relative else None
            try:
                target = path.resolve(strict=True)
                state = path.stat()
            except (OSError, RuntimeError):  # a link in a circle is a RuntimeError
                yield Item(relative, refused=Quarantined(Reason.BROKEN, "a link to nothing"))
                continue
            if not target.is_relative_to(whole):
                yield Item(
                    relative,
                    refused=Quarantined(Reason.OUTSIDE, "a link that leads out of the folder"),
                )
            elif stat.S_ISREG(state.st_mode):
                if name.lower().endswith(".zip") and zipfile.is_zipfile(path):
                    yield from _members(path, f"{relative}/")
                else:
                    refused = _check_size(state.st_size)
                    yield Item(relative, path=path, size=state.st_size, folder=top, refused=refused)
            elif not stat.S_ISDIR(state.st_mode):
                yield Item(relative, refused=Quarantined(Reason.NOT_AN_IMAGE, "not a plain file"))
    for error in closed:
        name = os.path.relpath(str(error.filename), root)
        yield Item(name, refused=Quarantined(Reason.BROKEN, "a folder that cannot be read"))


def _check_size(size: int) -> Quarantined | None:
    if size <= MAXIMUM_FILE_BYTES:
        return None
    return Quarantined(Reason.TOO_LARGE, f"over {MAXIMUM_FILE_BYTES:,} bytes")


def _members(path: Path, prefix: str) -> Iterator[Item]:
    """The members of an archive; those that would lead out of it or burst are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except (
        OSError,
        zipfile.BadZipFile,
        NotImplementedError,  # zipfile's word for an archive of a newer version
        ValueError,  # names that are not UTF-8 where the archive says that they are
    ):
        damaged = Quarantined(Reason.BROKEN, "a damaged zip archive")
        yield Item(prefix or path.name, refused=damaged)
        return
    total = sum(member.file_size for member in members)
    if len(members) > MAXIMUM_MEMBERS or total > MAXIMUM_ARCHIVE_BYTES:
        burst = Quarantined(
            Reason.TOO_LARGE,
            f"an archive that unpacks to {len(members):,} files, {total:,} bytes; at most "
            f"{MAXIMUM_MEMBERS:,} files and {MAXIMUM_ARCHIVE_BYTES:,} bytes are read",
        )
        yield Item(prefix or path.name, refused=burst)
        return
    for member in sorted(members, key=lambda m: m.filename):
        name = PurePosixPath(member.filename.replace("\\", "/"))
        refused = None
        if name.is_absolute() or ".." in name.parts:
            refused = Quarantined(Reason.OUTSIDE, "an archive member that leads out of it")
        elif member.flag_bits & 1:
            refused = Quarantined(Reason.BROKEN, "an encrypted archive member")
        elif member.file_size > max(BOMB_BYTES, BOMB_RATIO * member.compress_size):
            refused = Quarantined(
                Reason.TOO_LARGE,
                f"an archive member that unpacks to more than {BOMB_RATIO} times its size",
            )
        else:
            refused = _check_size(member.file_size)
        parts = (*PurePosixPath(prefix).parts[:-1], *name.parts)
        top = parts[0] if len(parts) > 1 else None
        yield Item(
            prefix + member.filename, path=path, member=member.filename, size=member.file_size,
            folder=top, refused=refused,
        )  # fmt: skip
