"""Tables of a study: what is shown of measures, and of what is suppressed."""

from __future__ import annotations

import numpy as np
import pytest

from federation.comparison import Comparison
from federation.evaluation import Evaluation
from federation.measures import Measures, SiteTable, measure

TITLES = {"a": "St <b>Mary's</b>", "b": "North Clinic", "c": "Seaside"}


MEANS = {"accuracy": 0.8, "sensitivity": 0.75, "specificity": 0.75, "brier": 0.1, "loss": 1.0}


def table(others: list[int], members: list[int], auc: float) -> SiteTable:
    scores = np.array([[others, members]], float)
    return SiteTable(scores, None, MEANS | {"auc": auc}, 40)


def evaluation(auc: float) -> Evaluation:
    tables = {"a": table([15, 5], [5, 15], auc), "b": table([18, 2], [4, 16], auc)}
    sites = {name: measure([one]) for name, one in tables.items()}
    return Evaluation({**sites, "c": Measures()}, measure(list(tables.values())), tables, TITLES)


def test_a_row_per_site_and_one_over_all() -> None:
    frame = evaluation(0.9).frame()
    assert list(frame.index) == [*TITLES.values(), "all"]
    assert frame.loc["all", "images"] == 80
    assert frame.loc["Seaside", ["auc", "brier"]].isna().all()
    assert frame.loc["North Clinic", "auc"] == 0.9
    assert frame.loc["all", "auc_low"] < 0.9 < frame.loc["all", "auc_high"]


def test_what_is_suppressed_is_shown_as_suppressed() -> None:
    page = evaluation(0.9)._repr_html_()
    assert page.count("suppressed") == 8  # images, and seven measures of one site
    assert "nan" not in page.lower()
    assert "<b>Mary" not in page


def test_the_best_model_of_a_column_is_marked() -> None:
    made = Comparison({"federated": evaluation(0.9), "pooled": evaluation(0.95)})
    assert list(made.table().columns) == [*TITLES.values(), "all"]
    assert made.table().loc["pooled", "North Clinic"].startswith("0.950 (")
    assert made.table("brier").loc["pooled", "Seaside"] == "suppressed"
    page = made._repr_html_()
    assert page.count("▸ 0.95") >= 2
    assert "▸ 0.900" not in page
    assert "<b>Mary" not in page
    assert list(made.frame().index.names) == ["model", "site"]
    with pytest.raises(ValueError, match="there is no measure `f1`; there are auc, accuracy"):
        made.table("f1")


def test_the_sentence_answers_whether_the_shared_model_is_better() -> None:
    own = {
        f"local: {title}": evaluation(auc)
        for title, auc in zip(TITLES.values(), (0.2, 0.89, 0.7), strict=True)
    }
    made = Comparison({**own, "federated": evaluation(0.9)})
    assert made.sentence == (
        "At St <b>Mary's</b> the shared model is better: AUC 0.900, its own model 0.200. "
        "At North Clinic there is no clear difference: AUC 0.900, its own model 0.890 (the "
        "intervals overlap). Over all there is no clear difference: AUC 0.850, that of North "
        "Clinic 0.845 (the intervals overlap)."
    )
    worse = Comparison({"local: North Clinic": evaluation(0.9), "federated": evaluation(0.2)})
    assert worse.sentence.startswith("At North Clinic the shared model is worse: AUC 0.200, its")
    assert "At St &lt;b&gt;Mary&#x27;s&lt;/b&gt; the shared model" in made._repr_html_()


@pytest.mark.parametrize("names", [("federated", "pooled"), ("local: Seaside", "pooled")])
def test_there_is_no_sentence_without_models_to_compare(names: tuple[str, str]) -> None:
    assert Comparison(dict.fromkeys(names, evaluation(0.9))).sentence == ""


def test_the_figure_has_a_column_per_site() -> None:
    figure = evaluation(0.9).figure()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [*TITLES.values(), "all"]
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "suppressed:\ntoo few images" in words
    assert sum(word.startswith("AUC 0.900") for word in words) >= 2
