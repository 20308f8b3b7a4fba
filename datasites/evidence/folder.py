"""An evidence folder on disk: written whole or not at all, and read without trusting it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasites.errors import ConfigurationError
from datasites.files import sync_directory, write_private

MAXIMUM_FILES = 200
MAXIMUM_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in a folder.

    Attributes:
        files: Name -> text.
        problems: What cannot be part of evidence, a sentence each.
    """

    files: dict[str, str]
    problems: tuple[str, ...]


def write_folder(path: Path, files: Mapping[str, str]) -> None:
    """Write a folder; until it is whole it has another name.

    Raises:
        ConfigurationError: There is something at `path` already.
    """
    check_free(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.mkdir(mode=0o700, parents=True)
    try:
        for name, text in files.items():
            write_private(draft / name, text.encode())
        os.rename(draft, path)  # takes the place of an empty directory as well
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_directory(path.parent)


def check_free(path: Path) -> None:
    """Refuse a place that is taken, before anything is exported.

    Raises:
        ConfigurationError: There is something at `path` already.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigurationError(
            f"{path} is not an empty directory; evidence needs a directory of its own. Name "
            "another with --out"
        )


def read_folder(path: Path) -> Folder:
    """The files of a folder that somebody handed over.

    Raises:
        ConfigurationError: There is no such directory.
    """
    if not path.is_dir():
        raise ConfigurationError(f"there is no evidence at {path}; name the directory")
    files: dict[str, str] = {}
    problems = []
    found = sorted(path.iterdir())
    if len(found) > MAXIMUM_FILES:
        problems.append(
            f"the folder has {len(found):,} files; evidence has at most {MAXIMUM_FILES}"
        )
    for file in found[:MAXIMUM_FILES]:
        if file.is_symlink() or not file.is_file():
            problems.append(f"{file.name!r} is not a plain file")
        elif file.stat().st_size > MAXIMUM_BYTES:
            problems.append(f"{file.name!r} has more than {MAXIMUM_BYTES // 10**6} MB")
        else:
            try:
                files[file.name] = file.read_bytes().decode()
            except UnicodeDecodeError:
                problems.append(f"{file.name!r} is not text in UTF-8")
            except OSError:
                problems.append(f"{file.name!r} cannot be read")
    return Folder(files, tuple(problems))
