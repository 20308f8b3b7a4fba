"""Logs refusals, but not a flood of them: strangers must not be able to fill the disk."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from datasites.audit_log import AuditLog, Event

MOST_PER_MINUTE = 60


class RefusalLog:
    """The audit log, as a door writes refusals into it.

    Of one actor's refusals of one kind, `MOST_PER_MINUTE` are logged; the others are counted, and
    the next line that is logged tells how many there were.
    """

    def __init__(self, audit: AuditLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit, self._clock = audit, clock
        self._logged: dict[str, list[float]] = {}
        self._unlogged: Counter[str] = Counter()
        self._turn = threading.Lock()

    def append(self, event: Event, actor: str, subject: str, **detail: Any) -> None:
        """Log a refusal, or count it.

        Raises:
            RecordError: It cannot be written.
        """
        name, now = f"{event} {actor}", self._clock()
        with self._turn:
            recent = [t for t in self._logged.get(name, []) if now - t < 60]
            if len(recent) >= MOST_PER_MINUTE:
                self._unlogged[name] += 1
                return
            self._logged[name] = [*recent, now]
            unlogged = self._unlogged.pop(name, 0)
        if unlogged:
            detail["refusals_not_logged_before"] = unlogged
        self._audit.append(event, actor, subject, **detail)
