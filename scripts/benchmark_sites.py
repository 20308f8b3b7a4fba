"""How the cost of a round grows: with sites, with the model, with images.

Three series, each with TLS, gate, sandbox and audit all on, on one machine that all sites share:

sites   the classifier of `scripts/bench federation`, the same images divided among more sites
model   a job that gives back its weights, at the first number of sites: what the way costs alone
images  the classifier at the first number of sites, on parts of the images

round_s      median seconds of a round; limit_round_s: the same epochs in plain PyTorch
site_cpu_s   CPU seconds per site and round, the researcher's share and the training included
site_pss_mb  highest memory per site, pages that several share counted once
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

import federation
from benchmark_calls import BACK, SIZES, some_weights, submit
from benchmark_federation import measure
from benchmark_hospitals import CLASSES, load_images, make_hospitals, running
from benchmark_processes import Sampler, cpu_seconds, tree
from federation.job import Job
from federation.rounds import RoundsResult

Rows = list[dict[str, Any]]
KEPT = ("round_s", "limit_round_s", "ratio")
PARTS = (0.25, 0.5, 1.0)


def main() -> None:
    """Measure the three series; JSON, and a table on standard error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a MedMNIST .npz; without it phantoms are drawn")
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 8, 16], help="default 4 8 16")
    parser.add_argument("--rounds", type=int, default=5, help="of each; default 5")
    parser.add_argument("--plot", type=Path, help="also draw the series to this file (SVG)")
    parser.add_argument(
        "--from-json", type=Path, help="draw and show what an earlier run printed; nothing is run"
    )
    asked = parser.parse_args()
    if asked.from_json:
        found = json.loads(asked.from_json.read_text())
    else:
        splits = load_images(asked.data)
        found = {
            "sites": [of_classifier(splits, sites, asked.rounds) for sites in asked.sites],
            "model": [of_model(count, asked.sites[0], asked.rounds) for count in SIZES.values()],
            "images": [
                of_classifier(part_of(splits, share), asked.sites[0], asked.rounds)
                for share in PARTS
            ],
            "cores": os.cpu_count(),
        }
    show(found)
    if asked.plot:
        draw(found, asked.plot)
    print(json.dumps(found))


def of_classifier(splits: dict[str, Any], sites: int, rounds: int) -> dict[str, Any]:
    """One point of the series of sites or of images."""
    told = measure(splits, sites, rounds, 0, os.cpu_count() or 1, 0)
    row = {
        "sites": sites,
        "images": len(splits["train"][1]),
        **{key: told[key] for key in KEPT},
        "site_cpu_s": round(told["cpu_s"] / (rounds * sites), 3),
        "site_pss_mb": round(told["sites_pss_mb"] / sites),
        "other_cores": told["other_cores"],
    }
    print(json.dumps(row), file=sys.stderr)
    return row


def part_of(splits: dict[str, Any], share: float) -> dict[str, Any]:
    """A part of the training images, drawn without looking at them."""
    images, labels = splits["train"]
    rows = np.random.default_rng(0).permutation(len(labels))[: round(share * len(labels))]
    return {**splits, "train": (np.asarray(images)[np.sort(rows)], labels[np.sort(rows)])}


def of_model(count: int, sites: int, rounds: int) -> dict[str, Any]:
    """One point of the series of models: nothing is trained."""
    images = np.random.default_rng(0).integers(0, 255, (60, 28, 28), np.uint8)
    weights, seconds = some_weights(count), []
    clock = cpu = 0.0

    def after_round(number: int, _: RoundsResult) -> None:
        nonlocal clock, cpu
        if number > 1:
            seconds.append(time.perf_counter() - clock)
        else:
            cpu = cpu_seconds(tree(os.getpid()))
        clock = time.perf_counter()

    with tempfile.TemporaryDirectory(prefix="sitegate-bench-") as name:
        part = (images, np.arange(60) % len(CLASSES))
        made = make_hospitals(Path(name), [part] * sites, runs=rounds + 3, maximum_mb=120)
        with running(made) as connected:
            study = submit(
                made, connected, Job(BACK, "back", "train"), weights, {}, runs=rounds + 3
            )
            federation.run_rounds(
                study, weights, {}, rounds=rounds + 1, after_round=after_round, progress=False
            )
            cpu = cpu_seconds(tree(os.getpid())) - cpu
            with Sampler() as sampler:
                federation.run_rounds(
                    study, weights, {}, rounds=2, first_round=rounds + 2, progress=False
                )
    row = {
        "sites": sites,
        "weights_mb": round(count * 4 / 1e6, 1),
        "round_s": round(statistics.median(seconds), 3),
        "site_cpu_s": round(cpu / (rounds * sites), 3),
        "site_pss_mb": round(sampler.below_pss_mb / sites),
    }
    print(json.dumps(row), file=sys.stderr)
    return row


SERIES = {
    "sites": ("sites", "Sites"),
    "model": ("weights_mb", "Weights, MB"),
    "images": ("images", "Training images"),
}
"""Series -> what grows in it, and how that is called."""


def show(found: dict[str, Any]) -> None:
    """The series as tables for people."""
    out = Console(stderr=True)
    for name, (key, title) in SERIES.items():
        table = Table(title=f"A round as {title.lower()} grow", box=None, pad_edge=False)
        columns = {"Round, s": "round_s", "Plain, s": "limit_round_s", "Ratio": "ratio",
                   "CPU s per site": "site_cpu_s", "MiB per site": "site_pss_mb"}  # fmt: skip
        for heading in (title, *columns):
            table.add_column(heading, justify="right")
        for row in found[name]:
            table.add_row(*(f"{row[k]:,}" if k in row else "–" for k in (key, *columns.values())))
        out.print(table)


def draw(found: dict[str, Any], file: Path) -> None:
    """The series side by side: seconds of a round, and in plain PyTorch where that is the same."""
    mpl.rcParams["svg.hashsalt"] = "sitegate"  # the same figures give the same file
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), layout="constrained")
    for axis, (name, (key, title)) in zip(axes, SERIES.items(), strict=True):
        rows: Rows = found[name]
        x = [row[key] for row in rows]
        axis.plot(x, [row["round_s"] for row in rows], "o-", color="#1f5a8a", label="Sitegate")
        if "limit_round_s" in rows[0]:
            plain = [row["limit_round_s"] for row in rows]
            axis.plot(x, plain, "s--", color="#8a8a8a", label="plain PyTorch")
        axis.set(xlabel=title, ylim=(0, None), xlim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e4e4")
        axis.legend(frameon=False)
    axes[0].set_ylabel("seconds per round")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
