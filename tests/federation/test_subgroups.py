"""Evaluation by subgroup: the right images are counted, and no small group follows from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from federation.errors import FederationError, RefusedError
from federation.job import read_job
from federation.subgroups import Subgroups, evaluate_groups
from federation.terms import evaluation_terms
from hospitals import JOBS
from policies.argument_rules import check_arguments
from policies.document import load_policy
from policies.findings import refuse

JOB = read_job(JOBS / "evaluate_classifier.py")
CONFIG: dict[str, Any] = {"split": "test", "bins": 1000, "minimum_count": 5}
CARD: dict[str, Any] = {
    "shape": [4, 4],
    "classes": ["normal", "pneumonia"],
    "counts": {"test": {"normal": 30, "pneumonia": 30}},
    "groups": {"sex": ["F", "M", "X"]},
}
WEIGHTS = read_job(JOBS / "train_classifier.py").call("initial_weights", CARD, {"seed": 0})
Ints = NDArray[np.int64]


def images_of(labels: Ints, seed: int) -> NDArray[np.uint8]:
    """Images that are brighter where there is pneumonia, with much noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(110 + 25 * labels[:, None, None], 45, (len(labels), 4, 4))
    return noise.clip(0, 255).astype(np.uint8)


def evaluate(labels: Ints, places: Ints, seed: int = 0, **config: Any) -> dict[str, Any]:
    arrays = {
        "images": images_of(labels, seed), "labels": labels, "group_sex": places.astype(np.int8),
    }  # fmt: skip
    found: dict[str, Any] = JOB.try_on(arrays, CARD, WEIGHTS, {**CONFIG, **config})
    return found


def cells(*counts: tuple[int, int, int]) -> tuple[Ints, Ints]:
    """Labels and places of so many images of (place, class, number)."""
    labels = [label for _, label, number in counts for _ in range(number)]
    places = [place for place, _, number in counts for _ in range(number)]
    return np.array(labels, np.int64), np.array(places, np.int64)


# --------------------------------------------------------------------------- which images count


@pytest.mark.parametrize(
    ("counts", "counted", "examples"),
    [
        # every group has five of each class
        ([(0, 0, 5), (0, 1, 5), (1, 0, 9), (1, 1, 8)], [10, 17, 0], [10, 10, 0]),
        # one of them has four of one: then none is shown
        ([(0, 0, 5), (0, 1, 4), (1, 0, 9), (1, 1, 8)], [0, 0, 0], [0, 0, 0]),
        ([(0, 0, 5), (0, 1, 0), (1, 0, 9), (1, 1, 8)], [0, 0, 0], [0, 0, 0]),
        # images without a value are what is left of all, so they count as a group
        ([(0, 0, 9), (0, 1, 9), (1, 0, 9), (1, 1, 9), (-1, 0, 5), (-1, 1, 5)], [18, 18, 0],
            [10, 10, 0]),
        ([(0, 0, 9), (0, 1, 9), (1, 0, 9), (1, 1, 9), (-1, 0, 5), (-1, 1, 4)], [0, 0, 0],
            [0, 0, 0]),
        # a class that is too small over all is counted nowhere
        ([(0, 0, 9), (1, 0, 9), (1, 1, 4)], [9, 9, 0], [9, 9, 0]),
        ([(0, 0, 9), (1, 0, 9), (1, 1, 5)], [0, 0, 0], [0, 0, 0]),
        # nobody is there
        ([(0, 0, 4), (1, 1, 4)], [0, 0, 0], [0, 0, 0]),
    ],
)  # fmt: skip
def test_groups_on_both_sides_of_the_minimum(
    counts: list[tuple[int, int, int]], counted: list[int], examples: list[int]
) -> None:
    labels, places = cells(*counts)
    found = [evaluate(labels, places, by="sex", group=k) for k in range(3)]
    assert [int(f["counts"]["scores"].sum()) for f in found] == counted
    assert [f["examples"] for f in found] == examples
    assert all(np.isfinite(list(f["metrics"].values())).all() for f in found)


def test_without_an_attribute_all_images_count() -> None:
    labels, places = cells((0, 0, 9), (0, 1, 2), (1, 0, 9), (1, 1, 8))
    one, other = evaluate(labels, places), evaluate(labels, places, by="", group=1)
    assert one["examples"] == one["counts"]["scores"].sum() == 28
    np.testing.assert_array_equal(one["counts"]["scores"], other["counts"]["scores"])


def test_a_group_is_measured_as_if_its_images_were_all_there_are() -> None:
    labels, places = cells((0, 0, 40), (0, 1, 30), (1, 0, 25), (1, 1, 45))
    images, mine = images_of(labels, 0), places == 1
    alone = JOB.try_on({"images": images[mine], "labels": labels[mine]}, CARD, WEIGHTS, CONFIG)
    found = evaluate(labels, places, by="sex", group=1)
    np.testing.assert_array_equal(found["counts"]["scores"], alone["counts"]["scores"])
    assert found["metrics"] == pytest.approx(alone["metrics"])


# ------------------------------------------------------------------ what leaves shows no small one


numbers = st.lists(st.integers(0, 14), min_size=8, max_size=8)


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(2, 7), st.integers(2, 40))
def test_all_less_any_groups_is_never_a_few_images(
    counts: list[int], minimum: int, images_minimum: int
) -> None:
    """Whoever subtracts groups that left from all images finds no class of 1 to minimum - 1."""
    places = [(-1, 0), (-1, 1), (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    labels, of = cells(*((p, c, n) for (p, c), n in zip(places, counts, strict=True)))
    if not len(labels):
        return
    asked: dict[str, Any] = {"minimum_count": minimum, "bins": 2}
    whole = evaluate(labels, of, **asked)
    groups = [evaluate(labels, of, by="sex", group=k, **asked) for k in range(3)]
    released = [g for g in groups if g["examples"] >= images_minimum]  # the site's policy
    if whole["examples"] < images_minimum:
        assert not released
    for chosen in range(2 ** len(released)):
        taken = [g for k, g in enumerate(released) if chosen >> k & 1]
        left = whole["counts"]["scores"].sum(2)[0] - sum(
            (g["counts"]["scores"].sum(2)[0] for g in taken), np.zeros(2, int)
        )
        assert all(n == 0 or n >= minimum for n in left.tolist())
        assert not taken or left.sum() == 0 or left.sum() >= images_minimum


def test_a_site_keeps_all_groups_when_it_keeps_the_smallest() -> None:
    """A policy that wants 50 images refuses 49 of one sex; so it has to refuse the 200 others."""
    labels, places = cells((0, 0, 25), (0, 1, 24), (1, 0, 100), (1, 1, 100))
    assert [evaluate(labels, places, by="sex", group=k)["examples"] for k in (0, 1)] == [49, 49]


# --------------------------------------------------------------------------------- over all sites


@dataclass
class Update:
    """What a run released."""

    counts: dict[str, Any]
    metrics: dict[str, float]
    examples: int


@dataclass
class Site:
    """A site with one dataset."""

    title: str
    card: dict[str, Any]

    def dataset(self, _: str) -> Site:
        return self


class Sites:
    """Stands for an approved study: sites whose data are here, and whose policy wants ten images.

    Args:
        data: Site -> labels, and the value of each image, empty for none.
    """

    def __init__(self, data: dict[str, tuple[Ints, list[str]]], by: str = "sex") -> None:
        self.data, self.sites = data, list(data)
        self.values = {name: sorted(set(v) - {""}) for name, (_, v) in data.items()}
        self.federation = {
            name: Site(f"{name} Hospital", {**CARD, "groups": {"sex": v} if v else {}})
            for name, v in self.values.items()
        }
        self.wanted = evaluation_terms(
            WEIGHTS, title="a", purpose="a test", dataset="chest-xray", runs=9, classes=2,
            bins=1000, config={"split": "test", "minimum_count": 5}, by=[by],
        )  # fmt: skip
        self.rounds: dict[tuple[str, int], int] = {}

    def run(self, name: str, _: Any, config: dict[str, Any], *, round_number: int) -> Update:
        assert check_arguments(config, self.wanted.arguments) == []
        assert self.rounds.setdefault((name, round_number), config["group"]) == config["group"]
        labels, values = self.data[name]
        places = np.array([self.values[name].index(v) if v else -1 for v in values])
        found = evaluate(labels, places, seed=self.sites.index(name), **config)
        if found["examples"] < 10:
            raise RefusedError(name, [refuse("examples.minimum", "few", "10", "use more")])
        return Update(found["counts"], found["metrics"], found["examples"])

    def measured(self, **changes: Any) -> Subgroups:
        study: Any = self
        return evaluate_groups(study, WEIGHTS, CONFIG, **{"by": "sex", "first_round": 4, **changes})


def drawn(seed: int, count: int, values: str) -> tuple[Ints, list[str]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, count), [values[k] for k in rng.integers(0, len(values), count)]


@pytest.fixture(scope="module")
def three() -> Sites:
    """Two sites with two and three values, and one where a value has few images."""
    few = np.array([0, 1] * 30), ["M"] * 56 + ["F"] * 4
    return Sites({"a": drawn(1, 300, "FM"), "b": drawn(2, 400, "FMX"), "c": few})


def test_area_of_a_group_is_that_of_the_pooled_scores(three: Sites) -> None:
    measured = three.measured()
    pooled: dict[str, list[tuple[int, float]]] = {}
    for k, name in enumerate(("a", "b")):
        labels, values = three.data[name]
        model = JOB.call("build_model", CARD, {"model": "small_cnn", "normalisation": "group"})
        config, every = {"size": 0}, np.ones(len(labels), bool)
        scores = JOB.call("predict", images_of(labels, k), every, model, WEIGHTS, config)[:, 1]
        for value, label, score in zip(values, labels, scores.tolist(), strict=True):
            pooled.setdefault(value, []).append((int(label), score))
    assert sorted(measured.groups) == sorted(pooled) == ["F", "M", "X"]
    for value, pairs in pooled.items():
        exact = roc_auc_score(*zip(*pairs, strict=True))
        overall = measured.groups[value].overall
        assert overall.images == len(pairs)
        assert overall.auc.value == pytest.approx(exact, abs=0.002)
        assert overall.auc.low < exact < overall.auc.high
    every_pair = [pair for pairs in pooled.values() for pair in pairs]
    exact = roc_auc_score(*zip(*every_pair, strict=True))
    assert measured.overall.auc.value == pytest.approx(exact, abs=0.002)
    assert measured.overall.images == 700


def test_a_site_with_a_small_group_is_suppressed_and_one_without_it_is_named(three: Sites) -> None:
    measured = three.measured()
    frame = measured.frame()
    assert frame.index.names == ["sex", "site"]
    hospitals = ["a Hospital", "b Hospital", "c Hospital", "all"]
    assert [key for key in frame.index if key[0] == "F"] == [("F", title) for title in hospitals]
    assert [key[1] for key in frame.index if key[0] == "X"] == ["b Hospital", "all"]
    assert frame.index[-1] == ("all", "all")
    for value in "FM":
        assert set(frame.loc[(value, "c Hospital")]) == {"suppressed"}
        assert " to " in frame.loc[(value, "all"), "AUC"]
    assert measured.sentences == [
        "a Hospital, c Hospital: no subgroup sex X in the dataset's card."
    ]
    page = measured._repr_html_()
    assert "a Hospital, c Hospital: no subgroup sex X" in page
    assert page.count("suppressed") == 2 * 8
    figure = measured.figure()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:4] == [
        "F", "a Hospital", "b Hospital", "c Hospital",
    ]  # fmt: skip
    assert sum("suppressed" in text.get_text() for text in figure.axes[0].texts) == 2


def test_each_site_is_asked_for_its_own_place_and_each_value_has_its_round() -> None:
    sites = Sites({"a": drawn(1, 200, "FM"), "b": drawn(2, 200, "MX")})
    sites.measured()
    assert sites.rounds == {("a", 4): 0, ("a", 5): 1, ("b", 5): 0, ("b", 6): 1}
    with pytest.raises(AssertionError):
        sites.measured(first_round=5)  # the same rounds, of other groups


def test_markup_and_formulas_in_a_value_are_shown_as_they_are() -> None:
    sites = Sites({"a": (np.array([0, 1] * 40), ["<b>$x_1$", "$\\frac"] * 40)})
    measured = sites.measured()
    assert "<b>" not in measured._repr_html_()
    measured.figure()._repr_png_()


def test_what_the_terms_or_the_cards_do_not_have_is_refused() -> None:
    sites = Sites({"a": drawn(1, 60, "FM")})
    with pytest.raises(FederationError) as refused:
        sites.measured(by="age_band")
    assert str(refused.value) == (
        "`by` is 'age_band'; the study asked for sex. Ask with evaluation_terms(by=['age_band'])"
    )
    nobody = Sites({"a": (np.array([0, 1]), ["", ""])})
    with pytest.raises(FederationError, match=r"no dataset card of a has the subgroup `sex`"):
        nobody.measured()


def test_terms_allow_subgroups_only_where_they_are_asked_for() -> None:
    asked: dict[str, Any] = {
        "title": "a", "purpose": "a test", "dataset": "chest-xray", "runs": 9, "classes": 2,
        "bins": 10, "config": {"split": "test", "minimum_count": 5},
    }  # fmt: skip
    assert not {"by", "group"} & set(evaluation_terms(WEIGHTS, **asked).arguments)
    terms = evaluation_terms(WEIGHTS, **asked, by=["sex"]).at("0" * 64, JOB.entry)
    whole = {"split": "test", "minimum_count": 5, "bins": 10, "operating_point": 0.5}
    for by, group, fits in [("", 0, True), ("sex", 7, True), ("sex", 8, False), ("age", 0, False)]:
        assert (check_arguments({**whole, "by": by, "group": group}, terms.arguments) == []) == fits
    policy = load_policy(JOBS.parents[1] / "policies" / "community-hospital.yaml")
    assert all(policy.arguments[name].contains(terms.arguments[name]) for name in ("by", "group"))
