"""Takes instances that a PACS sends by C-STORE, in memory and within limits.

References:
    DICOM PS3.4 B (storage), PS3.7 9.1.1 (C-STORE), PS3.8 9.3 (PDUs).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt

from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources.pacs import INSTANCE_BYTES

VERIFICATION = "1.2.840.10008.1.1"
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # explicit VR big endian
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.5",  # RLE lossless
)
"""How instances may be encoded that are fetched; each is taken as it is stored."""

ACCEPTED, OUT_OF_RESOURCES, NOT_AUTHORISED, NOT_UNDERSTOOD = 0x0000, 0xA700, 0x0124, 0xC000

Take = Callable[[bytes, str], int]
"""Given a PS3.10 file and the AE title of its sender, the status to answer with."""


def check_ae_title(title: str) -> str:
    """An AE title (PS3.5 6.2).

    Raises:
        UnreadableSourceError: It is none.
    """
    if not title.strip() or len(title) > 16 or not title.isascii() or not title.isprintable():
        raise UnreadableSourceError("an AE title has 1 to 16 printable ASCII characters")
    if "\\" in title:
        raise UnreadableSourceError("an AE title has no backslash")
    return title.strip()


OF_THE_TRANSPORT = (evt.EVT_CONN_OPEN, evt.EVT_DATA_SENT, evt.EVT_DATA_RECV)


def be_prompt(event: evt.Event) -> None:
    """Handles an event of the transport: neither side waits for an acknowledgement.

    A DIMSE message is two small writes. With Nagle's algorithm on one side and delayed
    acknowledgements on the other each costs 40 ms, more than everything else of a small series.
    """
    transport: Any = getattr(event.assoc.dul.socket, "socket", None)
    quick = getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY)  # the former on Linux only
    with contextlib.suppress(OSError, AttributeError):
        for option in (socket.TCP_NODELAY, quick):
            transport.setsockopt(socket.IPPROTO_TCP, option, 1)


class ByteMeter:
    """Aborts an association that sends more than an instance may have, before it is complete.

    pynetdicom holds a message in memory until its end, and messages until they are handled.
    """

    def __init__(self, maximum_bytes: int) -> None:
        self._maximum_bytes = maximum_bytes
        self._waiting: dict[int, int] = {}

    def handlers(self) -> list[Any]:
        """What pynetdicom is to call."""
        return [(evt.EVT_PDU_RECV, self._count), (evt.EVT_CONN_CLOSE, self._forget)]

    def handled(self, event: evt.Event, size: int) -> None:
        """Say that an instance of this size left pynetdicom's memory."""
        key = id(event.assoc)
        self._waiting[key] = max(0, self._waiting.get(key, 0) - size)

    def _count(self, event: evt.Event) -> None:
        key = id(event.assoc)
        self._waiting[key] = self._waiting.get(key, 0) + event.pdu.pdu_length
        if self._waiting[key] > self._maximum_bytes:
            event.assoc.abort()

    def _forget(self, event: evt.Event) -> None:
        self._waiting.pop(id(event.assoc), None)


class StorageServer:
    """Listens for C-STORE (and C-ECHO) from AE titles that are named, and from no others."""

    def __init__(
        self,
        take: Take,
        *,
        ae_title: str,
        port: int,
        host: str,
        callers: Sequence[str],
        tls: ssl.SSLContext | None,
        timeout_s: float,
        instance_bytes: int = INSTANCE_BYTES,
    ) -> None:
        self._take, self._meter = take, ByteMeter(instance_bytes + 2**20)
        self._instance_bytes = instance_bytes
        ae = AE(ae_title=check_ae_title(ae_title))
        ae.require_calling_aet = [check_ae_title(caller) for caller in callers]
        ae.require_called_aet = True
        ae.acse_timeout = ae.dimse_timeout = timeout_s
        ae.network_timeout = timeout_s
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), list(TRANSFER_SYNTAXES))
        ae.add_supported_context(VERIFICATION)
        if not ae.require_calling_aet:
            raise UnreadableSourceError("nobody may send: name the AE title of the sender")
        try:
            server: Any = ae.start_server(
                (host, port),
                block=False,
                ssl_context=tls,
                evt_handlers=[
                    *((when, be_prompt) for when in OF_THE_TRANSPORT),
                    (evt.EVT_C_STORE, self._store),
                    *self._meter.handlers(),
                ],
            )
        except OSError:
            raise UnreadableSourceError(
                f"port {port} of {host} cannot be listened on: another program has it, or the "
                "address is not one of this machine; choose another port"
            ) from None
        self._ae, self._server = ae, server

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """End the associations and stop listening."""
        self._ae.shutdown()

    def _store(self, event: evt.Event) -> int:
        content = read_content(event)
        self._meter.handled(event, len(content))
        if len(content) > self._instance_bytes:
            return OUT_OF_RESOURCES
        return self._take(content, str(event.assoc.requestor.ae_title).strip())


def read_content(event: evt.Event) -> bytes:
    """The instance of a C-STORE as a PS3.10 file; empty if it has no data set."""
    try:
        return bytes(event.encoded_dataset())
    except (AttributeError, ValueError, TypeError):
        return b""
