"""Publishing from a real Orthanc, which is stopped and killed meanwhile, as is the publishing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import Dataset, dcmread
from pynetdicom import AE
from typer.testing import CliRunner

import canaries
import factories
import pacs
from datasites.catalogue import is_intact, versions_on_disk
from datasites.certificate import Certificate, read_certificate
from datasites.cli import app
from datasites.config import Site
from datasites.imaging.dicom_phantoms import MAKERS, write_chest_phantoms
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.new_site import example_config, make_site
from datasites.trial import free_port

CLASSES = ("clear", "opacity")
STUDIES, PUSHED = 200, 20
NAME = "chest-xray"
TITLE, PUSHER = "SITEGATE", "SCANNER7"
COMMAND = "import sys; from datasites.cli import app; sys.argv[0] = 'sitegate'; app()"
# A PACS that is gone is waited for 2 seconds instead of 60.
IMPATIENT = (
    "from datasites.imaging.sources.dicomweb import DicomWebSource as Source; "
    f"Source.__init__.__kwdefaults__['patience_s'] = 2.0; {COMMAND}"
)
RETRIEVED = re.compile(r"\(http\) GET /dicom-web/studies/[\d.]+/series/([\d.]+)(?:\s|/instances/)")


@dataclass(frozen=True)
class Studies:
    """Invented patients' files, and what must not be found anywhere else."""

    folder: Path
    labels: Path
    images: tuple[Dataset, ...]
    secrets: canaries.Canaries

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.dcm"))


def write_studies(place: Path, count: int, seed: int) -> Studies:
    """Chest radiographs of 64 pixels, a study each, in Explicit VR."""
    drawn, labels = draw_chest_phantoms(count, seed=seed, size=64)
    maker = MAKERS["aster"]
    table = write_chest_phantoms(
        place / "images", drawn, labels, maker=maker, seed=seed, classes=CLASSES
    )
    files = sorted((place / "images").rglob("*.dcm"))
    images = tuple(dcmread(path, stop_before_pixels=True) for path in files)
    return Studies(place / "images", table, images, _secrets(place / "images", table, images))


def _secrets(folder: Path, table: Path, images: tuple[Dataset, ...]) -> canaries.Canaries:
    texts = {path.name: "name of a folder" for path in folder.iterdir()}
    for image in images:
        for keyword in (
            "PatientID", "PatientName", "PatientAddress", "AccessionNumber", "StudyInstanceUID",
            "SeriesInstanceUID", "SOPInstanceUID",
        ):  # fmt: skip
            texts[str(image[keyword].value)] = keyword
    planted = tuple(
        canaries.Canary(
            text,
            where,
            {
                text.encode(): "itself",
                text.encode().hex().encode(): "hex",
                hashlib.sha256(text.encode()).hexdigest().encode(): "a hash without a key",
            },
        )
        for text, where in texts.items()
    )
    return canaries.Canaries(folder, table, planted, {}, ())


def make(path: Path, **publishing: Any) -> Site:
    policy = path.parent / f"{path.name}-policy.yaml"
    rules = {"text_search": "off", "minimum_per_class": 3, "minimum_patients": 3, **publishing}
    plain = factories.policy(publishing=rules, examples={"minimum": 5})
    policy.write_text(yaml.safe_dump(plain.model_dump(mode="json")))
    owner = "olga@st-marys.example"
    return make_site(path, example_config("st-marys"), policy, owner, owner, factories.PASSWORD)


def publish_command(site: Site, source: str, labels: Path) -> list[str]:
    return [
        "dataset", "publish", source, "--name", NAME, "--site", str(site.path),
        "--classes", ",".join(CLASSES), "--licence", "none", "--labels", str(labels),
        "--size", "64", "--as", "olga",
    ]  # fmt: skip


class Publishing:
    """`sitegate dataset publish` in a process of its own."""

    def __init__(
        self, site: Site, source: str, labels: Path, *options: str, text: str = COMMAND
    ) -> None:
        self._site = site
        self._process = subprocess.Popen(
            [sys.executable, "-c", text, *publish_command(site, source, labels), *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip

    def wait_until_read(self, units: int) -> int:
        """Wait until this many units are on the disk; returns how many are."""
        end = time.monotonic() + 40
        while (read := units_read(self._site)) < units:
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < end, f"{read} units after 40 s"
            time.sleep(0.01)
        return read

    def kill(self) -> None:
        """Kill it; its workers have to end by themselves."""
        self._process.kill()
        self._process.communicate()
        end = time.monotonic() + 10
        while _runs(self._process.pid):
            if time.monotonic() > end:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise AssertionError("workers outlive the command")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it if it still runs."""
        if self._process.poll() is None:
            self.kill()

    def end(self, code: int = 0) -> tuple[str, str]:
        """What it printed to its end; the exit code has to be this."""
        try:
            out, err = self._process.communicate(timeout=80)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert self._process.returncode == code, f"{out}\n{err}"
        assert "Traceback" not in err
        return out, err


def _runs(group: int) -> bool:
    """Whether a process of a process group is there."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, group_of_it = path.read_text().rpartition(")")[2].split()[:3]
            if int(group_of_it) == group and state != "Z":
                return True
    return False


def units_read(site: Site) -> int:
    journals = list((site.state / "imports").glob("*/journal.jsonl"))
    return sum(path.read_bytes().count(b"\n") for path in journals)


def certificate_of(site: Site) -> Certificate:
    """The certificate of the only version."""
    (version,) = versions_on_disk(site.datasets)
    assert is_intact(site.datasets, version)
    return read_certificate(site.datasets, version)


def assert_nobody_is_named(studies: Studies, site: Site, *printed: str) -> None:
    assert canaries.search([site.path], studies.secrets) == []
    assert canaries.search_bytes("\n".join(printed).encode(), studies.secrets) == []


def retrievals(orthanc: pacs.Orthanc, since: int = 0) -> Counter[str]:
    """Series UID -> how often Orthanc was asked for its images, by its log."""
    return Counter(RETRIEVED.findall(orthanc.log()[since:]))


def start(orthanc: pacs.Orthanc) -> None:
    """Start it, and let it write down what it is asked for."""
    orthanc.start().ask("PUT", "/tools/log-level", data="verbose").raise_for_status()


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return write_studies(tmp_path_factory.mktemp("studies"), STUDIES, seed=0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, studies: Studies) -> Iterator[pacs.Orthanc]:
    allowed = ("AllowEcho", "AllowFind", "AllowGet", "AllowMove")
    us = {"AET": TITLE, "Host": "127.0.0.1", "Port": 104, **dict.fromkeys(allowed, True)}
    made = pacs.Orthanc(tmp_path_factory.mktemp("orthanc"), DicomModalities={TITLE: us})
    try:
        start(made)
        made.fill(path.read_bytes() for path in studies.files)
        yield made
    finally:
        made.kill()


@pytest.fixture
def orthanc(running: pacs.Orthanc) -> pacs.Orthanc:
    """Orthanc with all studies, running, whatever the test before did to it."""
    running.kill()
    start(running)
    return running


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory, studies: Studies) -> dict[str, str]:
    """Array file -> SHA-256, of the same files published as a folder at a site of its own."""
    site = make(tmp_path_factory.mktemp("folder") / "site")
    out, _ = Publishing(site, str(studies.folder), studies.labels).end()
    assert_nobody_is_named(studies, site, out)
    found = certificate_of(site)
    assert (found.images, found.source) == (STUDIES, "folder")
    assert {f"{split}_images.npy" for split in ("train", "val", "test")} <= set(found.arrays)
    return found.arrays


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make(tmp_path / "site")


# --- interruptions -----------------------------------------------------------------------------


def test_publishing_goes_on_by_itself_when_the_pacs_comes_back(
    orthanc: pacs.Orthanc, studies: Studies, site: Site, arrays: dict[str, str]
) -> None:
    since = len(orthanc.log())
    publishing = Publishing(site, orthanc.web, studies.labels, "--all-studies")
    read = publishing.wait_until_read(32)
    orthanc.kill()
    time.sleep(1.5)
    start(orthanc)
    out, err = publishing.end()
    assert read < STUDIES
    assert "trying again" in err
    assert "Resumed" not in out
    found = certificate_of(site)
    assert (found.images, found.source) == (STUDIES, "PACS over DICOMweb")
    assert found.quarantined == {}
    assert found.arrays == arrays
    # Only what was on its way when the PACS ended is asked for twice.
    asked = retrievals(orthanc, since)
    assert len(asked) >= STUDIES - 1
    assert asked.total() <= STUDIES + 5
    assert_nobody_is_named(studies, site, out, err)


def test_after_kill_9_and_after_a_pacs_that_is_gone_the_same_command_goes_on(
    orthanc: pacs.Orthanc, studies: Studies, site: Site, arrays: dict[str, str]
) -> None:
    publishing = Publishing(site, orthanc.web, studies.labels, "--all-studies")
    publishing.wait_until_read(32)
    publishing.kill()
    first = units_read(site)
    assert 32 <= first < STUDIES - 64
    assert versions_on_disk(site.datasets) == []
    assert_nobody_is_named(studies, site)

    publishing = Publishing(site, orthanc.web, studies.labels, "--all-studies", text=IMPATIENT)
    publishing.wait_until_read(first + 16)
    orthanc.kill()
    out, err = publishing.end(1)
    assert out == ""
    sentences = " ".join(err.split())
    assert sentences.endswith(
        ", for 2 s; what was published so far is kept: run the same command again to go on"
    )
    assert sentences.count("run the same command again") == 1
    assert versions_on_disk(site.datasets) == []
    second = units_read(site)
    assert first + 16 <= second < STUDIES
    assert_nobody_is_named(studies, site, err)

    start(orthanc)
    since = len(orthanc.log())
    out, err = Publishing(site, orthanc.web, studies.labels, "--all-studies").end()
    assert f"Resumed: {second} files had been read before." in out
    asked = retrievals(orthanc, since)
    assert (len(asked), asked.total()) == (STUDIES - second, STUDIES - second)
    assert certificate_of(site).arrays == arrays
    assert list((site.state / "imports").iterdir()) == []
    assert_nobody_is_named(studies, site, out, err)


# --- other ways in -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ways:
    """Publishing in three other ways, at the same time because much of it is waiting."""

    running: dict[str, tuple[Site, Publishing]]
    pushed: Studies
    statuses: list[int]
    stranger: list[int]


@pytest.fixture(scope="module")
def ways(
    running: pacs.Orthanc, studies: Studies, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ways]:
    running.kill()
    start(running)
    place = tmp_path_factory.mktemp("ways")
    pushed = write_studies(place / "pushed", PUSHED, seed=1)
    receiving, moving = free_port(), free_port()
    running.know("MOVEDHERE", moving)
    address = f"dicom://{running.aet}@127.0.0.1:{running.dicom_port}"
    move = ("--move-to", "MOVEDHERE", "--move-port", str(moving))
    commands: dict[str, tuple[Studies, str, tuple[str, ...]]] = {
        "push": (pushed, f"receive:{receiving}", ("--senders", PUSHER, "--idle", "5")),
        "C-GET": (studies, address, ("--all-studies",)),
        "C-MOVE": (studies, address, ("--all-studies", "--ae-title", TITLE, *move)),
    }
    started: dict[str, tuple[Site, Publishing]] = {}
    try:
        for way, (images, source, options) in commands.items():
            site = make(place / way)
            started[way] = site, Publishing(site, source, images.labels, *options)
        wait_until_listening(receiving)
        stranger = push(pushed.files[:1], "STRANGER", receiving)
        yield Ways(started, pushed, push(pushed.files, PUSHER, receiving), stranger)
    finally:
        for _, publishing in started.values():
            publishing.stop()


@pytest.mark.parametrize("way", ["C-GET", "C-MOVE"])
def test_dimse_brings_the_same_arrays(
    ways: Ways, studies: Studies, arrays: dict[str, str], way: str
) -> None:
    site, publishing = ways.running[way]
    out, err = publishing.end()
    found = certificate_of(site)
    assert found.source == f"PACS over DIMSE ({way})"
    assert (found.images, found.quarantined) == (STUDIES, {})
    assert found.arrays == arrays
    assert_nobody_is_named(studies, site, out, err)


def test_pushed_studies_are_published_if_the_sender_is_named(ways: Ways, tmp_path: Path) -> None:
    assert ways.stranger == []
    assert ways.statuses == [0x0000] * PUSHED
    site, publishing = ways.running["push"]
    out, err = publishing.end()
    found = certificate_of(site)
    assert (found.images, found.quarantined, found.source) == (PUSHED, {}, "DICOM receiver")
    assert_nobody_is_named(ways.pushed, site, out, err)
    folder = make(tmp_path / "folder")
    command = publish_command(folder, str(ways.pushed.folder), ways.pushed.labels)
    assert CliRunner().invoke(app, command).exit_code == 0
    assert certificate_of(folder).arrays == found.arrays


def wait_until_listening(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nobody listens")


def push(files: list[Path], title: str, port: int) -> list[int]:
    """The status of each C-STORE; none if the association is refused."""
    entity = AE(title)
    image = dcmread(files[0], stop_before_pixels=True)
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=TITLE)
    if not association.is_established:
        return []
    statuses = [association.send_c_store(dcmread(path)).Status for path in files]
    association.release()
    return statuses


# --- queries -----------------------------------------------------------------------------------


def test_scan_shows_what_there_is_and_changes_nothing(
    orthanc: pacs.Orthanc, studies: Studies, site: Site
) -> None:
    until = dates_of(studies)[60]
    count = sum(image.StudyDate <= until for image in studies.images)
    before = content_of(site), orthanc.ask("GET", "/statistics").json()
    done = subprocess.run(
        [
            sys.executable, "-c", COMMAND, "dataset", "scan", orthanc.web, "--until", until,
            "--site", str(site.path),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (content_of(site), orthanc.ask("GET", "/statistics").json()) == before
    lines = done.stdout.splitlines()
    assert lines[0] == f"{count} files, {count} series or pictures"
    row = f"DX Explicit VR Little Endian MONOCHROME2 12 64 x 64 {count}"
    assert row in [" ".join(line.split()) for line in lines]
    assert max(map(len, lines)) <= 80
    assert_nobody_is_named(studies, site, done.stdout, done.stderr)


def content_of(site: Site) -> dict[str, tuple[int, str]]:
    """Path -> time of the last change, and hash."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in site.path.rglob("*")
        if path.is_file()
    }


def dates_of(studies: Studies) -> list[str]:
    return sorted(str(image.StudyDate) for image in studies.images)


QUERIES = {
    "modality": lambda s: ["--modality", "DX", "--until", dates_of(s)[11]],
    "other modality": lambda s: ["--modality", "CT"],
    "since": lambda s: ["--since", dates_of(s)[-9]],
    "until": lambda s: ["--until", dashed(dates_of(s)[8])],
    "between": lambda s: ["--since", dates_of(s)[60], "--until", dates_of(s)[70]],
    "accession": lambda s: ["--accession", ",".join(accessions(s, 3)) + ",NOSUCH1"],
    "accession and date": lambda s: [
        "--accession", ",".join(accessions(s, 9)), "--since", dates_of(s)[100],
    ],
    "description": lambda s: ["--study-description", "chest pa*", "--until", dates_of(s)[4]],
    "other description": lambda s: ["--study-description", "Head*"],
}  # fmt: skip


def dashed(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def accessions(studies: Studies, count: int) -> list[str]:
    return [str(image.AccessionNumber) for image in studies.images[:count]]


def meant(studies: Studies, options: list[str]) -> list[Dataset]:
    """The images that a query is met by, looked through one by one."""
    asked = dict(zip(options[::2], options[1::2], strict=True))
    since, until = (
        asked.get(o, d).replace("-", "") for o, d in (("--since", "0"), ("--until", "9"))
    )
    return [
        image
        for image in studies.images
        if since <= image.StudyDate <= until
        and asked.get("--modality", "DX") == "DX"
        and str(image.AccessionNumber) in asked.get("--accession", str(image.AccessionNumber))
        and asked.get("--study-description") != "Head*"
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_queries_find_what_they_name_and_nothing_else(
    running: pacs.Orthanc, studies: Studies, query: str
) -> None:
    options = QUERIES[query](studies)
    expected = meant(studies, options)
    assert len(expected) < 40
    since = len(running.log())
    done = CliRunner().invoke(app, ["dataset", "scan", running.web, "--json", *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["files"] == len(expected)
    assert set(retrievals(running, since)) == {str(image.SeriesInstanceUID) for image in expected}


def test_a_query_is_published_with_a_search_for_text(
    running: pacs.Orthanc, studies: Studies, tmp_path: Path
) -> None:
    site = make(tmp_path / "site", text_search="required")
    options = ["--accession", ",".join(accessions(studies, 24)), "--modality", "DX"]
    out, err = Publishing(site, running.web, studies.labels, *options, "--json").end()
    found = certificate_of(site)
    assert found.images + found.quarantined.get("text found in pixels", 0) == 24
    assert found.images >= 20
    assert found.text_search.searched == 24
    assert found.text_search.tool is not None
    assert json.loads(out)["text_searched"] is True
    assert_nobody_is_named(studies, site, out, err)


@pytest.mark.parametrize(
    ("source", "options", "code", "sentence"),
    [
        ("{web}", [], 1, "say --all-studies"),
        ("{web}", ["--all-studies", "--modality", "DX"], 1, "leave one of the two out"),
        ("{web}", ["--since", "2024-02-30"], 1, "must exist"),
        ("{web}", ["--since", "20240201", "--until", "20240101"], 1, "before they begin"),
        ("{web}", ["--modality", "x-ray"], 1, "a modality is"),
        ("{web}", ["--accession", "A*"], 1, "would match others too"),
        ("{web}nothing", ["--all-studies"], 1, "check its path"),
        ("http://127.0.0.1:{closed}/dicom-web", ["--all-studies"], 1, ""),
        ("http://pacs.example/dicom-web", ["--all-studies"], 1, "use https"),
        ("dicom://127.0.0.1:{dimse}", ["--all-studies"], 2, "dicom://AETITLE@host:port"),
        ("dicom://ORTHANC@127.0.0.1:{closed}", ["--all-studies"], 1, ""),
        ("dicom://WRONG@127.0.0.1:{dimse}", ["--all-studies"], 1, ""),
        ("dicom://ORTHANC@127.0.0.1:{dimse}", ["--all-studies", "--ae-title", "WHO"], 1, ""),
        ("dicom://ORTHANC@127.0.0.1:{dimse}", ["--all-studies", "--move-to", "WHO"], 1, ""),
        ("receive:{closed}", [], 1, ""),  # nobody may send
    ],
)
def test_what_cannot_be_meant_or_reached_is_said_in_a_sentence_at_once(
    running: pacs.Orthanc, source: str, options: list[str], code: int, sentence: str
) -> None:
    places = {"web": running.web, "dimse": running.dicom_port, "closed": free_port()}
    started = time.monotonic()
    done = CliRunner().invoke(app, ["dataset", "scan", source.format(**places), *options])
    assert time.monotonic() - started < 10
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    said = " ".join(done.stderr.split())
    assert sentence in said
    assert len(said) > 20
    assert "Traceback" not in said
    assert "Error" not in said
