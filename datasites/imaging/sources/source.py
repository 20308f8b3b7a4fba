"""What every source is: it yields units, and a unit holds the items that are looked at together.

Names of items and units identify patients (paths, UIDs). They are never kept in clear: whoever
writes them down takes a keyed hash first (`datasites.imaging.pseudonyms`).
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from datasites.imaging.problems import Quarantined

MAXIMUM_FILE_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Item:
    """One file, archive member or fetched instance that was not parsed yet.

    Attributes:
        name: Path relative to the source (`/` between parts), or the SOP Instance UID.
        path: The file, or the archive that holds `member`.
        member: Name inside the zip archive `path`.
        content: The bytes of a DICOM file (PS3.10) that was fetched from a PACS.
        size: Bytes, as far as they are known before reading.
        folder: The folder at the top of the source that it lies in, which may name its class.
        refused: Why it must not even be opened.
    """

    name: str
    path: Path | None = None
    member: str | None = None
    content: bytes | None = None
    size: int = 0
    folder: str | None = None
    refused: Quarantined | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, to read from its start.

        Raises:
            OSError: It cannot be read, or is no longer there.
            zipfile.BadZipFile: The archive is damaged at this member.
        """
        if self.content is not None:
            yield io.BytesIO(self.content)
        elif self.path is None:
            raise FileNotFoundError("the item has neither a path nor content")
        elif self.member is None:
            with self.path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield cast(BinaryIO, member)

    def read(self) -> bytes:
        """The whole file; raises as `open`."""
        if self.content is not None:
            return self.content
        with self.open() as file:
            return file.read(MAXIMUM_FILE_BYTES)


@dataclass(frozen=True, slots=True)
class Unit:
    """What is processed together and journalled at once: a DICOM series, or one picture.

    Attributes:
        name: Names it, and changes when its files do.
        items: At least one.
    """

    name: str
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes of all its items, as far as they are known."""
        return sum(len(item.content) if item.content else item.size for item in self.items)


class Source(Protocol):
    """A place where images are; it is only read."""

    @property
    def kind(self) -> str:
        """What it is, in words that identify nobody: `DICOM folder`, `PACS over DICOMweb`."""

    @property
    def items(self) -> int | None:
        """How many items it has, as far as that is known; for progress."""

    @property
    def lists_everything(self) -> bool:
        """Whether `units` asks of every unit there is whether it is done; a receiver cannot."""

    def units(self, is_done: Callable[[str], bool]) -> Iterator[Unit]:
        """Every unit whose name is not done yet, each once; what is fetched is fetched lazily.

        Raises:
            UnreadableSourceError: The source is not what it should be.
            SourceLostError: It stopped answering; the units so far are good.
        """
