"""Evidence as one file to download."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping

from datasites.errors import SiteError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def zipped(folder: str, files: Mapping[str, str]) -> bytes:
    """The files below one folder.

    Raises:
        SiteError: A name would not stay below it.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            if not _NAME.fullmatch(name):
                raise SiteError(f"`{name[:80]}` is not a file name for an evidence folder")
            archive.writestr(f"{folder}/{name}", text)
    return packed.getvalue()
