"""`scripts/demo`, as a newcomer runs it: small, and interrupted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasites.audit_log import verify_log
from datasites.imaging.phantoms import draw_chest_phantoms
from policies.arrays import arrays_sha256

pytestmark = pytest.mark.timeout(600)  # a whole demonstration, also on a busy machine

ROOT = Path(__file__).resolve().parent.parent
DEMO = [sys.executable, str(ROOT / "scripts" / "demonstration.py")]


def processes_below(folder: Path) -> list[str]:
    """Command lines of running processes that name a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def test_demo_leaves_summary_model_report_and_logs(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(*DEMO, "--sites", "2", "--rounds", "2", "--seed", "3"),
            *("--images", "400", "--out", str(tmp_path)),
        ],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DENIED  runs.maximum: 13 runs asked for, at most 11 allowed" in done.stdout
    assert "chains intact, signatures valid" in done.stdout
    assert processes_below(tmp_path) == []
    check_what_is_left(tmp_path)


def check_what_is_left(folder: Path) -> None:
    """The files of a demonstration say the same as the logs and as each other."""
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {
        "sites", "rounds", "seed", "data", "requests", "auc", "accuracy", "contributions",
        "audit", "weights_sha256", "seconds",
    }  # fmt: skip
    assert summary["sites"] == ["st-marys", "north-clinic"]
    assert [r["decision"] for r in summary["requests"]].count("denied") == 1
    assert len(summary["contributions"]) == 4
    assert set(summary["auc"]["local"]) == set(summary["sites"])
    assert set(summary["seconds"]) == {"setup", "approval", "rounds", "total"}
    with np.load(folder / "global_model.npz") as file:
        assert arrays_sha256({n: file[n] for n in file.files}) == summary["weights_sha256"]
    for name, said in summary["audit"].items():
        key = (folder / f"{name}.pub").read_text().strip()
        found = verify_log(folder / f"{name}-audit.jsonl", key)
        assert (found.intact, found.lines, found.unsigned_lines) == (
            said["verified"],
            said["lines"],
            0,
        )
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 4
    assert "F at St Mary" in page  # the shared model by subgroup
    assert not re.search(r'(src|href)="https?:', page)


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_the_demo_is_ended(tmp_path: Path, blow: signal.Signals) -> None:
    file = tmp_path / "chest.npz"
    arrays: dict[str, np.ndarray] = {}
    for k, split in enumerate(("train", "test")):
        images, labels = draw_chest_phantoms(400, seed=k)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(file, **arrays)
    demo = subprocess.Popen(
        [*DEMO, "--sites", "2", "--data", str(file), "--keep", "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: any("bwrap" in words for words in processes_below(tmp_path)), 90)
        demo.send_signal(blow)
        demo.wait(60)
        wait_until(lambda: not processes_below(tmp_path), 30)
    finally:
        demo.kill()
        demo.wait()


def test_a_file_that_is_no_npz_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "chest.npz"
    file.write_text("not an archive")
    done = subprocess.run(
        [*DEMO, "--data", str(file), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "chest.npz is not a readable .npz of arrays" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def wait_until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
