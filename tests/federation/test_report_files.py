"""The PDF and the model card say what the report's content says, and keep hostile text as text."""

from __future__ import annotations

import datetime as dt
import io
import math
import re
import warnings

import numpy as np
import pytest

from federation.comparison import Comparison
from federation.evaluation import Evaluation
from federation.measures import Measures, SiteTable, measure

with warnings.catch_warnings():
    # matplotlib 3.9 calls pyparsing by names that pyparsing has deprecated since.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pypdf import PdfReader

    from federation.model_card import NOT_STATED, model_card
    from federation.report_page import render_report
    from federation.report_pdf import render_pdf
    from federation.study_report import Words
    from federation.subgroups import Subgroups
    from report_contents import REASON, TITLES, make_content

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib.*")
HOSTILE = "<script>alert(1)</script> | [x](https://evil.example) `a` **b** \\ ~~c~~ # d"
MEANS = {
    "auc": 0.9,
    "accuracy": 0.8,
    "sensitivity": 0.7,
    "specificity": 0.8,
    "brier": 0.1,
    "loss": 1,
}
CONFIG = {"model": "small_cnn", "normalisation": "group"}


def federated() -> Comparison:
    """The federated model at three hospitals, of which the last shows no number."""
    rng = np.random.default_rng(0)
    tables = {}
    for name in ("st-marys", "north-clinic"):
        score, labels = rng.normal(size=400), np.arange(400) % 2
        score += labels
        bins = np.clip(((score + 3) * 8).astype(int), 0, 63)
        scores = np.zeros((2, 64), np.int64)
        np.add.at(scores, (labels, bins), 1)
        tables[name] = SiteTable(scores[None], None, MEANS, 400)
    sites = {name: measure([table]) for name, table in tables.items()}
    sites |= {"seaside": Measures()}
    return Comparison(
        {"federated": Evaluation(sites, measure(list(tables.values())), tables, TITLES)}
    )


def text_of(pdf: bytes) -> str:
    """What a PDF says, on one line."""
    return " ".join(
        " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split()
    )


def test_the_pdf_says_what_the_content_says() -> None:
    content = make_content(sentence="10 of 10 rounds; North Clinic is missing in one.")
    said = text_of(render_pdf(content))
    for text in (content.title, content.question, content.privacy, content.sentence, REASON):
        assert " ".join(text.split()) in said
    for site in content.sites:
        assert site["title"] in said
        assert site["policy"] in said
    for log in content.audit:
        assert f"{log['lines']:,} lines, chain intact and signatures valid" in said
    assert "North Clinic Round 4" in said or "Round 4, North Clinic" in said
    assert "0.953" in said
    assert "suppressed" in said


def test_page_and_pdf_have_a_table_by_subgroup_where_it_was_measured() -> None:
    evaluation = federated().models["federated"]
    found = Subgroups("sex", {"F": evaluation, "<M>": evaluation}, evaluation.overall)
    content = make_content(subgroups=found)
    said, page = text_of(render_pdf(content)), render_report(content)
    for text in ("By subgroup: sex", "F at Seaside", "suppressed", str(evaluation.overall.auc)):
        assert text in said
        assert text in page
    assert "&lt;M&gt; at Seaside" in page
    assert "<M>" not in page
    assert "By subgroup" not in render_report(make_content()) + text_of(render_pdf(make_content()))


def test_the_pdf_says_loudly_that_a_log_does_not_verify() -> None:
    content = make_content()
    content.audit[1]["verified"] = False
    assert "1,205 lines, NOT verified: do not rely on this log" in text_of(render_pdf(content))


def test_page_pdf_and_card_say_of_which_day_they_are() -> None:
    content = make_content(day=dt.date(2025, 3, 1))
    for text in (render_report(content), text_of(render_pdf(content))):
        assert "Federated study, report, 1 March 2025" in text
    card = model_card(content, Words(), "train_classifier", {})
    assert "2025-03-01" in card.replace("\\", "")
    assert "report, " not in text_of(render_pdf(make_content()))


def test_the_same_content_gives_the_same_pdf() -> None:
    assert render_pdf(make_content()) == render_pdf(make_content())


@pytest.mark.parametrize(
    "hostile", [HOSTILE, "日本 病院 \u202e \x07", "x" * 2000, "{nb} %PDF (\\)"]
)
def test_hostile_text_does_not_break_the_pdf(hostile: str) -> None:
    content = make_content(title=hostile, question=hostile, privacy=hostile)
    content.sites[0]["title"] = content.refusals[0]["sentence"] = hostile
    pdf = PdfReader(io.BytesIO(render_pdf(content)))
    assert len(pdf.pages) >= 2
    assert not any("/JS" in str(page) or "/URI" in str(page) for page in pdf.pages)
    if hostile is HOSTILE:
        assert hostile in " ".join(" ".join(p.extract_text() for p in pdf.pages).split())


def test_the_model_card_has_every_section_of_the_paper_and_says_what_nobody_stated() -> None:
    card = model_card(make_content(), Words(), "train_classifier", {})
    assert re.findall("^## (.*)$", card, re.MULTILINE) == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert f"## Intended use\n\n{NOT_STATED}" in card
    assert "No model has been measured." in card
    assert "| Seaside | pneumonia | suppressed |" in card
    words = Words(intended_use="Research.", limits="No children.", contact="rita@uni.example")
    card = model_card(make_content(), words, "train_classifier", CONFIG)
    assert "## Intended use\n\nResearch." in card
    assert "No children." in card
    assert "rita@uni.example" in card
    assert "**Model:** small\\_cnn, group normalisation" in card


def test_the_model_card_shows_measures_with_intervals_and_suppressed_sites() -> None:
    comparison = federated()
    card = model_card(make_content(comparison=comparison), Words(), "job", CONFIG)
    rows = {
        cells[0]: cells
        for line in card.splitlines()
        if line.startswith("| ")
        and len(cells := [c.strip() for c in line.strip("|").split("|")]) > 4
    }
    auc = comparison.models["federated"].overall.auc.value
    assert not math.isnan(auc)
    assert f"{auc:.3f}" in " ".join(rows["all"])
    assert set(rows["Seaside"][1:]) <= {"suppressed"}


def test_hostile_text_stays_text_in_the_model_card() -> None:
    content = make_content(title=HOSTILE, question=HOSTILE, privacy=HOSTILE)
    content.sites[0]["title"] = HOSTILE
    content.provenance[HOSTILE] = HOSTILE
    card = model_card(content, Words(), HOSTILE, {})
    assert not re.search(r"(?<!\\)<script", card)
    assert not re.search(r"(?<!\\)\]\(https", card)
    assert not re.search(r"(?<!\\)\*\*b", card)
    row = next(line for line in card.splitlines() if line.endswith("| normal | 1,054 |"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
