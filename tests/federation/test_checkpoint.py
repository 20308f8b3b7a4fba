"""A checkpoint holds one round or the one before it, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from federation.aggregation import Diagnostics
from federation.checkpoint import Checkpoint, Saved, Setting
from federation.errors import FederationError
from federation.history import History, SiteRound
from policies.arrays import arrays_sha256, pack

SETTING = Setting(
    "a" * 64, {"st-marys": 3, "seaside": 7}, {"rate": 0.5, "epochs": 2}, "b" * 64, 1,
    {"name": "FedAdam", "rate": 0.01},
)  # fmt: skip


def saved(number: int) -> Saved:
    """Rounds 1 to `number`, one of two sites missing in each."""
    weights = {"w": np.full(4, number, np.float32), "steps": np.array(number)}
    records = [
        record
        for k in range(1, number + 1)
        for record in (
            SiteRound(k, "st-marys", "contributed", "", 120, 0.1 + 0.2, 0.9, 1.5, f"R-3/{k}/1"),
            SiteRound(k, "seaside", "missing", "closed for the week", seconds=0.25),
        )
    ]
    memory = {
        "velocity": {"w": np.full(4, number / 3, np.float32)},
        "control of st/mary's": {"w": np.full(4, -number, np.float64)},
        "nothing yet": {},
    }
    seen = {
        k: Diagnostics(0.1 * k, {"st-marys": 0.3}, {}, ("seaside",), {"st-marys": 0.5})
        for k in range(1, number + 1)
    }
    return Saved(number, weights, History(records), memory, seen)


def same(one: Saved, other: Saved) -> bool:
    def digests(saved: Saved) -> dict[str, str]:
        return {group: arrays_sha256(arrays) for group, arrays in saved.memory.items()}

    return (
        one.round == other.round
        and arrays_sha256(one.weights) == arrays_sha256(other.weights)
        and repr(one.history) == repr(other.history)
        and digests(one) == digests(other)
        and one.diagnostics == other.diagnostics
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path, number: int) -> None:
    Checkpoint(tmp_path / "new" / "study").save(SETTING, saved(number))
    checkpoint = Checkpoint(str(tmp_path / "new" / "study"))
    found = checkpoint.load(SETTING)
    assert found is not None
    assert same(found, saved(number))
    assert checkpoint.requests == SETTING.requests


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path).load(SETTING) is None
    with pytest.raises(FederationError, match="there is no checkpoint in"):
        assert Checkpoint(tmp_path).requests


def test_two_hundred_rounds_leave_three_files(tmp_path: Path) -> None:
    for number in range(1, 201):
        Checkpoint(tmp_path).save(SETTING, saved(number) if number > 198 else saved(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "round-00200.memory.safetensors",
        "round-00200.safetensors",
        "rounds.json",
    ]


def test_an_algorithm_that_remembers_nothing_leaves_no_file_for_it(tmp_path: Path) -> None:
    plain = replace(saved(1), memory={})
    Checkpoint(tmp_path).save(SETTING, plain)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"round-00001.safetensors", "rounds.json"}
    found = Checkpoint(tmp_path).load(SETTING)
    assert found is not None
    assert same(found, plain)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"job_sha256": "c" * 64}, "the job's text is another"),
        ({"requests": {"st-marys": 4, "seaside": 7}}, "the requests at the sites are others"),
        ({"config": {"rate": 0.6, "epochs": 2}}, "the job's arguments are others"),
        ({"start_sha256": "c" * 64}, "the weights to start from are others"),
        ({"first_round": 2}, "the first round has another number"),
        ({"algorithm": {"name": "FedAdam", "rate": 0.02}}, "the algorithm is another"),
    ],
)
def test_other_rounds_do_not_go_on_from_it(tmp_path: Path, change: dict, words: str) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(SETTING, saved(2))
    with pytest.raises(FederationError, match=words) as refused:
        checkpoint.load(replace(SETTING, **change))
    assert "or another folder" in str(refused.value)
    assert checkpoint.load(SETTING) is not None


STEPS = 16
"""More steps than saving takes; each is an operation on the disk."""


def killed_at(step: int, folder: Path, *, full: bool) -> bool:
    """Save round 2 in a child that ends, or finds the disk full, at one step; whether it did."""
    child = os.fork()
    if child == 0:
        taken = 0

        def at(operation):
            def wrapped(*arguments, **options):
                nonlocal taken
                taken += 1
                if taken == step and full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                if taken == step:
                    os._exit(9)
                return operation(*arguments, **options)

            return wrapped

        for name in ("fsync", "replace", "unlink", "open"):
            setattr(os, name, at(getattr(os, name)))
        code = 0
        try:
            Checkpoint(folder).save(SETTING, saved(2))
        except FederationError as error:
            code = 8 if "Make room, and run the same cell again" in str(error) else 7
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 8 if full else 9)
    return code != 0


@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
def test_a_fault_at_any_step_leaves_one_round_or_the_one_before(tmp_path: Path, full: bool) -> None:
    rounds, faults = set(), 0
    for step in range(1, STEPS + 1):
        folder = tmp_path / str(step)
        Checkpoint(folder).save(SETTING, saved(1))
        faults += killed_at(step, folder, full=full)
        found = Checkpoint(folder).load(SETTING)
        assert found is not None
        assert same(found, saved(found.round))
        rounds.add(found.round)
        Checkpoint(folder).save(SETTING, saved(3))
        assert len([path for path in folder.iterdir() if path.suffix == ".safetensors"]) == 2
    assert rounds == {1, 2}
    assert 8 <= faults < STEPS


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "rounds.json").write_text("{"),
        lambda folder: (folder / "rounds.json").write_text("[]"),
        lambda folder: (folder / "round-00002.safetensors").unlink(),
        lambda folder: (folder / "round-00002.safetensors").write_bytes(b"x"),
        lambda folder: (folder / "round-00002.memory.safetensors").unlink(),
        lambda folder: (folder / "round-00002.memory.safetensors").write_bytes(
            (folder / "round-00002.safetensors").read_bytes()
        ),
        lambda folder: (folder / "round-00002.memory.safetensors").write_bytes(
            pack({"0/w": np.zeros(4, np.float32), "1/w": np.zeros(4)})
        ),
        lambda folder: edit(folder, weights_sha256="0" * 64),
        lambda folder: edit(folder, diagnostics={"1": {"step": 1}}),
        lambda folder: edit(folder, format=1),
        lambda folder: edit(folder, history=[{"round": 1}]),
        lambda folder: edit(folder, requests=None, drop="requests"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(tmp_path: Path, damage) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(SETTING, saved(2))
    damage(tmp_path)
    with pytest.raises(FederationError, match="cannot be read; was it changed by hand"):
        checkpoint.load(SETTING)


def edit(folder: Path, drop: str = "", **changes: object) -> None:
    file = folder / "rounds.json"
    plain = {**json.loads(file.read_text()), **changes}
    plain.pop(drop, None)
    file.write_text(json.dumps(plain))
