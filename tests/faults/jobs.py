"""Jobs for tests of faults, and what a hospital's log tells of their runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import federation
from datasites.audit_log import read_events
from datasites.trial import roster
from federation.history import SiteRound
from federation.submission import Study
from hospitals import Hospital
from policies.arrays import Arrays

SLOW_JOB = """\
# Computes for some seconds, then gives the weights back, doubled.
def train(data, weights, config):
    import math

    total = 0.0
    for k in range(int(config["rate"] * 100_000_000)):
        total += math.sqrt(k)
    return {
        "weights": {name: array * 2 for name, array in weights.items()},
        "metrics": {"loss": 0.5},
        "examples": len(data.arrays("train")[1]),
    }
"""


def through(hospital: Hospital, study: Study, port: int) -> Study:
    """The same study over connections that go through a proxy at this port."""
    sites = roster([hospital.trial])
    sites["sites"][0]["url"] = f"https://127.0.0.1:{port}"
    email = study.federation[hospital.trial.name].email
    again = federation.connect(sites, email=email, password="correct horse battery staple")
    return again.study(study.job, study.wanted, study.requests)


def one_round(
    study: Study, weights: Arrays, number: int, config: Mapping[str, Any], patience_s: float = 60
) -> tuple[Arrays, SiteRound]:
    """One round with one site: the weights after it, and what the history says.

    It begins on a new connection, so that a cut after so many bytes falls on the same place.
    """
    for name in study.requests:
        study.federation[name]._session.close()
    result = federation.run_rounds(
        study, weights, config, rounds=1, first_round=number, patience_s=patience_s, progress=False
    )
    return result.weights, result.history.records[-1]


def events_of(hospital: Hospital, study: Study, number: int, attempt: int = 1) -> list[str]:
    """What the log tells of one run."""
    run = f"R-{study.requests[hospital.trial.name]}/{number}/{attempt}"
    return [line["event"] for line in read_events(hospital.trial.site.audit) if line["run"] == run]


def runs_used(study: Study) -> int:
    """How many runs are charged."""
    return int(study.status().iloc[0]["runs used"].split(" ")[0])


def many_weights(size: int = 50_000) -> Arrays:
    """Weights that take some packets to send."""
    return {"w": np.linspace(0, 1, size, dtype=np.float32)}
