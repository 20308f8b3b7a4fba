"""The journal of a publishing: what was done already survives `kill -9`, and nothing is done twice.

A directory with two files. `images.bin` holds standardised images, one after the other, and is
synced before `journal.jsonl` says that they are there; a half-written end of either is cut off when
the directory is opened again. No identifier stands in it, only keyed hashes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasites.imaging.preparing import PreparedUnit, array_sha256
from datasites.imaging.problems import Reason, UnreadableSourceError


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the journal: `row` is where it lies in `images.bin`."""

    row: int
    digest: str
    label: int
    patient: str
    instance: str
    frame: int
    perceptual_hash: str
    places: Sequence[int]


class Journal:
    """An open journal; one process at a time."""

    def __init__(self, directory: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.directory, self.shape, self.dtype = directory, shape, np.dtype(dtype)
        self._row_bytes = int(np.prod(shape)) * self.dtype.itemsize
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        self._lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UnreadableSourceError(
                "the same dataset is being published by another process; wait for it"
            ) from error
        self._images = (directory / "images.bin").open("a+b")
        self._lines = (directory / "journal.jsonl").open("a+b")
        self._recover()

    def _recover(self) -> None:
        self._forget()
        self.looked_at = self.rows_written = 0
        self._units: set[str] = set()
        there = os.fstat(self._images.fileno()).st_size // self._row_bytes
        good = 0
        for line, end in self._read_lines():
            if self.rows_written + len(line["images"]) > there:
                break  # the images were cut off; this unit is read again
            self._take(line)
            good = end
        self._lines.truncate(good)
        self._lines.seek(0, os.SEEK_END)
        self._images.truncate(self.rows_written * self._row_bytes)
        self._images.seek(0, os.SEEK_END)

    def _forget(self) -> None:
        self.entries: list[Entry] = []
        self.quarantined: list[tuple[str, Reason, str]] = []
        self.actions: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()

    def keep_only(self, units: Collection[str]) -> None:
        """Leave out what was read of units that the source no longer has."""
        self._forget()
        for line, _ in self._read_lines():
            if line["unit"] in units:
                self._add(line)

    def _read_lines(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Whole lines from the start, each with the position after it."""
        self._lines.seek(0)
        end = 0
        for raw in self._lines:
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None:
                return
            end += len(raw)
            yield line, end

    def is_done(self, key: str) -> bool:
        """Whether a unit, by its key, was written before."""
        return key in self._units

    def write(self, units: list[PreparedUnit]) -> None:
        """Write what became of units, and wait until it is on the disk."""
        row = self.rows_written
        lines = []
        for unit in units:
            images = []
            for image in unit.images:
                self._images.write(np.ascontiguousarray(image.array, self.dtype).tobytes())
                digest = array_sha256(image.array)
                images.append(
                    [row, digest, image.label, image.patient, image.instance, image.frame,
                     image.perceptual_hash, list(image.places), image.header]
                )  # fmt: skip
                row += 1
            lines.append(
                {
                    "unit": unit.key,
                    "items": unit.items,
                    "images": images,
                    "quarantined": [[k, r.value, d] for k, r, d in unit.quarantined],
                    "actions": [[t, a, n] for (t, a), n in unit.actions.items()],
                    "counts": dict(unit.counts),
                }
            )
        self._images.flush()
        os.fsync(self._images.fileno())
        for line in lines:
            self._lines.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        for line in lines:
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self._units.add(line["unit"])
        self.looked_at += line["items"]
        self.rows_written += len(line["images"])
        self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        self.entries += [Entry(*image[:8]) for image in line["images"]]
        for key, reason, detail in line["quarantined"]:
            self.quarantined.append((key, Reason(reason), detail))
        for tag, action, count in line["actions"]:
            self.actions[tag, action] += count
        self.counts.update(line["counts"])

    def headers(self) -> Iterator[tuple[int, str]]:
        """Row and de-identified header (DICOM JSON) of every image, as written."""
        for line, _ in self._read_lines():
            for image in line["images"]:
                yield image[0], image[8]

    def rows(self, wanted: list[int]) -> StoredRows:
        """Some of the images, in the order wanted, read when they are looked at."""
        return StoredRows(self.directory / "images.bin", wanted, self.shape, self.dtype)

    def close(self) -> None:
        """Close the files and let go of the lock."""
        for file in (self._images, self._lines, self._lock):
            file.close()


class StoredRows:
    """Images in a file, as an array of shape (N, …) of which slices are read."""

    def __init__(
        self, path: Path, rows: list[int], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._path, self._rows, self._item, self.dtype = path, rows, shape, dtype
        self.shape = (len(rows), *shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        rows = self._rows[wanted]
        size = int(np.prod(self._item)) * self.dtype.itemsize
        images = np.empty((len(rows), *self._item), dtype=self.dtype)
        with self._path.open("rb", buffering=0) as file:
            for k, row in enumerate(rows):
                file.seek(row * size)
                images[k] = np.frombuffer(file.read(size), dtype=self.dtype).reshape(self._item)
        return images
