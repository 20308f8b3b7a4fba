"""One process at a time changes a site's state."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from datasites.errors import ConfigurationError


@contextlib.contextmanager
def only_one(lock: Path, otherwise: str) -> Iterator[None]:
    """Hold the site's lock; the file says which process does.

    Args:
        lock: The file.
        otherwise: What to tell somebody when another process holds it.

    Raises:
        ConfigurationError: Another process holds it.
    """
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(otherwise) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
