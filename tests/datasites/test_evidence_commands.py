"""`sitegate evidence` as a person types it: exported by the running site, verified offline."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from typer.testing import CliRunner, Result

import factories
from datasites.cli import app
from datasites.control import short_path
from datasites.control_app import control_app
from datasites.errors import ConfigurationError
from datasites.evidence.folder import check_free, write_folder
from evidence_sites import CARLA, EvidenceSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceSite]:
    """A site whose control socket answers; R-1 was approved and ran once."""
    made = EvidenceSite(tmp_path_factory.mktemp("commands"))
    made.rehearse(made.submit())
    made.approve(1)
    made.release(1, 0)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(made.open.site.control_socket) as name:
        listener.bind(name)
    config = uvicorn.Config(control_app(made.open, made.syft), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield made
    server.should_exit = True
    thread.join(timeout=10)
    made.close()


@pytest.fixture(scope="module")
def key(site: EvidenceSite) -> str:
    """The site's public key, as it was handed over."""
    return str(site.open.site.keys / "site_key.pub")


def run(site: EvidenceSite, *arguments: str, password: str = factories.PASSWORD) -> Result:
    environment = {"SITEGATE_PASSWORD": password, "SITEGATE_SITE": str(site.open.site.path)}
    return CliRunner().invoke(app, ["evidence", *arguments], env=environment)


def test_evidence_is_exported_and_verified(site, key, tmp_path) -> None:
    done = run(site, "R-1", "--out", str(tmp_path / "ev"), "--as", CARLA.email)
    assert done.exit_code == 0, done.output
    assert "Wrote the evidence for R-1 to" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ev"]
    verified = run(site, "verify", str(tmp_path / "ev"), "--public-key", key)
    assert verified.exit_code == 0, verified.output
    assert verified.stdout.count(" ok ") == 5
    assert f"VERIFIED: {tmp_path / 'ev'}" in verified.stdout


@pytest.mark.parametrize(
    "words",
    [["1", "--out", "OUT"], ["--out", "OUT", "r-1"], ["export", "R-1", "--out", "OUT"]],
)
def test_the_request_may_stand_before_or_behind_the_options(site, tmp_path, words) -> None:
    arguments = [str(tmp_path / "ev") if word == "OUT" else word for word in words]
    assert run(site, *arguments, "--as", CARLA.email).exit_code == 0
    assert (tmp_path / "ev" / "evidence.html").exists()


def test_what_is_verified_is_also_told_to_machines(site, key, tmp_path) -> None:
    run(site, "1", "--out", str(tmp_path / "ev"), "--as", CARLA.email)
    verified = run(site, "verify", str(tmp_path / "ev"), "--public-key", key, "--json")
    plain = json.loads(verified.stdout)
    assert plain["verified"] is True
    assert [check["name"] for check in plain["checks"]] == [
        "manifest", "files", "log", "documents", "statements",
    ]  # fmt: skip


def test_a_changed_folder_is_told_with_exit_code_3(site, key, tmp_path) -> None:
    run(site, "1", "--out", str(tmp_path / "ev"), "--as", CARLA.email)
    (tmp_path / "ev" / "job.py").write_text("print('something else')\n")
    verified = run(site, "verify", str(tmp_path / "ev"), "--public-key", key)
    assert verified.exit_code == 3
    assert "files       BAD  'job.py' was changed after it was exported" in verified.stdout
    assert "NOT VERIFIED" in verified.stdout
    told = run(site, "verify", str(tmp_path / "ev"), "--public-key", key, "--json")
    assert told.exit_code == 3
    assert json.loads(told.stdout)["verified"] is False


def test_a_file_cannot_play_tricks_with_the_terminal(site, key, tmp_path) -> None:
    run(site, "1", "--out", str(tmp_path / "ev"), "--as", CARLA.email)
    record = tmp_path / "ev" / "evidence.json"
    record.write_text(record.read_text().replace("Double the weights", "\x9b2J\u202eDouble [red]"))
    (tmp_path / "ev" / "\x1b[2J").write_text("x")
    verified = run(site, "verify", str(tmp_path / "ev"), "--public-key", key)
    assert verified.exit_code == 3
    assert all(c.isprintable() or c == "\n" for c in verified.stdout)
    assert "[red]" in verified.stdout


def test_a_wrong_password_exports_nothing(site, tmp_path) -> None:
    arguments = ("1", "--out", str(tmp_path / "ev"), "--as", CARLA.email)
    refused = run(site, *arguments, password="wrong")
    assert refused.exit_code == 1
    assert not (tmp_path / "ev").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["R-x", "--out", "ev", "--as", "c@x"], "`R-x` is not a request; write R-7 or 7"),
        (["R-²", "--out", "ev", "--as", "c@x"], "is not a request"),
        (["verify", "nowhere", "--public-key", "KEY"], "there is no evidence at nowhere"),
        (["verify", ".", "--public-key", "nokey"], "there is no public key at nokey"),
        (["verify", ".", "--public-key", "/dev/null"], "holds no public key of a site"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(site, key, arguments, sentence) -> None:
    done = run(site, *[key if a == "KEY" else a for a in arguments])
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.split())


def test_without_words_the_help_says_both_ways(site) -> None:
    assert "sitegate evidence R-7" in run(site, "--help").stdout
    assert "verify" in run(site, "--help").stdout


def test_a_directory_that_is_taken_is_refused_before_anything_is_exported(site, tmp_path) -> None:
    (tmp_path / "ev").mkdir()
    (tmp_path / "ev" / "mine.txt").write_text("mine")
    before = site.log.read_bytes()
    done = run(site, "1", "--out", str(tmp_path / "ev"), "--as", CARLA.email)
    assert done.exit_code == 2
    assert "is not an empty directory" in " ".join(done.stderr.split())
    assert site.log.read_bytes() == before
    assert [p.name for p in (tmp_path / "ev").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("kind", ["file", "link", "full"])
def test_only_a_free_place_is_written_to(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "ev"
    if kind == "file":
        place.write_text("")
    elif kind == "link":
        place.symlink_to(tmp_path / "elsewhere")
    else:
        (place / "x").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="is not an empty directory"):
        check_free(place)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", {"a.txt": "ä\r\n"})
    assert (tmp_path / "empty" / "a.txt").read_bytes() == "ä\r\n".encode()
    assert stat.S_IMODE(os.stat(tmp_path / "empty").st_mode) == 0o700
    with pytest.raises(OSError, match="No such file"):
        write_folder(tmp_path / "new", {"a.txt": "a", "no/such/place": "b"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]
