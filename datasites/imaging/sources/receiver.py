"""A source that waits for a PACS, a modality or a person to push images by C-STORE."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources.instance_uids import read_instance_uids
from datasites.imaging.sources.pacs import INSTANCE_BYTES, UNIT_BYTES, WHOLE, part_name
from datasites.imaging.sources.quiet import forget_late_events, silence_libraries
from datasites.imaging.sources.source import Item, Unit
from datasites.imaging.sources.storage import (
    ACCEPTED,
    NOT_UNDERSTOOD,
    OUT_OF_RESOURCES,
    StorageServer,
)

LOOK_S = 0.1


@dataclass
class _Arriving:
    """What came of a series so far."""

    items: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    last: float = 0.0


class Receiver:
    """Yields what is pushed, series by series, while it is iterated; nothing is stored.

    A sender's success means that the instance is in this process's memory, not that it is
    published: if the process ends, what was not yielded has to be sent again. More of a series may
    come after it was yielded, so a unit is named by its series and its instances
    (`pacs.part_name`): the same again is known, something new is not taken for it.

    Args:
        ae_title: Our own; the sender has to call it.
        port: To listen on; 0 for any that is free.
        callers: AE titles that may send.
        host: Address of this machine to listen on.
        tls: Context of a server, for DICOM over TLS.
        quiet_s: A series is complete when nothing of it came for so long.
        idle_s: Ends when nothing came at all for so long; None waits until `stop`.
        instance_bytes: Larger instances are refused.
        waiting_bytes: Instances are refused while more than this waits to be worked on. A series
            that needs more is yielded in parts.

    Raises:
        UnreadableSourceError: The port cannot be had, a title is none, or nobody may send.
    """

    kind = "DICOM receiver"
    lists_everything = False
    items: int | None = None

    def __init__(
        self,
        *,
        ae_title: str = "SITEGATE",
        port: int,
        callers: Sequence[str],
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        quiet_s: float = 10.0,
        idle_s: float | None = 600.0,
        instance_bytes: int = INSTANCE_BYTES,
        waiting_bytes: int = 2 * UNIT_BYTES,
    ) -> None:
        silence_libraries()
        forget_late_events()
        if quiet_s <= 0 or (idle_s is not None and idle_s <= 0):
            raise UnreadableSourceError("the times of a receiver are more than 0 seconds")
        self._quiet_s, self._idle_s = quiet_s, idle_s
        self._waiting_bytes, self._unit_bytes = waiting_bytes, waiting_bytes // 2
        self._arriving: dict[str, _Arriving] = {}
        self._size, self._worked_on = 0, 0
        self._last = time.monotonic()
        self._turn, self._stopped = threading.Lock(), threading.Event()
        self.refused = 0
        """How many instances were refused."""
        self._server = StorageServer(
            self._take,
            ae_title=ae_title, port=port, host=host, callers=callers, tls=tls,
            timeout_s=max(30.0, quiet_s), instance_bytes=instance_bytes,
        )  # fmt: skip

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.port

    def stop(self) -> None:
        """Take nothing more; what arrived is still yielded."""
        self._stopped.set()

    def units(self, is_done: Callable[[str], bool]) -> Iterator[Unit]:
        """What arrives, until nothing comes any more; can be iterated once."""
        try:
            while True:
                ending = self._stopped.wait(LOOK_S) or self._is_idle()
                if ending:
                    self._server.stop()
                for unit in self._complete(all_of_it=ending):
                    if not is_done(unit.name):
                        yield unit
                    with self._turn:
                        self._size -= self._worked_on
                        self._worked_on, self._last = 0, time.monotonic()
                if ending:
                    return
        finally:
            self._server.stop()

    def _take(self, content: bytes, sender: str) -> int:
        found = read_instance_uids(content)
        with self._turn:
            self._last = now = time.monotonic()
            if found is None:
                self.refused += 1
                return NOT_UNDERSTOOD
            if self._stopped.is_set() or self._size + len(content) > self._waiting_bytes:
                self.refused += 1
                return OUT_OF_RESOURCES
            series = self._arriving.setdefault(found.series, _Arriving())
            series.last = now
            if found.sop_instance not in series.items:
                series.items[found.sop_instance] = content
                series.size += len(content)
                self._size += len(content)
            return ACCEPTED

    def _is_idle(self) -> bool:
        with self._turn:
            return (
                self._idle_s is not None
                and not self._arriving
                and time.monotonic() - self._last > self._idle_s
            )

    def _complete(self, *, all_of_it: bool) -> Iterator[Unit]:
        """Takes series out that are complete, or so large that they have to be worked on."""
        while True:
            with self._turn:
                now = time.monotonic()
                ready = (
                    uid
                    for uid, series in self._arriving.items()
                    if all_of_it
                    or now - series.last > self._quiet_s
                    or series.size > self._unit_bytes
                )
                uid = next(ready, None)
                if uid is None:
                    return
                series = self._arriving.pop(uid)
                self._worked_on = series.size
            items = tuple(
                Item(sop, content=content, size=len(content))
                for sop, content in sorted(series.items.items())
            )
            yield Unit(part_name(uid, WHOLE, [item.name for item in items]), items)
