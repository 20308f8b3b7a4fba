"""One process at a time changes a site's state."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from datasites.errors import ConfigurationError


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold the site's lock.

    Raises:
        ConfigurationError: Another process holds it.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                "this site runs already; stop it first (SIGTERM to its process)"
            ) from error
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
