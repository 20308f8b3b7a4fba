"""Silences the libraries that write UIDs, names and addresses of requests to the log."""

from __future__ import annotations

import logging
import threading

_TALKATIVE = ("pynetdicom", "dicomweb_client", "urllib3", "requests", "retrying")


def silence_libraries() -> None:
    """Let nothing of them through, whatever level the root logger or a test has.

    pynetdicom logs the identifiers of C-FIND at INFO and data sets at DEBUG, dicomweb-client the
    UIDs that it retrieves at INFO, urllib3 each path at DEBUG. A logger below one of these
    inherits the level, unless it was given one of its own: those are reset.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.NOTSET)
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False


def forget_late_events() -> None:
    """Drop what pynetdicom 3.0.4 raises in its thread when a peer's event comes after the end.

    The association is over then, and whoever waits for it is told so by an error of its own.
    """
    from pynetdicom.fsm import InvalidEventError

    before = threading.excepthook

    def forget(told: threading.ExceptHookArgs) -> None:
        if not issubclass(told.exc_type, InvalidEventError):
            before(told)

    if getattr(before, "__name__", "") != forget.__name__:
        threading.excepthook = forget
