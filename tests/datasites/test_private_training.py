"""A text's model, trained in a cage that its text never enters."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

with warnings.catch_warnings():  # what Opacus imports warns about itself
    warnings.simplefilter("ignore")
    from opacus import GradSampleModule

    from datasites.sandbox import private_runs
    from datasites.sandbox.patient_optimizer import PatientOptimizer
    from datasites.sandbox.patient_samples import Physical
from datasites.sandbox.cage import RunFailed
from datasites.sandbox.private_training import FILES, ROOT, ModelRefused
from datasites.sandbox.rebuilding import Rebuilt
from policies.job_rules import check_job
from policies.sections import JobRule
from private_models import JOB, MODELS, graph_of, shapes_images, tiny, weights_of
from trainer_cages import Trainer, trainer_on


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with trainer_on(tmp_path_factory.mktemp("trainer")) as made:
        yield made


# ----------------------------------------------------------------- what is in the two cages


def own_imports(name: str) -> set[str]:
    """Files of this project that a file imports, packages included."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                path = "/".join(parts[:end])
                candidates = (f"{path}.py", f"{path}/__init__.py")
                found |= {c for c in candidates if (ROOT / c).is_file()}
    return found


def test_the_cage_with_data_holds_the_files_that_the_trainer_imports_and_no_others() -> None:
    reached, waiting = set(), [FILES[0]]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += own_imports(name)
    assert reached == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_the_trainer_can_run_text(name: str) -> None:
    """Apart from the worker, whose own runs do; the trainer takes other parts of it."""
    forbidden = {"exec", "eval", "compile", "__import__", "getattr"}
    allowed = {
        "datasites/sandbox/worker.py": {"exec", "compile", "getattr"},
        "datasites/sandbox/rebuilding.py": {"getattr"},  # of names that the graph's models list
    }
    called = {
        node.func.id
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & forbidden <= allowed.get(name, set())


def test_the_job_is_one_that_every_policy_would_read_without_alarm() -> None:
    found = check_job(JOB.text, "build", JobRule(), "trainer")
    assert [f.sentence for f in found if f.severity.rank] == []
    arrays = check_job(JOB.text, "build", JobRule())
    assert "`def build(data, weights, config)`" in arrays[0].sentence


# ----------------------------------------------------------------- a model crosses


@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_the_job_cross(trainer: Trainer, name: str) -> None:
    graph = trainer.export(JOB.text, model=name)
    sent = JOB.call("initial_weights", {"classes": ["a", "b"]}, {"model": name})
    assert graph.parameters() == {n: array.shape for n, array in sent.items()}


def test_the_text_is_told_the_card_and_its_arguments(trainer: Trainer) -> None:
    text = """
def build(card, config):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(config["in"], len(card["classes"])))
"""
    assert trainer.export(text, **{"in": 192}).parameters()["1.weight"] == (2, 192)


REFUSED = {
    "BatchNorm": ("nn.BatchNorm2d(3)", "use `torch.nn.GroupNorm`"),
    "a transformer": ("nn.TransformerEncoderLayer(8, 2)", "is a `TransformerEncoderLayer`"),
    "a shared layer": ("*[nn.Linear(8, 8)] * 2", "layers of"),
    "no model": ("1", "model.trace"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_cannot_be_trained_is_refused(trainer: Trainer, what: str) -> None:
    layer, sentence = REFUSED[what]
    body = layer if layer == "1" else f"nn.Sequential({layer})"
    text = f"def build(card, config):\n    from torch import nn\n    return {body}\n"
    with pytest.raises(ModelRefused) as refused:
        trainer.export(text)
    assert sentence in str(refused.value)


# ----------------------------------------------------------------- it is trained


def test_training_gives_parameters_and_nothing_that_was_counted(trainer: Trainer) -> None:
    result = trainer.train(examples=77)
    torch.manual_seed(0)
    before = weights_of(tiny())
    assert {n: a.shape for n, a in result.update.weights.items()} == {
        n: a.shape for n, a in before.items()
    }
    assert all(a.dtype == np.float32 for a in result.update.weights.values())
    assert all((result.update.weights[n] != before[n]).any() for n in before)
    assert result.update.metrics == {} == result.update.counts
    assert result.update.examples == 77
    assert result.undeclared == 0
    assert result.log == ""


def test_two_runs_of_the_same_plan_differ(trainer: Trainer) -> None:
    first, second = (trainer.train().update.weights["4.weight"] for _ in range(2))
    assert np.abs(first - second).min() > 0  # noise in every number


@pytest.mark.parametrize(
    "plan", [{"sampling_rate": 1e-9}, {"sampling_rate": 1.0}, {"images_per_patient": 2},
             {"optimizer": "adam", "learning_rate": 0.01}, {"schedule": "cosine"}, {"size": 8},
             {"momentum": 0.9, "weight_decay": 0.1}],
)  # fmt: skip
def test_every_kind_of_plan_runs(trainer: Trainer, plan: dict[str, Any]) -> None:
    weights = trainer.train(**plan).update.weights
    assert all(np.isfinite(a).all() for a in weights.values())


def test_a_model_learns_from_images_under_noise(trainer: Trainer) -> None:
    plan = {"steps": 40, "noise_multiplier": 0.8, "expected_batch": 100, "learning_rate": 1.0}
    trained = trainer.train(**plan, images_per_patient=2).update.weights
    model = Rebuilt(graph_of(tiny()))
    model.load(trained)
    images, labels = shapes_images(200, seed=9)
    with torch.no_grad():
        scores = model(private_runs._padded(images, np.arange(200), 200, 0))
    assert roc_auc_score(labels, (scores[:, 1] - scores[:, 0]).numpy()) > 0.95


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "image"},  # patients are known, so no weaker unit
        {"size": 1},  # too small for the model
        {"weights": {}},
        {"weights": {"0.weight": np.zeros(1, np.float32)}},
    ],
)
def test_what_does_not_fit_fails_before_an_image_is_read(
    trainer: Trainer, change: dict[str, Any]
) -> None:
    with pytest.raises(RunFailed) as failed:
        trainer.train(**change)
    assert failed.value.kind == "ValueError"


# ----------------------------------------------------------------- and scored


def test_a_table_has_every_image_of_few_per_patient_once(trainer: Trainer) -> None:
    counts = trainer.score(noise_multiplier=1e-3, images_per_patient=2)
    assert counts.shape == (1, 2, 10)
    assert counts.dtype == np.int64
    assert counts.sum(2).tolist() == [[30, 30]]
    assert trainer.score(noise_multiplier=1e-3).sum() == 30  # one image of each patient


def test_the_noise_of_a_table_has_the_deviation_of_its_sensitivity(trainer: Trainer) -> None:
    counts = trainer.score(noise_multiplier=50.0, images_per_patient=2, bins=2000)
    assert counts.min() == 0  # what was negative
    above = counts[counts > 0]
    assert np.sqrt(np.mean(np.square(above.astype(float)))) == pytest.approx(100.0, rel=0.1)
    assert np.mean(counts == 0) == pytest.approx(0.5, abs=0.05)


# ----------------------------------------------------------------- one image, one gradient


def gradients(rows: list[int], at_once: int, model: Rebuilt, side: int) -> torch.Tensor:
    """Each image's gradient, (images, parameters), as the trainer computes it."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (40, side, side), dtype=np.uint8)
    learner = GradSampleModule(model, loss_reduction="sum")
    found: list[torch.Tensor] = []

    class Caught(PatientOptimizer):
        def accumulate(self, images: Any) -> None:
            found.append(torch.cat([p.grad_sample.flatten(1) for p in self.params], 1))

    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = Physical(np.array(rows), np.ones(len(rows), np.int64))
    optimizer = Caught(sgd, 1.0, 1.0, 1.0)
    private_runs.add_gradients(learner, optimizer, images, np.arange(40) % 2, batch, at_once, 0)
    learner.remove_hooks()
    for parameter in model.parameters():
        parameter.grad_sample = parameter.grad = None
    return found[0][: len(rows)]


@pytest.mark.parametrize(("name", "side"), [("small_cnn", 28), ("mobilenet_v2", 32)])
def test_an_image_has_the_same_gradient_to_the_bit_whoever_is_beside_it(
    name: str, side: int
) -> None:
    """As `private_runs` assumes of torch's kernels, on this machine and for these models.

    Without dropout, which is drawn anew for each image each time.
    """
    torch.manual_seed(1)
    made = JOB.call("build", {"classes": ["a", "b"]}, {"model": name})
    for layer in made.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    model = Rebuilt(graph_of(made))
    model.load(weights_of(made))
    alone = gradients([7], 4, model, side)[0]
    assert torch.equal(gradients([9, 8, 6, 7], 4, model, side)[3], alone)
