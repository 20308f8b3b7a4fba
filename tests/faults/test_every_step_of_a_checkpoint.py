"""A researcher's process dies, or the disk is full, at every durable step of saving a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import factories
from datasites.config import Site
from federation.checkpoint import Checkpoint, Saved, Setting
from federation.errors import FederationError
from federation.history import History, SiteRound
from tests.faults.durable_steps import Fault, Steps
from tests.faults.hospital_acts import Tell, make
from tests.faults.site_processes import Act, SiteProcesses

SETTING = Setting("0" * 64, {"st-marys": 1}, {"rate": 0.5}, "1" * 64, 1, {"name": "FedAvg"})


def after_round(number: int) -> Saved:
    history = History(
        [
            SiteRound(k, "st-marys", "contributed", examples=120, loss=0.5, accuracy=0.5)
            for k in range(1, number + 1)
        ]
    )
    memory = {"momentum": {"w": np.full(1000, -number, np.float32)}}
    return Saved(number, {"w": np.full(1000, number, np.float32)}, history, memory)


def save(site: Site, steps: Steps, tell: Tell, *, folder: Path) -> None:
    """Save the second round after the first; say what went wrong."""
    Checkpoint(folder).save(SETTING, after_round(1))
    steps.folder = folder
    steps.watch()
    try:
        Checkpoint(folder).save(SETTING, after_round(2))
    except FederationError as error:
        tell(str(error))
    tell(steps.taken)


def test_a_round_is_saved_whole_or_the_one_before_it_is_there(
    processes: SiteProcesses, tmp_path: Path, tried: Callable[[int], None]
) -> None:
    make(tmp_path / "made", factories.DOUBLE_JOB)
    site = tmp_path / "made" / "site"
    steps = processes.tell(Act(save, site, {"folder": tmp_path / "undisturbed"}))
    kinds = (Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.FULL, Fault.FULL_FROM_THEN_ON)
    faults = [(kind, at) for kind in kinds for at in range(len(steps))]
    for fault, at in faults:
        folder = tmp_path / f"{fault}-{at}"
        ended = processes.do(Act(save, site, {"folder": folder}, fault, at))
        found = Checkpoint(folder).load(SETTING)
        assert found is not None
        assert found.round in (1, 2), (fault, steps[at])
        expected = after_round(found.round)
        np.testing.assert_array_equal(found.weights["w"], expected.weights["w"])
        np.testing.assert_array_equal(
            found.memory["momentum"]["w"], expected.memory["momentum"]["w"]
        )
        assert found.history == expected.history
        if ended.signal == 0 and isinstance(ended.told[0], str):
            assert "what was saved before is still there" in ended.told[0]
        for number in (2, 3):  # it goes on where it was
            Checkpoint(folder).save(SETTING, after_round(number))
        again = Checkpoint(folder).load(SETTING)
        assert again is not None
        assert again.round == 3
        left = sorted(path.name for path in folder.iterdir())
        assert left == [
            "round-00003.memory.safetensors", "round-00003.safetensors", "rounds.json",
        ], (fault, steps[at])  # fmt: skip
    tried(len(faults))
    assert len(faults) >= 16
