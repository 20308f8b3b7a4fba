"""The two jobs that come with the product, run here on the arrays of a mock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
from datasites.imaging.mock import draw_mock
from federation.errors import FederationError
from federation.job import Job, LocalData, read_job
from federation.terms import evaluation_terms, training_terms
from policies.argument_rules import check_arguments
from policies.arrays import Arrays, arrays_sha256, pack, unpack
from policies.contract import Bound, Terms
from policies.document import load_policy
from policies.findings import refusals
from policies.request_rules import Ask, DatasetFacts, Requester, check_request
from policies.update_rules import Update, check_update, check_weights

ROOT = Path(__file__).parents[2]
TRAIN = read_job(ROOT / "notebooks/jobs/train_classifier.py")
EVALUATE = read_job(ROOT / "notebooks/jobs/evaluate_classifier.py")
POLICY = load_policy(ROOT / "policies/university-hospital.yaml")
VERSION = "0" * 64

CONFIG: dict[str, Any] = {
    "learning_rate": 0.05, "momentum": 0.9, "epochs": 2, "batch_size": 16, "shift": 2,
    "seed": 1, "round": 1,
}  # fmt: skip
BOUNDS: dict[str, Any] = {
    "learning_rate": (0.001, 0.1), "momentum": 0.9, "epochs": (1, 5), "batch_size": [16, 32],
    "shift": (0, 2), "seed": 1, "round": (0, 100),
}  # fmt: skip
ASKED: dict[str, Any] = {
    "title": "Train", "purpose": "a test", "dataset": "chest-xray", "runs": 10,
}  # fmt: skip
EVALUATION: dict[str, Any] = {"split": "test", "bins": 40, "minimum_count": 5}
EVALUATION_BOUNDS: dict[str, Any] = {"split": ["val", "test"], "minimum_count": 5}


def card(shape: tuple[int, ...], classes: int = 2) -> dict[str, Any]:
    names = [f"class {k}" for k in range(classes)]
    return {
        "shape": list(shape),
        "classes": names,
        "counts": {s: dict.fromkeys(names, 30) for s in ("train", "test")},
    }


def asked(job: Job, terms: Terms) -> Ask:
    facts = DatasetFacts(500, (250, 250), 0.01, True)
    return Ask(job.text, terms, facts, Requester("rita@uni.example", "Example University"))


class Setting:
    """A mock of one shape, and initial weights for it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.card = card(shape)
        self.arrays = draw_mock(shape, 2)
        self.weights: Arrays = TRAIN.call("initial_weights", self.card, 0)

    def train(self, **changes: Any) -> dict[str, Any]:
        result: dict[str, Any] = TRAIN.try_on(
            self.arrays, self.card, self.weights, {**CONFIG, **changes}
        )
        return result

    def evaluate(self, **changes: Any) -> dict[str, Any]:
        result: dict[str, Any] = EVALUATE.try_on(
            self.arrays, self.card, self.weights, {**EVALUATION, **changes}
        )
        return result


@pytest.fixture(scope="module", params=[(28, 28), (32, 32, 3), (30, 21)], ids=str)
def setting(request: pytest.FixtureRequest) -> Setting:
    """Grey and colour images, and some whose sides are no multiples of four."""
    return Setting(request.param)


@pytest.fixture(scope="module")
def grey() -> Setting:
    return Setting((28, 28))


def as_update(result: dict[str, Any]) -> Update:
    assert set(result) <= {"weights", "counts", "metrics", "examples"}
    return Update(
        weights=result.get("weights", {}),
        metrics=result["metrics"],
        examples=result["examples"],
        counts=result.get("counts", {}),
    )


# ------------------------------------------------------------------------------------ training


def test_training_twice_gives_the_same_bits(setting: Setting) -> None:
    one, two = setting.train(), setting.train()
    assert arrays_sha256(one["weights"]) == arrays_sha256(two["weights"])
    assert one["metrics"] == two["metrics"]


@pytest.mark.parametrize(
    "changes", [{"round": 2}, {"seed": 2}, {"shift": 0}, {"epochs": 1}, {"learning_rate": 0.01}]
)
def test_other_arguments_train_another_model(grey: Setting, changes: dict[str, Any]) -> None:
    assert arrays_sha256(grey.train()["weights"]) != arrays_sha256(grey.train(**changes)["weights"])


def test_each_round_sees_the_images_in_another_order(grey: Setting) -> None:
    """Without moving images, only the order can make the difference."""
    digests = {arrays_sha256(grey.train(shift=0, round=r)["weights"]) for r in (1, 2, 3)}
    assert len(digests) == 3


@pytest.mark.parametrize("shift", [0, 2])
def test_training_returns_what_its_terms_declare(setting: Setting, shift: int) -> None:
    terms = training_terms(setting.weights, config=BOUNDS, **ASKED).at(VERSION, TRAIN.entry)
    assert terms.contract is not None
    assert check_arguments({**CONFIG, "shift": shift}, terms) == []
    assert check_weights(setting.weights, terms.contract) == []
    update = as_update(setting.train(shift=shift))
    assert check_update(update, setting.weights, terms.contract, POLICY) == []
    assert update.examples == 64


def test_terms_of_training_are_within_the_example_policy(grey: Setting) -> None:
    terms = training_terms(grey.weights, config=BOUNDS, **ASKED).at(VERSION, TRAIN.entry)
    assert refusals(check_request(asked(TRAIN, terms), POLICY)) == []


def test_training_learns(grey: Setting) -> None:
    """Bright and dark images are told apart, so the steps go downhill."""
    images = np.full((64, 28, 28), 60, np.uint8)
    labels = np.arange(64) % 2
    images[labels == 1] = 190
    arrays = {"images": images, "labels": labels.astype(np.int64)}
    result = TRAIN.try_on(arrays, grey.card, grey.weights, {**CONFIG, "epochs": 8})
    assert result["metrics"]["accuracy"] > 0.9
    assert result["metrics"]["loss"] < 0.3


def test_training_leaves_what_it_was_given_as_it_was(grey: Setting) -> None:
    before = arrays_sha256(grey.weights), arrays_sha256(grey.arrays)
    grey.train()
    assert (arrays_sha256(grey.weights), arrays_sha256(grey.arrays)) == before


def test_training_on_the_last_batch_of_one_image_works(grey: Setting) -> None:
    assert grey.train(batch_size=9)["examples"] == 64  # 7 * 9 + 1


@pytest.mark.parametrize("shift", [1, 4])
def test_image_is_moved_by_at_most_shift_pixels(grey: Setting, shift: int) -> None:
    names: dict[str, Any] = {}
    exec(compile(TRAIN.text, "job.py", "exec"), names)
    images = np.zeros((200, 28, 28, 3), np.uint8)
    images[:, 14, 10] = 255
    moved = names["move"](images, shift, np.random.default_rng(0))
    assert moved.shape == images.shape
    assert moved.dtype == np.uint8
    _, rows, columns, _ = np.nonzero(moved)
    assert set(rows - 14) == set(columns - 10) == set(range(-shift, shift + 1))
    assert (moved.sum(axis=(1, 2, 3)) == 3 * 255).all()
    assert names["move"](images, 0, np.random.default_rng(0)) is images


def test_border_of_a_moved_image_is_its_own_border(grey: Setting) -> None:
    names: dict[str, Any] = {}
    exec(compile(TRAIN.text, "job.py", "exec"), names)
    flat = np.full((20, 8, 8), 77, np.uint8)
    assert (names["move"](flat, 4, np.random.default_rng(0)) == 77).all()


def test_both_jobs_build_the_same_model() -> None:
    """Weights go from one to the other, so the text of the two functions is one."""

    def function(job: Job, name: str) -> str:
        return job.text.split(f"def {name}(")[1].split("\ndef ")[0].strip()

    for name in ("build_model", "to_input"):
        assert function(TRAIN, name) == function(EVALUATE, name)


def test_initial_weights_depend_on_the_seed_only() -> None:
    made = [TRAIN.call("initial_weights", card((28, 28)), seed) for seed in (0, 0, 1)]
    digests = [arrays_sha256(weights) for weights in made]
    assert digests[0] == digests[1] != digests[2]


def test_weights_of_more_classes_have_more_outputs() -> None:
    weights = TRAIN.call("initial_weights", card((28, 28), classes=9), 0)
    assert weights["9.bias"].shape == (9,)


# ---------------------------------------------------------------------------------- evaluation


def test_evaluation_returns_what_its_terms_declare(setting: Setting) -> None:
    terms = evaluation_terms(
        setting.weights, config=EVALUATION_BOUNDS, classes=2, bins=40, **ASKED
    ).at(VERSION, EVALUATE.entry)
    assert terms.contract is not None
    assert check_arguments(EVALUATION, terms) == []
    assert check_weights(setting.weights, terms.contract) == []
    update = as_update(setting.evaluate())
    assert check_update(update, setting.weights, terms.contract, POLICY) == []
    assert update.weights == {}
    assert update.counts["scores"].sum() == update.examples == 64


def test_terms_of_evaluation_are_within_the_example_policy(grey: Setting) -> None:
    terms = evaluation_terms(
        grey.weights, config=EVALUATION_BOUNDS, classes=2, bins=40, **ASKED
    ).at(VERSION, EVALUATE.entry)
    assert refusals(check_request(asked(EVALUATE, terms), POLICY)) == []


@pytest.mark.parametrize(("positives", "counted"), [(4, 60), (5, 64), (0, 64), (60, 60), (59, 64)])
def test_class_with_too_few_images_is_left_out(grey: Setting, positives: int, counted: int) -> None:
    labels = (np.arange(64) < positives).astype(np.int64)
    arrays = {"images": grey.arrays["images"], "labels": labels}
    result = EVALUATE.try_on(arrays, grey.card, grey.weights, EVALUATION)
    table = result["counts"]["scores"]
    assert ((table == 0) | (table >= 5)).all()
    assert result["examples"] == table.sum() == counted


def test_evaluation_of_many_images_is_that_of_its_batches(grey: Setting) -> None:
    """600 images are three batches inside; the table is that of all."""
    many = draw_mock((28, 28), 2, count=600)
    result = EVALUATE.try_on(many, grey.card, grey.weights, EVALUATION)
    assert result["examples"] == 600
    assert result["counts"]["scores"].sum(axis=1).tolist() == [300, 300]


def test_evaluation_is_the_same_after_the_weights_have_travelled(grey: Setting) -> None:
    travelled = {name: array.copy() for name, array in unpack(pack(grey.weights)).items()}
    result = EVALUATE.try_on(grey.arrays, grey.card, travelled, EVALUATION)
    assert result["metrics"] == grey.evaluate()["metrics"]
    np.testing.assert_array_equal(result["counts"]["scores"], grey.evaluate()["counts"]["scores"])


# ----------------------------------------------------------------------------- jobs and terms


def test_data_knows_the_splits_of_its_card_only(grey: Setting) -> None:
    data = LocalData(dict(grey.arrays), grey.card)
    images, labels = data.arrays("train")
    assert len(images) == len(labels) == 64
    with pytest.raises(ValueError, match="there is no such split in the card's counts"):
        data.arrays("val")


def test_read_job_is_the_file_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "double.py"
    path.write_bytes(factories.DOUBLE_JOB.replace("\n", "\r\n").encode())
    job = read_job(path)
    assert (job.name, job.entry) == ("double", "train")
    assert job.text.encode() == path.read_bytes()
    assert job.sha256 != Job(factories.DOUBLE_JOB, "double", "train").sha256


@pytest.mark.parametrize("content", [b"def f(", b"\xff", b"x = '\0'"])
def test_file_that_is_not_python_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.py"
    path.write_bytes(content)
    with pytest.raises(FederationError) as refused:
        read_job(path)
    assert str(refused.value) == f"{path} is not a Python text that can be read"


@pytest.mark.parametrize("content", ["", "# nothing\n", "import numpy\n", "x = 1\n", "class A: 1"])
def test_file_that_starts_otherwise_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "job.py"
    path.write_text(content)
    with pytest.raises(FederationError) as refused:
        read_job(path)
    assert str(refused.value) == (
        f"{path} must start with its entry function; comments may precede it"
    )


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="is not a Python text that can be read"):
        read_job(tmp_path / "none.py")


def test_missing_function_is_an_error() -> None:
    with pytest.raises(FederationError, match="the job train_classifier has no function `predict`"):
        TRAIN.call("predict")


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (7, Bound(value=7)),
        ("test", Bound(value="test")),
        (True, Bound(value=True)),
        ((0, 2), Bound(low=0, high=2)),
        ((0.001, 0.1), Bound(low=0.001, high=0.1)),
        ([16, 32], Bound(choices=(16, 32))),
    ],
)
def test_argument_becomes_its_bound(value: Any, bound: Bound) -> None:
    wanted = training_terms(factories.weights(), config={"x": value}, **ASKED)
    assert wanted.arguments == {"x": bound}


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), ()])
def test_range_of_other_than_two_ends_is_an_error(value: Any) -> None:
    with pytest.raises(FederationError, match=r"`x`: a range is \(low, high\)"):
        training_terms(factories.weights(), config={"x": value}, **ASKED)


def test_terms_of_training_declare_the_weights_that_are_sent() -> None:
    wanted = training_terms(factories.weights(), config={}, **ASKED)
    assert wanted.contract == factories.contract(metrics=("loss", "accuracy"))
    assert wanted.contract.sent == wanted.contract.weights


def test_terms_of_evaluation_declare_counts_and_no_weights() -> None:
    wanted = evaluation_terms(factories.weights(), config={}, classes=3, bins=50, **ASKED)
    assert wanted.contract.weights == {}
    assert wanted.contract.counts["scores"].shape == (3, 50)
    assert wanted.contract.sent == factories.contract().weights
    assert wanted.arguments == {"bins": Bound(value=50)}
