"""A PACS over DICOMweb: a real Orthanc, and services that answer wrongly."""

from __future__ import annotations

import io
import json
import logging
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

import pacs
from datasites.imaging.problems import SourceLostError, UnreadableSourceError
from datasites.imaging.sources.dicomweb import DicomWebSource
from datasites.imaging.sources.http_session import check_address, read_authorization
from datasites.imaging.sources.query import Query
from datasites.imaging.sources.source import Unit
from datasites.keys import make_keys
from datasites.trial import free_port

EVERYTHING = Query(everything=True)


def never(name: str) -> bool:
    return False


def source(url: str, query: Query = EVERYTHING, **options: Any) -> DicomWebSource:
    plain: dict[str, Any] = {"patience_s": 10.0, "timeout_s": 10.0, "environment": {}}
    return DicomWebSource(url, query=query, **{**plain, **options})


def refusal(asked: DicomWebSource) -> str:
    with pytest.raises(UnreadableSourceError) as refused:
        list(asked.units(never))
    message = str(refused.value)
    told = "".join(traceback.format_exception(refused.value))
    assert "1.2." not in message
    assert "http://127" not in told
    return message


@pytest.fixture(scope="session")
def images() -> dict[str, list[Dataset]]:
    return pacs.forty_series()


@pytest.fixture(scope="session")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, images: dict[str, list[Dataset]]
) -> Iterator[pacs.Orthanc]:
    made = pacs.Orthanc(tmp_path_factory.mktemp("orthanc"))
    try:
        made.start().fill(pacs.encoded(image) for series in images.values() for image in series)
        yield made
    finally:
        made.kill()


def series_of(unit: Unit) -> str:
    return unit.name.split("#")[0]


def sent_pixels(images: dict[str, list[Dataset]], *numbers: int) -> dict[str, bytes]:
    chosen = [list(images.values())[n] for n in numbers] if numbers else images.values()
    return {image.SOPInstanceUID: image.PixelData for series in chosen for image in series}


# A real Orthanc


@pytest.mark.parametrize("page", [3, 40, 200])
def test_every_series_arrives_as_it_is_stored(
    orthanc: pacs.Orthanc, images: dict[str, list[Dataset]], page: int
) -> None:
    asked = source(orthanc.web, page=page)
    units = list(asked.units(never))
    assert sorted(map(series_of, units)) == sorted(images)
    assert asked.items == 120
    assert asked.kind == "PACS over DICOMweb"
    for unit in units:
        assert [item.name for item in unit.items] == [
            i.SOPInstanceUID for i in images[series_of(unit)]
        ]
        for item, image in zip(unit.items, images[series_of(unit)], strict=True):
            found = dcmread(io.BytesIO(item.read()))
            assert found.file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
            assert found.PixelData == image.PixelData


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Query(modalities=("DX",)), range(1, 40, 2)),
        (Query(modalities=("DX", "CT"), patient_ids=("P3", "P4", "P99")), (3, 4)),
        (Query(modalities=("MR",)), ()),
        (Query(study_from=date(2024, 2, 19)), (38, 39)),
        (Query(study_to=date(2024, 1, 2)), (0, 1)),
        (Query(study_from=date(2024, 1, 3), study_to=date(2024, 1, 3)), (2,)),
        (Query(accession_numbers=("A7", "A12")), (7, 12)),
        (Query(accession_numbers=("A7", "A12"), patient_ids=("P7",)), (7,)),
        (Query(study_description="head"), range(10)),
        (Query(study_description="chest*"), range(10, 40)),
        (Query(study_description="chest 2 views", patient_ids=("P/1 a", "P9")), (12,)),
        (Query(patient_ids=("P/1 a", "P9")), (9, 12)),
        (Query(study_description="ch?st*", station_name="SCANNER2"), range(30, 40)),
    ],
)
@pytest.mark.parametrize("page", [4, 200])
def test_what_meets_the_query_is_found_and_nothing_else(
    orthanc: pacs.Orthanc,
    images: dict[str, list[Dataset]],
    query: Query,
    numbers: Any,
    page: int,
) -> None:
    """Four on a page is less than there are: Orthanc pages searches by modality wrongly."""
    names = [series_of(unit) for unit in source(orthanc.web, query, page=page).units(never)]
    assert sorted(names) == sorted(list(images)[number] for number in numbers)


def test_study_is_found_by_its_uid(orthanc: pacs.Orthanc, images: dict[str, list[Dataset]]) -> None:
    series, (image, *_) = next(iter(images.items()))
    units = source(orthanc.web, Query(study_uids=(image.StudyInstanceUID,))).units(never)
    assert [series_of(unit) for unit in units] == [series]


def test_series_that_are_done_are_not_fetched(
    orthanc: pacs.Orthanc, images: dict[str, list[Dataset]]
) -> None:
    done = {unit.name for unit in list(source(orthanc.web).units(never))[:37]}
    asked: list[int] = []

    def is_done(name: str) -> bool:
        asked.append(threading.get_ident())
        return name in done

    units = list(source(orthanc.web).units(is_done))
    assert len(units) == 3
    assert not {unit.name for unit in units} & done
    assert {series_of(unit) for unit in units} <= set(images)
    assert set(asked) == {threading.get_ident()}


def test_one_series_at_most_is_fetched_ahead(
    orthanc: pacs.Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    asked = source(orthanc.web)
    fetch = asked._archive.fetch_series

    def counted(series: Any, basket: Any) -> None:
        fetched.append(series.uid)
        fetch(series, basket)

    monkeypatch.setattr(asked._archive, "fetch_series", counted)
    for number, _ in enumerate(asked.units(never), start=1):
        time.sleep(0.03)
        assert len(fetched) <= number + 1
        if number == 5:
            break


def test_series_larger_than_a_unit_comes_in_parts_that_are_known_again(
    orthanc: pacs.Orthanc, images: dict[str, list[Dataset]]
) -> None:
    """An instance has about 2.9 kB, so that two of three fit."""
    query = Query(patient_ids=("P0",))
    units = list(source(orthanc.web, query, unit_bytes=7000).units(never))
    series = next(iter(images))
    assert [len(unit.items) for unit in units] == [2, 1]
    assert [unit.name.split("-")[0] for unit in units] == [f"{series}#1", f"{series}#2"]
    assert pacs.pixels(i for u in units for i in u.items) == sent_pixels(images, 0)
    for done in range(2):
        again = source(orthanc.web, query, unit_bytes=7000).units(units[done].name.__eq__)
        assert [unit.name for unit in again] == [units[1 - done].name]
    names = {unit.name for unit in units}
    assert list(source(orthanc.web, query, unit_bytes=7000).units(names.__contains__)) == []


def test_series_that_grew_since_it_was_done_is_not_done(
    tmp_path: Path, images: dict[str, list[Dataset]]
) -> None:
    own = pacs.Orthanc(tmp_path / "own")
    first, second, third = (pacs.encoded(image) for image in next(iter(images.values())))
    try:
        own.start().fill([first, third])
        (before,) = source(own.web).units(never)
        assert list(source(own.web).units(before.name.__eq__)) == []
        own.fill([second])
        (after,) = source(own.web).units(before.name.__eq__)
    finally:
        own.kill()
    assert pacs.pixels(after.items) == sent_pixels(images, 0)


def test_killed_in_the_middle_and_restarted_everything_arrives_once(
    tmp_path: Path, images: dict[str, list[Dataset]]
) -> None:
    own = pacs.Orthanc(tmp_path / "own")
    waits: list[str] = []
    try:
        own.start().fill(pacs.encoded(i) for series in images.values() for i in series)
        units: list[Unit] = []
        for unit in source(own.web, on_wait=waits.append).units(never):
            units.append(unit)
            if len(units) == 7:
                own.kill()
                threading.Timer(0.6, own.start).start()
    finally:
        own.kill()
    assert pacs.pixels(i for u in units for i in u.items) == sent_pixels(images)
    assert "no connection with the PACS" in waits[0]
    assert "trying again in 0.2 s" in waits[0]


def test_killed_for_good_it_is_lost_in_a_sentence_within_the_patience(
    tmp_path: Path, images: dict[str, list[Dataset]]
) -> None:
    own = pacs.Orthanc(tmp_path / "own")
    units: list[Unit] = []
    try:
        own.start().fill(pacs.encoded(i) for series in images.values() for i in series)
        asked = source(own.web, patience_s=1.0).units(never)
        units.extend(next(asked) for _ in range(3))
        own.kill()
        killed = time.monotonic()
        with pytest.raises(SourceLostError) as lost:
            units.extend(asked)
    finally:
        own.kill()
    assert time.monotonic() - killed < 3
    assert str(lost.value) == (
        "no connection with the PACS (check its host name and port, and that it is running), "
        "for 1 s; what was published so far is kept: run the same command again to go on"
    )
    assert len(units) in (3, 4)


def test_credentials_of_the_environment_open_the_door_and_wrong_ones_do_not(
    tmp_path: Path, images: dict[str, list[Dataset]]
) -> None:
    closed = pacs.Orthanc(
        tmp_path / "closed", AuthenticationEnabled=True, RegisteredUsers={"reader": "right"}
    )
    known = {"SITEGATE_PACS_USER": "reader", "SITEGATE_PACS_PASSWORD": "right"}
    try:
        closed.start().fill([pacs.encoded(next(iter(images.values()))[0])])
        assert len(list(source(closed.web, environment=known).units(never))) == 1
        for wrong in ({}, {**known, "SITEGATE_PACS_PASSWORD": "wrong-canary"}):
            message = refusal(source(closed.web, environment=wrong))
            assert message.startswith("the PACS does not accept these credentials (HTTP 401): set")
            assert "canary" not in message
    finally:
        closed.kill()


def test_wrong_path_is_told(orthanc: pacs.Orthanc) -> None:
    assert refusal(source(orthanc.web + "/none")).startswith(
        "there is no DICOMweb service at this address (HTTP 404); check its path"
    )


def test_wrong_port_is_told_at_once() -> None:
    started = time.monotonic()
    assert refusal(source(f"http://127.0.0.1:{free_port()}/dicom-web")) == (
        "no connection with the PACS (check its host name and port, and that it is running)"
    )
    assert time.monotonic() - started < 2


def test_nothing_that_libraries_log_holds_a_uid_or_a_name(
    orthanc: pacs.Orthanc, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("dicomweb_client.web").setLevel(logging.DEBUG)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    assert list(source(orthanc.web, Query(patient_ids=("P1",))).units(never))
    assert not [r for r in caplog.records if r.name.split(".")[0] in ("dicomweb_client", "urllib3")]
    assert "1.2.826" not in caplog.text
    assert "Canary" not in caplog.text


# Services that answer wrongly

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def service(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A web service on loopback that answers each request as the test says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


def give(
    request: BaseHTTPRequestHandler,
    body: bytes = b"",
    status: int = 200,
    kind: str = "application/dicom+json",
    **headers: str,
) -> None:
    request.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


@pytest.mark.parametrize(
    ("body", "status", "kind", "sentence"),
    [
        (b"<html>log in</html>", 200, "text/html", "something other than JSON, such as a log-in"),
        (b"{", 200, "application/json", "something other than JSON"),
        (b"[" * 100_000, 200, "application/json", "cannot be read"),
        (b"[1]", 200, "application/json", "JSON of another form"),
        (b'"a"', 200, "application/json", "JSON of another form"),
        (b"[{}]", 200, "application/json", "without a valid UID"),
        (b'{"error": "no"}', 200, "application/json", "without a valid UID"),
        (b"", 400, "text/plain", "does not understand the search (HTTP 400)"),
        (b"", 403, "text/plain", "does not allow this account to search or retrieve (HTTP 403)"),
    ],
)
def test_answer_that_is_no_search_result_is_told(
    body: bytes, status: int, kind: str, sentence: str
) -> None:
    with service(lambda request: give(request, body, status, kind)) as url:
        assert sentence in refusal(source(url))


def test_search_result_past_the_limit_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasites.imaging.sources.dicomweb.MAXIMUM_ANSWER_BYTES", 1000)
    with service(lambda request: give(request, b"[" + b" " * 1000 + b"]")) as url:
        assert "more than 1,000 bytes" in refusal(source(url))


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_service_is_asked_again_after_the_time_it_asks_for(status: int) -> None:
    waits: list[str] = []
    tries: list[float] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        tries.append(time.monotonic())
        busy = len(tries) == 1
        give(request, b"[]", status if busy else 200, Retry_After="1")

    with service(answer) as url:
        assert list(source(url, on_wait=waits.append).units(never)) == []
    assert tries[1] - tries[0] > 0.9
    assert waits == [f"the PACS is busy or not in order (HTTP {status}); trying again in 1.0 s"]


def test_service_that_stays_busy_is_lost() -> None:
    with service(lambda request: give(request, status=503)) as url:
        units = source(url, patience_s=0.5).units(never)
        with pytest.raises(SourceLostError, match="run the same command again"):
            next(units)


def test_service_that_is_silent_is_told() -> None:
    with service(lambda request: time.sleep(2)) as url:
        assert refusal(source(url, timeout_s=0.5)).startswith("the PACS gave no answer within")


def test_redirect_to_another_address_is_not_followed_with_credentials() -> None:
    seen: list[str | None] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["Authorization"])
        give(request, b"[]")

    with service(note) as other:
        away = lambda request: give(request, status=302, Location=other)  # noqa: E731
        with service(away) as url:
            asked = source(url, environment={"SITEGATE_PACS_TOKEN": "t0ken-canary"})
            message = refusal(asked)
    assert message.startswith("the PACS leads on to another address, which is not followed")
    assert seen == []


def test_token_is_sent_and_the_host_has_its_port() -> None:
    seen: list[tuple[str, str]] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        seen.append((request.headers["Authorization"], request.headers["Host"]))
        give(request, b"[]")

    with service(note) as url:
        list(source(url, environment={"SITEGATE_PACS_TOKEN": "t0ken"}).units(never))
    assert seen == [("Bearer t0ken", url.split("/")[2])]


def test_certificate_of_an_unknown_issuer_is_refused_and_of_the_ca_file_accepted(
    tmp_path: Path,
) -> None:
    (tmp_path / "keys").mkdir()
    make_keys(tmp_path / "keys", "127.0.0.1", "pacs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "keys/tls_certificate.pem", tmp_path / "keys/tls_key.pem")
    with service(lambda request: give(request, b"[]"), context) as url:
        assert refusal(source(url)).startswith("the certificate of the PACS is not accepted")
        known = source(url, ca_file=tmp_path / "keys/tls_authority.pem")
        assert list(known.units(never)) == []


def tagged(**values: Any) -> dict[str, Any]:
    tags = {"study": "0020000D", "series": "0020000E", "instance": "00080018", "count": "00201209"}
    return {tags[name]: {"vr": "UI", "Value": [value]} for name, value in values.items()}


class Lying:
    """A service with one series of two instances, whose retrieval the test decides."""

    def __init__(self, parts: Callable[[str], list[bytes]], count: int = 2) -> None:
        self.parts, self.count, self.asked = parts, count, 0

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        if "multipart" in request.headers["Accept"]:
            self.asked += 1
            body = b"".join(
                b"--x\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n"
                for part in self.parts(path)
            )
            give(request, body + b"--x--", kind='multipart/related; boundary="x"')
            return
        found = {
            "studies": [tagged(study="1.2.3")],
            "series": [tagged(series="1.2.4", count=self.count)],
            "instances": [tagged(instance=f"1.2.5.{number}") for number in (1, 2)],
        }[path.rsplit("/", 1)[1]]
        give(request, json.dumps([] if "offset" in query else found).encode())


def instance(number: int, series: str = "1.2.4") -> bytes:
    uid = f"1.2.5.{number}"
    return pacs.encoded(pacs.dicom(number, series=series, study="1.2.3", instance=uid))


@pytest.mark.parametrize(
    ("parts", "delivered"),
    [
        (lambda path: [instance(1), instance(2)], (True, True)),
        (lambda path: [instance(2), instance(1), instance(1)], (True, True)),
        # another series, another instance, no DICOM, cut off in its header, empty
        (lambda path: [instance(1), instance(2, series="1.2.9")], (True, False)),
        (lambda path: [instance(1), instance(3)], (True, False)),
        (lambda path: [instance(1), b"no DICOM" * 50], (True, False)),
        (lambda path: [instance(1), instance(2)[:300]], (True, False)),
        (lambda path: [instance(1), b""], (True, False)),
        # one instance alone is right, the series is short
        (lambda path: [instance(int(path[-1]))] if "/instances/" in path else [], (True, True)),
    ],
)
def test_only_instances_that_were_asked_for_and_say_so_are_delivered(
    monkeypatch: pytest.MonkeyPatch,
    parts: Callable[[str], list[bytes]],
    delivered: tuple[bool, bool],
) -> None:
    monkeypatch.setattr("datasites.imaging.sources.patience.FIRST_WAIT_S", 0.01)
    with service(Lying(parts)) as url:
        (unit,) = source(url).units(never)
    assert series_of(unit) == "1.2.4"
    assert [item.name for item in unit.items] == ["1.2.5.1", "1.2.5.2"]
    assert tuple(item.content is not None for item in unit.items) == delivered
    for item in unit.items:
        assert (item.refused is None) == (item.content is not None)
        if item.refused:
            assert str(item.refused) == (
                "broken file: the PACS lists or counts it, and does not deliver it"
            )


def test_instances_that_are_counted_and_not_listed_are_not_forgotten() -> None:
    with service(Lying(lambda path: [instance(1), instance(2)], count=4)) as url:
        (unit,) = source(url).units(never)
    assert [item.content is not None for item in unit.items] == [True, True, False, False]


def test_service_that_delivers_nothing_is_told_before_anything_is_taken_for_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datasites.imaging.sources.patience.FIRST_WAIT_S", 0.01)

    class Many(Lying):
        def __call__(self, request: BaseHTTPRequestHandler) -> None:
            if request.path.split("?")[0].endswith("/series") and "offset" not in request.path:
                give(request, json.dumps([tagged(series=f"1.2.4.{n}") for n in range(9)]).encode())
            else:
                super().__call__(request)

    with service(Many(lambda path: [])) as url:
        units = source(url).units(never)
        with pytest.raises(UnreadableSourceError, match="nothing came of 5 series in a row"):
            next(units)


def test_service_that_ignores_pages_is_not_taken_for_complete() -> None:
    body = json.dumps([tagged(study=f"1.2.{number}") for number in range(3)]).encode()
    with service(lambda request: give(request, body)) as url:
        assert "the same 3 results for every page" in refusal(source(url, page=3))
    with service(lambda request: give(request, body, Warning='299 x "there are more"')) as url:
        assert "the same 3 results for every page" in refusal(source(url, page=9))


def test_service_that_ignores_a_key_is_found_out() -> None:
    """Its answers do not show the patient ID, or show another."""
    body = json.dumps([tagged(study="1.2.3")]).encode()
    with service(lambda request: give(request, body)) as url:
        message = refusal(source(url, Query(patient_ids=("Canary",))))
    assert message.startswith("the PACS answers a search by patient ID without saying")
    assert "Canary" not in message
    shown = json.dumps(
        [{**tagged(study="1.2.3"), "00100020": {"vr": "LO", "Value": ["Other"]}}]
    ).encode()
    with service(lambda request: give(request, shown)) as url:
        assert list(source(url, Query(patient_ids=("Canary",))).units(never)) == []


# What is refused before anything is asked


@pytest.mark.parametrize(
    ("address", "allowed", "sentence"),
    [
        ("https://pacs.example/dicom-web/", False, None),
        ("http://127.0.0.1:8042/dicom-web", False, None),
        ("http://localhost/dicom-web", False, None),
        ("http://[::1]:8042/dicom-web", False, None),
        ("http://pacs.example/dicom-web", True, None),
        ("http://pacs.example/dicom-web", False, "http to another machine"),
        ("http://127.0.0.1.example/x", False, "http to another machine"),
        ("https://u:canary@pacs.example/x", False, "holds a user or a password"),
        ("https://pacs.example/x?y=1", False, "no `?`"),
        ("ftp://pacs.example", False, "looks like https://"),
        ("pacs.example", False, "looks like https://"),
        ("https://pacs.example:99999", False, "looks like https://"),
        ("https://[", False, "looks like https://"),
        ("", False, "looks like https://"),
    ],
)
def test_address_is_checked(address: str, allowed: bool, sentence: str | None) -> None:
    if sentence is None:
        assert check_address(address, allow_plain_http=allowed) == address.rstrip("/")
        return
    with pytest.raises(UnreadableSourceError, match=sentence) as refused:
        check_address(address, allow_plain_http=allowed)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("token", "user", "password", "header"),
    [
        ("", "", "", None),
        ("abc", "", "", "Bearer abc"),
        ("", "u", "p", "Basic dTpw"),
        ("", "u", "ü", "Basic dTrDvA=="),
        ("abc", "u", "p", "refused"),
        ("", "u", "", "refused"),
        ("", "", "p", "refused"),
        ("a\r\nb", "", "", "refused"),
        ("", "u:v", "p", "refused"),
    ],
)
def test_credentials_are_read_from_the_environment(
    token: str, user: str, password: str, header: str | None
) -> None:
    names = ("SITEGATE_PACS_TOKEN", "SITEGATE_PACS_USER", "SITEGATE_PACS_PASSWORD")
    environment = dict(zip(names, (token, user, password), strict=True))
    if header == "refused":
        with pytest.raises(UnreadableSourceError, match="SITEGATE_PACS"):
            read_authorization(environment)
    else:
        assert read_authorization(environment) == header


def test_ca_file_that_holds_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "none.pem"):
        with pytest.raises(UnreadableSourceError, match="missing or holds no certificate"):
            source("https://pacs.example", ca_file=tmp_path / name)
