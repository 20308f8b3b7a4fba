"""The notebooks run from top to bottom, one after the other, over one running federation."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

import federation
from datasites.imaging.phantoms import draw_chest_phantoms
from demonstration_hospitals import (
    RESEARCHER,
    Demonstration,
    make_hospitals,
    prove_cages,
    publish_arrays_of,
    start_hospitals,
)
from demonstration_notebooks import write_for_notebooks

pytestmark = pytest.mark.timeout(600)

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
LONGEST_CELL = 20


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two running hospitals of the demonstration, and what `scripts/demo --keep` leaves."""
    folder = tmp_path_factory.mktemp("out")
    arrays: dict[str, np.ndarray] = {}
    for seed, (split, count) in enumerate({"train": 700, "test": 160}.items()):
        images, labels = draw_chest_phantoms(count, seed=seed)
        arrays |= {f"{split}_images": np.asarray(images), f"{split}_labels": labels}
        arrays[f"{split}_group_sex"] = np.array(["F", "M"])[np.arange(count) // 2 % 2]
    np.savez(folder / "phantoms.npz", **arrays)
    demonstration = Demonstration(folder / "phantoms.npz", 2, 2, 0, folder)
    (folder / "sites").mkdir()
    try:
        make_hospitals(demonstration, folder / "sites")
        list(publish_arrays_of(demonstration, folder / "phantoms.npz"))
        start_hospitals(demonstration)
        list(prove_cages(demonstration))
        write_for_notebooks(folder / "sites", demonstration.sites, demonstration.password)
        yield folder
    finally:
        for site in demonstration.sites:
            site.stop()


class Reader:
    """Somebody who runs notebooks from top to bottom, each in an empty kernel."""

    def __init__(self, out: Path) -> None:
        self.out, self.manager = out, KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(NOTEBOOKS))

    def run(self, name: str, **parameters: object) -> str:
        """Everything that a notebook shows; `../out` in its parameters is this test's folder."""
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        first = parameters_of(notebook)
        first.source = first.source.replace('"../out', f'"{self.out}')
        for variable, value in parameters.items():
            assert f"{variable} = " in first.source
            first.source += f"\n{variable} = {value!r}"
        # Modules stay loaded, which saves seconds; names do not.
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        client = NotebookClient(notebook, timeout=180, km=self.manager)
        try:
            client.execute()
        finally:
            client.kc.stop_channels()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
        return "\n".join(_text(output) for output in outputs)


def _text(output: Any) -> str:
    data = output.get("data", {})
    shown = [data[kind] for kind in ("text/html", "text/markdown", "text/plain") if kind in data]
    figure = "FIGURE" if "image/png" in data else ""
    return "\n".join([output.get("text", ""), *shown, figure])


def parameters_of(notebook: Any) -> Any:
    """The cell of the parameters."""
    return next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))


@pytest.fixture(scope="module")
def researcher(out: Path) -> Iterator[Reader]:
    """A researcher's kernel."""
    reader = Reader(out)
    yield reader
    reader.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def hospital(out: Path) -> Iterator[Reader]:
    """A kernel at the hospital."""
    reader = Reader(out)
    yield reader
    reader.manager.shutdown_kernel(now=True)


def test_a_study_from_the_first_look_to_the_evidence(
    out: Path, researcher: Reader, hospital: Reader
) -> None:
    shown = researcher.run("01_meet_the_sites")
    assert shown.count("● answers") == 2
    assert shown.count("FIGURE") == 2
    shown = researcher.run("02_develop_on_mocks")
    assert "✕ cannot be approved" in shown
    assert "resubmit with runs=11 or fewer" in shown
    assert "tofile" in shown
    shown = researcher.run("03_submit_and_wait", rounds=2, passes=2, wait_s=0)
    assert "waiting less than a minute at St Mary&#x27;s and North Clinic" in shown
    shown = hospital.run("12_review_requests")
    assert "R-2: approved, 0 of 4 runs used" in shown
    assert "Nothing found speaks against it" in shown
    assert shown.count("FIGURE") == 1
    shown = researcher.run("04_train", rounds=2, passes=2)
    assert "approved at St Mary&#x27;s and North Clinic" in shown
    assert "Every site (st-marys, north-clinic) contributed to each of 2 rounds." in shown
    fingerprint = re.search(r"^'([0-9a-f]{64})'$", shown, re.MULTILINE).group(1)
    shown = researcher.run("05_evaluate_and_report", rounds=2, passes=2)
    assert "local: North Clinic" in shown
    assert shown.count("FIGURE") == 3
    assert fingerprint in (out / "study" / "report.html").read_text()
    for file in ("report.pdf", "model_card.md", "global_model.safetensors"):
        assert (out / "study" / file).stat().st_size > 1000
    shown = hospital.run("22_prove_what_happened")
    assert "0 lines since the last are chained and not yet signed" in shown
    assert "VERIFIED: " in shown
    assert re.search(r"NOT intact: line \d+ was changed after it was written", shown)


def test_a_data_owner_publishes_what_researchers_see_at_once(out: Path, hospital: Reader) -> None:
    shown = hospital.run("11_publish_a_dataset", count=80)
    assert "Before: every file" not in shown  # it is in the figure
    assert shown.count("FIGURE") == 2
    assert "113100 Basic Application Confidentiality Profile" in shown
    assert "Nothing runs on version" in shown
    password = (out / "sites" / "researcher.password").read_text().strip()
    sites = federation.connect(out / "sites" / "roster.yaml", email=RESEARCHER, password=password)
    assert sites["st-marys"].dataset("emergency-xray").card["shape"] == [28, 28]


def test_a_reviewer_reads_the_policy_in_force(hospital: Reader) -> None:
    shown = hospital.run("21_read_the_policy")
    assert "What this policy does not protect against" in shown
    assert "Becomes refused" in shown
    cases = re.search(r"(\d+) of (\d+) cases as expected", shown)
    assert cases.group(1) == cases.group(2)
    assert shown.count("FIGURE") == 1


def test_only_their_user_reads_what_is_left_for_the_notebooks(out: Path) -> None:
    for name in ("roster.yaml", "researcher.password", "owners.yaml", "compliance.yaml"):
        assert stat.S_IMODE((out / "sites" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stripped_and_has_one_idea_a_cell(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), (
        f"strip it: jupyter nbconvert --clear-output --inplace notebooks/{name}.ipynb"
    )
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert 10 <= len(notebook.cells) <= 20
    assert notebook.cells[0].cell_type == "markdown"
    assert code[0] is parameters_of(notebook)
    assert max(len(cell.source.splitlines()) for cell in code) <= LONGEST_CELL


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_notebook_lead_to_another(name: str) -> None:
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert all((NOTEBOOKS / link).exists() for link in re.findall(r"\]\(([\w.]+)\)", text))


def test_there_is_a_notebook_for_each_step_of_each_user() -> None:
    assert NAMES == [
        "01_meet_the_sites", "02_develop_on_mocks", "03_submit_and_wait", "04_train",
        "05_evaluate_and_report", "11_publish_a_dataset", "12_review_requests",
        "21_read_the_policy", "22_prove_what_happened",
    ]  # fmt: skip
