"""The benchmarks, small and quick: what they measure is there and fits together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmark_sites
from datasites.imaging.phantoms import draw_chest_phantoms

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
DEMANDED = {
    "round_s", "limit_round_s", "ratio", "first_round_s", "cpu_s", "limit_cpu_s", "pss_mb",
    "processes", "wire_bytes", "auc", "weights_sha256",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 phantoms in the MedMNIST layout."""
    file = tmp_path_factory.mktemp("benchmarks") / "phantoms.npz"
    arrays = {}
    for k, (split, count) in enumerate({"train": 420, "val": 40, "test": 40}.items()):
        drawn, labels = draw_chest_phantoms(count, seed=k)
        arrays |= {f"{split}_images": np.asarray(drawn), f"{split}_labels": labels.reshape(-1, 1)}
    np.savez(file, **arrays)
    return file


def bench(name: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"benchmark_{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_round_is_measured_beside_the_same_epochs_in_plain_pytorch(images: Path) -> None:
    told = bench("federation", "--data", images, "--sites", 2, "--rounds", 2)
    assert set(told) >= DEMANDED
    assert told["same_weights_as_limit"], "what is compared is the same training"
    assert told["ratio"] == pytest.approx(told["round_s"] / told["limit_round_s"], abs=0.02)
    assert told["wire_bytes"] > 2 * 420_610 * 4  # weights there and back
    assert told["pss_mb"] > told["sites_pss_mb"] > 100
    assert sum(told["images"].values()) == 420
    assert len(told["weights_sha256"]) == 64


def test_calls_are_measured_for_each_number_of_weights(images: Path) -> None:
    told = bench("calls", "--data", images, "--calls", 3, "--epochs", 1, "--weights", 1000)
    assert list(told["calls"]) == ["1000"]
    assert all(call["call_s"] > 0 and call["calls"] == 3 for call in told["calls"].values())
    assert told["images"] == 420
    assert told["plain_epoch_s"] > 0


def test_many_rounds_leave_little_behind() -> None:
    told = bench("long", "--sites", 1, "--rounds", 20, "--weights", 50_000)
    (grown,) = told["disk_bytes"].values()
    assert grown < 20_000, told["largest_files"]
    early, late = (sum(look.values()) for look in told["memory_mb"])
    assert late - early < 30, told["memory_mb"]


def test_growth_is_drawn_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"round_s": 1.0, "limit_round_s": 0.8, "ratio": 1.25, "site_cpu_s": 0.1, "sites": 2,
           "site_pss_mb": 300, "images": 400}  # fmt: skip
    models = [{**{k: row[k] for k in ("round_s", "site_cpu_s", "site_pss_mb")}, "weights_mb": 1.7}]
    found = {"sites": [row, {**row, "sites": 4}], "model": models, "images": [row], "cores": 2}
    (tmp_path / "found.json").write_text(json.dumps(found))
    plots = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for plot in plots:
        told = ["sites", "--from-json", str(tmp_path / "found.json"), "--plot", str(plot)]
        monkeypatch.setattr(sys, "argv", told)
        benchmark_sites.main()
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    one, two = (plot.read_bytes() for plot in plots)
    assert one == two
    assert b"<svg" in one
