"""What per-patient differential privacy costs, measured: see `scripts/privacy --help`."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import roc_auc_score

import federation
from benchmark_hospitals import (
    CLASSES,
    DATASET,
    approve,
    divide_by_label,
    make_hospitals,
    running,
)
from datasites.errors import SiteError
from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources.medmnist import read_medmnist
from datasites.trial import TrialSite
from federation.job import Job
from federation.submission import Federation
from policies.arrays import Arrays
from policies.privacy.plan import steps_for

JOBS = Path(__file__).resolve().parent.parent / "notebooks" / "jobs"
DELTA = 1e-5
CAP = 100.0
"""Of the policies: the most there is, so that each setting can be measured on the same sites."""
LAST, SLOWER = 0.3, 0.25
"""The last rounds, and the part of the learning rate that they have: the model settles."""
PLAIN = {"augmentation": 0.0, "learning_rate": 0.05, "batch_size": 32}
"""Arguments of the same model trained without privacy."""
SPLITS = ("val", "test")
Split = tuple[NDArray[Any], NDArray[np.int64]]
out = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every run of the program has in common."""

    sites: list[TrialSite]
    measured_on: dict[str, Split]
    rounds: int
    sampling_rate: float
    epochs: float

    @property
    def steps(self) -> int:
        """Steps of one round at a hospital."""
        return steps_for(self.epochs, self.sampling_rate)


def main(
    data: Annotated[Path, typer.Option(help="PneumoniaMNIST, or another two-class .npz like it.")],
    hospitals: Annotated[int, typer.Option(min=1, max=16, help="How many.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, max=200, help="Rounds.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="How many seeds: 0, 1, …")] = 3,
    epsilons: Annotated[
        str, typer.Option(help="Epsilons per patient over all rounds, between commas.")
    ] = "8,3,1",
    sampling_rate: Annotated[
        float, typer.Option(min=0.001, max=1, help="Part of a hospital's patients in a step.")
    ] = 0.5,
    epochs: Annotated[float, typer.Option(min=0.1, help="Local epochs per round.")] = 3.0,
    learning_rate: Annotated[float, typer.Option(help="Of the private steps.")] = 3.0,
    plain: Annotated[bool, typer.Option(help="Also train without privacy.")] = True,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
) -> None:
    """Train one model at hospitals with and without differential privacy; AUC and seconds.

    The hospitals are real datasites of different mixes of classes (Dirichlet with alpha 1 per
    class). Epsilon is per image here, as nobody knows whose the images of the file are, over all
    rounds, at delta 1e-5 and with the RDP accountant. The recipe was chosen on `val`; `test` is
    measured and nothing else.
    """
    warnings.filterwarnings("ignore")
    try:
        wanted = [float(word) for word in epsilons.split(",") if word.strip()]
    except ValueError:
        raise typer.BadParameter(
            f"`{epsilons}`; give numbers between commas, such as 8,3,1"
        ) from None
    try:
        splits = dict(read_medmnist(data))
        measured_on = {
            s: (np.asarray(splits[s][0][:]), splits[s][1]) for s in SPLITS if s in splits
        }
        train, labels = np.asarray(splits["train"][0][:]), splits["train"][1]
        parts = [(train[rows], labels[rows]) for rows in divide_by_label(labels, hospitals)]
        frames = []
        for private in (False, True) if plain else (True,):
            with tempfile.TemporaryDirectory(prefix="sitegate-privacy-") as name:
                made = make_hospitals(
                    Path(name), parts, runs=1000, maximum_mb=60, **_policy(private)
                )
                setting = Setting(made, measured_on, rounds, sampling_rate, epochs)
                with running(made) as sites:
                    frames += (
                        [_private(setting, sites, one, seeds, learning_rate) for one in wanted]
                        if private
                        else [_plain(setting, sites, seeds)]
                    )
    except KeyboardInterrupt:
        out.print("\nStopped. No site is left running.")
        raise typer.Exit(130) from None
    except (SiteError, federation.FederationError, UnreadableSourceError, OSError) as error:
        out.print(f"\n{error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    frame = pd.concat(frames)
    summary = frame.groupby("setting", sort=False).agg(["mean", "std"]).fillna(0.0)
    out.print(summary.to_string(float_format=lambda value: f"{value:.4f}"), soft_wrap=True)
    if json_out is not None:
        json_out.write_text(json.dumps(frame.to_dict("records"), indent=1))


def _policy(private: bool) -> dict[str, Any]:
    """The sections of the hospitals' policy for one kind of training."""
    if not private:
        return {}
    return {
        "access": ["trainer"],
        "privacy": {"mode": "dp_sgd", "maximum_epsilon": CAP, "delta": DELTA},
        "arguments": {
            "model": {"choices": ["small_cnn"]},
            "learning_rate": {"low": 0.0, "high": 100.0},
        },
    }


def _private(
    setting: Setting, sites: Federation, epsilon: float, seeds: int, learning_rate: float
) -> pd.DataFrame:
    job = federation.read_job(JOBS / "train_privately.py")
    config = {"model": "small_cnn", "learning_rate": learning_rate}
    rows = []
    for seed in range(seeds):
        weights = job.call("initial_weights", _card(), {**config, "seed": seed})
        study = sites.submit(
            job,
            federation.private_training_terms(
                weights, title="train a pneumonia classifier privately",
                purpose="measure what privacy costs", dataset=DATASET, runs=setting.rounds,
                epsilon=epsilon, sampling_rate=setting.sampling_rate, epochs=setting.epochs,
                config={**config, "learning_rate": (0.0, 100.0)},
            ),
        )  # fmt: skip
        approve(setting.sites, study)
        build = lambda: job.call("build", _card(), config)  # noqa: E731
        rows.append(_trained(setting, study, weights, config, build, f"epsilon {epsilon:g}"))
        (spent,) = set(study.privacy()["spent by this study"].round(6))
        rows[-1]["epsilon spent"] = spent
    return pd.DataFrame(rows)


def _plain(setting: Setting, sites: Federation, seeds: int) -> pd.DataFrame:
    job = federation.read_job(JOBS / "train_classifier.py")
    config = {**job.call("defaults"), **PLAIN}
    rows = []
    for seed in range(seeds):
        weights = job.call("initial_weights", _card(), {**config, "seed": seed})
        study = sites.submit(
            job,
            federation.training_terms(
                weights, title="train a pneumonia classifier", dataset=DATASET,
                purpose="measure what privacy costs", runs=setting.rounds + 1,
                config={
                    **config, "seed": (0, 1000), "round": (0, 10_000),
                    "learning_rate": (0.0001, 0.5),
                },
            ),
        )  # fmt: skip
        approve(setting.sites, study)
        build = lambda: job.call("build_model", _card(), config)  # noqa: E731
        rows.append(
            _trained(setting, study, weights, {**config, "seed": seed}, build, "no privacy")
        )
    return pd.DataFrame(rows)


def _trained(
    setting: Setting, study: Any, weights: Arrays, config: dict[str, Any], build: Any, name: str
) -> dict[str, Any]:
    clock = time.monotonic()
    result: Any = weights
    last = round(LAST * setting.rounds)
    slower = {**config, "learning_rate": SLOWER * config["learning_rate"]}
    first = 1
    for rounds, given in ((setting.rounds - last, config), (last, slower)):
        if rounds:
            result = federation.run_rounds(
                study, result, given, rounds=rounds, first_round=first, at_once=2, progress=False
            )
        first += rounds
    seconds = (time.monotonic() - clock) / setting.rounds
    row = {"setting": name, **_measured(build(), result.weights, setting), "s per round": seconds}
    out.print(f"{name:<12} {row}", markup=False, soft_wrap=True)
    return row


def _measured(model: Any, weights: Arrays, setting: Setting) -> dict[str, float]:
    """AUC of a model on each split."""
    job: Job = federation.read_job(JOBS / "train_classifier.py")
    config = job.call("defaults")
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in weights.items()})
    model.eval()
    found = {}
    for split, (images, labels) in setting.measured_on.items():
        with torch.no_grad():
            parts = [
                model(job.call("to_input", images[k : k + 256], config))
                for k in range(0, len(images), 256)
            ]
        scores = torch.cat(parts).double().numpy()
        found[f"{split} AUC"] = float(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))
    return found


def _card() -> dict[str, Any]:
    """What the jobs read of a card."""
    return {"classes": list(CLASSES)}


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
