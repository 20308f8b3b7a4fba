"""The recipe for pneumonia on chest X-rays, measured: see `scripts/pneumonia --help`."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

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
from federation.aggregation import Algorithm, State
from federation.job import Job, LocalData
from federation.submission import Federation, Study
from policies.arrays import Arrays

JOB = Path(__file__).resolve().parent.parent / "notebooks" / "jobs" / "train_classifier.py"
RECIPE = {"augmentation": 1.0, "class_weights": "balanced"}
"""Beside the job's defaults: a CNN of 0.2 million parameters with group normalisation, SGD with
learning rate 0.05 and momentum 0.9, batches of 32, one local epoch per round. Chosen on `val`."""
LAST, SLOWER = 0.25, 0.1
"""The last quarter of the rounds has a tenth of the learning rate: the model settles."""
SPLITS = ("val", "test")
Split = tuple[NDArray[Any], NDArray[np.int64]]
out = Console(highlight=False)


@dataclass(slots=True)
class Setting:
    """What all rounds of the program have in common."""

    job: Job
    card: dict[str, Any]
    config: dict[str, Any]
    train: Split
    measured_on: dict[str, Split]
    hospitals: list[TrialSite] = field(default_factory=list)

    def measure(self, weights: Arrays) -> dict[str, float]:
        """AUC and balanced accuracy of a model on each split, from the scores themselves."""
        model = self.job.call("build_model", self.card, self.config)
        model.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
        model.eval()
        found = {}
        for name, (images, labels) in self.measured_on.items():
            score = np.concatenate([self._score(model, images[k : k + 256])
                                    for k in range(0, len(images), 256)])  # fmt: skip
            found[f"{name} AUC"] = float(roc_auc_score(labels, score))
            found[f"{name} accuracy"] = float(((score >= 0) == labels).mean())
            found[f"{name} balanced"] = float(balanced_accuracy_score(labels, score >= 0))
        return found

    def _score(self, model: torch.nn.Module, images: NDArray[Any]) -> NDArray[np.float64]:
        with torch.no_grad():
            output = model(self.job.call("to_input", images, self.config)).double().numpy()
        score: NDArray[np.float64] = output[:, 1] - output[:, 0]
        return score


def main(
    data: Annotated[Path, typer.Option(help="PneumoniaMNIST, or another two-class .npz like it.")],
    test_data: Annotated[
        Path | None, typer.Option(help="Take the test split from this file instead.")
    ] = None,
    hospitals: Annotated[int, typer.Option(min=1, max=16, help="How many.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, max=200, help="Of one local epoch each.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="How many seeds: 0, 1, …")] = 3,
    model: Annotated[str, typer.Option(help="small_cnn, mobilenet_v2, resnet18, …")] = "small_cnn",
    normalisation: Annotated[str, typer.Option(help="group or batch.")] = "group",
    size: Annotated[int, typer.Option(min=0, max=224, help="Upsample to so many pixels.")] = 0,
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adamw.")] = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Of the sites' optimizer.")] = 0.05,
    compare: Annotated[
        bool, typer.Option(help="Compare the aggregation algorithms, one seed each.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Compare these alone, by name; may be repeated.")
    ] = None,
    pooled: Annotated[bool, typer.Option(help="Also train on all images in one place.")] = True,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
) -> None:
    """Federated and pooled training of one model with one recipe, over several seeds.

    The hospitals are real datasites of different mixes of classes (Dirichlet with alpha 1 per
    class). The recipe was chosen on the split `val` alone; `test` is measured and nothing else.
    """
    warnings.filterwarnings("ignore")
    chosen_algorithms = _chosen(only)
    job = federation.read_job(JOB)
    chosen = {"model": model, "normalisation": normalisation, "size": size,
              "optimizer": optimizer, "learning_rate": learning_rate}  # fmt: skip
    config = {**job.call("defaults"), **RECIPE, **chosen}
    try:
        splits = dict(read_medmnist(data))
        if test_data is not None:
            splits["test"] = read_medmnist(test_data)["test"]
        images, labels = splits["train"]
        train = (np.asarray(images[:]), labels)
        card = {"shape": list(train[0].shape[1:]), "classes": list(CLASSES),
                "counts": {"train": {}}}  # fmt: skip
        measured_on = {
            s: (np.asarray(splits[s][0][:]), splits[s][1]) for s in SPLITS if s in splits
        }
        setting = Setting(job, card, config, train, measured_on)
        with tempfile.TemporaryDirectory(prefix="sitegate-study-") as name:
            parts = [(train[0][r], labels[r]) for r in divide_by_label(labels, hospitals)]
            runs = rounds * (1 if compare else seeds) + 5
            setting.hospitals = make_hospitals(Path(name), parts, runs=runs, maximum_mb=60)
            with running(setting.hospitals) as sites:
                frame = (
                    _compared(setting, sites, rounds, chosen_algorithms)
                    if compare
                    else _repeated(setting, sites, rounds, range(seeds), pooled)
                )
    except KeyboardInterrupt:
        out.print("\nStopped. No site is left running.")
        raise typer.Exit(130) from None
    except (SiteError, federation.FederationError, UnreadableSourceError, OSError) as error:
        out.print(f"\n{error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    out.print(frame.to_string(float_format=lambda value: f"{value:.4f}"), soft_wrap=True)
    if json_out is not None:
        json_out.write_text(json.dumps(json.loads(frame.to_json(orient="split")), indent=1))


def _repeated(
    setting: Setting, sites: Federation, rounds: int, seeds: range, pooled: bool
) -> pd.DataFrame:
    """Each seed federated and pooled; mean and deviation below."""
    study = _approved(setting, sites, rounds * len(seeds))
    found = federation.run_seeds(
        study, setting.card, setting.config, seeds=seeds, rounds=rounds,
        measure=lambda _, weights: setting.measure(weights), at_once=2,
        last=_last(rounds, setting.config),
    )  # fmt: skip
    frames = {"federated": found.frame()}
    if pooled:
        clock = time.monotonic()
        measures = {seed: setting.measure(_pooled(setting, seed, rounds)) for seed in seeds}
        out.print(f"pooled training: {time.monotonic() - clock:.0f} s")
        frames["pooled"] = federation.Seeds({}, measures).frame()
    return pd.concat(frames, names=["training"])


def _pooled(setting: Setting, seed: int, epochs: int) -> Arrays:
    """All images in one place, by the same text: as many epochs as rounds."""
    config = {**setting.config, "seed": seed, "epochs": epochs}
    weights = setting.job.call("initial_weights", setting.card, config)
    images, labels = setting.train
    data = LocalData({"images": images, "labels": labels}, setting.card)
    ending, changes = _last(epochs, config)
    for part in (
        {"epochs": epochs - ending, "round": 1 + seed * epochs},  # as the rounds are numbered
        {**changes, "epochs": ending, "round": 2 + seed * epochs},
    ):
        if part["epochs"]:
            given = {**config, **part}
            weights = setting.job.call(setting.job.entry, data, weights, given)["weights"]
    return weights


def _last(rounds: int, config: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """How many rounds the end has, and what changes for them."""
    return int(LAST * rounds), {"learning_rate": SLOWER * config["learning_rate"]}


def _compared(
    setting: Setting, sites: Federation, rounds: int, chosen: Collection[str]
) -> pd.DataFrame:
    """Each algorithm from the same weights, with the same seed and rounds."""
    sizes = {site.name: float(sum(site.dataset(DATASET).card["counts"]["train"].values()))
             for site in sites}  # fmt: skip
    rows = {}
    for name, make in _algorithms(sizes, setting.config).items():
        if name not in chosen:
            continue
        algorithm, changes = make()
        config = {**setting.config, **algorithm.arguments, **changes}
        weights = setting.job.call("initial_weights", setting.card, config)
        sent = algorithm.to_send(algorithm.init(weights), next(iter(sites)).name)
        study = _approved(setting, sites, rounds, config, sent)
        clock = time.monotonic()
        result = federation.run_rounds(
            study, weights, config, rounds=rounds, algorithm=algorithm, at_once=2, progress=False
        )
        seconds = (time.monotonic() - clock) / rounds
        normalised = {**setting.config, "normalisation": config["normalisation"]}
        measure = replace(setting, config=normalised).measure
        models = _models_of(algorithm, State(result.weights, result.memory), sites.names)
        measured = pd.DataFrame([measure(model) for model in models]).mean().to_dict()
        rows[name] = {**measured, "s per round": seconds}
        out.print(f"{name:<18} {measured}", markup=False, soft_wrap=True)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("algorithm")


def _models_of(algorithm: Algorithm, state: State, sites: list[str]) -> list[Arrays]:
    """The global model; with FedBN each hospital's own, of which the mean is reported."""
    if isinstance(algorithm, federation.FedBN):
        return [algorithm.to_send(state, site) for site in sites]
    return [state.weights]


def _chosen(only: list[str] | None) -> Collection[str]:
    known = list(_algorithms({}, {"learning_rate": 0.0}))
    for name in only or ():
        if name not in known:
            raise typer.BadParameter(f"no algorithm {name}; there are {', '.join(known)}")
    return only or known


def _algorithms(
    sizes: dict[str, float], config: dict[str, Any]
) -> dict[str, Callable[[], tuple[Algorithm, dict[str, Any]]]]:
    """Algorithm -> its parameters, and the arguments of the job that it needs."""
    a = federation
    rate = config["learning_rate"]
    return {
        "FedAvg": lambda: (a.FedAvg(), {}),
        "FedAvgM 0.5": lambda: (a.FedAvgM(rate=1.0, momentum=0.5), {}),
        "FedProx 0.01": lambda: (a.FedProx(proximal=0.01), {}),
        "FedAdam 0.01": lambda: (a.FedAdam(rate=0.01), {}),
        "FedYogi 0.01": lambda: (a.FedYogi(rate=0.01), {}),
        "FedAdagrad 0.03": lambda: (a.FedAdagrad(rate=0.03), {}),
        "SCAFFOLD": lambda: (a.Scaffold(learning_rate=4 * rate, sites=sizes), {}),
        "FedNova": lambda: (a.FedNova(momentum=config["momentum"]), {}),
        "FedAvg, batch norm": lambda: (a.FedAvg(), {"normalisation": "batch"}),
        "FedBN": lambda: (a.FedBN(), {"normalisation": "batch"}),
        "median": lambda: (a.Median(), {}),
        "trimmed mean 1": lambda: (a.TrimmedMean(faulty=1), {}),
        "Krum 0": lambda: (a.Krum(faulty=0), {}),
        "Multi-Krum 0, 3": lambda: (a.MultiKrum(faulty=0, selected=3), {}),
        "norm-bounded mean": lambda: (a.NormBoundedMean(), {}),
    }


def _approved(
    setting: Setting,
    sites: Federation,
    runs: int,
    config: dict[str, Any] | None = None,
    sent: Arrays | None = None,
) -> Study:
    config = setting.config if config is None else config
    weights = setting.job.call("initial_weights", setting.card, config)
    study = sites.submit(
        setting.job,
        federation.training_terms(
            weights,
            title="train a pneumonia classifier",
            purpose="measure the documented recipe",
            dataset=DATASET,
            runs=runs + 1,
            config={
                **config,
                "seed": (0, 1000),
                "round": (0, 10_000),
                "learning_rate": (0.00001, 0.5),
            },
            sent=sent if sent is not None and set(sent) != set(weights) else None,
        ),
    )
    approve(setting.hospitals, study)
    return study


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
