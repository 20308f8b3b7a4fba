"""The two jobs that come with the product, run here on the arrays of a mock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
    "learning_rate": 0.05, "epochs": 2, "batch_size": 16, "augmentation": 0.5, "seed": 1,
    "round": 1,
}  # fmt: skip
BOUNDS: dict[str, Any] = {
    "learning_rate": (0.001, 0.1), "epochs": (1, 5), "batch_size": [16, 32],
    "augmentation": (0.0, 1.0), "seed": 1, "round": (0, 100),
}  # fmt: skip
ASKED: dict[str, Any] = {
    "title": "Train", "purpose": "a test", "dataset": "chest-xray", "runs": 10,
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "split": "test", "bins": 40, "minimum_count": 5, "operating_point": 0.5,
}  # fmt: skip
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
        self.weights: Arrays = TRAIN.call("initial_weights", self.card, {"seed": 0})

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
    "changes",
    [{"round": 2}, {"seed": 2}, {"augmentation": 0.0}, {"epochs": 1}, {"learning_rate": 0.01}],
)
def test_other_arguments_train_another_model(grey: Setting, changes: dict[str, Any]) -> None:
    assert arrays_sha256(grey.train()["weights"]) != arrays_sha256(grey.train(**changes)["weights"])


def test_each_round_sees_the_images_in_another_order(grey: Setting) -> None:
    """Without augmentation, only the order can make the difference."""
    digests = {arrays_sha256(grey.train(augmentation=0.0, round=r)["weights"]) for r in (1, 2, 3)}
    assert len(digests) == 3


@pytest.mark.parametrize("augmentation", [0.0, 1.0])
def test_training_returns_what_its_terms_declare(setting: Setting, augmentation: float) -> None:
    terms = training_terms(setting.weights, config=BOUNDS, **ASKED).at(VERSION, TRAIN.entry)
    assert terms.contract is not None
    assert check_arguments({**CONFIG, "augmentation": augmentation}, terms.arguments) == []
    assert check_weights(setting.weights, terms.contract) == []
    update = as_update(setting.train(augmentation=augmentation))
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


def test_defaults_are_within_every_example_policy() -> None:
    for name in ("university", "community", "childrens"):
        policy = load_policy(ROOT / f"policies/{name}-hospital.yaml")
        for argument, value in TRAIN.call("defaults").items():
            assert policy.arguments[argument].allows(value), (name, argument)


@pytest.mark.parametrize("normalisation", ["group", "batch"])
@pytest.mark.parametrize("batch_size", [9, 64, 100])
def test_no_batch_has_a_single_image(grey: Setting, normalisation: str, batch_size: int) -> None:
    """64 images in batches of 9 would leave one over, which batch normalisation cannot take."""
    config = {**CONFIG, "normalisation": normalisation, "batch_size": batch_size}
    weights = TRAIN.call("initial_weights", grey.card, config)
    result = TRAIN.try_on(grey.arrays, grey.card, weights, config)
    assert result["metrics"]["steps"] == 2 * -(-64 // batch_size)
    assert set(result["weights"]) == set(weights)


@pytest.mark.parametrize("shape", [(24, 20), (40, 40, 3)], ids=str)
@pytest.mark.parametrize(
    ("model", "normalisation", "parameters"),
    [
        ("small_cnn", "group", 195_171), ("small_cnn", "batch", 195_171),
        ("mobilenet_v2", "group", 2_227_715), ("mobilenet_v2", "batch", 2_227_715),
        ("resnet18", "group", 11_178_051), ("densenet121", "batch", 6_956_931),
    ],
)  # fmt: skip
def test_each_model_trains_on_any_images(
    shape: tuple[int, ...], model: str, normalisation: str, parameters: int
) -> None:
    config = {
        **CONFIG, "model": model, "normalisation": normalisation, "size": 32, "epochs": 1,
        "batch_size": 8,
    }  # fmt: skip
    about, arrays = card(shape, 3), draw_mock(shape, 3, count=12)
    weights = TRAIN.call("initial_weights", about, config)
    running = ("running_mean", "running_var", "num_batches_tracked")
    assert parameters == sum(a.size for n, a in weights.items() if not n.endswith(running))
    result = TRAIN.try_on(arrays, about, weights, config)
    assert {n: (a.shape, a.dtype) for n, a in result["weights"].items()} == {
        n: (a.shape, a.dtype) for n, a in weights.items()
    }
    moved = [n for n, a in result["weights"].items() if (a != weights[n]).any()]
    assert len(moved) > 0.9 * len(weights)


def one_step(grey: Setting, sent: Arrays | None = None, **changes: Any) -> Arrays:
    """The change of one step on all images, without momentum."""
    config = {**CONFIG, "epochs": 1, "batch_size": 64, "momentum": 0.0, "augmentation": 0.0}
    given = {**grey.weights, **(sent or {})}
    result = TRAIN.try_on(grey.arrays, grey.card, given, {**config, **changes})
    return {n: a - grey.weights[n] for n, a in result["weights"].items()}


def test_correction_is_added_to_the_gradient(grey: Setting) -> None:
    name = list(grey.weights)[-1]
    correction = np.arange(2, dtype=np.float32) - 0.5
    plain = one_step(grey)
    corrected = one_step(grey, {f"correction.{name}": correction})
    np.testing.assert_allclose(corrected[name] - plain[name], -0.05 * correction, rtol=1e-5)
    assert all((corrected[n] == plain[n]).all() for n in plain if n != name)


def test_proximal_term_pulls_towards_what_was_sent(grey: Setting) -> None:
    """The first step starts where the pull is 0; from the second on it holds back."""
    assert arrays_sha256(one_step(grey, proximal=1.0)) == arrays_sha256(one_step(grey))
    free = one_step(grey, epochs=2)
    held = one_step(grey, epochs=2, proximal=1.0)
    first = one_step(grey)
    for name in free:  # w2 = w1 - rate (g(w1) + 1.0 (w1 - w0)), with the same g(w1)
        np.testing.assert_allclose(held[name], free[name] - 0.05 * first[name], atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_first_step_of_adam_is_the_learning_rate(grey: Setting, optimizer: str) -> None:
    moved = one_step(grey, optimizer=optimizer, learning_rate=0.001)
    for name, change in moved.items():
        assert np.abs(change).max() <= 0.001 * 1.01, name
    assert np.median(np.abs(moved["0.weight"])) > 0.0009


def test_weight_decay_of_adamw_is_apart_from_the_gradient(grey: Setting) -> None:
    plain, decayed = (one_step(grey, optimizer="adamw", weight_decay=d) for d in (0.0, 0.1))
    for name in plain:
        np.testing.assert_allclose(
            decayed[name], plain[name] - 0.05 * 0.1 * grey.weights[name], atol=1e-6
        )


def test_balanced_classes_count_alike(grey: Setting) -> None:
    """Weights are images / (classes * images of the class), as scikit-learn's `balanced`."""
    labels = np.array([0, 0, 0, 1])
    balanced = TRAIN.call("class_weights", labels, 3, {"class_weights": "balanced"})
    np.testing.assert_allclose(balanced.numpy(), [4 / 9, 4 / 3, 4 / 3])
    assert TRAIN.call("class_weights", labels, 3, {"class_weights": "none"}) is None
    few = {"images": grey.arrays["images"], "labels": (np.arange(64) < 60).astype(np.int64)}
    results = [
        TRAIN.try_on(few, grey.card, grey.weights, {**CONFIG, "class_weights": kind})["weights"]
        for kind in ("none", "balanced")
    ]
    assert arrays_sha256(results[0]) != arrays_sha256(results[1])


def test_augmentation_keeps_flat_images_flat_and_shapes_as_they_are() -> None:
    order = np.random.default_rng(0)
    flat = torch.full((40, 3, 12, 9), 0.25)
    changed = TRAIN.call("augment", flat, 1.0, order)
    assert changed.shape == flat.shape
    light = changed.flatten(1)
    assert (light.max(1).values - light.min(1).values).max() < 1e-5
    assert light.mean(1).min() < 0.25 < light.mean(1).max()
    assert (light - 0.25).abs().max() <= 0.3 * 0.25 + 0.3 + 1e-5
    assert TRAIN.call("augment", flat, 0.0, order) is flat


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_augmentation_moves_a_spot_no_further_than_it_says(strength: float) -> None:
    """A spot in the centre moves by at most a tenth of the width, and a pixel of blur."""
    images = torch.zeros((300, 1, 41, 41))
    images[:, :, 20, 20] = 100.0
    changed = TRAIN.call("augment", images, strength, np.random.default_rng(1))
    at = changed.flatten(1).argmax(1)
    away = torch.stack([at // 41 - 20, at % 41 - 20]).abs()
    assert away.max() <= 4.1 * strength + 1
    assert away.float().mean() > 0.8 * strength


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((28, 28), 0, (3, 28, 28)), ((28, 28), 64, (3, 64, 64)), ((30, 20, 3), 0, (3, 30, 20)),
        ((30, 20, 3), 32, (3, 32, 32)),
    ],
)  # fmt: skip
def test_input_has_three_channels_and_the_size_asked_for(
    shape: tuple[int, ...], size: int, expected: tuple[int, ...]
) -> None:
    images = draw_mock(shape, 2, count=4)["images"]
    for job in (TRAIN, EVALUATE):
        made = job.call("to_input", images, {"size": size})
        assert tuple(made.shape[1:]) == expected
        assert -1 <= float(made.min()) < float(made.max()) <= 1


def test_both_jobs_build_the_same_model() -> None:
    """Weights go from one to the other, so the text of the two functions is one."""

    def function(job: Job, name: str) -> str:
        return job.text.split(f"def {name}(")[1].split("\ndef ")[0].strip()

    for name in ("build_model", "small_cnn", "to_input"):
        assert function(TRAIN, name) == function(EVALUATE, name)


@pytest.mark.parametrize(
    ("argument", "job"),
    [
        ("model", TRAIN), ("normalisation", TRAIN), ("optimizer", TRAIN), ("class_weights", TRAIN),
        ("model", EVALUATE), ("normalisation", EVALUATE),
    ],
)  # fmt: skip
def test_a_word_that_a_job_does_not_know_ends_it(grey: Setting, argument: str, job: Job) -> None:
    act = grey.train if job is TRAIN else grey.evaluate
    with pytest.raises(FederationError) as refused:
        act(**{argument: "resnet19"})
    assert str(refused.value).startswith(f"the job {job.name} failed in line ")
    assert f'config["{argument}"]' in str(refused.value)
    assert str(refused.value).endswith("KeyError: 'resnet19'")


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("# One.\ndef f(a):\n    return 1 / a\n", (0,),
         "the job j failed in line 3, `return 1 / a`: ZeroDivisionError: division by zero"),
        ("# One.\ndef f(a):\n    return a\n", (),
         "the job j failed: TypeError: f() missing 1 required positional argument: 'a'"),
        ("# One.\ndef f(a):\n    return (a\n", (1,),
         "the job j failed in line 3, `return (a`: SyntaxError: '(' was never closed "
         "(j.py, line 3)"),
    ],
)  # fmt: skip
def test_a_job_that_fails_here_says_where(
    text: str, arguments: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(FederationError) as refused:
        Job(text, "j", "f").call("f", *arguments)
    assert str(refused.value) == sentence


def test_initial_weights_depend_on_the_seed_only() -> None:
    made = [TRAIN.call("initial_weights", card((28, 28)), {"seed": seed}) for seed in (0, 0, 1)]
    digests = [arrays_sha256(weights) for weights in made]
    assert digests[0] == digests[1] != digests[2]


def test_weights_of_more_classes_have_more_outputs() -> None:
    weights = TRAIN.call("initial_weights", card((28, 28), classes=9), {"seed": 0})
    assert list(weights.values())[-1].shape == (9,)


# ---------------------------------------------------------------------------------- evaluation


def test_evaluation_returns_what_its_terms_declare(setting: Setting) -> None:
    terms = evaluation_terms(
        setting.weights, config=EVALUATION_BOUNDS, classes=2, bins=40, **ASKED
    ).at(VERSION, EVALUATE.entry)
    assert terms.contract is not None
    assert check_arguments(EVALUATION, terms.arguments) == []
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
    assert result["counts"]["scores"].sum(axis=2).tolist() == [[300, 300]]


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
    assert str(refused.value).startswith(f"{path} is not a Python text: ")


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
    with pytest.raises(FederationError, match=r"none.py cannot be read: No such file or directory"):
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


@pytest.mark.parametrize("value", [(10, 0), ("a", "b"), [], None, {"a": 1}])
def test_what_cannot_be_an_argument_is_an_error(value: Any) -> None:
    with pytest.raises(
        FederationError, match=r"`x` cannot be .* a range \(low, high\) with low at"
    ):
        training_terms(factories.weights(), config={"x": value}, **ASKED)


def test_terms_of_training_declare_the_weights_that_are_sent() -> None:
    wanted = training_terms(factories.weights(), config={}, **ASKED)
    assert wanted.contract == factories.contract(metrics=("loss", "accuracy", "steps"))
    assert wanted.contract.sent == wanted.contract.weights


def test_terms_of_evaluation_declare_counts_and_no_weights() -> None:
    wanted = evaluation_terms(factories.weights(), config={}, classes=3, bins=50, **ASKED)
    assert wanted.contract.weights == {}
    assert {n: a.shape for n, a in wanted.contract.counts.items()} == {
        "scores": (3, 2, 50), "classified": (3, 2)
    }  # fmt: skip
    assert wanted.contract.sent == factories.contract().weights
    assert wanted.arguments == {
        "bins": Bound(value=50), "operating_point": Bound(value=0.5)
    }  # fmt: skip


@pytest.mark.parametrize("bins", [-2, 0, 1, 41])
def test_an_odd_number_of_bins_has_no_middle_and_is_refused(bins: int) -> None:
    with pytest.raises(FederationError, match=f"`bins` is {bins}; give an even number of at least"):
        evaluation_terms(factories.weights(), config={}, classes=2, bins=bins, **ASKED)
