"""`scripts/tissue`, small: MobileNetV2, ten classes, three hospitals, Adam, weighted averages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.timeout(400)

STUDY = [sys.executable, str(Path(__file__).resolve().parent.parent / "scripts/tissue_study.py")]


def test_the_study_trains_and_prints_loss_and_accuracy_of_each_round(tmp_path: Path) -> None:
    done = subprocess.run(
        [*STUDY, "--size", "32", "--images", "300", "--rounds", "2", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("approved by its data owner") == 3
    rounds = re.findall(
        r"^round +(\d+)   loss ([\d.]+)   accuracy ([\d.]+)   3 of 3 sites", done.stdout, re.M
    )
    assert [number for number, _, _ in rounds] == ["1", "2"]
    assert float(rounds[1][1]) < float(rounds[0][1])
    model = load_file(tmp_path / "tissue_model.safetensors")
    assert len(model) == 314
    assert model["classifier.1.weight"].shape == (10, 1280)


def test_an_argument_out_of_range_is_refused_in_a_sentence() -> None:
    done = subprocess.run([*STUDY, "--size", "16"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--size" in done.stderr
    assert "32" in done.stderr
