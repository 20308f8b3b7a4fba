"""What the demonstration leaves behind: summary, model, report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import federation
from datasites.files import write_private
from demonstration_hospitals import (
    CLASSES,
    Demonstration,
)
from federation.evaluation import Evaluation
from federation.measures import exact_measures
from federation.submission import Federation, Study
from policies.arrays import Arrays


def in_order(measured: dict[str, Evaluation]) -> list[str]:
    """The models in the order of the tables: each hospital alone, federated, pooled."""
    alone = [name for name in measured if name not in ("federated", "pooled")]
    return [*alone, "federated", "pooled"]


def model_title(demonstration: Demonstration, model: str) -> str:
    """A model's name, as people read it."""
    if model in ("federated", "pooled"):
        return model
    return f"local: {demonstration.site(model).site.config.title}"


def summarise(
    demonstration: Demonstration,
    result: federation.RoundsResult,
    measured: dict[str, Evaluation],
    audit: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What `summary.json` holds."""

    def collect(measure: str) -> dict[str, Any]:
        value = {name: float(getattr(m.overall, measure).value) for name, m in measured.items()}
        names = [site.name for site in demonstration.sites]
        return {
            "federated": value["federated"],
            "pooled": value["pooled"],
            "local": {name: value[name] for name in names},
        }

    seconds = {key: round(value, 1) for key, value in demonstration.seconds.items()}
    return {
        "sites": [site.name for site in demonstration.sites],
        "rounds": demonstration.rounds,
        "seed": demonstration.seed,
        "data": demonstration.data_name,
        "requests": demonstration.decisions,
        "auc": collect("auc"),
        "accuracy": collect("accuracy"),
        "contributions": [
            {"round": record.round, "site": record.site, "examples": record.examples}
            for record in result.history
        ],
        "audit": audit,
        "weights_sha256": result.weights_sha256,
        "seconds": {key: seconds[key] for key in ("setup", "approval", "rounds", "total")},
    }


def measure_on(train: Study, weights: Arrays, split: Any, file: Path) -> dict[str, Any]:
    """The global model on a file's test split, here: exact, from the scores themselves."""
    images, labels = split
    card = {"shape": list(images.shape[1:]), "classes": list(CLASSES)}
    config = train.job.call("defaults")
    model = train.job.call("build_model", card, config)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.eval()
    with torch.no_grad():
        output = model(train.job.call("to_input", images, config)).double().numpy()
    measures = exact_measures(output[:, 1] - output[:, 0], labels)
    return {
        "data": file.name,
        "auc": measures.auc.value,
        "accuracy": measures.accuracy.value,
        "images": measures.images,
    }


def write_results(
    demonstration: Demonstration,
    sites: Federation,
    train: Study,
    result: federation.RoundsResult,
    measured: dict[str, Evaluation],
    by_round: pd.DataFrame,
    subgroups: federation.Subgroups | None,
    summary: dict[str, Any],
) -> None:
    """Write the global model, the summary and the report."""
    folder = demonstration.out
    np.savez(folder / "global_model.npz", **result.weights)  # type: ignore[arg-type]
    write_private(
        folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode(), mode=0o644
    )
    config = {**train.job.call("defaults"), **demonstration.training}
    federation.report(
        train,
        result,
        federation.Comparison(
            {model_title(demonstration, name): measured[name] for name in in_order(measured)}
        ),
        folder=folder,
        words=federation.Words(
            title=f"Pneumonia on chest X-rays: {len(sites)} hospitals, federated",
            question="Does a model that is trained at all hospitals, without moving an image, do "
            "better than each hospital's own, and how far is it from one trained on all images "
            "in one place?",
            intended_use="To show what Sitegate does. Not for patients.",
            limits="A demonstration: small images, few of them, no clinical evaluation.",
            notes=[
                f"Images: {_describe_data(demonstration)}, divided by a fixed Dirichlet draw.",
                "The people of the hospitals were played by a program.",
            ],
        ),
        config=config,
        auc_by_round=by_round,
        subgroups=subgroups,
        decisions={name: _decision(demonstration, name) for name in sites.names},
        refusals=demonstration.refusals,
        audit=[
            {
                "title": sites[name].title,
                "lines": found["lines"],
                "verified": found["verified"],
                "public_key": demonstration.site(name).public_key,
            }
            for name, found in summary["audit"].items()
        ],
    )


def _decision(demonstration: Demonstration, name: str) -> str:
    """How a hospital decided about the training job, in the order in which it did."""
    own = [d for d in demonstration.decisions if d["site"] == name and d["job"].startswith("train")]
    return "; then ".join(d["decision"] for d in own)


def _describe_data(demonstration: Demonstration) -> str:
    if demonstration.data is None:
        return f"phantoms drawn with seed {demonstration.seed}"
    digest = hashlib.sha256(demonstration.data.read_bytes()).hexdigest()
    return f"{demonstration.data.name}, sha256 {digest}"
