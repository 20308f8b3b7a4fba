"""What describes a dataset and shows no image: as numpy on all images, or suppressed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import federation
from datasites.imaging.mock import draw_mock
from federation.description import Described, Description, described, together
from federation.description_figure import spread, wider
from federation.errors import FederationError
from federation.job import Job, read_job
from federation.submission import Federation
from hospitals import JOBS
from policies.contract import Terms
from policies.document import load_policy
from policies.findings import refusals, verdict
from policies.job_rules import RULES, check_job
from policies.request_rules import Ask, DatasetFacts, Requester, check_request
from policies.update_rules import Update, check_update

ROOT = Path(__file__).parents[2]
JOB: Job = read_job(JOBS / "describe_dataset.py")
POLICIES = ("university", "community", "childrens")
CLASSES = ["normal", "pneumonia"]
CONFIG: dict[str, Any] = {"split": "train", "bins": 16, "minimum_count": 5}
ASKED: dict[str, Any] = {
    "title": "Describe", "purpose": "a test", "dataset": "chest-xray", "runs": 2, "classes": 2,
}  # fmt: skip

Images = NDArray[Any]
Row = NDArray[np.int64]


def released(images: Images, labels: Row, **changes: Any) -> dict[str, Any]:
    card = {"classes": CLASSES, "counts": {"train": {}}}
    arrays = {"images": images, "labels": labels}
    found: dict[str, Any] = JOB.try_on(arrays, card, {}, {**CONFIG, **changes})
    return found


def site(images: Images, labels: Row, **changes: Any) -> Described:
    found = released(images, labels, **changes)
    return described(CLASSES, found["counts"]["intensities"], **found["metrics"])


def drawn(rng: np.random.Generator, count: int, shape: tuple[int, ...] = (9, 7)) -> Images:
    """Images of their own brightness each, as bytes."""
    middle = rng.uniform(40, 200, (count, *[1] * len(shape)))
    noise = rng.normal(0, 30, (count, *shape))
    return np.clip(middle + noise, 0, 255).astype(np.uint8)


def halves(count: int) -> Row:
    return np.asarray(np.arange(count) % 2, np.int64)


# ----------------------------------------------------------------------------------- the job


@pytest.mark.parametrize("shape", [(9, 7), (8, 8, 3)], ids=str)
@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
def test_mean_and_deviation_are_those_of_all_pixels(shape: tuple[int, ...], floats: bool) -> None:
    images = drawn(np.random.default_rng(1), 75, shape)
    given = (images / 255).astype(np.float32) if floats else images
    found = released(given, halves(75))
    assert found["metrics"]["mean"] == pytest.approx((images / 255).mean(), abs=1e-6)
    assert found["metrics"]["deviation"] == pytest.approx((images / 255).std(), abs=1e-6)
    assert found["examples"] == 75
    assert found["counts"]["intensities"].sum(axis=1).tolist() == [38, 37]


def test_histogram_is_that_of_numpy_to_the_nearest_image() -> None:
    images, labels = drawn(np.random.default_rng(2), 400), halves(400)
    table = released(images, labels, minimum_count=1)["counts"]["intensities"]
    for k in (0, 1):
        exact = np.histogram(images[labels == k] / 255, 16, (0, 1))[0] / 63
        assert np.abs(table[k] - exact).max() <= 1
        assert np.abs(np.cumsum(table[k]) - np.cumsum(exact)).max() <= 0.5 + 1e-9


few_images = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**32 - 1))


@settings(max_examples=60, deadline=None)
@given(few_images, st.integers(2, 12), st.integers(2, 30))
def test_cells_are_zero_or_large_enough_and_no_image_of_a_kept_class_is_lost(
    drawing: tuple[int, int, int], minimum: int, bins: int
) -> None:
    counts, rng = drawing[:2], np.random.default_rng(drawing[2])
    labels = rng.permutation(np.repeat([0, 1], counts)).astype(np.int64)
    found = released(drawn(rng, len(labels)), labels, minimum_count=minimum, bins=bins)
    table = found["counts"]["intensities"]
    assert (table.shape, table.dtype) == ((2, bins), np.int64)
    assert ((table == 0) | (table >= minimum)).all()
    assert table.sum(axis=1).tolist() == [n if n >= minimum else 0 for n in counts]
    assert found["examples"] == table.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 30), st.integers(0, 2**32 - 1))
def test_a_cell_rests_on_as_many_images_as_it_says(count: int, seed: int) -> None:
    """An image adds 1 to a cell at most, so five images of one brightness are no fewer than five.

    A cell that nothing was merged into is checked; merging only adds images.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 2, 2)).astype(np.uint8)
    labels = np.zeros(count, np.int64)
    table = released(images, labels, minimum_count=1)["counts"]["intensities"][0]
    place = np.minimum(images // 16, 15)
    for k, cell in enumerate(table):
        assert (place == k).any(axis=(1, 2)).sum() >= cell


@pytest.mark.parametrize(("positives", "counted"), [(4, 60), (5, 65), (0, 60)])
def test_class_with_too_few_images_is_in_no_number(positives: int, counted: int) -> None:
    rng = np.random.default_rng(3)
    images, labels = drawn(rng, 60 + positives), np.zeros(60 + positives, np.int64)
    labels[60:] = 1
    images[60:] = 255
    found = released(images, labels)
    assert found["examples"] == counted
    seen = images if positives >= 5 else images[:60]
    assert found["metrics"]["mean"] == pytest.approx((seen / 255).mean())
    assert site(images, labels).classes == {
        "normal": 60,
        "pneumonia": positives if positives >= 5 else None,
    }


def test_the_job_passes_every_example_policy_with_the_table_of_pixels_to_read() -> None:
    for name in POLICIES:
        policy = load_policy(ROOT / f"policies/{name}-hospital.yaml")
        found = check_job(JOB.text, JOB.entry, policy.job)
        assert verdict(found) == "ok, 1 to read", name
        assert [f.rule for f in found] == list(RULES)


def asked_at(name: str) -> tuple[Terms, Ask]:
    wanted = federation.description_terms(
        **ASKED, bins=16, config={"split": ["train", "test"], "minimum_count": 10}
    )
    version = "5eed0a11" + "0" * 56
    terms = wanted.at(version, JOB.entry)
    facts = DatasetFacts(900, (450, 450), 0.01, True, ("113100", "113103", "113105"))
    return terms, Ask(JOB.text, terms, facts, Requester("rita@uni.example", "Example University"))


@pytest.mark.parametrize("name", POLICIES)
def test_terms_are_within_every_example_policy_and_so_is_what_is_returned(name: str) -> None:
    policy = load_policy(ROOT / f"policies/{name}-hospital.yaml")
    terms, ask = asked_at(name)
    assert refusals(check_request(ask, policy)) == []
    found = released(drawn(np.random.default_rng(4), 220), halves(220), minimum_count=10)
    update = Update({}, found["metrics"], found["examples"], found["counts"])
    assert terms.contract is not None
    assert terms.contract.sent == {}
    assert check_update(update, {}, terms.contract, policy) == []


def test_a_mock_can_be_described() -> None:
    arrays = draw_mock((28, 28), 2)
    assert released(arrays["images"], arrays["labels"])["examples"] == 64


# ------------------------------------------------------------------------------- over all sites


@pytest.mark.parametrize("sites", [1, 3, 7])
def test_over_all_sites_is_numpy_on_all_images(sites: int) -> None:
    rng = np.random.default_rng(sites)
    parts = [(drawn(rng, n), halves(n)) for n in rng.integers(20, 90, sites)]
    found = together([site(*part) for part in parts])
    images = np.concatenate([images for images, _ in parts]) / 255
    labels = np.concatenate([labels for _, labels in parts])
    assert found.mean == pytest.approx(images.mean(), abs=1e-9)
    assert found.deviation == pytest.approx(images.std(), abs=1e-9)
    assert found.images == len(images)
    assert list(found.classes.values()) == np.bincount(labels).tolist()


def test_order_of_sites_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    parts = [site(drawn(rng, n), halves(n)) for n in (20, 30, 50)]
    one, other = together(parts), together(parts[::-1])
    assert one.mean == pytest.approx(other.mean)
    assert one.deviation == pytest.approx(other.deviation)
    assert (one.intensities == other.intensities).all()


NOTHING = described(CLASSES, np.zeros((2, 16), np.int64), 0.0, 0.0)


def test_a_site_without_images_that_count_changes_nothing() -> None:
    known = site(drawn(np.random.default_rng(6), 40), halves(40))
    assert together([known, NOTHING]).mean == known.mean
    assert together([NOTHING]).images is None
    assert math.isnan(together([NOTHING]).deviation)


# -------------------------------------------------------------------------------- what is shown


def made() -> Description:
    rng = np.random.default_rng(7)
    labels = np.zeros(40, np.int64)
    sites = {
        "a": site(drawn(rng, 60), halves(60)),
        "b": site(drawn(rng, 40), labels),
        "c": NOTHING,
    }
    titles = {"a": "St <b>Mary's</b>", "b": "North Clinic", "c": "Seaside"}
    return Description(sites, together(list(sites.values())), titles, 5)


def test_a_row_per_site_and_one_over_all() -> None:
    frame = made().frame()
    assert list(frame.index) == ["St <b>Mary's</b>", "North Clinic", "Seaside", "all"]
    assert frame.loc["all", ["images", *CLASSES]].tolist() == [100, 70, 30]
    assert frame.loc["Seaside"].isna().all()
    assert np.isnan(frame["pneumonia"].astype(float)["North Clinic"])


def test_what_is_suppressed_is_shown_as_suppressed() -> None:
    page = made()._repr_html_()
    assert page.count("<td>suppressed</td>") == 6  # one class of one site, five cells of another
    assert "nan" not in page.lower()
    assert "<b>Mary" not in page
    assert "fewer than 5 images" in page


def test_the_figure_has_a_histogram_per_class_and_site() -> None:
    figure = made().figure()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["St <b>Mary's</b>", "North Clinic", "Seaside", "all"]
    assert [axes.get_title(loc="right") for axes in figure.axes] == [
        "60 images", "40 images", "", "100 images",
    ]  # fmt: skip
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert words == [[], [], ["suppressed:\ntoo few images"], []]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == CLASSES


def test_the_figure_of_nothing_is_drawn() -> None:
    figure = Description({"c": NOTHING}, NOTHING, {"c": "Seaside"}, 5).figure()
    assert figure.legends == []


@pytest.mark.parametrize(
    ("images", "minimum", "bins"),
    [
        ([320, 640], 5, 16),  # 320 / 15 are 21 bins: those of 16 are the next wider ones
        ([480, 640], 5, 32),
        ([40, 640], 5, 8),  # never fewer than eight
        ([0, 640], 5, 32),  # a class without images has no say
        ([0, 0], 5, 32),
    ],
)
def test_bins_of_a_figure_are_as_wide_as_its_smallest_class_needs(
    images: list[int], minimum: int, bins: int
) -> None:
    rows = {"Seaside": {str(k): np.full(32, n / 32) for k, n in enumerate(images)}}
    found = wider(rows, minimum)["Seaside"]
    assert [len(row) for row in found.values()] == [bins, bins]
    assert [row.sum() for row in found.values()] == pytest.approx(images)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 0, 6, 0], [0, 0, 6, 0]),  # alone: nothing tells how far it reaches
        ([0, 30, 0, 0, 0, 20], [0, 30, 0, 0, 0, 20]),  # too large to have been merged
        ([0, 6, 0, 6, 0], [1.5, 3, 3, 3, 1.5]),  # half of the way to each side
        ([6, 0, 6, 6, 0, 0], [4, 4, 4, 6, 0, 0]),
    ],
)
def test_merged_cells_are_drawn_over_the_bins_they_stand_for(
    row: list[int], expected: list[float]
) -> None:
    assert spread(np.array(row), 5).tolist() == pytest.approx(expected)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 12))
def test_drawing_loses_no_image(row: list[int], minimum: int) -> None:
    found = spread(np.array(row), minimum)
    assert found.sum() == pytest.approx(sum(row))
    assert (found >= 0).all()


# --------------------------------------------------------------------------------- bad input


class Elsewhere:
    """Sites whose cards differ in their classes."""

    def __init__(self, title: str, classes: list[str]) -> None:
        self.title, self.card = title, {"classes": classes}

    def dataset(self, name: str) -> Elsewhere:
        return self


def test_sites_with_other_classes_are_refused_in_a_sentence() -> None:
    wanted = federation.description_terms(**ASKED, bins=16, config=CONFIG)
    sites: Any = {"a": Elsewhere("North", CLASSES), "b": Elsewhere("Seaside", ["no", "yes"])}
    with pytest.raises(FederationError) as refused:
        federation.describe(federation.Study(sites, JOB, wanted), CONFIG, sites=["a", "b"])
    assert str(refused.value) == (
        "Seaside has the classes no, yes, North has normal, pneumonia: describe them one by one, "
        "with `sites`"
    )


def test_a_study_without_sites_cannot_be_described() -> None:
    wanted = federation.description_terms(**ASKED, bins=8, config={})
    with pytest.raises(FederationError, match="there is no site to describe; submit the job"):
        federation.describe(federation.Study(Federation([]), JOB, wanted), CONFIG)
