"""A real Orthanc for tests: started on free loopback ports, filled, stopped, killed, restarted."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from datasites.trial import free_port

CT, DX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1.1"
MISSING = "Orthanc is not installed; run: apt-get install orthanc orthanc-dicomweb"
PLUGINS = ["/usr/share/orthanc/plugins"]


class Orthanc:
    """One Orthanc in a process group of its own.

    Attributes:
        web: Root of its DICOMweb service.
        aet: Its AE title.
    """

    aet = "ORTHANC"

    def __init__(self, folder: Path, **settings: Any) -> None:
        program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/bin")
        assert program, MISSING
        assert list(Path(PLUGINS[0]).glob("*OrthancDicomWeb*")), MISSING
        self._program, self._folder = program, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.http_port, self.dicom_port = free_port(), free_port()
        self.web = f"http://127.0.0.1:{self.http_port}/dicom-web"
        self._auth: tuple[str, str] | None = next(
            iter(settings.get("RegisteredUsers", {}).items()), None
        )
        self._process: subprocess.Popen[bytes] | None = None
        config = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.aet,
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": PLUGINS,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomScuTimeout": 10,
            "ConcurrentJobs": 4,
            "OverwriteInstances": True,
            "DicomModalities": {},
            **settings,
        }
        (folder / "orthanc.json").write_text(json.dumps(config))

    def start(self) -> Orthanc:
        """Start, and wait until it answers; on the same ports and storage as before."""
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._folder / "orthanc.json")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 20
        while time.monotonic() < end:
            assert self._process.poll() is None, self.log()
            try:
                if self.ask("GET", "/system").ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.05)
        raise AssertionError(f"Orthanc did not answer within 20 s\n{self.log()}")

    def stop(self) -> None:
        """End it in order, or kill it if it does not end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """What it wrote."""
        return (self._folder / "orthanc.log").read_text(errors="replace")

    def ask(self, verb: str, path: str, **options: Any) -> requests.Response:
        """A request to its REST service."""
        return requests.request(
            verb,
            f"http://127.0.0.1:{self.http_port}{path}",
            auth=self._auth,
            timeout=20,
            **options,
        )

    def fill(self, files: Iterable[bytes]) -> None:
        """Store files."""
        for content in files:
            self.ask("POST", "/instances", data=content).raise_for_status()

    def know(self, title: str, port: int) -> None:
        """Add an AE title at a loopback port, as an administrator does."""
        self.ask(
            "PUT", f"/modalities/{title}", json={"AET": title, "Host": "127.0.0.1", "Port": port}
        ).raise_for_status()

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._process = None


def dicom(
    number: int,
    *,
    series: str,
    study: str | None = None,
    instance: str | None = None,
    sop_class: str = CT,
    size: int = 32,
    **attributes: Any,
) -> Dataset:
    """A small image whose pixels are random, always the same for the same number."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance or f"{series}.{number}"
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = study or f"{series}.0", series
    image.PatientID, image.PatientName = "P0", "Canary^Polly"
    image.AccessionNumber, image.StudyDate, image.StudyID = "A0", "20240115", "1"
    image.StudyTime, image.PatientBirthDate, image.PatientSex = "120000", "19700101", "O"
    image.ReferringPhysicianName, image.StudyDescription = "", "CHEST"
    image.Modality = "CT" if sop_class == CT else "DX"
    image.SeriesNumber, image.InstanceNumber, image.StationName = 1, number, "SCANNER1"
    image.Rows = image.Columns = size
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    pixels = np.random.default_rng(number).integers(0, 4096, (size, size), dtype=np.uint16)
    image.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    return image


def encoded(image: Dataset) -> bytes:
    """A PS3.10 file."""
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def forty_series() -> dict[str, list[Dataset]]:
    """Series UID -> its images: CT and DX by turns, 3 in each, one series compressed.

    Each series is a study of its own, of patient `P0` to `P39` (the
    13th is `P/1 a`), of January and February 2024.
    """
    made: dict[str, list[Dataset]] = {}
    for number in range(40):
        series = new_uid()
        made[series] = [
            dicom(
                index,
                series=series,
                sop_class=DX if number % 2 else CT,
                PatientID=f"P{number}" if number != 12 else "P/1 a",
                AccessionNumber=f"A{number}",
                StudyDate=f"2024{1 + number // 20:02d}{1 + number % 20:02d}",
                StudyDescription="Head" if number < 10 else "Chest 2 views",
                StationName="SCANNER1" if number < 30 else "SCANNER2",
            )
            for index in (1, 2, 3)
        ]
    for image in made[series]:
        image.compress(RLELossless, generate_instance_uid=False)
    return made


def pixels(files: Iterable[Any]) -> dict[str, bytes]:
    """SOP Instance UID -> pixel data, of items or PS3.10 files; each has to be there once."""
    found: dict[str, bytes] = {}
    for file in files:
        image = dcmread(io.BytesIO(file if isinstance(file, bytes) else file.read()))
        assert image.SOPInstanceUID not in found
        found[image.SOPInstanceUID] = image.PixelData
    return found


def new_uid() -> str:
    """A UID that nobody has."""
    return str(generate_uid(prefix="1.2.826.0.1.3680043.10.543."))[:55].rstrip(".")
