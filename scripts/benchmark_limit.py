"""The physical limit: the same epochs in plain PyTorch, with no federation at all.

As a program it holds the hospitals' images as tensors, trains one round for each line that it
reads, and answers with a line of JSON. `Limit` starts it and asks it. The batches, the sums and
their order are those of the job and of `FedAvg`, so the weights can be compared bit by bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from policies.arrays import Arrays, arrays_sha256

Part = tuple[torch.Tensor, torch.Tensor]
State = dict[str, torch.Tensor]

_held: dict[str, Any] = {}
"""What a process keeps from round to round: `parts`, `model`, `seed`."""


def write_task(path: Path, parts: list[tuple[Any, Any]], weights: Arrays) -> None:
    """Write what the program reads: each hospital's images and labels, and where it starts."""
    arrays = {f"weights/{name}": array for name, array in weights.items()}
    for k, (images, labels) in enumerate(parts):
        arrays |= {f"images/{k:03d}": images, f"labels/{k:03d}": labels}
    np.savez(path, **arrays)  # type: ignore[arg-type]


class Limit:
    """The running program, in its own processes.

    Args:
        task: What `write_task` wrote.
        processes: 2 processes with a thread each, or 1 with two threads.
        seed: The seed of the order of images.
    """

    def __init__(self, task: Path, processes: int, seed: int) -> None:
        started = time.perf_counter()
        command = [sys.executable, __file__, str(task), str(processes), str(seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self._answer()
        self.start_s = time.perf_counter() - started

    def round(self, number: int) -> float:
        """Train one round; the seconds that it took."""
        assert self._process.stdin is not None  # noqa: S101  for the type checker
        self._process.stdin.write(f"{number}\n".encode())
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def close(self) -> str:
        """End the program; the digest of its weights."""
        assert self._process.stdin is not None  # noqa: S101  for the type checker
        self._process.stdin.close()
        digest = str(self._answer()["weights_sha256"])
        self._process.wait()
        return digest

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  for the type checker
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the plain PyTorch program ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Train a round for each line of standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("processes", type=int, choices=[1, 2])
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    _hold(asked.task, 2 if asked.processes == 1 else 1, asked.seed)
    parts: list[Part] = _held["parts"]
    with np.load(asked.task) as file:
        names = [name for name in file.files if name.startswith("weights/")]
        state = {name.removeprefix("weights/"): torch.from_numpy(file[name]) for name in names}
    sizes = [len(labels) for _, labels in parts]
    order = sorted(range(len(parts)), key=lambda k: -sizes[k])  # longest first
    pool = None
    if asked.processes == 2:
        context = get_context("spawn")
        pool = ProcessPoolExecutor(2, context, _hold, (asked.task, 1, asked.seed))
        list(pool.map(_warm_up, range(8)))
    _say(ready=True)
    for line in sys.stdin:
        started = time.perf_counter()
        if pool is not None:
            asked_for = {k: pool.submit(train, k, state, int(line)) for k in order}
            trained = [asked_for[k].result() for k in range(len(parts))]
        else:
            trained = [train(k, state, int(line)) for k in range(len(parts))]
        state = average(trained, sizes)
        _say(seconds=time.perf_counter() - started)
    if pool is not None:
        pool.shutdown()
    _say(weights_sha256=arrays_sha256({name: t.numpy() for name, t in state.items()}))


def train(part: int, state: State, round_number: int) -> State:
    """One epoch on one hospital's images."""
    images, labels = _held["parts"][part]
    model = _held["model"]
    model.load_state_dict(state)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng([_held["seed"], round_number, len(labels)])
    indices = rng.permutation(len(labels))
    total_loss = 0.0
    for start in range(0, len(indices), 32):
        batch = torch.from_numpy(np.sort(indices[start : start + 32]))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(batch)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def average(states: list[State], sizes: list[int]) -> State:
    """The mean by images, summed in float64 in the order of the hospitals."""
    mean = {}
    for name in states[0]:
        summed = np.zeros(states[0][name].shape)
        for state, size in zip(states, sizes, strict=True):
            summed += state[name].numpy().astype(np.float64) * (size / sum(sizes))
        mean[name] = torch.from_numpy(summed.astype(np.float32))
    return mean


def make_model(height: int, width: int, classes: int) -> nn.Module:
    """The network of `benchmark_job.py`."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 128), nn.ReLU(),
        nn.Linear(128, classes),
    )  # fmt: skip


def _hold(task: Path, threads: int, seed: int) -> None:
    torch.set_num_threads(threads)
    with np.load(task) as file:
        count = sum(name.startswith("images/") for name in file.files)
        parts = [_tensors(file[f"images/{k:03d}"], file[f"labels/{k:03d}"]) for k in range(count)]
        classes = len(file["weights/9.bias"])
    height, width = parts[0][0].shape[2:]
    _held.update(parts=parts, model=make_model(height, width, classes), seed=seed)


def _tensors(images: Any, labels: Any) -> Part:
    x = images.astype(np.float32)[:, None] / np.float32(127.5) - np.float32(1.0)
    return torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64))


def _warm_up(_: int) -> None:
    """Let a worker process start and import: that is not part of a round."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    time.sleep(0.1)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
