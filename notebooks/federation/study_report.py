"""`federation.report(study, result, comparison, folder=...)`: everything a study leaves to read.

It writes `report.html` (one file), `report.pdf`, `model_card.md` and `global_model.safetensors`.
What hospitals say of themselves (titles, cards, policies, decisions) is asked from them; a site
that does not answer is named, and the report is written all the same.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.numpy import save

from federation.aggregation.algorithm import Algorithm
from federation.aggregation.fed_avg import FedAvg
from federation.aggregation.saving import described
from federation.comparison import Comparison
from federation.errors import FederationError
from federation.evaluation import SUPPRESSED
from federation.model_card import model_card
from federation.release import Release
from federation.report_page import ReportContent, render_report
from federation.report_pdf import render_pdf
from federation.rounds_result import RoundsResult
from federation.side_by_side import ask_all
from federation.subgroups import Subgroups
from federation.submission import Study
from federation.whole_file import write_whole

VERSIONS = ("syft", "torch", "torchvision", "numpy", "pandas", "scikit-learn")
"""Packages whose versions a report names."""


@dataclass(frozen=True, slots=True)
class Words:
    """What only people can say of a study; what is not said is left out, or said to be unknown.

    Attributes:
        title: "Pneumonia on chest X-rays, three hospitals"; by default the request's.
        question: What the study asks; by default the request's purpose.
        intended_use: For the model card: what the model may be used for, by whom.
        limits: For the model card: known limits, and what it must not be used for.
        contact: For the model card: whom to ask.
        notes: How to read the numbers, sentence by sentence.
    """

    title: str = ""
    question: str = ""
    intended_use: str = ""
    limits: str = ""
    contact: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a report.

    Attributes:
        folder: Where they are.
        html: The report, to look at.
        pdf: The same, to print or send.
        card: The model card, Markdown.
        weights: The global model.
    """

    folder: Path
    html: Path = field(init=False)
    pdf: Path = field(init=False)
    card: Path = field(init=False)
    weights: Path = field(init=False)

    def __post_init__(self) -> None:
        for name, file in (
            ("html", "report.html"), ("pdf", "report.pdf"), ("card", "model_card.md"),
            ("weights", "global_model.safetensors"),
        ):  # fmt: skip
            object.__setattr__(self, name, self.folder / file)

    def _repr_html_(self) -> str:
        files = (self.html, self.pdf, self.card, self.weights)
        links = "".join(f'<li><a href="{file}">{file.name}</a></li>' for file in files)
        return f"<p>The study as files:</p><ul>{links}</ul>"


def report(
    study: Study,
    result: RoundsResult,
    comparison: Comparison | None = None,
    *,
    folder: str | Path,
    words: Words = Words(),
    config: Mapping[str, Any] | None = None,
    algorithm: Algorithm = FedAvg(),  # noqa: B008  frozen, and without a field
    auc_by_round: pd.DataFrame | None = None,
    decisions: Mapping[str, str] | None = None,
    refusals: Sequence[Mapping[str, str]] = (),
    audit: Sequence[Mapping[str, Any]] = (),
    subgroups: Subgroups | None = None,
    release: Release | None = None,
    day: dt.date | None = None,
) -> Written:
    """Write a study's report, model card and global model into a folder; each file whole or not.

    Args:
        study: The study of the training job.
        result: What its rounds came to.
        comparison: Models measured at the sites; `federated` is the one that the model card is of.
        folder: Where; files of an earlier report are replaced.
        words: What only people can say.
        config: The job's arguments.
        algorithm: How updates were combined.
        auc_by_round: Index round, a column per site's title and `all`; by default what
            `run_rounds(evaluation=...)` measured.
        decisions: Site -> how it decided, in a sentence; by default its request's state and reason.
        refusals: `site`, `rule`, `sentence` of what was refused on the way; refusals in the history
            are in the report anyway.
        audit: Where the hospitals shared their logs: `title`, `lines`, `verified`, `public_key`.
        subgroups: The model measured by subgroup, as `evaluate_groups` gives it.
        release: The verdict of the leakage test on this model, as `federation.release` gives it.
        day: The day that stands on it; by default today, in UTC.

    Raises:
        FederationError: The folder cannot be written, or `release` is about another model.
    """
    if release is not None and release.weights_sha256 != result.weights_sha256:
        raise FederationError(
            f"the leakage test is about the model {release.weights_sha256[:12]}…, and the report "
            f"about {result.weights_sha256[:12]}…; test the weights of `result`"
        )
    asked = _asked(study) if decisions is None else {}
    content = ReportContent(
        title=words.title or study.wanted.title,
        question=words.question or study.wanted.purpose,
        sites=[_site(study, name, asked.get(name), decisions) for name in study.sites],
        history=result.history.frame(),
        auc_by_round=_titled(study, result.auc_frame() if auc_by_round is None else auc_by_round),
        measures={} if comparison is None else _measures(comparison),
        refusals=[dict(refusal) for refusal in refusals],
        privacy=_privacy(study),
        notes=[
            *words.notes,
            *([comparison.sentence] if comparison is not None and comparison.sentence else []),
            *([] if comparison is None else _notes(study, comparison)),
            *([] if subgroups is None else subgroups.sentences),
        ],
        provenance=_provenance(study, result, config, algorithm),
        audit=[dict(log) for log in audit],
        comparison=comparison,
        subgroups=subgroups,
        release=release,
        diagnostics=dict(result.diagnostics),
        sentence=result.sentence,
        day=day or dt.datetime.now(dt.UTC).date(),
    )
    written = Written(Path(folder))
    facts = {
        "job_sha256": study.job.sha256,
        "weights_sha256": result.weights_sha256,
        "rounds": str(result.history.rounds),
        "arguments": json.dumps(dict(config or {}), sort_keys=True),
        "datasets": json.dumps(_versions(study), sort_keys=True),
    }
    files = {
        written.html: render_report(content).encode(),
        written.pdf: render_pdf(content),
        written.card: model_card(content, words, study.job.name, config or {}).encode(),
        written.weights: save(result.weights, metadata=facts),
    }
    try:
        for path, data in files.items():
            write_whole(path, data)
    except OSError as error:
        raise FederationError(
            f"the report cannot be written to {written.folder} ({error.strerror}); make room or "
            "give another `folder`"
        ) from error
    return written


def _asked(study: Study) -> dict[str, Mapping[str, Any]]:
    """Site -> its request as it stands; a site that does not answer is left out."""

    def ask(name: str) -> Mapping[str, Any] | None:
        try:
            listed = json.loads(study.federation[name].call("sitegate.requests"))
        except FederationError:
            return None
        return next((r for r in listed if r["request"] == study.requests[name]), None)

    found = ask_all(study.sites, ask)
    return {name: request for name, request in found.items() if request is not None}


def _site(
    study: Study,
    name: str,
    request: Mapping[str, Any] | None,
    decisions: Mapping[str, str] | None,
) -> dict[str, Any]:
    site = study.federation[name]
    counts = {} if site.is_absent else _card(study, name)["counts"]["train"]
    state = None if request is None else str(request["state"])
    if decisions is not None:
        decision = decisions.get(name, "not said")
    elif request is None:
        decision = "the site did not answer when this was written"
    else:
        decision = f"{state}: {request['reason']}" if request["reason"] else str(state)
    known = {} if state is None else {"state": state}
    return {
        "name": name,
        "title": site.title,
        "images": None if site.is_absent or None in counts.values() else sum(counts.values()),
        "class_counts": counts,
        "decision": decision,
        "policy": "not known" if site.is_absent else site.policy.title,
        "request": f"R-{study.requests[name]}",
        **known,
    }


def _card(study: Study, name: str) -> Mapping[str, Any]:
    return study.federation[name].dataset(study.wanted.dataset).card


def _titled(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """AUC per round with the sites' titles as columns, `all` last."""
    named = frame.rename(columns={name: study.federation[name].title for name in study.sites})
    last = [column for column in named.columns if column == "all"]
    return named[[column for column in named.columns if column != "all"] + last]


def _measures(comparison: Comparison) -> dict[str, dict[str, dict[str, float]]]:
    return {
        measure: {
            model: {title: float(getattr(m, measure).value) for title, m in found.rows.items()}
            for model, found in comparison.models.items()
        }
        for measure in ("auc", "accuracy")
    }


def _privacy(study: Study) -> str:
    modes = {study.federation[name].title: study.federation[name].policy.privacy.mode
             for name in _known(study)}  # fmt: skip
    if set(modes.values()) <= {"none"}:
        return (
            "Updates left as computed, without added noise: each hospital's policy says so in "
            "writing (privacy.mode: none)."
        )
    return "; ".join(f"{title}: privacy.mode {mode}" for title, mode in modes.items()) + "."


def _notes(study: Study, comparison: Comparison) -> list[str]:
    point = next(iter(comparison.models.values())).overall.operating_point
    notes = [
        "Measures come from counts of images in bins of the score and from means over images; no "
        "score of a single image left a hospital. Intervals are 95 % (DeLong, Wilson, normal, or "
        "drawn again) and take images as independent: where patients have several images they are "
        "too narrow.",
        "The AUC over all compares images of different hospitals with each other. Where one "
        "hospital's scores are higher than another's for like images, it can lie below the AUC at "
        "each of them: the model ranks well at each hospital, and one threshold does not suit all.",
        "The calibration error comes from bins that are merged until each holds enough images. "
        "Where images are few, bins are wide, and errors in both directions cancel in them: with "
        "more images, as over all hospitals, it can be larger than at each.",
        f"Sensitivity and specificity are those at a predicted probability of {point:g}.",
        f"“{SUPPRESSED}” stands where a hospital has too few images to show a number.",
    ]
    if "pooled" in comparison.models:
        notes.append("Pooled training is possible only where all images are in one place.")
    return notes


def _provenance(
    study: Study, result: RoundsResult, config: Mapping[str, Any] | None, algorithm: Algorithm
) -> dict[str, str]:
    about = described(algorithm)
    name = about.pop("name")
    parameters = ", ".join(f"{key} {value}" for key, value in about.items())
    return {
        "Global weights, sha256": result.weights_sha256,
        "Training job, sha256": study.job.sha256,
        "Aggregation": f"{name} ({parameters})" if parameters else str(name),
        "Arguments": json.dumps(dict(config), sort_keys=True) if config else "not stated",
        **{
            f"Dataset at {study.federation[site].title}": version
            for site, version in _versions(study).items()
        },
        "Packages": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in VERSIONS),
    }


def _versions(study: Study) -> dict[str, str]:
    return {name: study.federation[name].dataset(study.wanted.dataset).version
            for name in _known(study)}  # fmt: skip


def _known(study: Study) -> list[str]:
    """Sites that have answered since `connect`."""
    return [name for name in study.sites if not study.federation[name].is_absent]
