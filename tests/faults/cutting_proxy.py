"""A TCP proxy between a researcher and a site that cuts connections, as networks do."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import StrEnum

NOW = struct.pack("ii", 1, 0)
"""SO_LINGER: a connection that is closed with it is reset."""


class Way(StrEnum):
    """How a connection ends."""

    CLOSED = "closed"
    RESET = "reset"
    HANGS = "hangs"


@dataclass(frozen=True, slots=True)
class Cut:
    """When a connection is cut.

    Attributes:
        answer: Whether bytes of the site are counted, or else those of the researcher.
        after: How many are let through, the handshake of TLS included.
        way: How it ends.
    """

    answer: bool
    after: int
    way: Way = Way.CLOSED


class CuttingProxy:
    """Passes connections on to a port, and cuts the next one where it is told to.

    Args:
        port: The site's port on loopback.
        idle_s: Connections over which nothing went for so long are cut; None cuts none.
    """

    def __init__(self, port: int, *, idle_s: float | None = None) -> None:
        self._target, self.idle_s = port, idle_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._cut: Cut | None = None
        self._hanging: list[socket.socket] = []
        self.cuts = 0
        """Connections that were cut."""
        self.sent = self.answered = 0
        """Bytes of the last connection that was passed on, in both directions."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next(self, cut: Cut) -> None:
        """Cut one connection, the next that gets so far."""
        self._cut = cut

    def close(self) -> None:
        """End the proxy."""
        self._listener.close()
        for one in self._hanging:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        try:
            site = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        self.sent = self.answered = 0
        passed, way = {client: 0, site: 0}, Way.CLOSED
        other = {client: site, site: client}
        last = time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                if (found := self._due(passed[client], passed[site])) is not None:
                    way = found
                    break
                ready, _, _ = select.select([client, site], [], [], 0.05)
                if self.idle_s is not None and time.monotonic() - last > self.idle_s:
                    self.cuts += 1
                    break
                for one in ready:
                    chunk = one.recv(self._room(one is site, passed[one]))
                    if not chunk:
                        self._end(client, site, Way.CLOSED)
                        return
                    other[one].sendall(chunk)
                    passed[one] += len(chunk)
                    self.sent, self.answered = passed[client], passed[site]
                    last = time.monotonic()
        self._end(client, site, way)

    def _due(self, sent: int, answered: int) -> Way | None:
        """How to end a connection now, None if it goes on."""
        cut = self._cut
        if cut is None or (answered if cut.answer else sent) < cut.after:
            return None
        self._cut = None
        self.cuts += 1
        return cut.way

    def _room(self, is_answer: bool, passed: int) -> int:
        """How much to read at most, so that a cut falls on its byte."""
        cut = self._cut
        left = cut.after - passed if cut and cut.answer is is_answer else 65_536
        return min(max(left, 1), 65_536)

    def _end(self, client: socket.socket, site: socket.socket, way: Way) -> None:
        if way is Way.HANGS:  # both ends believe that the connection is there
            self._hanging += [client, site]
            return
        for one in (client, site):
            if way is Way.RESET:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
            one.close()
