"""The model card of a study's global model, as Markdown.

References:
    Mitchell, Wu, Zaldivar, Barnes, Vasserman, Hutchinson, Spitzer, Raji, Gebru: Model Cards for
    Model Reporting, FAT* 2019, doi 10.1145/3287560.3287596.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from federation.comparison import FEDERATED
from federation.evaluation import shown
from federation.release import Release
from federation.report_page import ReportContent

if TYPE_CHECKING:
    from federation.study_report import Words

NOT_STATED = "Not stated."


def model_card(content: ReportContent, words: Words, job: str, config: Mapping[str, Any]) -> str:
    """The card: what is known from the study, and `Not stated.` where nobody said it."""
    model = f"{config.get('model', job)}, {config.get('normalisation', '')} normalisation"
    parts = {
        "Model details": _details(content, model if config else job, words),
        "Intended use": words.intended_use or NOT_STATED,
        "Factors": "Hospitals: " + "; ".join(_site(site) for site in content.sites) + ".",
        "Metrics": "AUC, accuracy, balanced accuracy, sensitivity, specificity, Brier score and "
        "calibration error, each with a 95 % interval that takes images as independent.",
        "Evaluation data": "Held-out images of the hospitals above, evaluated inside them.",
        "Training data": _training(content),
        "Quantitative analyses": _analyses(content),
        **({} if content.release is None else {"Leakage test": _leakage(content.release)}),
        "Ethical considerations": plain(content.privacy) + " The images stayed in the hospitals.",
        "Caveats and recommendations": words.limits
        or "Not stated. Trained and measured at the "
        "hospitals above alone: nothing is known of others. No clinical evaluation was part of it.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items())
    return f"# {plain(content.title)}\n\n{body}\n"


def plain(text: str) -> str:
    """Text that came from others, so that Markdown takes it as text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~-])", r"\\\1", " ".join(text.split()))


def _details(content: ReportContent, model: str, words: Words) -> str:
    lines = {
        "Model": plain(model),
        **({"Date": plain(content.day.isoformat())} if content.day else {}),
        "Question": plain(content.question),
        "Rounds": content.sentence and plain(content.sentence),
        "Contact": words.contact or NOT_STATED,
        **{name: plain(value) for name, value in content.provenance.items()},
    }
    return "\n".join(f"- **{plain(name)}:** {text}" for name, text in lines.items())


def _site(site: Mapping[str, Any]) -> str:
    images = "number of images suppressed" if site["images"] is None else f"{site['images']:,}"
    return f"{plain(site['title'])} ({images} training images)"


def _training(content: ReportContent) -> str:
    rows = ["| Hospital | Class | Training images |", "| --- | --- | --- |"]
    for site in content.sites:
        for name, number in site["class_counts"].items():
            shown_as = "suppressed" if number is None else f"{number:,}"
            rows.append(f"| {plain(site['title'])} | {plain(name)} | {shown_as} |")
    return "\n".join(rows)


def _analyses(content: ReportContent) -> str:
    comparison = content.comparison
    if comparison is None or FEDERATED not in comparison.models:
        return "No model has been measured."
    return _table(shown(comparison.models[FEDERATED].rows))


def _leakage(release: Release) -> str:
    told = [release.sentence, *release.reasons]
    return "\n\n".join([*map(plain, told), _table(release.table().fillna("–"))])


def _table(table: pd.DataFrame) -> str:
    head = ["Hospital", *table.columns]
    rows = [
        [plain(str(title)), *map(str, row)]
        for title, row in zip(table.index, table.to_numpy().tolist(), strict=True)
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
