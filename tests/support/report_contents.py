"""The content of a report of three hospitals, ten rounds and five models."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd

from federation.history import History, SiteRound
from federation.report_page import ReportContent

TITLES = {"st-marys": "St Mary's", "north-clinic": "North Clinic", "seaside": "Seaside"}
REASON = "update.norm: the change has L2 norm 31.2, at most 10.0 may leave"


def make_content(**changes: object) -> ReportContent:
    """The content, changed where a test says so."""
    history = History()
    for number in range(1, 11):
        for index, name in enumerate(TITLES):
            if (number, name) == (4, "north-clinic"):
                history.records.append(SiteRound(number, name, "missing", REASON, seconds=1.25))
                continue
            loss = 0.2 + 0.5 * math.exp(-number / (3 + index)) + 0.01 * index
            history.records.append(
                SiteRound(
                    number,
                    name,
                    "contributed",
                    examples=(1412, 980, 1246)[index],
                    loss=loss,
                    accuracy=1 - loss / 2,
                    seconds=1.0 + index,
                    run=f"R-{6 + index}/{number}/1",
                )
            )
    rise = [1 - math.exp(-number / 2.5) for number in range(1, 11)]
    tops = {"st-marys": 0.953, "north-clinic": 0.941, "seaside": 0.927, "all": 0.943}
    aucs = pd.DataFrame(
        {name: [0.55 + (top - 0.55) * r for r in rise] for name, top in tops.items()},
        index=pd.RangeIndex(1, 11, name="round"),
    )
    columns = [*TITLES.values(), "all"]
    table = {
        "local: St Mary's": [0.9131, 0.861, 0.802, 0.862],
        "local: North Clinic": [0.872, 0.8842, 0.811, 0.858],
        "local: Seaside": [0.851, 0.832, 0.7913, 0.829],
        "federated": [0.9532, 0.9413, 0.9274, 0.9435],
        "pooled": [0.9551, 0.9404, 0.9291, 0.9512],
    }
    auc = {model: dict(zip(columns, row, strict=True)) for model, row in table.items()}
    accuracy = {m: {c: v - 0.0604 for c, v in row.items()} for m, row in auc.items()}
    del accuracy["pooled"]["Seaside"]
    sites = [
        {
            "name": name,
            "title": title,
            "images": images,
            "class_counts": counts,
            "decision": f"Approved by {person} on 2026-11-22: \u201cten runs, weights only\u201d.",
            "policy": f"chest-xray v3 (sha256 41c9{index}f02ab77)",
            "request": f"R-{6 + index}",
            "state": "approved",
        }
        for index, (name, title, images, counts, person) in enumerate(
            [
                ("st-marys", "St Mary's", 1765, {"normal": 1054, "pneumonia": 711}, "Dana Ito"),
                (
                    "north-clinic",
                    "North Clinic",
                    1225,
                    {"normal": 903, "pneumonia": 322},
                    "Bo Lind",
                ),
                ("seaside", "Seaside", None, {"normal": 1248, "pneumonia": None}, "Ada Ruiz"),
            ]
        )
    ]
    content = ReportContent(
        title="Pneumonia on chest X-rays, three hospitals",
        question="Does a model trained at three hospitals find pneumonia better at each of them "
        "than the model that the hospital could train alone?",
        sites=sites,
        history=history.frame(),
        auc_by_round=aucs,
        measures={"auc": auc, "accuracy": accuracy},
        refusals=[
            {
                "site": "Seaside",
                "rule": "runs.maximum",
                "sentence": "20 runs were asked for, at most 12 are allowed. "
                "Submitted again with 10, and approved.",
            },
            {"site": "North Clinic", "rule": "update.norm", "sentence": "Round 4 did not leave."},
        ],
        privacy="Images never left a hospital; each released ten updates of a model's weights, "
        "without noise, and such updates can reveal something about the images behind them.",
        notes=["Pooled: trained on phantoms of all sites in one place, which only a demo can do."],
        provenance={"weights sha256": "9be1" * 16, "seed": "7", "federation": "sitegate 0.1.0"},
        audit=[
            {"title": t, "lines": 1204 + i, "verified": True, "public_key": f"{i}a7c" * 16}
            for i, t in enumerate(TITLES.values())
        ],
    )
    return dataclasses.replace(content, **changes)
