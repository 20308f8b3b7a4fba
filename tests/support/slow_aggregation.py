"""Aggregation in plain Python loops over floats, written from the papers' pseudocode.

A model is a list of floats, an update a `Slow`; nothing here is shared with the real thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Slow:
    """One site's update: its floats, number of examples, and local steps."""

    y: list[float]
    n: int
    steps: int = 1


def fed_avg(updates: list[Slow]) -> list[float]:
    total = sum(u.n for u in updates)
    return [sum(u.n / total * u.y[k] for u in updates) for k in range(len(updates[0].y))]


def fed_avg_m(x: list[float], rounds: list[list[Slow]], rate: float, beta: float) -> list[float]:
    x, v = list(x), [0.0] * len(x)
    for updates in rounds:
        mean = fed_avg(updates)
        for k in range(len(x)):
            v[k] = beta * v[k] + (x[k] - mean[k])
            x[k] = x[k] - rate * v[k]
    return x


def adaptive(
    name: str, x: list[float], rounds: list[list[Slow]], rate: float, b1: float, b2: float,
    tau: float,
) -> list[float]:  # fmt: skip
    """Algorithm 2 of Reddi et al.; `name` is FedAdam, FedYogi or FedAdagrad."""
    x, m, v = list(x), [0.0] * len(x), [tau * tau] * len(x)
    for updates in rounds:
        total = sum(u.n for u in updates)
        for k in range(len(x)):
            delta = sum(u.n * (u.y[k] - x[k]) for u in updates) / total
            m[k] = b1 * m[k] + (1 - b1) * delta
            if name == "FedAdam":
                v[k] = b2 * v[k] + (1 - b2) * delta**2
            elif name == "FedYogi":
                gap = v[k] - delta**2
                v[k] = v[k] - (1 - b2) * delta**2 * ((gap > 0) - (gap < 0))
            else:
                v[k] = v[k] + delta**2
            x[k] = x[k] + rate * m[k] / (math.sqrt(v[k]) + tau)
    return x


def scaffold(
    x: list[float], rounds: list[dict[str, Slow]], weights: dict[str, float], lr: float, rate: float
) -> tuple[list[float], list[float], dict[str, list[float]]]:
    """Algorithm 1, option II, with a weight per site; the weights, c, and each site's c_i."""
    size, everyone = len(x), sum(weights.values())
    x, c = list(x), [0.0] * len(x)
    own = {site: [0.0] * size for site in weights}
    for updates in rounds:
        present = sum(weights[site] for site in updates)
        dx, dc = [0.0] * size, [0.0] * size
        for site, u in updates.items():
            for k in range(size):
                new = own[site][k] - c[k] + (x[k] - u.y[k]) / (u.steps * lr)
                dx[k] += weights[site] / present * (u.y[k] - x[k])
                dc[k] += weights[site] / everyone * (new - own[site][k])
                own[site][k] = new
        x = [x[k] + rate * dx[k] for k in range(size)]
        c = [c[k] + dc[k] for k in range(size)]
    return x, c, own


def fed_nova(x: list[float], updates: list[Slow], momentum: float, rate: float) -> list[float]:
    """Lengths by adding up, step by step, the weight that each gradient gets."""
    lengths = []
    for u in updates:
        length, velocity = 0.0, 0.0
        for _ in range(u.steps):
            velocity = momentum * velocity + 1.0
            length += velocity
        lengths.append(length)
    total = sum(u.n for u in updates)
    effective = sum(u.n / total * a for u, a in zip(updates, lengths, strict=True))
    moved = []
    for k in range(len(x)):
        direction = sum(
            u.n / total * (x[k] - u.y[k]) / a for u, a in zip(updates, lengths, strict=True)
        )
        moved.append(x[k] - rate * effective * direction)
    return moved


def median(updates: list[Slow]) -> list[float]:
    found = []
    for k in range(len(updates[0].y)):
        column = sorted(u.y[k] for u in updates)
        half = len(column) // 2
        found.append(column[half] if len(column) % 2 else (column[half - 1] + column[half]) / 2)
    return found


def trimmed_mean(updates: list[Slow], faulty: int) -> list[float]:
    found = []
    for k in range(len(updates[0].y)):
        column = sorted(u.y[k] for u in updates)
        for _ in range(faulty):
            column.remove(min(column))
            column.remove(max(column))
        found.append(sum(column) / len(column))
    return found


def krum_order(updates: list[Slow], faulty: int) -> list[int]:
    """Positions of the updates, the lowest score first."""
    scores = []
    for i, u in enumerate(updates):
        distances = sorted(
            sum((a - b) ** 2 for a, b in zip(u.y, other.y, strict=True))
            for j, other in enumerate(updates)
            if j != i
        )
        scores.append((sum(distances[: len(updates) - faulty - 2]), i))
    return [i for _, i in sorted(scores)]


def norm_bounded(x: list[float], updates: list[Slow], bound: float | None) -> list[float]:
    norms = [math.sqrt(sum((a - b) ** 2 for a, b in zip(u.y, x, strict=True))) for u in updates]
    if bound is None:
        bound = median([Slow([norm], 1) for norm in norms])[0]
    total, moved = sum(u.n for u in updates), list(x)
    for u, norm in zip(updates, norms, strict=True):
        factor = min(1.0, bound / norm) if norm > 0 else 1.0
        for k in range(len(x)):
            moved[k] += u.n / total * factor * (u.y[k] - x[k])
    return moved
