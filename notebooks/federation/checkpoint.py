"""What is saved after each round, so that a killed notebook goes on where it was.

A checkpoint is a folder: `rounds.json` says which study, which arguments, which rounds are over and
who contributed; the weights lie beside it, and what the algorithm remembers, if anything. Arrays
are on the disk before `rounds.json` names them, and `rounds.json` takes its name at once, whole:
whatever happens, the folder holds one round or the one before it. A round that was not finished is
asked for again with the same run ids, and sites that had trained answer with the same updates, free
of charge.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.aggregation.algorithm import Algorithm, Memory
from federation.aggregation.diagnostics import Diagnostics
from federation.aggregation.saving import (
    described,
    diagnostics_from_dict,
    flattened,
    unflattened,
)
from federation.errors import FederationError
from federation.history import History, Measured, SiteRound
from policies.arrays import Arrays, MalformedArraysError, arrays_sha256, pack, unpack

if TYPE_CHECKING:
    from federation.submission import Study

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Setting:
    """What a checkpoint belongs to; rounds of another setting do not go on from it.

    Attributes:
        job_sha256: Digest of the job's text.
        requests: Site -> number of the request there.
        config: The job's arguments, as given.
        start_sha256: Digest of the weights that the first round started from.
        first_round: Its number.
        algorithm: `name` of the aggregation algorithm, and its hyperparameters.
    """

    job_sha256: str
    requests: dict[str, int]
    config: dict[str, Any]
    start_sha256: str
    first_round: int
    algorithm: dict[str, Any]

    @classmethod
    def of(
        cls,
        study: Study,
        weights: Arrays,
        config: Mapping[str, Any],
        first_round: int,
        algorithm: Algorithm,
    ) -> Setting:
        """The setting of some rounds."""
        return cls(
            study.job.sha256, dict(study.requests), dict(config), arrays_sha256(weights),
            first_round, described(algorithm),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Saved:
    """The rounds that are over.

    Attributes:
        round: Number of the last one; one less than the first when none is over.
        weights: The global weights after it.
        history: Who contributed what.
        memory: What the algorithm remembers beside the weights.
        diagnostics: Number of a round -> its diagnostics.
        measured: Number of a round -> the AUC after it.
    """

    round: int
    weights: Arrays
    history: History
    memory: Memory = field(default_factory=dict)
    diagnostics: dict[int, Diagnostics] = field(default_factory=dict)
    measured: dict[int, Measured] = field(default_factory=dict)


class Checkpoint:
    """The folder in which rounds are saved."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._index = self._folder / "rounds.json"

    @property
    def requests(self) -> dict[str, int]:
        """Site -> number of the request there, of the study that the checkpoint belongs to.

        Raises:
            FederationError: There is no checkpoint in the folder.
        """
        return self._setting(self._read()).requests

    def load(self, setting: Setting) -> Saved | None:
        """The rounds that are over, None if nothing was saved yet.

        Raises:
            FederationError: The checkpoint belongs to something else, or cannot be read.
        """
        if not self._index.exists():
            return None
        plain = self._read()
        self._check_same(self._setting(plain), setting)
        try:
            weights = unpack((self._folder / plain["weights"]).read_bytes())
            history = History([SiteRound(**record) for record in plain["history"]])
            memory = self._memory(plain["memory"])
            seen = {
                int(k): diagnostics_from_dict(fields) for k, fields in plain["diagnostics"].items()
            }
            measured = {int(k): Measured(**m) for k, m in plain.get("measured", {}).items()}
            saved = Saved(int(plain["round"]), weights, history, memory, seen, measured)
        except (OSError, MalformedArraysError, KeyError, TypeError, ValueError) as error:
            raise self._unreadable() from error
        if arrays_sha256(weights) != plain["weights_sha256"]:
            raise self._unreadable()
        return saved

    def save(self, setting: Setting, saved: Saved) -> None:
        """Save the rounds that are over, in place of what was saved before.

        Raises:
            FederationError: The folder cannot be written; what was saved before is still there.
        """
        name = f"round-{saved.round:05d}.safetensors"
        files = {name: pack(saved.weights)}
        memory: dict[str, Any] | None = None
        if saved.memory:
            beside, flat = f"round-{saved.round:05d}.memory.safetensors", flattened(saved.memory)
            files[beside] = pack(flat)
            groups = list(saved.memory)
            memory = {"file": beside, "sha256": arrays_sha256(flat), "groups": groups}
        plain = {
            "format": FORMAT,
            **asdict(setting),
            "round": saved.round,
            "weights": name,
            "weights_sha256": arrays_sha256(saved.weights),
            "memory": memory,
            "history": [asdict(record) for record in saved.history],
            "diagnostics": {number: asdict(seen) for number, seen in saved.diagnostics.items()},
            "measured": {number: asdict(auc) for number, auc in saved.measured.items()},
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for file, content in files.items():
                _write(self._folder / file, content)
            _write(self._index, json.dumps(plain, indent=1).encode())
            for path in self._folder.glob("round-*.safetensors"):
                if path.name not in files:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise FederationError(
                f"the checkpoint in {self._folder} cannot be written ({error.strerror}); what was "
                "saved before is still there. Make room, and run the same cell again"
            ) from error

    def _memory(self, plain: Mapping[str, Any] | None) -> Memory:
        if plain is None:
            return {}
        flat = unpack((self._folder / plain["file"]).read_bytes())
        if arrays_sha256(flat) != plain["sha256"]:
            raise self._unreadable()
        return unflattened(flat, plain["groups"])

    def _read(self) -> dict[str, Any]:
        try:
            plain = json.loads(self._index.read_bytes())
        except FileNotFoundError as error:
            raise FederationError(f"there is no checkpoint in {self._folder}") from error
        except (OSError, ValueError) as error:
            raise self._unreadable() from error
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise self._unreadable()
        return plain

    def _setting(self, plain: Mapping[str, Any]) -> Setting:
        try:
            return Setting(**{name: plain[name] for name in Setting.__dataclass_fields__})
        except KeyError as error:
            raise self._unreadable() from error

    def _check_same(self, saved: Setting, setting: Setting) -> None:
        words = {
            "job_sha256": "the job's text is another",
            "requests": "the requests at the sites are others",
            "config": "the job's arguments are others",
            "start_sha256": "the weights to start from are others",
            "first_round": "the first round has another number",
            "algorithm": "the algorithm is another",
        }
        for name, what in words.items():
            before, now = getattr(saved, name), getattr(setting, name)
            if before != now:
                raise FederationError(
                    f"the checkpoint in {self._folder} belongs to other rounds: {what} (saved "
                    f"{_short(before)}, given {_short(now)}). Give what the rounds began with, or "
                    "another folder"
                )

    def _unreadable(self) -> FederationError:
        return FederationError(
            f"the checkpoint in {self._folder} cannot be read; was it changed by hand? Give "
            "another folder to begin anew"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole, or not at all."""
    coming = path.with_name(f".{path.name}.coming")
    with coming.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(coming, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
