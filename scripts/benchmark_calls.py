"""What one call costs at one site, with TLS, gate, sandbox and audit all on.

For each number of float32 weights: seconds of a run of a job that gives back what it gets, as the
researcher sees it, weights out and update back included (`call_s`, a median); the site's processes'
memory above what they had before, at its highest (`extra_mb`).
`run_s`, `plain_epoch_s`, `more_s`: one epoch of the classifier at the site, the same epoch in plain
PyTorch with as many threads (one), in turns, and the median difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import federation
from benchmark_federation import TRAINING
from benchmark_hospitals import (
    CLASSES,
    DATASET,
    JOB,
    approve,
    load_images,
    make_hospitals,
    running,
)
from benchmark_limit import Limit, write_task
from benchmark_processes import Sampler
from datasites.trial import TrialSite
from federation.job import Job, read_job
from federation.submission import Federation, Study
from policies.arrays import Arrays

BACK = """\
# Gives back the weights that it gets.
def train(data, weights, config):
    return {"weights": weights, "metrics": {}, "examples": len(data.arrays("train")[1])}
"""
SIZES = {"0.42 M": 420_610, "2.2 M": 2_226_434, "25 M": 25_000_000}
"""The benchmark's CNN, MobileNetV2 with two classes, and 100 MB."""


def main() -> None:
    """Time calls and epochs, print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a MedMNIST .npz; without it phantoms are drawn")
    parser.add_argument("--calls", type=int, default=20, help="of each size (default 20)")
    parser.add_argument(
        "--weights", type=int, nargs="+", default=list(SIZES.values()),
        help="float32 numbers of each size (default: the benchmark's CNN, MobileNetV2, 100 MB)",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=5, help="default 5")
    asked = parser.parse_args()
    images, labels = load_images(asked.data)["train"]
    with tempfile.TemporaryDirectory(prefix="sitegate-bench-") as name:
        folder = Path(name)
        part = (np.asarray(images), labels)
        sites = make_hospitals(folder, [part], runs=200, maximum_mb=120)
        with running(sites) as connected:
            calls = {
                str(count): call_cost(
                    sites, connected, count, min(asked.calls, asked.calls * 2**22 // count)
                )
                for count in asked.weights
            }
            epoch = epoch_cost(sites, connected, folder, part, asked.epochs)
    print(json.dumps({"calls": calls, **epoch}))


def call_cost(
    sites: list[TrialSite], connected: Federation, count: int, calls: int
) -> dict[str, Any]:
    """Seconds and memory of runs with `count` weights."""
    weights = some_weights(count)
    study = submit(sites, connected, Job(BACK, "back", "train"), weights, {})
    numbers = iter(range(1, 1000))

    def call() -> None:
        update = study.run(sites[0].name, weights, {}, round_number=next(numbers))
        if any((update.weights[n] != a).any() for n, a in weights.items()):
            raise SystemExit("the update is not what was sent")

    seconds = [timed(call) for _ in range(max(calls, 3) + 1)][1:]
    print(f"{count:,} weights: {statistics.median(seconds):.3f} s", file=sys.stderr)
    with Sampler(period_s=0.02) as before:
        time.sleep(0.5)
    with Sampler(period_s=0.02) as meanwhile:
        for _ in range(3):
            call()
    return {
        "call_s": round(statistics.median(seconds), 3),
        "slowest_s": round(max(seconds), 3),
        "calls": len(seconds),
        "extra_mb": round(meanwhile.below_pss_mb - before.below_pss_mb),
    }


def epoch_cost(
    sites: list[TrialSite], connected: Federation, folder: Path, part: Any, epochs: int
) -> dict[str, Any]:
    """Seconds of an epoch at the site and in plain PyTorch, in turns."""
    job = read_job(JOB)
    card = {"shape": list(part[0].shape[1:]), "classes": list(CLASSES)}
    weights: Arrays = job.call("initial_weights", card, 0)
    config = {**TRAINING, "seed": 0}
    study = submit(sites, connected, job, weights, {**config, "round": (0, 1000)})
    write_task(folder / "task.npz", [part], weights)
    limit = Limit(folder / "task.npz", 2, 0)
    ours, plain = [], []
    for number in range(1, epochs + 2):
        here = {**config, "round": number}
        ours.append(
            timed(lambda k=number, c=here: study.run(sites[0].name, weights, c, round_number=k))  # type: ignore[misc]
        )
        plain.append(limit.round(number))
        print(f"epoch {number}: {ours[-1]:.2f} s; plain {plain[-1]:.2f} s", file=sys.stderr)
    limit.close()
    return {
        "images": len(part[1]),
        "run_s": round(statistics.median(ours[1:]), 3),
        "plain_epoch_s": round(statistics.median(plain[1:]), 3),
        "more_s": round(
            statistics.median(o - p for o, p in zip(ours[1:], plain[1:], strict=True)), 3
        ),
    }


def submit(
    sites: list[TrialSite],
    connected: Federation,
    job: Job,
    weights: Arrays,
    config: dict[str, Any],
    runs: int = 200,
) -> Study:
    """A study of a job, approved."""
    study = connected.submit(
        job,
        federation.training_terms(
            weights,
            title="a benchmark",
            purpose="research",
            dataset=DATASET,
            runs=runs,
            config=config,
            metrics=("loss", "accuracy") if config else (),
        ),
    )
    approve(sites, study)
    return study


def some_weights(count: int) -> Arrays:
    """Random float32 weights in eight arrays, as large as a model's."""
    rng = np.random.default_rng(count)
    parts = np.array_split(rng.standard_normal(count, dtype=np.float32), 8)
    return {f"layer{k}": part for k, part in enumerate(parts)}


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


if __name__ == "__main__":
    main()
