"""A rehearsal shows what the exact text does on the mock, in the real cage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
from datasites.audit_log import read_events
from datasites.imaging.mock import draw_mock
from datasites.mock_store import MockStore
from datasites.open_site import OpenSite
from datasites.people import Role
from datasites.records import RequestRow
from datasites.rehearsal import (
    Rehearsal,
    latest_rehearsal,
    plausible_value,
    plausible_weights,
    rehearse,
)
from datasites.requests import get_request
from open_sites import OWNER, RecordedSyft, open_site, submit
from policies.contract import ArrayContract, Bound, Contract

LEARNING = """\
# Averages images into the weights a little, as training does.
def train(data, weights, config):
    import numpy as np

    images, labels = data.arrays("train")
    x = np.asarray(images, dtype=np.float64).reshape(len(images), -1) / 255
    step = np.tanh(x @ np.sin(np.arange(x.shape[1] * 256.0)).reshape(-1, 256)).mean(0)
    return {
        "weights": {"w": (weights["w"] + config["rate"] * step).astype(np.float32)},
        "metrics": {"loss": 0.5},
        "examples": len(labels),
    }
"""
STORING = LEARNING.replace(
    "step = np.tanh(x @ np.sin(np.arange(x.shape[1] * 256.0)).reshape(-1, 256)).mean(0)",
    "step = x[:4].ravel()",
)
CONTRACT = Contract(weights={"w": ArrayContract(shape=(256,), dtype="float32")}, metrics=("loss",))
MANY = {"review": {"rehearsal": {"images": 16, "time_s": 30}}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    opened = open_site(tmp_path_factory.mktemp("site"), **MANY)
    yield opened
    opened.close()


def rehearsed(site: OpenSite, text: str, **changes: Any) -> tuple[RequestRow, Rehearsal]:
    row = submit(site, RecordedSyft(), text, **changes)
    return row, rehearse(site, row, OWNER)


def test_an_honest_job_returns_what_it_declared(site: OpenSite) -> None:
    row, report = rehearsed(site, LEARNING, contract=CONTRACT)
    assert (report.outcome, report.succeeded, report.refused) == ("returned", True, ())
    assert [(a.name, a.kind, a.shape, a.dtype) for a in report.returned] == [
        ("w", "weights", (256,), "float32")
    ]
    assert (report.metrics, report.examples, report.images) == ({"loss": 0.5}, 64, 64)
    assert report.config == {"rate": 0.5}
    assert dict(report.calls)["numpy.asarray"] == 1
    assert report.attempts == ()
    assert (report.probed, report.suspicious, report.repeatable) == (16, False, True)
    assert report.text_sha256 == row.text_sha256
    assert latest_rehearsal(site, row.id) == report


def test_a_job_that_stores_images_is_shown_as_such(site: OpenSite) -> None:
    _, report = rehearsed(site, STORING, contract=CONTRACT)
    assert report.suspicious
    assert report.influence == "the pixels of 1 of 16 changed images stand in the returned numbers"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("if images[0, 0, 0] != 127: w = np.zeros(300)\n", "changed images"),
        ("assert (images[0] == MOCK).all()", "ended with AssertionError when an image was changed"),
        ("x = x * 1e300 * (images[0].mean() - 100)", "changed images"),
    ],
)
def test_a_job_cannot_break_its_own_rehearsal(site: OpenSite, line: str, words: str) -> None:
    """Results of other sizes, errors on one image, numbers that overflow: each gives a report."""
    mock = draw_mock((8, 8), 2)["images"][0].tolist()
    text = LEARNING.replace("    step = ", f"    {line.replace('MOCK', str(mock))}\n    step = ")
    _, report = rehearsed(site, text, contract=CONTRACT)
    assert words in report.influence
    if "ended" in words:
        assert report.suspicious


def test_a_rehearsal_is_in_the_log_before_it_runs(site: OpenSite) -> None:
    row, _ = rehearsed(site, factories.DOUBLE_JOB)
    last = [e for e in read_events(site.site.audit) if e["subject"] == f"R-{row.id}"][-1]
    assert (last["event"], last["actor"], last["role"]) == (
        "request rehearsed", OWNER.email, Role.OWNER,
    )  # fmt: skip
    assert last["objects"]["text_sha256"] == row.text_sha256


@pytest.mark.parametrize(
    ("line", "outcome", "refused", "tried"),
    [
        ("raise KeyError(str(images[0, 0, 0]))", "KeyError", [], None),
        ('return {"weights": {}, "metrics": {}, "examples": 64}', "returned",
         ["metrics.names", "update.names"], None),
        ('return {"weights": weights, "metrics": {"loss": 1.0}, "examples": 9, "more": 1}',
         "returned", ["update.keys"], None),
        ('import socket; socket.create_connection(("127.0.0.1", 9))', "PermissionError", [],
         "socket."),
        ('open("/etc/passwd").read()', "FileNotFoundError", [], "open '/etc/passwd'"),
        ('import subprocess; subprocess.run(["no such program"])',
         "FileNotFoundError", [], "subprocess.Popen"),
        ("while True: 0", "TimeLimit", [], None),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(
    tmp_path_factory: pytest.TempPathFactory,
    quick: OpenSite,
    line: str,
    outcome: str,
    refused: list[str],
    tried: str | None,
) -> None:
    text = factories.DOUBLE_JOB.replace("    return {\n", f"    {line}\n    return {{\n", 1)
    _, report = rehearsed(quick, text)
    assert report.outcome == outcome
    assert sorted(str(f["rule"]) for f in report.refused) == sorted(refused)
    assert not report.succeeded
    if tried:
        assert any(name.startswith(tried) for name, _ in report.attempts), report.attempts


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    """Rehearsals may take two seconds here."""
    rule = {"rehearsal": {"images": 0, "time_s": 2}}
    opened = open_site(tmp_path_factory.mktemp("quick"), review=rule)
    submitted = submit(opened, RecordedSyft())
    rehearse(opened, submitted, None)  # starts the cage
    yield opened
    opened.close()


def test_minimums_of_images_do_not_apply_to_a_mock(tmp_path: Path) -> None:
    site = open_site(
        tmp_path, examples={"minimum": 100}, review={"rehearsal": {"images": 0, "time_s": 5}}
    )
    try:
        _, report = rehearsed(site, factories.DOUBLE_JOB)  # says that it used 64 images
        assert report.succeeded
    finally:
        site.close()


def test_findings_of_a_request_do_not_change_by_rehearsing(site: OpenSite) -> None:
    row, _ = rehearsed(site, factories.DOUBLE_JOB)
    assert get_request(site, row.id).state == "pending"


def test_the_mock_holds_no_image_of_the_dataset(site: OpenSite) -> None:
    row, _ = rehearsed(site, factories.DOUBLE_JOB)
    folder = site.site.state / "mocks"
    (version,) = (p for p in folder.iterdir())
    card_shape = np.load(version / "train_images.npy").shape[1:]
    drawn = draw_mock(card_shape, 2)
    np.testing.assert_array_equal(np.load(version / "train_images.npy"), drawn["images"])
    assert row.id


def test_changed_images_are_put_back(site: OpenSite, tmp_path: Path) -> None:
    from datasites.catalogue import read_card

    (version,) = (p.name for p in site.site.datasets.iterdir())
    mock = MockStore(tmp_path / "mock", read_card(site.site.datasets, version))
    before = np.load(mock.folder / "test_images.npy")
    with mock.changed(5) as change:
        during = np.load(mock.folder / "test_images.npy")
        np.testing.assert_array_equal(during[5], 255 - before[5])
        assert change.shape == (64,)
    np.testing.assert_array_equal(np.load(mock.folder / "test_images.npy"), before)


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        (Bound(value=3), 3),
        (Bound(value="train"), "train"),
        (Bound(choices=("train", "test")), "train"),
        (Bound(low=1, high=20), 1),
        (Bound(low=0.0, high=1.0), 0.5),
        (Bound(low=0.0001, high=1.0), pytest.approx(0.01)),
        (Bound(low=0, high=0.5), 0.25),
    ],
)
def test_arguments_are_within_their_bounds(bound: Bound, value: object) -> None:
    assert plausible_value(bound) == value
    assert bound.allows(plausible_value(bound))


def test_weights_are_as_declared_and_finite() -> None:
    declared = {
        "conv.weight": ArrayContract(shape=(8, 3, 3, 3), dtype="float32"),
        "norm.weight": ArrayContract(shape=(8,), dtype="float32"),
        "norm.running_var": ArrayContract(shape=(8,), dtype="float64"),
        "norm.bias": ArrayContract(shape=(8,), dtype="float16"),
        "norm.num_batches_tracked": ArrayContract(shape=(), dtype="int64"),
    }
    weights = plausible_weights(declared)
    assert {n: (a.shape, a.dtype.name) for n, a in weights.items()} == {
        n: (a.shape, a.dtype) for n, a in declared.items()
    }
    assert all(np.isfinite(a).all() for a in weights.values())
    assert (weights["norm.running_var"] > 0.5).all()
    assert 0.1 < weights["conv.weight"].std() < 0.3
