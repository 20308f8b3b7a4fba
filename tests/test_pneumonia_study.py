"""`scripts/pneumonia`, small: every algorithm trains over real sites, and is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasites.imaging.phantoms import draw_chest_phantoms

pytestmark = pytest.mark.timeout(400)

STUDY = [sys.executable, str(Path(__file__).resolve().parent.parent / "scripts/pneumonia_study.py")]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arrays: dict[str, np.ndarray] = {}
    for k, (split, count) in enumerate((("train", 200), ("val", 60), ("test", 60))):
        drawn, labels = draw_chest_phantoms(count, seed=k)
        arrays |= {f"{split}_images": drawn, f"{split}_labels": labels}
    file = tmp_path_factory.mktemp("study") / "chest.npz"
    np.savez(file, **arrays)
    return file


def study(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STUDY, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


CHOSEN = ["FedAvg", "FedBN"]


def test_algorithms_are_compared(images: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    only = [word for name in CHOSEN for word in ("--only", name)]
    done = study(
        "--data", images, "--hospitals", 1, "--rounds", 1, "--compare", *only, "--json", found
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads(found.read_text())
    assert table["index"] == CHOSEN
    assert len({tuple(row) for row in table["data"]}) == len(CHOSEN)
    assert table["columns"][:3] == ["val AUC", "val accuracy", "val balanced"]
    assert all(0 <= row[0] <= 1 for row in table["data"])


def test_seeds_are_trained_federated_and_pooled(images: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    done = study("--data", images, "--hospitals", 1, "--rounds", 1, "--seeds", 2, "--json", found)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads(found.read_text())
    trainings = [name for name, _ in table["index"]]
    assert trainings == ["federated"] * 4 + ["pooled"] * 4
    rows = {tuple(key): row for key, row in zip(table["index"], table["data"], strict=True)}
    for seed in (0, 1):  # at a single hospital one round is one epoch on all images
        assert rows["federated", seed] == pytest.approx(rows["pooled", seed], abs=0.02)


def test_an_algorithm_that_is_not_there_is_refused_in_a_sentence(images: Path) -> None:
    done = study("--data", images, "--compare", "--only", "FedMagic")
    assert done.returncode == 2
    assert "no algorithm FedMagic" in done.stderr
    assert "Krum" in done.stderr


def test_a_file_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = study("--data", tmp_path / "none.npz")
    assert done.returncode == 1
    assert "none.npz" in done.stdout.replace("\n", "")
    assert "Traceback" not in done.stdout + done.stderr
