"""Copies of a site's directory, from which a test starts again and again."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_of(made: Path, name: str = "copy") -> Path:
    """A copy of a site that `make` made, or of such a copy, in the place of an earlier copy."""
    original = made / "site" if (made / "site").exists() else made
    folder = made.with_name(name)
    remove(folder)
    shutil.copytree(original, folder)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder if it is there, with the dataset versions in it, which are read-only."""
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
