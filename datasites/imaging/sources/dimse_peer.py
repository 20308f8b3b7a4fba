"""Associations with a PACS: made, kept in order, ended; and why there is none, in a sentence.

References:
    DICOM PS3.8 9.3.4 (rejection), PS3.15 B.9 (TLS).
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ

from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources.pacs import INSTANCE_BYTES
from datasites.imaging.sources.patience import UnavailableError
from datasites.imaging.sources.storage import (
    NOT_AUTHORISED,
    OF_THE_TRANSPORT,
    ByteMeter,
    be_prompt,
    check_ae_title,
    read_content,
)

CONNECT_S = 10.0
NOBODY = "no DICOM connection with the PACS (check its host name and port, and that it is running)"
_CALLING_UNKNOWN, _CALLED_UNKNOWN = (1, 3), (1, 7)


class Peer:
    """Makes associations with the PACS, and says in sentences why there is none."""

    def __init__(
        self,
        host: str,
        port: int,
        called_ae: str,
        calling_ae: str,
        *,
        tls: ssl.SSLContext | None,
        timeout_s: float,
    ) -> None:
        if not 0 < port < 2**16:
            raise UnreadableSourceError("a DICOM port is a number from 1 to 65535, often 104")
        self._host, self._port, self._tls = host, port, tls
        self.called, self.calling = check_ae_title(called_ae), check_ae_title(calling_ae)
        self._ae = AE(ae_title=self.calling)
        self._ae.connection_timeout = min(CONNECT_S, timeout_s)
        self._ae.acse_timeout = self._ae.dimse_timeout = timeout_s
        self._ae.network_timeout = timeout_s
        self._meter = ByteMeter(INSTANCE_BYTES + 2**20)
        self._open: set[Association] = set()
        self._is_reachable = False

    @contextmanager
    def association(
        self,
        contexts: Sequence[Any],
        store: Callable[[bytes], int] | None = None,
        roles: Sequence[Any] = (),
    ) -> Iterator[Association]:
        """An association for the contexts, ended afterwards.

        Raises:
            UnavailableError: The PACS does not answer, or is busy.
            UnreadableSourceError: It refuses.
        """
        association = self.associate(contexts, store, roles)
        try:
            yield association
        finally:
            self.end(association)

    def associate(
        self,
        contexts: Sequence[Any],
        store: Callable[[bytes], int] | None = None,
        roles: Sequence[Any] = (),
    ) -> Association:
        """As `association`; to be given to `end`."""
        if not self._is_reachable:
            self._reach()
        self._is_reachable = False
        connected = threading.Event()

        def take(event: evt.Event) -> int:
            content = read_content(event)
            self._meter.handled(event, len(content))
            return store(content) if store else NOT_AUTHORISED

        # A peer may close the connection right after its refusal; pynetdicom then calls the
        # association aborted, whatever the refusal said.
        refusals: list[Any] = []

        def keep(event: Any) -> None:
            if isinstance(event.pdu, A_ASSOCIATE_RJ):
                refusals.append(event.pdu.to_primitive())

        handlers = [
            (evt.EVT_PDU_RECV, keep),
            (evt.EVT_CONN_OPEN, lambda _: connected.set()),
            *((when, be_prompt) for when in OF_THE_TRANSPORT),
            *self._meter.handlers(),
        ]
        if store:
            handlers.append((evt.EVT_C_STORE, take))
        try:
            association = self._ae.associate(
                self._host,
                self._port,
                contexts=list(contexts),
                ae_title=self.called,
                ext_neg=list(roles),
                tls_args=(self._tls, self._host) if self._tls else None,
                evt_handlers=handlers,
            )
        except (OSError, UnicodeError, RuntimeError, TypeError, ValueError):
            raise UnavailableError(NOBODY) from None
        if association.is_established:
            _keep_messages_for_caller(association)
            self._open.add(association)
            self._is_reachable = True
            return association
        if refusals:
            self._explain_rejection(refusals[0])
        if not connected.is_set():
            raise UnavailableError(NOBODY)
        raise UnavailableError(
            "the PACS broke the association off before it began (it may want TLS, or none, or not "
            f"know the AE title {self.calling}, or offer no search)"
        )

    def end(self, association: Association) -> None:
        """Release an association, or abort it if it does not answer."""
        if association.is_established:
            association.release()
        if association.is_established:
            association.abort()
        self._open.discard(association)

    def abort_all(self) -> None:
        """End every association at once, also one that another thread waits for."""
        for association in list(self._open):
            association.abort()
            self._open.discard(association)

    def _reach(self) -> None:
        """Do nothing if the port takes connections; pynetdicom does not say why there is none.

        Raises:
            UnavailableError: Nobody answers there.
            UnreadableSourceError: Its certificate is not accepted.
        """
        try:
            with socket.create_connection((self._host, self._port), CONNECT_S) as connection:
                if self._tls:
                    with self._tls.wrap_socket(connection, server_hostname=self._host):
                        pass
        except ssl.SSLCertVerificationError:
            raise UnreadableSourceError(
                "the certificate of the PACS is not accepted (unknown issuer, expired, or for "
                "another name); name the hospital's CA file, and use the name that it is for"
            ) from None
        except ssl.SSLError:
            raise UnreadableSourceError(
                "the PACS does not speak TLS on this port; use its TLS port, or leave TLS out"
            ) from None
        except (OSError, UnicodeError):
            raise UnavailableError(NOBODY) from None

    def _explain_rejection(self, answer: Any) -> None:
        reason = (answer.result_source, answer.diagnostic)
        if reason == _CALLING_UNKNOWN:
            raise UnreadableSourceError(
                f"the PACS does not know the AE title {self.calling}; ask its administrator to add "
                "it with the address of this machine (and the port, for C-MOVE)"
            )
        if reason == _CALLED_UNKNOWN:
            raise UnreadableSourceError(
                f"the PACS does not go by the AE title {self.called}; ask its administrator for it"
            )
        if answer.result == 2 or answer.result_source == 3:
            raise UnavailableError("the PACS takes no further association now", answered=True)
        raise UnreadableSourceError(
            f"the PACS refuses the association without a reason; ask its administrator to add the "
            f"AE title {self.calling} with the address of this machine"
        )


def _keep_messages_for_caller(association: Association) -> None:
    """Keeps the thread of an association from taking the answers to our requests.

    pynetdicom 3.0.4 pauses that thread before a request, but its flag `_is_paused` can be that of
    the request before: then the thread takes an answer (`get_msg(block=False)`) and drops it, and a
    series is missing. Whoever made a request waits for answers with `get_msg(block=True)`.
    """
    take: Any = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        return take(block=True) if block else (None, None)

    vars(association.dimse)["get_msg"] = get_msg
