"""The README's commands and snippets work, in its order, as a newcomer would run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from datasites.trial import free_port

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    """The fenced block that follows the marker `<!-- test: name -->`."""
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block {name}"
    return found.group(1)


class Newcomer:
    """Someone who types what the README says, in a directory with the notebooks beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, str(free_port())
        (folder / "notebooks").symlink_to(ROOT / "notebooks")
        bin_folder = str(Path(sys.executable).parent)
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("SITEGATE", "SYFT"))}
        self.environment = {**keep, "PATH": f"{bin_folder}:{keep['PATH']}", "COLUMNS": "100"}

    def types(self, name: str, **replacements: str) -> str:
        """Run a bash block; what it prints."""
        text = block(name).replace("8443", self.port).replace(" /tmp", f" {self.folder}")
        for old, new in replacements.items():
            assert old in text
            text = text.replace(old, new)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def shown_password(text: str) -> str:
    return re.search(r"shown this once: (\S+)", text).group(1)


def test_the_three_paths_of_the_readme(tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path)
    fewer = {"--count 300": "--count 90"}  # text is searched for in each
    owner_password = shown_password(newcomer.types("owner-1", **fewer))
    newcomer.environment |= {
        "SITEGATE_SITE": "st-marys",
        "SITEGATE_PERSON": "olivia@stmarys.example",
    }
    serve = subprocess.Popen(
        [str(Path(sys.executable).parent / "sitegate"), "serve"],
        cwd=tmp_path, env=newcomer.environment, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        commands = "sitegate serve &                               # until Ctrl-C or SIGTERM\n"
        given = {commands: "", "'…'": f"'{owner_password}'"}
        researcher_password = shown_password(newcomer.types("owner-2", **given))
        newcomer.environment["SITEGATE_PASSWORD"] = owner_password
        (tmp_path / "roster.yaml").write_text(block("roster").replace("8443", newcomer.port))
        script = block("researcher").replace('"…"', repr(researcher_password))
        (tmp_path / "study.py").write_text(script)
        study = subprocess.Popen(
            [sys.executable, "study.py"],
            cwd=tmp_path, env=newcomer.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for_a_request(newcomer)
        said = newcomer.types("owner-3")
        assert "train a pneumonia classifier" in said
        assert "exactly what was declared: 18 arrays" in said  # the rehearsal
        assert "113100, 113103, 113105; " in said  # the certificate, on the review sheet
        assert "R-1: approved until" in said
        printed, problems = study.communicate(timeout=120)
        assert study.returncode == 0, problems
        assert "R-1/3/1" in printed
        assert re.search(r"^[0-9a-f]{64}$", printed, re.MULTILINE)
        said = newcomer.types("owner-5")
        assert "compliance" in said
        (tmp_path / "carla.txt").write_text(re.findall(r"shown this once: (\S+)", said)[1])
        said = newcomer.types("compliance")
        assert "request approved" in said
        assert "update released" in said
        assert said.count("Intact: ") == 2
        assert "Wrote the evidence for R-1" in said
        assert (tmp_path / "evidence-R-1" / "evidence.html").exists()
        said = newcomer.types("owner-6")
        assert "university-hospital v2 is in force" in said
        assert "R-1: approved until" in said
        said = newcomer.types("owner-4", INV12345678=a_patient(tmp_path / "archive"))
        assert "Nothing runs on version" in said
        assert "rita@uni.example" in said
    finally:
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(30) == 0


def a_patient(archive: Path) -> str:
    """The Patient ID of one of the archive's files."""
    first = next(path for path in sorted(archive.rglob("*")) if path.is_file())
    return str(dcmread(first, stop_before_pixels=True).PatientID)


def wait_for_a_request(newcomer: Newcomer) -> None:
    sitegate = str(Path(sys.executable).parent / "sitegate")
    for _ in range(60):
        listed = subprocess.run(
            [sitegate, "request", "list", "--json"],
            cwd=newcomer.folder, env=newcomer.environment, capture_output=True, text=True,
        )  # fmt: skip
        if '"request": 1' in listed.stdout:
            return
        time.sleep(0.5)
    pytest.fail("no request arrived")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", README))))
def test_tests_that_the_readme_names_exist(path: str) -> None:
    assert (ROOT / path).exists()
