"""What a round costs beside the same epochs in plain PyTorch, on one machine and in one run.

The job: the train split divided by label (Dirichlet 1.0), sites in processes of their own with TLS,
gate, sandbox and audit all on; a CNN of 420,610 parameters; one local epoch per round with SGD
(batch 32, learning rate 0.05, momentum 0.9); weights averaged by images. Each round is followed by
the same round in plain PyTorch, in two processes with one thread each and in one with two.

round_s        median seconds of a round, as the researcher sees it
limit_round_s  median of the faster of the two plain programs; ratio = round_s / limit_round_s
first_round_s  from the start of this program to the end of round 1: importing, making the sites
               with their keys, publishing, starting them, accounts, log-in, submission, rehearsal
               and approval; reading or drawing the images does not count
cpu_s          CPU time of all processes during the rounds, the researcher's included; so too
               limit_cpu_s. all_cpu_s: from the start of the program on
pss_mb         highest memory of all processes, pages that several share counted once, in two more
               rounds that are not timed; sites_pss_mb: of the sites alone
wire_bytes     bodies of requests and answers, both ways, per round and site
other_cores    cores that other programs used meanwhile: above 0.1 the times say little
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

import numpy as np
import psutil
import torch

import federation
from benchmark_hospitals import (
    DATASET,
    JOB,
    approve,
    divide_by_label,
    load_images,
    make_hospitals,
    running,
)
from benchmark_limit import Limit, write_task
from benchmark_processes import Sampler, cpu_seconds, machine_seconds, tree
from federation.job import Job, read_job
from federation.measures import exact_measures
from federation.rounds import RoundsResult
from federation.submission import Federation
from policies.arrays import Arrays

TRAINING = {"learning_rate": 0.05, "momentum": 0.9, "batch_size": 32, "epochs": 1}
LIMITS = {"two processes": 2, "one process": 1}
SETTLED = 2
"""Rounds after which a plain program that needs twice the other's time is left out."""


class Measured:
    """Rounds of the federation and of the plain programs, one after the other in turns."""

    def __init__(self, sites: Federation, task: Path, seed: int) -> None:
        self._sites, self._task, self._seed = sites, task, seed
        self.limits: dict[str, Limit] = {}
        self.pids: list[int] = []
        self.seconds: list[float] = []
        self.cpu_s = self.other_s = 0.0
        self.limit_seconds: dict[str, list[float]] = {name: [] for name in LIMITS}
        self.limit_cpu_s = dict.fromkeys(LIMITS, 0.0)
        self.first_end = 0.0
        self._wire_before = self._wire()
        self._begin()

    @property
    def wire_bytes(self) -> int:
        """Bytes of requests and answers since the first round began."""
        return self._wire() - self._wire_before

    def after_round(self, number: int, _: RoundsResult) -> None:
        """Note a round of the federation; then let the plain programs do theirs."""
        self.seconds.append(time.perf_counter() - self._began)
        cpu = self._cpu() - self._cpu_began
        self.cpu_s += cpu
        self.other_s += machine_seconds() - self._machine_began - cpu
        if number == 1:
            self.first_end = time.time()
            for name, processes in LIMITS.items():
                self.limits[name] = Limit(self._task, processes, self._seed)
                self.pids.append(self.limits[name].pid)
        for name, limit in self.limits.items():
            before = cpu_seconds(tree(limit.pid))
            self.limit_seconds[name].append(limit.round(number))
            self.limit_cpu_s[name] += cpu_seconds(tree(limit.pid)) - before
        if number == SETTLED:
            self._leave_out_the_slower()
        plain = ", ".join(f"{n} {s[-1]:.2f} s" for n, s in self.limit_seconds.items())
        print(f"round {number}: {self.seconds[-1]:.2f} s; plain: {plain}", file=sys.stderr)
        self._begin()

    def _leave_out_the_slower(self) -> None:
        """Two threads of one process wait for each other long when others use the cores."""
        medians = {name: statistics.median(s) for name, s in self.limit_seconds.items()}
        slower = max(medians, key=lambda name: medians[name])
        if medians[slower] > 2 * min(medians.values()):
            self.limits.pop(slower).close()
            self.limit_seconds.pop(slower)

    def _begin(self) -> None:
        self._cpu_began, self._machine_began = self._cpu(), machine_seconds()
        self._began = time.perf_counter()

    def _cpu(self) -> float:
        return cpu_seconds(tree(os.getpid(), self.pids))

    def _wire(self) -> int:
        return sum(site.bytes_sent + site.bytes_received for site in self._sites)


def main() -> None:
    """Run the federation and the limit, print what they cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a MedMNIST .npz; without it phantoms are drawn")
    parser.add_argument("--sites", type=int, default=4, help="default 4")
    parser.add_argument(
        "--at-once",
        type=int,
        default=os.cpu_count(),
        help="sites that train at one time; all share this machine (default: its cores)",
    )
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    asked = parser.parse_args()
    splits = load_images(asked.data)
    read_s = time.time() - psutil.Process().create_time()
    result = measure(splits, asked.sites, asked.rounds, asked.seed, asked.at_once, read_s)
    text = json.dumps({"data": asked.data.name if asked.data else "phantoms", **result})
    if asked.json:
        asked.json.write_text(text + "\n")
    print(text)


def measure(
    splits: dict[str, Any],
    sites: int,
    rounds: int,
    seed: int,
    at_once: int,
    not_counted_s: float,
) -> dict[str, Any]:
    """The numbers of one benchmark; `not_counted_s` since the program's start do not count."""
    images, labels = splits["train"]
    parts = [(images[rows], labels[rows]) for rows in divide_by_label(labels, sites)]
    job = read_job(JOB)
    card = {"shape": list(images.shape[1:]), "classes": ["normal", "pneumonia"]}
    weights: Arrays = job.call("initial_weights", card, seed)
    with tempfile.TemporaryDirectory(prefix="sitegate-bench-") as name:
        folder = Path(name)
        write_task(folder / "task.npz", parts, weights)
        hospitals = make_hospitals(folder, parts, runs=rounds + 2)
        with running(hospitals) as connected:
            config = {**TRAINING, "seed": seed}
            study = connected.submit(
                job,
                federation.training_terms(
                    weights,
                    title="train a classifier",
                    purpose="research",
                    dataset=DATASET,
                    runs=rounds + 2,
                    config={**config, "round": (0, 10_000)},
                    metrics=("loss", "accuracy"),
                ),
            )
            approve(hospitals, study)
            measured = Measured(connected, folder / "task.npz", seed)
            result = federation.run_rounds(
                study, weights, {**config, "round": 0}, rounds=rounds,
                at_once=at_once, after_round=measured.after_round, progress=False,
            )  # fmt: skip
            wire, all_cpu_s = measured.wire_bytes, cpu_seconds(tree(os.getpid(), measured.pids))
            digests = {limit.close() for limit in measured.limits.values()}
            with Sampler() as sampler:
                federation.run_rounds(
                    study, result.weights, {**config, "round": 0}, rounds=2,
                    first_round=rounds + 1, at_once=at_once, progress=False,
                )  # fmt: skip
    began = psutil.Process().create_time()
    frame = result.history.frame()
    best = min(
        measured.limit_seconds, key=lambda name: statistics.median(measured.limit_seconds[name])
    )
    limit_round_s = statistics.median(measured.limit_seconds[best])
    round_s = statistics.median(measured.seconds)
    return {
        "sites": sites,
        "at_once": at_once,
        "rounds": rounds,
        "seed": seed,
        "round_s": round(round_s, 3),
        "limit_round_s": round(limit_round_s, 3),
        "ratio": round(round_s / limit_round_s, 2),
        "first_round_s": round(measured.first_end - began - not_counted_s, 1),
        "cpu_s": round(measured.cpu_s, 1),
        "limit_cpu_s": round(measured.limit_cpu_s[best], 1),
        "cpu_ratio": round(measured.cpu_s / measured.limit_cpu_s[best], 2),
        "all_cpu_s": round(all_cpu_s, 1),
        "pss_mb": round(sampler.pss_mb),
        "sites_pss_mb": round(sampler.below_pss_mb),
        "processes": sampler.processes,
        "wire_bytes": wire // (rounds * sites),
        "auc": round(auc_of(job, card, result.weights, splits["test"]), 4),
        "weights_sha256": result.weights_sha256,
        "same_weights_as_limit": result.weights_sha256 in digests,
        "other_cores": round(max(0.0, measured.other_s) / sum(measured.seconds), 2),
        "limit": best,
        "limits_round_s": {
            name: round(statistics.median(s), 3) for name, s in measured.limit_seconds.items()
        },
        "limits_cpu_s": {
            name: round(measured.limit_cpu_s[name], 1) for name in measured.limit_seconds
        },
        "site_s": frame["seconds"].groupby("site").median().round(3).to_dict(),
        "images": frame["examples"].groupby("site").first().to_dict(),
        "rounds_s": [round(s, 3) for s in measured.seconds],
    }


def auc_of(job: Job, card: dict[str, Any], weights: Arrays, split: Any) -> float:
    """The area under the ROC curve on a split that no site has."""
    images, labels = split
    model = job.call("build_model", card)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.eval()
    with torch.no_grad():
        scores = model(job.call("to_input", np.asarray(images))).double().numpy()
    return exact_measures(scores[:, 1] - scores[:, 0], labels).auc.value


if __name__ == "__main__":
    main()
