"""A PACS over DIMSE: C-FIND finds, C-GET retrieves, or C-MOVE to a port of our own.

References:
    DICOM PS3.4 C.4 (C-FIND, C-MOVE, C-GET), C.6.2 (study root); PS3.7 D.3.3.4 (role selection).
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pynetdicom import _config, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.presentation import StoragePresentationContexts

from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources import query as keys
from datasites.imaging.sources.dimse_peer import Peer
from datasites.imaging.sources.pacs import (
    UNIT_BYTES,
    Basket,
    PacsSource,
    Series,
    Study,
)
from datasites.imaging.sources.patience import Patience, UnavailableError, silent
from datasites.imaging.sources.query import Query, is_uid
from datasites.imaging.sources.quiet import forget_late_events, silence_libraries
from datasites.imaging.sources.storage import (
    ACCEPTED,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    TRANSFER_SYNTAXES,
    StorageServer,
    check_ae_title,
)

# Study root query/retrieve information model (PS3.4 C.6.2.3)
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
TIMEOUT_S = 60.0
MAXIMUM_CONTEXTS = 127
"""Presentation contexts of one association beside that of C-GET (PS3.8 9.3.2.2)."""
MAXIMUM_RESULTS = 2_000_000

_SERIES_UID, _SOP_UID, _SOP_CLASS = "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"
_SOP_CLASSES = "SOPClassesInStudy"
_STUDY_COUNT, _SERIES_COUNT = "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"
_PENDING = (0xFF00, 0xFF01)


class DimseSource(PacsSource):
    """The series of a PACS that a query is met by.

    Args:
        host: Name or address of the PACS.
        port: Its DICOM port.
        called_ae: Its AE title.
        query: What is wanted.
        calling_ae: Our AE title, which the PACS has to know.
        move_to: The AE title that the PACS knows for `move_port` of this machine; retrieves by
            C-MOVE. Without it, by C-GET.
        move_port: Where we listen for what C-MOVE sends; 0 for any that is free.
        move_host: Address of this machine to listen on.
        move_callers: AE titles that may send what was moved; the PACS's own if not given.
        tls: Context of a client, for DICOM over TLS.
        move_tls: Context of a server, for what C-MOVE sends.
        patience_s: How long to wait for a PACS that answered before and no longer does.
        on_wait: Called with a sentence before each wait, from any thread.
        timeout_s: How long the PACS may be silent.
        unit_bytes: A series of more bytes is yielded in parts.

    Raises:
        UnreadableSourceError: An AE title or a port is none, or ours cannot be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        called_ae: str,
        *,
        query: Query,
        calling_ae: str = "SITEGATE",
        move_to: str | None = None,
        move_port: int = 0,
        move_host: str = "127.0.0.1",
        move_callers: Sequence[str] | None = None,
        tls: ssl.SSLContext | None = None,
        move_tls: ssl.SSLContext | None = None,
        patience_s: float = 60.0,
        on_wait: Callable[[str], None] = silent,
        timeout_s: float = TIMEOUT_S,
        unit_bytes: int = UNIT_BYTES,
    ) -> None:
        silence_libraries()
        forget_late_events()
        _config.LOG_RESPONSE_IDENTIFIERS = _config.LOG_REQUEST_IDENTIFIERS = False
        peer = Peer(host, port, called_ae, calling_ae, tls=tls, timeout_s=timeout_s)
        archive: _GetArchive
        if move_to is None:
            archive = _GetArchive(peer, query)
        else:
            archive = _MoveArchive(
                peer, query,
                move_to=move_to, port=move_port, host=move_host,
                callers=move_callers or (called_ae,), tls=move_tls, timeout_s=timeout_s,
            )  # fmt: skip
        super().__init__(
            archive,
            Patience(patience_s, on_wait),
            whole_studies=not query.modalities and query.station_name is None,
            unit_bytes=unit_bytes,
        )


class _GetArchive:
    """Asks a PACS by C-FIND and C-GET, as `Archive` says."""

    kind = "PACS over DIMSE (C-GET)"

    def __init__(self, peer: Peer, query: Query) -> None:
        self._peer, self._query = peer, query
        self._finding: Association | None = None
        self._turn = threading.Lock()
        self._classes: dict[str, tuple[str, ...]] = {}
        """The SOP classes of a study or series, as far as the PACS tells them."""

    def find_studies(self) -> list[Study]:
        found: dict[str, Study] = {}
        asked: tuple[str, ...] = (keys.STUDY, keys.STUDY_DATE, keys.ACCESSION, keys.PATIENT)
        asked += (keys.DESCRIPTION, keys.MODALITIES, _SOP_CLASSES)
        for wanted in self._query.study_searches():
            answers = self._find("STUDY", wanted, (*asked, _STUDY_COUNT), keys.STUDY)
            for answer in self._query.among_studies(answers):
                uid = answer[keys.STUDY]
                found[uid] = Study(uid, _count(answer, _STUDY_COUNT))
                self._classes[uid] = _uids(answer.get(_SOP_CLASSES, ""))
        return list(found.values())

    def find_series(self, study: str) -> list[Series]:
        found: dict[str, Series] = {}
        asked = (_SERIES_UID, keys.MODALITY, keys.STATION, _SERIES_COUNT)
        for wanted in self._query.series_searches():
            wanted = {keys.STUDY: study, **wanted}
            answers = self._find("SERIES", wanted, asked, _SERIES_UID)
            for answer in self._query.among_series(answers):
                uid = answer[_SERIES_UID]
                found[uid] = Series(study, uid, _count(answer, _SERIES_COUNT))
        return list(found.values())

    def find_instances(self, series: Series) -> list[str]:
        wanted = {keys.STUDY: series.study, _SERIES_UID: series.uid}
        asked: tuple[str, ...] = (_SOP_UID, "InstanceNumber")
        if not self._classes.get(series.study):
            asked += (_SOP_CLASS,)  # for which Orthanc 1.10 reads each file
        answers = self._find("IMAGE", wanted, asked, _SOP_UID)
        if _SOP_CLASS in asked:
            classes = "\\".join(answer.get(_SOP_CLASS, "") for answer in answers)
            self._classes[series.uid] = _uids(classes)
        numbers = {answer[_SOP_UID]: _count(answer, "InstanceNumber") or 0 for answer in answers}
        return sorted(numbers, key=lambda uid: (numbers[uid], uid))

    def fetch_series(self, series: Series, basket: Basket) -> None:
        self._retrieve(
            series,
            _identifier("SERIES", {keys.STUDY: series.study, _SERIES_UID: series.uid}),
            basket,
        )

    def fetch_instance(self, series: Series, uid: str, basket: Basket) -> None:
        wanted = {keys.STUDY: series.study, _SERIES_UID: series.uid, _SOP_UID: uid}
        self._retrieve(series, _identifier("IMAGE", wanted), basket)

    def close(self) -> None:
        if self._turn.acquire(blocking=False):  # nobody waits for an answer: end in order
            if self._finding:
                self._peer.end(self._finding)
            self._turn.release()
        self._peer.abort_all()

    def _find(
        self, level: str, wanted: Mapping[str, str], asked: Sequence[str], name: str
    ) -> list[dict[str, str]]:
        """The answers to a search, each of which has a valid UID in the attribute `name`."""
        identifier = _identifier(level, {**dict.fromkeys(asked, ""), **wanted})
        with self._turn:
            if self._finding is None or not self._finding.is_established:
                if self._finding:
                    self._peer.end(self._finding)
                self._finding = self._peer.associate([build_context(FIND)])
            answers: list[dict[str, str]] = []
            for status, answer in self._finding.send_c_find(identifier, FIND):
                if _status(status) in _PENDING and answer is not None:
                    answers.append(_plain(answer, asked))
                    if len(answers) > MAXIMUM_RESULTS:
                        self._finding.abort()
                        raise UnreadableSourceError(
                            f"the PACS finds more than {MAXIMUM_RESULTS:,}; "
                            "search by narrower dates"
                        )
                else:
                    _check_search_status(_status(status))
        if not all(is_uid(answer.get(name, "")) for answer in answers):
            raise UnreadableSourceError(
                "the PACS lists something without a valid UID, which cannot be asked for; "
                "ask its administrator to mend it, or search by another criterion"
            )
        return answers

    def _retrieve(self, series: Series, identifier: Dataset, basket: Basket) -> None:
        found = self._classes.get(series.uid) or self._classes.get(series.study)
        classes = found or tuple(
            str(context.abstract_syntax) for context in StoragePresentationContexts
        )
        if len(classes) * len(TRANSFER_SYNTAXES) <= MAXIMUM_CONTEXTS:
            storage = [build_context(uid, s) for uid in classes for s in TRANSFER_SYNTAXES]
        else:
            classes = classes[:MAXIMUM_CONTEXTS]
            storage = [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in classes]
        with self._peer.association(
            [build_context(GET), *storage],
            _putting_into(basket),
            [build_role(uid, scp_role=True) for uid in classes],
        ) as association:
            if not any(context.abstract_syntax == GET for context in association.accepted_contexts):
                raise UnreadableSourceError(
                    "the PACS offers no C-GET; name the AE title by which it knows this machine, "
                    "so that it can send by C-MOVE"
                )
            _finish(association, association.send_c_get(identifier, GET), basket)


class _MoveArchive(_GetArchive):
    """Asks a PACS by C-FIND and C-MOVE, and listens for what it sends."""

    kind = "PACS over DIMSE (C-MOVE)"

    def __init__(
        self,
        peer: Peer,
        query: Query,
        *,
        move_to: str,
        port: int,
        host: str,
        callers: Sequence[str],
        tls: ssl.SSLContext | None,
        timeout_s: float,
    ) -> None:
        super().__init__(peer, query)
        self._move_to = check_ae_title(move_to)
        self._baskets: dict[str, Basket] = {}
        self._has_received = False
        self._server = StorageServer(
            self._take,
            ae_title=self._move_to, port=port, host=host, callers=callers, tls=tls,
            timeout_s=timeout_s,
        )  # fmt: skip

    def close(self) -> None:
        super().close()
        self._server.stop()

    def _take(self, content: bytes, sender: str) -> int:
        """Takes what was asked for; one of a series that is fetched."""
        for basket in list(self._baskets.values()):
            if basket.put(content):
                self._has_received = True
                return ACCEPTED
            if basket.over:
                return OUT_OF_RESOURCES
        return NOT_AUTHORISED

    def _retrieve(self, series: Series, identifier: Dataset, basket: Basket) -> None:
        self._baskets[series.uid] = basket
        try:
            with self._peer.association([build_context(MOVE)]) as association:
                responses = association.send_c_move(identifier, self._move_to, MOVE)
                refused = _finish(association, responses, basket)
        finally:
            self._baskets.pop(series.uid, None)
        if refused and not self._has_received:
            raise UnreadableSourceError(
                f"the PACS refuses to send to the AE title {self._move_to} (status {refused:04X}); "
                "ask its administrator to add it as a destination, with the address of this "
                "machine and the port for C-MOVE"
            )


def _putting_into(basket: Basket) -> Callable[[bytes], int]:
    def store(content: bytes) -> int:
        if basket.put(content):
            return ACCEPTED
        return OUT_OF_RESOURCES if basket.over else NOT_AUTHORISED

    return store


def _finish(
    association: Association,
    responses: Iterator[tuple[Dataset, Dataset | None]],
    basket: Basket,
) -> int | None:
    """Waits for the end of a C-GET or C-MOVE.

    Returns:
        The status, if it is a failure before any sub-operation; nothing if some were tried.

    How many sub-operations failed is not looked at: the basket knows which instances are missing.

    Raises:
        UnavailableError: The PACS no longer answers, or was cut off.
        UnreadableSourceError: It does not allow it.
    """
    for status, _ in responses:
        if basket.over:
            association.abort()
            return None
        code = _status(status)
        if code is None:
            raise UnavailableError("the PACS broke off in the middle of a series")
        if code == NOT_AUTHORISED:
            raise UnreadableSourceError(
                "the PACS does not allow this AE title to retrieve; ask its administrator for it"
            )
        if (code >> 12) in (0xA, 0xC) and not _sub_operations(status):
            return code
    return None


def _sub_operations(status: Dataset) -> int:
    """How many sub-operations were tried, by the counts that a status has."""
    kinds = ("Completed", "Failed", "Warning")
    return sum(status.get(f"NumberOf{kind}Suboperations") or 0 for kind in kinds)


def _check_search_status(code: int | None) -> None:
    if code == 0x0000:
        return
    if code is None:
        raise UnavailableError("the PACS broke off in the middle of a search")
    if code == 0xB001:
        raise UnreadableSourceError(
            "the PACS shows only some of what it found; search by narrower dates"
        )
    if code == NOT_AUTHORISED:
        raise UnreadableSourceError(
            "the PACS does not allow this AE title to search; ask its administrator for it"
        )
    if code in (0xA700, 0xFE00):
        raise UnavailableError(
            f"the PACS cannot finish the search now (status {code:04X}; narrower dates may help)",
            answered=True,
        )
    raise UnreadableSourceError(
        f"the PACS does not understand the search (status {code:04X}); search by other criteria"
    )


def _status(status: Dataset) -> int | None:
    return int(status.Status) if "Status" in status else None


def _identifier(level: str, values: Mapping[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


def _plain(answer: Dataset, asked: Sequence[str]) -> dict[str, str]:
    """The attributes that were asked for, as text; read raw, because pydicom warns with values."""
    found: dict[str, str] = {}
    for keyword in asked:
        tag = tag_for_keyword(keyword)
        element = answer.get_item(tag) if tag is not None and tag in answer else None
        value = getattr(element, "value", None)
        if isinstance(value, bytes):
            found[keyword] = value.decode("latin-1").strip(" \0")
        elif value is not None:
            found[keyword] = str(value).strip(" \0")
    return found


def _uids(text: str) -> tuple[str, ...]:
    """The different UIDs of an attribute with several values."""
    return tuple(
        sorted({uid for uid in (part.strip() for part in text.split("\\")) if is_uid(uid)})
    )


def _count(answer: Mapping[str, str], keyword: str) -> int | None:
    text = answer.get(keyword, "")
    return int(text) if text.isdecimal() and len(text) < 10 else None
