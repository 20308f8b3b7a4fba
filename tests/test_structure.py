"""The rooms of the repository: who may import whom, and what is generated from what."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from policies.document import Policy

ROOT = Path(__file__).resolve().parent.parent
SYFT_MAY_BE_IMPORTED_IN = {
    "datasites/server.py",
    "datasites/syft_gate.py",
    "notebooks/federation/sites.py",
    "notebooks/federation/submission.py",
}
FORBIDDEN = {
    "policies": {"syft", "torch", "torchvision", "datasites", "federation"},
    "datasites": {"federation"},
    "datasites/imaging": {"federation", "syft"},
    "notebooks": {"datasites"},
}
EXAMPLES = sorted(path.stem for path in (ROOT / "policies").glob("*.yaml"))
SOURCES = sorted(
    path for room in ("policies", "datasites", "notebooks") for path in (ROOT / room).rglob("*.py")
)


def imported_modules(path: Path) -> set[str]:
    """Names of the top packages that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_there_are_sources_to_check() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_keep_to_the_directions_of_the_design(room: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): imported_modules(path) & FORBIDDEN[room]
        for path in SOURCES
        if path.is_relative_to(ROOT / room) and imported_modules(path) & FORBIDDEN[room]
    }
    assert wrong == {}


def test_syft_is_imported_in_few_named_files_only() -> None:
    found = {str(p.relative_to(ROOT)) for p in SOURCES if "syft" in imported_modules(p)}
    assert found <= SYFT_MAY_BE_IMPORTED_IN
    assert "datasites/syft_gate.py" in found


def test_the_worker_in_the_cage_imports_nothing_of_this_project() -> None:
    worker = ROOT / "datasites" / "sandbox" / "worker.py"
    assert not imported_modules(worker) & {"datasites", "policies", "federation", "syft"}


def test_the_policy_schema_is_the_one_of_the_model() -> None:
    stored = json.loads((ROOT / "policies" / "policy.schema.json").read_text())
    assert stored == Policy.model_json_schema(), "run scripts/schema"


def test_there_is_an_example_policy_for_each_kind_of_hospital() -> None:
    assert EXAMPLES == ["childrens-hospital", "community-hospital", "university-hospital"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_policies_fit_schema_and_model(name: str) -> None:
    plain = yaml.safe_load((ROOT / "policies" / f"{name}.yaml").read_text())
    schema = json.loads((ROOT / "policies" / "policy.schema.json").read_text())
    jsonschema.validate(plain, schema)
    Policy.model_validate(plain)


def test_requirements_pin_every_package_exactly() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith(("#", "./", "-e "))]
    assert len(packages) > 100
    assert all(re.fullmatch(r"[a-z0-9.\-]+==[A-Za-z0-9.+!]+", line) for line in packages)
    for pinned in ("syft==0.9.5", "torch==2.14.1", "torchvision==0.29.1", "numpy==1.24.4"):
        assert pinned in packages


def test_what_is_installed_fits_together() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_without_python_3_11_the_set_up_says_what_to_install(tmp_path: Path) -> None:
    for tool in ("bash", "cat", "dirname", "sha256sum", "uname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    copy = tmp_path / "repository" / "scripts"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", copy)
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, copy.parent)
    done = subprocess.run(
        [str(tmp_path / "bash"), str(copy / "setup")],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Sitegate needs Python 3.11 with venv, and none was found" in done.stderr


def test_every_wish_of_requirements_in_is_pinned() -> None:
    text = (ROOT / "requirements.in").read_text()
    wished = [re.split(r"[=<>#\s]", line)[0].lower() for line in text.splitlines() if line]
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().split()}
    missing = {w for w in wished if w and not w.startswith(("#", "./"))} - pinned
    assert missing == set(), "run scripts/lock"
