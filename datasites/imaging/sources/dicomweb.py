"""A PACS over DICOMweb: QIDO-RS finds, WADO-RS retrieves.

Searches go through dicomweb-client. Its retrieval is not used: it parses each instance in this
process and holds an answer of any size. The parts are taken from the stream as they are, byte by
byte as the archive stores them, and parsed where the other sources' files are.

References:
    DICOM PS3.18 10.4 (retrieve), 10.6 (search), F.2 (DICOM JSON).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.datadict import tag_for_keyword

from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources import query as keys
from datasites.imaging.sources.http_session import (
    PASSWORD,
    TOKEN,
    USER,
    LimitedAdapter,
    PacsSession,
    TooLongError,
    check_address,
    check_ca_file,
    read_authorization,
)
from datasites.imaging.sources.multipart import BrokenAnswerError, read_boundary, read_parts
from datasites.imaging.sources.pacs import (
    INSTANCE_BYTES,
    UNIT_BYTES,
    Basket,
    PacsSource,
    Series,
    Study,
)
from datasites.imaging.sources.patience import Patience, UnavailableError, silent
from datasites.imaging.sources.query import Query, is_uid
from datasites.imaging.sources.quiet import silence_libraries

PAGE = 200
TIMEOUT_S = 60.0
MAXIMUM_ANSWER_BYTES = 64 * 2**20
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_CHUNK_BYTES = 2**18
_UNESCAPED = re.compile(r"[A-Za-z0-9_.~-]+")
_BUSY = frozenset((408, 425, 429, 502, 503, 504))
_STUDY_FIELDS = (
    keys.STUDY, keys.STUDY_DATE, keys.ACCESSION, keys.PATIENT, keys.DESCRIPTION,
    keys.MODALITIES, "NumberOfStudyRelatedInstances",
)  # fmt: skip
_SERIES_FIELDS = (
    "SeriesInstanceUID", keys.MODALITY, keys.STATION, "NumberOfSeriesRelatedInstances",
)  # fmt: skip
_INSTANCE_FIELDS = ("SOPInstanceUID", "InstanceNumber")


class DicomWebSource(PacsSource):
    """The series of a DICOMweb service that a query is met by.

    Credentials are taken from the environment: `SITEGATE_PACS_TOKEN`, or `SITEGATE_PACS_USER` and
    `SITEGATE_PACS_PASSWORD`.

    Args:
        url: The root of the service, such as `https://pacs.hospital.example/dicom-web`.
        query: What is wanted.
        ca_file: Certificates (PEM) to trust instead of the system's.
        allow_plain_http: Speak http with another machine too.
        patience_s: How long to wait for a PACS that answered before and no longer does.
        on_wait: Called with a sentence before each wait, from any thread.
        timeout_s: How long one answer may be silent.
        page: How many results are asked for at once.
        unit_bytes: A series of more bytes is yielded in parts.
        environment: Where the credentials are.

    Raises:
        UnreadableSourceError: The address, the CA file or the credentials cannot be meant.
    """

    def __init__(
        self,
        url: str,
        *,
        query: Query,
        ca_file: Path | None = None,
        allow_plain_http: bool = False,
        patience_s: float = 60.0,
        on_wait: Callable[[str], None] = silent,
        timeout_s: float = TIMEOUT_S,
        page: int = PAGE,
        unit_bytes: int = UNIT_BYTES,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        silence_libraries()
        check_ca_file(ca_file)
        archive = _WebArchive(
            check_address(url, allow_plain_http=allow_plain_http),
            query,
            ca_file=ca_file,
            authorization=read_authorization(environment),
            timeout_s=timeout_s,
            page=page,
        )
        super().__init__(
            archive,
            Patience(patience_s, on_wait),
            whole_studies=not query.modalities and query.station_name is None,
            unit_bytes=unit_bytes,
        )


class _WebArchive:
    """Asks a DICOMweb service, as `Archive` says."""

    kind = "PACS over DICOMweb"

    def __init__(
        self,
        address: str,
        query: Query,
        *,
        ca_file: Path | None,
        authorization: str | None,
        timeout_s: float,
        page: int,
    ) -> None:
        self._address, self._query = address, query
        self._timeout_s, self._page = timeout_s, page
        self._finding, self._fetching = (
            PacsSession(address, ca_file=ca_file, authorization=authorization) for _ in range(2)
        )
        for scheme in ("http://", "https://"):
            self._finding.mount(scheme, LimitedAdapter(MAXIMUM_ANSWER_BYTES))
        self._client = DICOMwebClient(address, session=self._finding, timeout=timeout_s)
        self._client.set_http_retry_params(retry=False)

    def find_studies(self) -> list[Study]:
        found: dict[str, Study] = {}
        for wanted in _safe(self._query.study_searches()):
            search = partial(
                self._client.search_for_studies, search_filters=wanted, fields=_STUDY_FIELDS
            )
            answers = list(self._search(search, keys.STUDY, root=True))
            for answer in self._query.among_studies(answers):
                uid = answer[keys.STUDY]
                found[uid] = Study(uid, _count(answer, "NumberOfStudyRelatedInstances"))
        return list(found.values())

    def find_series(self, study: str) -> list[Series]:
        found: dict[str, Series] = {}
        for wanted in _safe(self._query.series_searches()):
            search = partial(
                self._client.search_for_series, study, search_filters=wanted, fields=_SERIES_FIELDS
            )
            answers = list(self._search(search, "SeriesInstanceUID"))
            for answer in self._query.among_series(answers):
                uid = answer["SeriesInstanceUID"]
                found[uid] = Series(study, uid, _count(answer, "NumberOfSeriesRelatedInstances"))
        return list(found.values())

    def find_instances(self, series: Series) -> list[str]:
        search = partial(
            self._client.search_for_instances, series.study, series.uid, fields=_INSTANCE_FIELDS
        )
        found = {
            answer["SOPInstanceUID"]: _count(answer, "InstanceNumber") or 0
            for answer in self._search(search, "SOPInstanceUID")
        }
        return sorted(found, key=lambda uid: (found[uid], uid))

    def fetch_series(self, series: Series, basket: Basket) -> None:
        self._retrieve(f"/studies/{series.study}/series/{series.uid}", basket)

    def fetch_instance(self, series: Series, uid: str, basket: Basket) -> None:
        self._retrieve(f"/studies/{series.study}/series/{series.uid}/instances/{uid}", basket)

    def close(self) -> None:
        self._finding.close()
        self._fetching.close()

    def _search(
        self, ask: Callable[..., Any], name: str, *, root: bool = False
    ) -> Iterator[dict[str, str]]:
        """Every result, page by page, each once.

        A service may give fewer results than the page has room for, so that only an empty page is
        the end. One that ignores `offset` gives the same page again.
        """
        seen: set[str] = set()
        while True:
            offset = {"offset": len(seen)} if seen else {}
            answers: Any = []
            with _sentences(self._timeout_s, root=root):
                answers = ask(limit=self._page, **offset)
            page = [_plain(answer) for answer in _checked_list(answers)]
            names = [answer.get(name, "") for answer in page]
            if not all(is_uid(uid) for uid in names):
                raise UnreadableSourceError(
                    "the PACS lists something without a valid UID, which cannot be asked for; "
                    "ask its administrator to mend it, or search by another criterion"
                )
            new = {uid: answer for uid, answer in zip(names, page, strict=True) if uid not in seen}
            if not new:
                if names and (len(seen) == self._page or self._finding.is_warned):
                    raise UnreadableSourceError(
                        f"the PACS gives the same {len(seen)} results for every page, so that "
                        "the rest cannot be seen; search by narrower dates"
                    )
                return
            seen.update(new)
            yield from new.values()

    def _retrieve(self, path: str, basket: Basket) -> None:
        """Put the parts of an answer into the basket; an answer that is no such adds nothing."""
        with (
            _sentences(self._timeout_s, retrieving=True),
            self._fetching.get(
                self._address + path,
                headers={"Accept": AS_STORED},
                stream=True,
                timeout=self._timeout_s,
            ) as answer,
        ):
            answer.raise_for_status()
            chunks = answer.iter_content(_CHUNK_BYTES)
            content_type = answer.headers.get("Content-Type", "")
            boundary = read_boundary(content_type)
            if boundary is not None:
                parts = read_parts(chunks, boundary, INSTANCE_BYTES)
            elif content_type.lower().startswith("application/dicom"):
                parts = _only_part(chunks)
            else:
                return
            for part in parts:
                basket.put(part)
                if basket.over:
                    return


@contextmanager
def _sentences(timeout_s: float, *, root: bool = False, retrieving: bool = False) -> Iterator[None]:
    """Turns what can go wrong over HTTP into sentences; messages of libraries hold addresses.

    Raises:
        UnavailableError: It may pass.
        UnreadableSourceError: It will not pass by itself.
    """
    try:
        yield
    except requests.HTTPError as error:
        explained = _explained(error.response, root=root, retrieving=retrieving)
        if explained is not None:
            raise explained from None
    except requests.exceptions.SSLError:
        raise UnreadableSourceError(
            "the certificate of the PACS is not accepted (unknown issuer, expired, or for another "
            "name); name the hospital's CA file, and use the host name that the certificate has"
        ) from None
    except TooLongError:
        raise UnreadableSourceError(
            f"the PACS answers a search with more than {MAXIMUM_ANSWER_BYTES:,} bytes; "
            "ask for smaller pages"
        ) from None
    except requests.Timeout:
        raise UnavailableError(f"the PACS gave no answer within {timeout_s:.0f} s") from None
    except requests.TooManyRedirects:
        raise UnreadableSourceError(
            "the PACS leads in a circle of redirects; check the path of its address"
        ) from None
    except requests.exceptions.JSONDecodeError:
        raise UnreadableSourceError(
            "the PACS answers a search with something other than JSON, such as a log-in page; "
            "check the path of its address, and whether it wants credentials"
        ) from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise UnavailableError(
            "no connection with the PACS (check its host name and port, and that it is running)"
        ) from None
    except BrokenAnswerError:
        raise UnavailableError("the PACS broke off in the middle of an answer") from None
    except (requests.RequestException, RecursionError, UnicodeError):
        raise UnreadableSourceError(
            "the PACS gave an answer that cannot be read; check the path of its address"
        ) from None


def _explained(answer: requests.Response, *, root: bool, retrieving: bool) -> Exception | None:
    """What a status of 400 or more means; nothing if it counts as no result."""
    status = answer.status_code
    if status == 401:
        return UnreadableSourceError(
            "the PACS does not accept these credentials (HTTP 401): set "
            f"{TOKEN}, or {USER} and {PASSWORD}, to those of an account there"
        )
    if status == 403:
        return UnreadableSourceError(
            "the PACS does not allow this account to search or retrieve (HTTP 403); "
            "ask its administrator for the right to read"
        )
    if status in _BUSY or (status >= 500 and not retrieving):
        return UnavailableError(
            f"the PACS is busy or not in order (HTTP {status})",
            answered=True,
            wait_s=_retry_after_s(answer),
        )
    if retrieving or (status == 404 and not root):
        return None  # it was deleted since it was listed, or is damaged: it is missing
    if status == 404:
        return UnreadableSourceError(
            "there is no DICOMweb service at this address (HTTP 404); check its path, "
            "which is often /dicom-web"
        )
    return UnreadableSourceError(
        f"the PACS does not understand the search (HTTP {status}); check the path of its address, "
        "or search by other criteria"
    )


def _safe(searches: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    """The searches without values that would be escaped in an address, each once.

    Orthanc's DICOMweb plugin 1.7 searches for `%2F` where `/` was meant and finds nothing. Without
    the value it finds more, and the query takes its part.
    """
    seen = []
    for wanted in searches:
        plain = {key: text for key, text in wanted.items() if _UNESCAPED.fullmatch(text)}
        if plain not in seen:
            seen.append(plain)
            yield plain


def _retry_after_s(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() and len(text) < 6 else 0.0


def _only_part(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The whole body, from services that leave out the multipart form for a single instance."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > INSTANCE_BYTES:
            return
    yield bytes(content)


def _checked_list(answers: Any) -> list[dict[str, Any]]:
    if isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers):
        return answers
    raise UnreadableSourceError(
        "the PACS answers a search with JSON of another form than DICOM's; "
        "check the path of its address"
    )


def _plain(answer: Mapping[str, Any]) -> dict[str, str]:
    """The values of each attribute that is looked at, as keyword -> text."""
    found: dict[str, str] = {}
    for keyword in (*_STUDY_FIELDS, *_SERIES_FIELDS, *_INSTANCE_FIELDS):
        element = answer.get(f"{tag_for_keyword(keyword):08X}")
        values = element.get("Value") if isinstance(element, dict) else None
        if isinstance(values, list):
            plain = [str(value) for value in values if isinstance(value, (str, int, float))]
            found[keyword] = "\\".join(plain).strip(" \0")
    return found


def _count(answer: Mapping[str, str], keyword: str) -> int | None:
    text = answer.get(keyword, "")
    return int(text) if text.isdecimal() and len(text) < 10 else None
