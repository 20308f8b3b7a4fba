"""Canaries in every place where an identifier hides: none gets into what a site keeps or sends."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from pydicom import dcmread
from typer.testing import CliRunner

import factories
import federation
from canaries import CLASSES, Canaries, plant, search, search_bytes
from datasites.cli import app
from datasites.new_site import example_config
from datasites.trial import TrialSite, free_port, roster
from federation.job import Job
from federation.sites import Site
from federation.terms import Wanted
from policies.contract import Bound

NAME = "chest-xray"
PEEK_JOB = """\
# Counts what the card says, and gives the weights back; a job that tries to tell what it sees.
def train(data, weights, config):
    images, labels = data.arrays("train")
    if config["rate"] > 0.9:
        raise ValueError(str(data.card))
    return {"weights": weights, "metrics": {"loss": 0.5}, "examples": len(labels)}
"""


@dataclass
class Heard:
    """All that was printed, sent or received, by where it was heard."""

    parts: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, where: str, content: bytes | str) -> None:
        plain = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        self.parts.append((where, plain))

    def hits(self, canaries: Canaries) -> list[str]:
        return [str(hit) for w, c in self.parts for hit in search_bytes(c, canaries, w)]


@dataclass
class Place:
    """A site and its surroundings in one folder."""

    folder: Path
    trial: TrialSite
    heard: Heard

    @property
    def tmp(self) -> Path:
        """Where the commands may put temporary files."""
        return self.folder / "tmp"

    @property
    def state(self) -> Path:
        return self.trial.site.state

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SITEGATE_SITE": str(self.trial.site.path),
            "TMPDIR": str(self.tmp),
            "COLUMNS": "200",
        }

    def sitegate(self, *arguments: str, typed: str = "") -> str:
        """Run a command to its end; what it printed is heard."""
        done = subprocess.run(
            [sys.executable, "-m", "datasites.cli", *arguments],
            env=self.environment, input=typed.encode(), capture_output=True, timeout=120,
        )  # fmt: skip
        name = " ".join(arguments[:2])
        self.heard.add(f"output of {name}", done.stdout)
        self.heard.add(f"errors of {name}", done.stderr)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def here(self, *arguments: str, typed: str = "") -> str:
        """The same in this process, which is quicker, for commands that read no images."""
        done = CliRunner().invoke(app, arguments, input=typed, env=self.environment)
        self.heard.add(f"output of {' '.join(arguments[:2])}", done.output)
        assert done.exit_code == 0, done.output
        return done.stdout


def make_place(folder: Path) -> Place:
    folder.mkdir()
    (folder / "tmp").mkdir()
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(factories.policy().model_dump(mode="json")))
    config = example_config("st-marys").model_copy(update={"port": free_port()})
    return Place(folder, TrialSite(folder / "site", config, policy), Heard())


def publish(canaries: Canaries, *more: str) -> list[str]:
    return [
        *("dataset", "publish", str(canaries.folder), "--name", NAME),
        *("--classes", ",".join(CLASSES), "--licence", "none", "--as", "olga"),
        *("--labels", str(canaries.labels), "--size", "64", *more),
    ]


@contextlib.contextmanager
def relay(port: int, heard: Heard) -> Iterator[int]:
    """A port that passes everything on to another and hears it: what is on the wire."""
    server = socket.create_server(("127.0.0.1", 0))
    sockets = [server]

    def pass_on(source: socket.socket, target: socket.socket, where: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                heard.add(where, chunk)
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", port))
                sockets.extend((near, far))
                for ends in ((near, far, "wire, to the site"), (far, near, "wire, from the site")):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(server.getsockname()[1])
    finally:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def overheard(heard: Heard) -> Iterator[None]:
    """Hears what the researcher's client sends and receives, inside TLS and as values."""
    patch = pytest.MonkeyPatch()
    send, call, request = Site._send, Site.call_for_arrays, requests.Session.request

    def hear_send(self: Site, method: str, path: str, body: Any) -> bytes:
        content = send(self, method, path, body)
        heard.add(f"request to {path}", body or b"")
        heard.add(f"answer of {path}", content)
        return content

    def hear_request(
        self: requests.Session, method: str, url: str, **arguments: Any
    ) -> requests.Response:
        response = request(self, method, url, **arguments)
        heard.add(f"headers of {url}", str(response.headers))
        return response

    def hear_call(self: Site, path: str, payload: bytes = b"", **arguments: Any) -> Any:
        try:
            value, arrays = call(self, path, payload, **arguments)
        except Exception as error:
            heard.add(f"refusal of {path}", str(error))
            raise
        plain = getattr(value, "syft_action_data", value)
        heard.add(f"value of {path}", plain if isinstance(plain, bytes) else repr(plain))
        heard.add(f"arrays of {path}", arrays)
        return value, arrays

    with patch.context() as patched:
        patched.setattr(Site, "_send", hear_send)
        patched.setattr(requests.Session, "request", hear_request)
        patched.setattr(Site, "call_for_arrays", hear_call)
        yield


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Canaries:
    """The source, full of canaries."""
    return plant(tmp_path_factory.mktemp("canaries") / "source", seed=20)


@dataclass
class Afterwards:
    """What is left of a publication, a run and a withdrawal."""

    place: Place
    scanned: str
    outcome: dict[str, Any]
    certificate: dict[str, Any]
    report: dict[str, str]
    """File -> reason."""
    withdrawn: str


@pytest.fixture(scope="module")
def afterwards(
    canaries: Canaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Afterwards]:
    """Scan, publish, serve, submit, approve, run, look at everything, withdraw, stop."""
    place = make_place(tmp_path_factory.mktemp("afterwards") / "place")
    trial, heard, report = place.trial, place.heard, place.folder / "report.csv"
    scanned = place.sitegate("dataset", "scan", str(canaries.folder))
    outcome = json.loads(place.sitegate(*publish(canaries, "--report", str(report), "--json")))
    assert list(place.tmp.iterdir()) == [], "publish leaves temporary files"
    rows = csv.DictReader(io.StringIO(report.read_text(errors="surrogateescape")))
    named = {row["file"]: row["reason"] for row in rows}
    try:
        trial.launch()
        trial.wait_until_up()
        trial.add_account("rita@uni.example", "rita", factories.PASSWORD)
        with relay(trial.site.config.port, heard) as port, overheard(heard):
            _research(trial, port)
        certificate = json.loads(place.here("dataset", "certificate", NAME, "--json"))
        for command in (
            ("dataset", "certificate", NAME),
            ("dataset", "standardisation", NAME),
            ("dataset", "list"),
            ("dataset", "list", "--json"),
            ("request", "list"),
            ("request", "show", "1"),
            ("audit", "show"),
            ("status",),
        ):
            place.here(*command)
        withdrawn = place.sitegate("dataset", "withdraw", NAME, typed=f"{_a_patient(canaries)}\n")
        trial.stop()
        yield Afterwards(place, scanned, outcome, certificate, named, withdrawn)
    finally:
        trial.kill()


def _research(trial: TrialSite, port: int) -> None:
    """A researcher's day: look at everything, submit, run, be refused."""
    addresses = roster([trial])
    addresses["sites"][0]["url"] = f"https://127.0.0.1:{port}"
    sites = federation.connect(addresses, email="rita@uni.example", password=factories.PASSWORD)
    sites.datasets()
    sites[trial.name].mock(NAME)
    wanted = Wanted(
        title="A test", purpose="a test", dataset=NAME, runs=10,
        arguments={"rate": Bound(low=0.0, high=1.0)}, contract=factories.contract(),
    )  # fmt: skip
    study = sites.submit(Job(PEEK_JOB, "job", "train"), wanted)
    trial.decide(study.requests[trial.name], "approve", "a test")
    for number, rate in enumerate((0.5, 1.0), start=1):
        with contextlib.suppress(federation.RefusedError):
            study.run(
                trial.name, weights=factories.weights(), config={"rate": rate}, round_number=number
            )
    assert study.status().iloc[0]["runs used"] == "2 of 10"


def _a_patient(canaries: Canaries) -> str:
    """The ID of a patient that has a canary in it."""
    ids = {text.text for text in canaries.planted if text.where == "PatientID"}
    for name in canaries.publishable:
        if "backup.zip" not in name:
            patient = str(dcmread(canaries.folder / name, stop_before_pixels=True).PatientID)
            if any(canary in patient for canary in ids):
                return patient
    raise AssertionError("no patient has a canary for an ID")


def test_there_are_forty_canaries_and_more(canaries):
    assert len({canary.text for canary in canaries.planted}) >= 90
    assert len(canaries.burned_in) >= 8


def test_no_canary_is_in_anything_that_the_site_keeps(afterwards, canaries):
    place = afterwards.place
    kept = {path.name for path in place.state.iterdir()}
    assert {"site.db", "datasite.db", "audit.jsonl", "console.log", "datasets"} <= kept
    assert {"lineages", "site.log"} <= kept
    hits = search([place.state, place.tmp, place.folder / "site"], canaries)
    assert [str(hit) for hit in hits] == []


def test_no_canary_is_in_anything_that_was_printed_sent_or_received(afterwards, canaries):
    where = {name for name, _ in afterwards.place.heard.parts}
    assert {"wire, from the site", "answer of /api/v2/api_call", "arrays of code.call"} <= where
    assert {"output of dataset scan", "output of dataset withdraw"} <= where
    assert afterwards.place.heard.hits(canaries) == []


def test_the_search_would_find_a_canary_in_what_was_heard(afterwards, canaries):
    """The twin of the test before."""
    heard = Heard([*afterwards.place.heard.parts[:3]])
    heard.add("a leak", f"patient {canaries.planted[3].text} is here")
    assert len(heard.hits(canaries)) == 1


def test_every_image_with_a_canary_in_its_pixels_is_in_quarantine(afterwards, canaries):
    missed = {n: t for n, t in canaries.burned_in.items() if n not in afterwards.report}
    assert missed == {}
    reasons = {afterwards.report[name] for name in canaries.burned_in}
    assert reasons == {"text found in pixels"}


def test_every_image_without_text_is_published_and_every_file_is_accounted_for(
    afterwards, canaries
):
    assert [name for name in canaries.publishable if name in afterwards.report] == []
    published = [name for name in canaries.images if name not in afterwards.report]
    assert afterwards.certificate["images"] == len(published)
    left_out = sum(row["files"] for row in afterwards.outcome["quarantined"])
    files = int(afterwards.scanned.split(" files", 1)[0])
    assert len(published) + left_out == files == _files(canaries.folder)
    assert len(afterwards.report) == left_out


def _files(folder: Path) -> int:
    """Files of the source; the archive holds two."""
    return sum(path.is_file() for path in folder.rglob("*")) + 1


def test_a_patient_is_withdrawn_by_an_identifier_that_is_kept_nowhere(afterwards, canaries):
    assert "images withdrawn" in afterwards.withdrawn
    assert _a_patient(canaries) not in afterwards.withdrawn
    assert "R-1" in afterwards.withdrawn


# --- killed in the middle ----------------------------------------------------------------------


@dataclass
class Killed:
    """A publication that was killed and taken up again."""

    place: Place
    hits: list[str]
    lines: list[str]
    """Units of the journal when it was killed."""
    orphans: set[int]
    left_in_tmp: list[str]
    resumed: dict[str, Any]


@pytest.fixture(scope="module")
def killed(canaries: Canaries, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """`kill -9` of `dataset publish` after its first batches, then the same command again."""
    place = make_place(tmp_path_factory.mktemp("killed") / "place")
    console = place.folder / "console.txt"
    with console.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "datasites.cli", *publish(canaries)],
            env=place.environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        journal = None
        end = time.monotonic() + 60
        while not (journal and journal.read_bytes().count(b"\n") >= 16):
            assert process.poll() is None, console.read_text()
            assert time.monotonic() < end
            journal = next(place.state.glob("imports/*/journal.jsonl"), None)
            time.sleep(0.005)
        family = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    lines = [json.loads(line)["unit"] for line in journal.read_bytes().split(b"\n")[:-1]]
    hits = [str(hit) for hit in search([place.state, place.tmp, console], canaries)]
    end = time.monotonic() + 20
    while (orphans := {pid for pid in family if alive(pid)}) and time.monotonic() < end:
        time.sleep(0.1)
    left = [path.name for path in place.tmp.rglob("*") if path.is_file()]
    resumed = json.loads(place.sitegate(*publish(canaries, "--json")))
    return Killed(place, hits, lines, orphans, left, resumed)


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                found.add(int(child))
                waiting.append(int(child))
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_a_killed_publication_leaves_no_canary_on_the_disk(killed):
    assert len(killed.lines) >= 16
    assert killed.hits == []
    assert killed.left_in_tmp == []


def test_a_killed_publication_leaves_no_process_behind(killed):
    assert killed.orphans == set()


def test_a_killed_publication_goes_on_and_ends_as_one_that_was_not(killed, afterwards):
    whole = afterwards.certificate
    assert killed.resumed["resumed"] == len(killed.lines) == len(set(killed.lines))
    again = json.loads(killed.place.here("dataset", "certificate", NAME, "--json"))
    for field_ in ("arrays", "images", "patients", "quarantined", "actions", "text_search"):
        assert again[field_] == whole[field_], field_
    assert again["standardisation_sha256"] == whole["standardisation_sha256"]


def test_after_a_killed_publication_was_finished_nothing_of_it_is_left(killed, canaries):
    assert list((killed.place.state / "imports").iterdir()) == []
    hits = search([killed.place.state, killed.place.tmp], canaries)
    assert [str(hit) for hit in hits] == []
    assert killed.place.heard.hits(canaries) == []
