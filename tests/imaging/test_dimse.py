"""A PACS over DIMSE: a real Orthanc asked by C-GET and C-MOVE, and pushes to our own port."""

from __future__ import annotations

import io
import logging
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.fsm import InvalidEventError

import pacs
from datasites.imaging.problems import SourceLostError, UnreadableSourceError
from datasites.imaging.sources.dimse import DimseSource
from datasites.imaging.sources.query import Query
from datasites.imaging.sources.quiet import forget_late_events
from datasites.imaging.sources.receiver import Receiver
from datasites.imaging.sources.source import Unit
from datasites.imaging.sources.storage import VERIFICATION
from datasites.keys import make_keys
from datasites.trial import free_port

EVERYTHING = Query(everything=True)
# pynetdicom 3.0.4 drops the socket of a connection that is refused without closing it
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def never(name: str) -> bool:
    return False


class Pacs(pacs.Orthanc):
    """An Orthanc that knows this machine for both ways of retrieving."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.move_port = free_port()
        known = {"SITEGATE": ["SITEGATE", "127.0.0.1", self.move_port]}
        known["MOVER"] = ["MOVER", "127.0.0.1", self.move_port]
        super().__init__(folder, DicomModalities=known, **settings)

    def source(
        self,
        way: str = "get",
        query: Query = EVERYTHING,
        called_ae: str = "ORTHANC",
        **options: Any,
    ) -> DimseSource:
        """A source that asks it, by `get` or `move`."""
        moving = {"move_to": "MOVER", "move_port": self.move_port} if way == "move" else {}
        plain: dict[str, Any] = {"patience_s": 10.0, "timeout_s": 10.0, **moving, **options}
        port = plain.pop("port", self.dicom_port)
        return DimseSource("127.0.0.1", port, called_ae, query=query, **plain)


def refusal(asked: DimseSource) -> str:
    with pytest.raises(UnreadableSourceError) as refused:
        list(asked.units(never))
    told = "".join(traceback.format_exception(refused.value))
    assert "1.2.826" not in told
    assert not isinstance(refused.value, SourceLostError)
    return str(refused.value)


@pytest.fixture(scope="session")
def images() -> dict[str, list[Dataset]]:
    return pacs.forty_series()


@pytest.fixture(scope="session")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, images: dict[str, list[Dataset]]
) -> Iterator[Pacs]:
    made = Pacs(tmp_path_factory.mktemp("orthanc"))
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


@pytest.mark.parametrize("way", ["get", "move"])
def test_every_series_arrives_as_it_is_stored(
    orthanc: Pacs, images: dict[str, list[Dataset]], way: str
) -> None:
    asked = orthanc.source(way)
    units = list(asked.units(never))
    assert asked.kind == f"PACS over DIMSE (C-{way.upper()})"
    assert sorted(map(series_of, units)) == sorted(images)
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
        (Query(modalities=("DX",), study_from=date(2024, 2, 11)), range(31, 40, 2)),
        (Query(modalities=("DX", "CT"), patient_ids=("P3", "P4", "P99")), (3, 4)),
        (Query(modalities=("MR",)), ()),
        (Query(study_to=date(2024, 1, 2)), (0, 1)),
        (Query(study_from=date(2024, 1, 3), study_to=date(2024, 1, 3)), (2,)),
        (Query(accession_numbers=("A7", "A12"), patient_ids=("P7",)), (7,)),
        (Query(patient_ids=("P/1 a",)), (12,)),
        (Query(study_description="ch?st*", station_name="SCANNER2"), range(30, 40)),
    ],
)
def test_what_meets_the_query_is_found_and_nothing_else(
    orthanc: Pacs, images: dict[str, list[Dataset]], query: Query, numbers: Any
) -> None:
    names = [series_of(unit) for unit in orthanc.source(query=query).units(never)]
    assert sorted(names) == sorted(list(images)[number] for number in numbers)


@pytest.mark.parametrize("way", ["get", "move"])
def test_series_that_are_done_are_not_fetched(
    orthanc: Pacs, images: dict[str, list[Dataset]], way: str
) -> None:
    done = {unit.name for unit in list(orthanc.source().units(never))[:37]}
    units = list(orthanc.source(way).units(done.__contains__))
    assert len(units) == 3
    assert not {unit.name for unit in units} & done


@pytest.mark.parametrize("way", ["get", "move"])
def test_series_larger_than_a_unit_comes_in_parts_that_are_known_again(
    orthanc: Pacs, images: dict[str, list[Dataset]], way: str
) -> None:
    query = Query(patient_ids=("P0",))
    units = list(orthanc.source(way, query, unit_bytes=7000).units(never))
    assert [len(unit.items) for unit in units] == [2, 1]
    assert pacs.pixels(i for u in units for i in u.items) == sent_pixels(images, 0)
    again = orthanc.source(way, query, unit_bytes=7000).units(units[0].name.__eq__)
    assert [unit.name for unit in again] == [units[1].name]


def test_no_answer_is_lost_however_fast_one_request_follows_another(
    orthanc: Pacs, images: dict[str, list[Dataset]]
) -> None:
    """pynetdicom 3.0.4 alone loses some: its thread takes answers to our requests."""
    archive = orthanc.source(timeout_s=3)._archive
    series = [found for study in archive.find_studies() for found in archive.find_series(study.uid)]
    try:
        for _ in range(8):
            for each in series:
                assert len(archive.find_instances(each)) == 3
    finally:
        archive.close()


@pytest.mark.parametrize("way", ["get", "move"])
def test_killed_in_the_middle_and_restarted_everything_arrives_once(
    tmp_path: Path, images: dict[str, list[Dataset]], way: str
) -> None:
    own = Pacs(tmp_path / "own")
    waits: list[str] = []
    try:
        own.start().fill(pacs.encoded(i) for series in images.values() for i in series)
        units: list[Unit] = []
        for unit in own.source(way, on_wait=waits.append).units(never):
            units.append(unit)
            if len(units) == 7:
                own.kill()
                threading.Timer(0.6, own.start).start()
    finally:
        own.kill()
    assert pacs.pixels(i for u in units for i in u.items) == sent_pixels(images)
    assert waits


def test_killed_for_good_it_is_lost_in_a_sentence_within_the_patience(
    tmp_path: Path, images: dict[str, list[Dataset]]
) -> None:
    own = Pacs(tmp_path / "own")
    try:
        own.start().fill(pacs.encoded(i) for series in images.values() for i in series)
        asked = own.source(patience_s=1.0).units(never)
        units = [next(asked) for _ in range(3)]
        own.kill()
        killed = time.monotonic()
        with pytest.raises(SourceLostError) as lost:
            units.extend(asked)
    finally:
        own.kill()
    assert time.monotonic() - killed < 4
    assert str(lost.value).startswith("no DICOM connection with the PACS (check its host name")
    assert str(lost.value).endswith("run the same command again to go on")


def test_instance_that_the_archive_lost_is_not_delivered_and_not_forgotten(
    tmp_path: Path, images: dict[str, list[Dataset]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file vanished from its storage; the other two of the series come."""
    monkeypatch.setattr("datasites.imaging.sources.patience.FIRST_WAIT_S", 0.01)
    own = Pacs(tmp_path / "own")
    series = list(images)[1]
    try:
        own.start().fill(pacs.encoded(image) for image in images[series])
        damaged = images[series][1].SOPInstanceUID
        (path,) = (
            path
            for path in (tmp_path / "own/storage").rglob("*-*")
            if path.is_file()
            and damaged.encode() in path.read_bytes()[:2000]
            and path.read_bytes()[128:132] == b"DICM"
        )
        own.stop()
        path.unlink()
        own.start()
        for way in ("get", "move"):
            (unit,) = own.source(way).units(never)
            delivered = {item.name: item.content is not None for item in unit.items}
            assert delivered == {
                i.SOPInstanceUID: i.SOPInstanceUID != damaged for i in images[series]
            }
    finally:
        own.kill()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"calling_ae": "NOBODY"}, "the PACS does not know the AE title NOBODY; ask its admin"),
        ({"called_ae": "OTHER"}, "the PACS does not go by the AE title OTHER; ask its admin"),
        ({"port": 1}, "no DICOM connection with the PACS (check its host name and port"),
        ({"move_to": "NOWHERE"}, "the PACS refuses to send to the AE title NOWHERE (status C000)"),
    ],
)
def test_wrong_title_or_port_is_told_with_its_cure(
    orthanc: Pacs, options: dict[str, Any], sentence: str
) -> None:
    # A PACS that resets the connection at once takes its refusal with it, now and then.
    started = time.monotonic()
    told = (refusal(orthanc.source(**options)) for _ in range(4))
    assert any(words.startswith(sentence) for words in told)
    assert time.monotonic() - started < 15


def test_service_that_is_no_dicom_is_told(orthanc: Pacs) -> None:
    message = refusal(orthanc.source(port=orthanc.http_port, timeout_s=2))
    assert message.startswith("the PACS broke the association off before it began")


def test_dicom_over_tls(tmp_path: Path, images: dict[str, list[Dataset]]) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    make_keys(keys, "127.0.0.1", "pacs")
    own = Pacs(
        tmp_path / "own",
        DicomTlsEnabled=True,
        DicomTlsRemoteCertificateRequired=False,
        DicomTlsCertificate=str(keys / "tls_certificate.pem"),
        DicomTlsPrivateKey=str(keys / "tls_key.pem"),
        DicomTlsTrustedCertificates=str(keys / "tls_authority.pem"),
    )
    series = next(iter(images))
    try:
        own.start().fill(pacs.encoded(image) for image in images[series])
        trusted = ssl.create_default_context(cafile=keys / "tls_authority.pem")
        (unit,) = own.source(tls=trusted).units(never)
        assert pacs.pixels(unit.items) == sent_pixels(images, 0)
        unknown = own.source(tls=ssl.create_default_context(), timeout_s=3)
        assert refusal(unknown).startswith("the certificate of the PACS is not accepted")
        assert "TLS" in refusal(own.source(timeout_s=3))
    finally:
        own.kill()


def test_nothing_that_pynetdicom_logs_holds_a_uid_or_a_name(
    orthanc: Pacs, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("pynetdicom", "pynetdicom.assoc", "pynetdicom.events", "pynetdicom.dimse"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    for way in ("get", "move"):
        assert list(orthanc.source(way, Query(patient_ids=("P1",))).units(never))
    assert not [record for record in caplog.records if record.name.startswith("pynetdicom")]
    assert "1.2.826" not in caplog.text
    assert "Canary" not in caplog.text


# Pushes to our own port


def push(
    port: int, files: list[Dataset], calling: str = "MODALITY", called: str = "SITEGATE"
) -> Any:
    """Send files as a modality does; the statuses, or nothing if the association is refused."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 5
    syntaxes = {(f.SOPClassUID, f.file_meta.TransferSyntaxUID) for f in files}
    contexts = [build_context(VERIFICATION), *(build_context(*pair) for pair in syntaxes)]
    association = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called)
    if not association.is_established:
        return None
    try:
        echo = association.send_c_echo().get("Status")
        statuses = []
        for file in files:
            time.sleep(0.02)  # pynetdicom's race between one request and the next
            if not association.is_established:
                break
            statuses.append(association.send_c_store(file).get("Status"))
        return [echo, *statuses]
    finally:
        association.release()


def receiver(**options: Any) -> Receiver:
    plain: dict[str, Any] = {"port": 0, "callers": ["MODALITY"], "quiet_s": 1.2, "idle_s": 2.5}
    return Receiver(**{**plain, **options})


def received(source: Receiver) -> tuple[list[Unit], threading.Thread]:
    units: list[Unit] = []
    thread = threading.Thread(target=lambda: units.extend(source.units(never)), daemon=True)
    thread.start()
    return units, thread


def test_what_is_pushed_is_yielded_by_series_when_it_is_quiet(
    images: dict[str, list[Dataset]],
) -> None:
    chosen = [image for series in list(images.values())[-4:] for image in series]
    source = receiver()
    units, thread = received(source)
    assert push(source.port, chosen[::2]) == [0] * 7
    assert push(source.port, chosen[1::2]) == [0] * 7
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(series_of(unit) for unit in units) == sorted(list(images)[-4:])
    found = pacs.pixels(item for unit in units for item in unit.items)
    assert found == {image.SOPInstanceUID: image.PixelData for image in chosen}


def test_series_that_is_pushed_again_is_known_and_what_is_new_of_it_is_not_taken_for_it(
    images: dict[str, list[Dataset]],
) -> None:
    series = next(iter(images.values()))
    names = []
    for files in (series[:2], series[1::-1], series):
        source = receiver()
        push(source.port, files)
        source.stop()
        names.append([unit.name for unit in source.units(never)])
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("calling", "called", "accepted"),
    [("MODALITY", "SITEGATE", True), ("STRANGER", "SITEGATE", False), ("MODALITY", "X", False)],
)
def test_only_named_titles_may_send(
    images: dict[str, list[Dataset]], calling: str, called: str, accepted: bool
) -> None:
    source = receiver()
    units, thread = received(source)
    answer = push(source.port, next(iter(images.values())), calling, called)
    source.stop()
    thread.join(10)
    assert (answer is not None) == accepted
    assert bool(units) == accepted


def test_what_waits_in_memory_is_limited_and_room_comes_back(
    images: dict[str, list[Dataset]],
) -> None:
    """Each instance has about 2.9 kB; three fit."""
    first, second, third, fourth = (series[0] for series in list(images.values())[:4])
    source = receiver(waiting_bytes=9000, quiet_s=0.5, idle_s=2.0)
    assert push(source.port, [first, second, third, fourth]) == [0, 0, 0, 0, 0xA700]
    assert source.refused == 1
    units, thread = received(source)
    time.sleep(1.0)
    assert push(source.port, [fourth]) == [0, 0]
    thread.join(10)
    assert len(units) == 4


def test_instance_past_the_limit_is_refused_and_one_far_past_it_ends_the_association(
    images: dict[str, list[Dataset]],
) -> None:
    small = next(iter(images.values()))[0]
    large = pacs.dicom(1, series="1.2.3", size=64)
    huge = pacs.dicom(2, series="1.2.3", size=1024)
    source = receiver(instance_bytes=4000)
    units, thread = received(source)
    assert push(source.port, [small, large]) == [0, 0, 0xA700]
    assert push(source.port, [huge, small]) == [0, None]
    source.stop()
    thread.join(10)
    assert [len(unit.items) for unit in units] == [1]


def test_taken_port_is_refused_in_a_sentence() -> None:
    source = receiver()
    with pytest.raises(UnreadableSourceError, match="cannot be listened on: another program"):
        receiver(port=source.port)
    source.stop()
    assert list(source.units(never)) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"callers": []}, "nobody may send"),
        ({"callers": ["A" * 17]}, "1 to 16 printable"),
        ({"callers": [" "]}, "1 to 16 printable"),
        ({"ae_title": "A\\B"}, "no backslash"),
        ({"quiet_s": 0}, "more than 0 seconds"),
    ],
)
def test_receiver_that_cannot_be_meant_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnreadableSourceError, match=sentence):
        receiver(**options)


def test_a_late_event_of_a_connection_that_is_over_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: shown.append(told.exc_type))
    forget_late_events()
    forget_late_events()

    def end(error: Exception) -> None:
        raise error

    for error in (InvalidEventError("Evt9 in Sta13"), ValueError("another")):
        thread = threading.Thread(target=end, args=(error,))
        thread.start()
        thread.join()
    assert shown == [ValueError]
