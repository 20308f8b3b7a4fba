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
    DATASET,
    MINIMUM_COUNT,
    TRAINING,
    Demonstration,
)
from federation.evaluation import Evaluation, exact_measures
from federation.report import ReportContent, write_report
from federation.submission import Federation, Study
from policies.arrays import Arrays, arrays_sha256


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
        value = {name: float(getattr(m.overall, measure)) for name, m in measured.items()}
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
    model = train.job.call("build_model", card)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.eval()
    with torch.no_grad():
        output = model(train.job.call("to_input", images)).double().numpy()
    measures = exact_measures(output[:, 1] - output[:, 0], labels)
    return {
        "data": file.name,
        "auc": measures.auc,
        "accuracy": measures.accuracy,
        "images": measures.images,
    }


def write_results(
    demonstration: Demonstration,
    sites: Federation,
    train: Study,
    result: federation.RoundsResult,
    measured: dict[str, Evaluation],
    by_round: pd.DataFrame,
    summary: dict[str, Any],
) -> None:
    """Write the global model, the summary and the report."""
    folder = demonstration.out
    np.savez(folder / "global_model.npz", **result.weights)  # type: ignore[arg-type]
    write_private(
        folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode(), mode=0o644
    )
    titles = {site.name: site.title for site in sites}
    write_report(
        folder / "report.html",
        ReportContent(
            title=f"Pneumonia on chest X-rays: {len(sites)} hospitals, federated",
            question="Does a model that is trained at all hospitals, without moving an image, do "
            "better than each hospital's own, and how far is it from one trained on all images "
            "in one place?",
            sites=[_site_facts(demonstration, sites, name, train) for name in sites.names],
            history=result.history.frame().rename(index=titles, level="site"),
            auc_by_round=by_round,
            measures={
                measure: _columns(demonstration, measured, measure)
                for measure in ("auc", "accuracy")
            },
            refusals=demonstration.refusals,
            privacy="Updates left as computed, without added noise: each hospital's policy says "
            "so in writing (privacy.mode: none).",
            notes=[
                "Pooled training is possible only because this is a demonstration.",
                "AUC and accuracy inside the hospitals come from counts of images in bins of the "
                f"score; cells of fewer than {MINIMUM_COUNT} images are merged before they leave.",
                f"Images: {demonstration.data_name}, divided by a fixed Dirichlet draw.",
            ],
            provenance={
                "Global weights, sha256": summary["weights_sha256"],
                "Training job, sha256": train.job.sha256,
                "Initial weights, sha256": arrays_sha256(
                    train.job.call(
                        "initial_weights",
                        sites[sites.names[0]].dataset(DATASET).card,
                        demonstration.seed,
                    )
                ),
                "Seed": str(demonstration.seed),
                "Images": _describe_data(demonstration),
                "Arguments": json.dumps(TRAINING),
            },
            audit=[
                {
                    "title": titles[name],
                    "lines": found["lines"],
                    "verified": found["verified"],
                    "public_key": demonstration.site(name).public_key,
                }
                for name, found in summary["audit"].items()
            ],
        ),
    )


def _site_facts(
    demonstration: Demonstration, sites: Federation, name: str, train: Study
) -> dict[str, Any]:
    site = sites[name]
    card = site.dataset(DATASET).card
    counts = card["counts"]["train"]
    images = None if None in counts.values() else sum(counts.values())
    own = [d for d in demonstration.decisions if d["site"] == name and d["job"].startswith("train")]
    return {
        "title": site.title,
        "images": images,
        "class_counts": counts,
        "decision": "; then ".join(d["decision"] for d in own),
        "policy": site.policy.title,
        "request": f"R-{train.requests[name]}",
    }


def _columns(
    demonstration: Demonstration, measured: dict[str, Evaluation], measure: str
) -> dict[str, dict[str, float]]:
    return {
        model_title(demonstration, model): {
            **{
                site.site.config.title: float(getattr(measured[model].sites[site.name], measure))
                for site in demonstration.sites
            },
            "all": float(getattr(measured[model].overall, measure)),
        }
        for model in in_order(measured)
    }


def _describe_data(demonstration: Demonstration) -> str:
    if demonstration.data is None:
        return f"phantoms drawn with seed {demonstration.seed}"
    digest = hashlib.sha256(demonstration.data.read_bytes()).hexdigest()
    return f"{demonstration.data.name}, sha256 {digest}"
