"""Publishing from a real Orthanc, which is stopped and killed meanwhile, as is the publishing."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import Dataset, dcmread
from pynetdicom import AE

import canaries
import factories
import pacs
from datasites.catalogue import is_intact, versions_on_disk
from datasites.certificate import Certificate, read_certificate
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
# A PACS that is gone is waited for 3 seconds instead of 60.
IMPATIENT = (
    "from datasites.imaging.sources.dicomweb import DicomWebSource as Source; "
    f"Source.__init__.__kwdefaults__['patience_s'] = 3.0; {COMMAND}"
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


class Publishing:
    """`sitegate dataset publish` in a process of its own."""

    def __init__(
        self, site: Site, source: str, labels: Path, *options: str, text: str = COMMAND
    ) -> None:
        self._site = site
        self._process = subprocess.Popen(
            [
                sys.executable, "-c", text, "dataset", "publish", source, "--name", NAME,
                "--site", str(site.path), "--classes", ",".join(CLASSES), "--licence", "none",
                "--labels", str(labels), "--size", "64", "--as", "olga", *options,
            ],
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
        """End it as a power cut does, workers and all."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

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
def running(
    tmp_path_factory: pytest.TempPathFactory, studies: Studies
) -> Iterator[pacs.Orthanc]:
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
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return write_studies(tmp_path_factory.mktemp("pushed"), PUSHED, seed=1)


@pytest.fixture(scope="module")
def receiving(
    tmp_path_factory: pytest.TempPathFactory, pushed: Studies
) -> Iterator[tuple[Site, Publishing, int]]:
    """A site that waits for pushes, and its port; it waits while the other tests run."""
    site = make(tmp_path_factory.mktemp("receiving") / "site")
    port = free_port()
    publishing = Publishing(
        site, f"receive:{port}", pushed.labels, "--senders", PUSHER, "--idle", "6"
    )
    try:
        yield site, publishing, port
    finally:
        with contextlib_suppress():
            publishing.kill()


@contextmanager
def contextlib_suppress() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        pass
