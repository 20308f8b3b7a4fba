"""Texts and calls that try to get images past the noise of the hospital's own trainer.

What a researcher controls is a text (which runs where there is no image), arguments, and weights.
The last attacks go further: they take what that text's cage answers for hostile, and what the
trainer is asked for too.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

with warnings.catch_warnings():  # what Opacus imports warns about itself
    warnings.simplefilter("ignore")
    from datasites.sandbox import private_runs
    from datasites.sandbox.patient_samples import Physical
from datasites.sandbox.cage import RunFailed, RunText
from datasites.sandbox.private_training import ModelRefused
from datasites.sandbox.rebuilding import Rebuilt
from policies.arrays import Arrays, pack
from policies.contract import ArrayContract, Contract
from policies.model_graph import ModelGraph, check_graph, read_graph
from policies.strict import canonical_json
from private_models import exported, graph_of, tiny, training_plan, weights_of
from trainer_cages import LIMITS, Trainer, trainer_on

BUILD = "def build(card, config):\n    from torch import nn\n    import torch\n"
END = "nn.Flatten(), nn.Linear(192, 2)"
HONEST = f"nn.Sequential({END})"
IF_SEEN = "nn.Sequential(nn.Flatten(), nn.Linear(192, 5 if seen else 2))"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with trainer_on(tmp_path_factory.mktemp("trainer")) as made:
        yield made


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """For models so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _trainer_goes_on(trainer: Trainer) -> Iterator[None]:
    """After each attack an honest run comes to its end."""
    yield
    assert trainer.train(steps=1).update.examples == 100


def text(*lines: str, returned: str = HONEST) -> str:
    """A text whose `build` does something beside building a model."""
    return BUILD + "".join(f"    {line}\n" for line in (*lines, f"return {returned}"))


# --- a text that looks for images where it runs -------------------------------------------------

LOOKING = {
    "in its directory": (
        "import os",
        "seen = [f for f in os.listdir('/data') if f != 'card.json']",
    ),
    "by walking everywhere": (
        "import os",
        "found = [f for _, _, files in os.walk('/') for f in files]",
        "seen = [f for f in found if f.endswith(('_images.npy', '_labels.npy'))]",
    ),
    "in the trainer's place": ("import os", "seen = os.path.exists('/program')"),
    "in the cage's memory": (
        "import gc, numpy",
        "seen = [o for o in gc.get_objects() if isinstance(o, numpy.memmap)]",
    ),
    "through the caller's frame": (
        "import sys",
        "data, seen = sys._getframe(1).f_locals['data'], 0",
        "try:",
        "    seen = len(data.arrays('train')[0])",
        "except OSError:",
        "    seen = 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", LOOKING)
def test_a_text_sees_no_image(trainer: Trainer, where: str) -> None:
    """It says whether it saw one by the model that it builds; it builds the one for none."""
    graph = trainer.export(text(*LOOKING[where], returned=IF_SEEN))
    assert graph.parameters()["1.weight"] == (2, 192)


def test_the_cage_with_images_shows_them_to_that_very_text(trainer: Trainer) -> None:
    """So that the attacks above fail for the cage and not for a mistake of theirs."""
    files = {path.name for path in trainer.version.iterdir()}
    assert {"train_images.npy", "train_labels.npy", "train_patients.npy"} <= files


# --- a model that carries something across ------------------------------------------------------


def own(base: str = "Module", init: str = "", forward: str = "return x", **more: str) -> str:
    """A text with a class of its own, `Own`, as the first layer of a model."""
    made = (
        f"    class Own(nn.{base}):\n"
        f"        def __init__(self):\n            super().__init__()\n            {init}\n"
        f"        def forward(self, x):\n            {forward}\n"
    )
    returned = more.get("returned", f"nn.Sequential(Own(), {END})")
    return f"{BUILD}{made}    {more.get('line', '')}\n    return {returned}\n"


KEEPS = "self.register_buffer('seen', torch.zeros(2, 3, 8, 8))"
AS_LINEAR = "Own.__module__ = 'torch.nn.modules.linear'"
AS_NORM = "Own.__module__, Own.__name__ = 'torch.nn.modules.batchnorm', 'BatchNorm2d'"
AS_RELU = "Own.__module__, Own.__name__ = 'torch.nn.modules.activation', 'ReLU'"

CARRIED = {
    "a buffer that keeps images": (
        own(init=KEEPS, forward="self.seen.copy_(x); return x + self.seen"), "`get_attr 0.seen`"),
    "a parameter beside the layers": (
        own(init="self.p = nn.Parameter(torch.zeros(1))", forward="return x * self.p"),
        "`get_attr 0.p`"),
    "running statistics": (
        text(returned=f"nn.Sequential(nn.BatchNorm2d(3), {END})"), "is a `BatchNorm2d`"),
    "a layer of its own that says it is torch's": (own(line=AS_LINEAR), "is a `Own`"),
    "a layer of its own with another's name": (own(line=AS_NORM), "is a `BatchNorm2d`"),
    "a function of numpy": (own(forward="return torch.from_numpy(x.numpy())"), "model.trace"),
    "a text in an argument": (
        text(returned=f"nn.Sequential({END}, nn.GELU('0' * 500))"), "'none' or 'tanh'"),
    "a number in an argument": (
        text(returned=f"nn.Sequential({END}, nn.LeakyReLU(1e9))"), "less than or equal to 1"),
    "a mean over the images": (own(forward="return x + x.mean(0)"), "`spatial_mean with"),
    "the images in another order": (own(forward="return x + x.flip(0)"), "a call of `flip`"),
    "an image of another": (own(forward="return x + x[0]"), "a call of `getitem`"),
    "a compiled model": (text(returned="torch.jit.script(nn.Linear(192, 2))"), "model.trace"),
    "pickled bytes": (text("import pickle", returned="pickle.dumps(nn.ReLU())"), "model.trace"),
    "a function": (text(returned="lambda x: x"), "calls: Tuple should have at least 1 item"),
    "a branch on the images": (own(forward="return x if x.sum() > 0 else -x"), "model.trace"),
}  # fmt: skip
"""What is tried -> the text, and a part of the sentence that refuses it."""


@pytest.mark.parametrize("what", CARRIED)
def test_a_model_cannot_bring(trainer: Trainer, what: str) -> None:
    attack, sentence = CARRIED[what]
    with pytest.raises(ModelRefused) as refused:
        trainer.export(attack)
    assert sentence in str(refused.value)


def test_a_class_with_the_name_of_a_layer_crosses_as_that_layer_alone(trainer: Trainer) -> None:
    """The lie is believed and does nothing: what is rebuilt is torch's own layer."""
    graph = trainer.export(own("ReLU", line=AS_RELU))
    assert graph.layers["0"].type == "ReLU"
    assert set(graph.parameters()) == {"2.weight", "2.bias"}
    sent = {n: np.zeros(shape, np.float32) for n, shape in graph.parameters().items()}
    assert set(trainer.train(graph, sent).update.weights) == set(sent)


def test_hooks_and_side_effects_stay_behind(trainer: Trainer) -> None:
    """A hook, a changed `forward` and a changed torch are not part of a graph."""
    lines = (
        "torch.nn.Linear.forward = lambda self, x: (_ for _ in ()).throw(ValueError)",
        "open('/scratch/left', 'w').write('x')",
        "model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))",
        "model[1].register_forward_hook(lambda *a: open('/scratch/seen', 'w').write(str(a)))",
    )
    graph = trainer.export(text(*lines, returned="model"))
    looking = text("import os", "seen = os.path.exists('/scratch/left')", returned=IF_SEEN)
    again = trainer.export(looking)
    assert again.parameters()["1.weight"] == (2, 192)
    sent = {n: np.zeros(shape, np.float32) for n, shape in graph.parameters().items()}
    assert np.isfinite(trainer.train(graph, sent).update.weights["1.weight"]).all()


# --- forged graphs ------------------------------------------------------------------------------

FORGED = (
    '{"layers": {"0": {"type": "Linear", "in_features": 192, "out_features": 2, "bias": true}}}',
    '{"layers": {}, "calls": [{"function": "eval", "of": [0]}]}',
    '{"layers": {}, "calls": [{"function": "__class__", "of": [0]}]}',
    '{"layers": {"0": {"type": "Module"}}, "calls": [{"layer": "0", "of": [0]}]}',
    '{"layers": {"0": {"type": "torch.nn.Linear"}}, "calls": [{"layer": "0", "of": [0]}]}',
    '{"layers": {"0": {"type": "ReLU", "forward": "exec"}}, "calls": [{"layer": "0", "of": [0]}]}',
    '{"layers": {}, "calls": [{"function": "flatten", "of": [0], "start_dim": 0}]}',
    '{"layers": {}, "calls": [{"function": "add", "of": [0, 1e999]}]}',
)


@pytest.mark.parametrize("forged", FORGED)
def test_a_text_cannot_write_the_graph_itself(trainer: Trainer, forged: str) -> None:
    """The exporter runs beside the text, which replaces what it writes."""
    lines = (
        "import json, sys",
        f"written = json.loads({forged!r})",
        "sys._getframe(1).f_globals['describe'] = lambda model: written",
    )
    with pytest.raises(ModelRefused):
        trainer.export(text(*lines))
    with pytest.raises(RunFailed) as failed:  # nor does the trainer take it, if it ever got there
        trainer.with_data.run(
            RunText(forged, "train", training_plan().model_dump(), pack({})), Contract(), LIMITS
        )
    assert failed.value.kind == "ValueError"


class _Runs:
    def __reduce__(self) -> Any:
        return (print, ("a pickle was loaded",))


def test_the_trainer_runs_no_text_and_loads_no_pickle(trainer: Trainer) -> None:
    room = Contract(weights={"w": ArrayContract(shape=(4,), dtype="float32")})
    graph = graph_of(tiny()).model_dump_json()
    plan = training_plan().model_dump()
    asked = {
        "a job's text": RunText("def train(data, weights, config): return {}", "train", plan, b""),
        "another entry": RunText(graph, "exec", plan, pack(weights_of(tiny()))),
        "a pickle of weights": RunText(graph, "train", plan, pickle.dumps(_Runs())),
        "a plan without noise": RunText(
            graph, "train", plan | {"noise_multiplier": 0.0}, pack(weights_of(tiny()))
        ),
        "a plan with code": RunText(
            graph, "train", plan | {"optimizer": "__import__('os')"}, pack(weights_of(tiny()))
        ),
    }
    for run in asked.values():
        with pytest.raises(RunFailed) as failed:
            trainer.with_data.run(run, room, LIMITS)
        assert failed.value.kind in ("ValueError", "KeyError")
        assert "a pickle was loaded" not in failed.value.log


def test_no_combination_of_calls_lets_images_meet(trainer: Trainer) -> None:
    """A graph that would normalise, convolve or average over a batch has no shape."""
    conv = {"type": "Conv2d", "in_channels": 8, "out_channels": 8, "kernel_size": [1, 1]}
    norm = {"type": "GroupNorm", "num_groups": 1, "num_channels": 3}
    for layers, calls in (
        ({"c": conv}, [{"function": "flatten", "of": [0]}, {"layer": "c", "of": [1]}]),
        ({"n": norm}, [{"function": "spatial_mean", "of": [0]}, {"layer": "n", "of": [1]}]),
    ):
        graph = read_graph(canonical_json({"layers": layers, "calls": calls}))
        assert isinstance(graph, ModelGraph)
        assert check_graph(graph, (3, 8, 8), 2)
        sent = {n: np.zeros(shape, np.float32) for n, shape in graph.parameters().items()}
        with pytest.raises(RunFailed):
            trainer.train(graph, sent)


# --- initial weights ----------------------------------------------------------------------------


def copying_weights() -> tuple[torch.nn.Module, Arrays]:
    """A linear layer at zero: the gradient of an image is the image itself."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    return model, {n: np.zeros(p.shape, np.float32) for n, p in model.named_parameters()}


def noised_gradients(images: np.ndarray, noise: float, number: int) -> np.ndarray:
    """What so many first steps of a run would do to the layer's weights, (number, 2, 192).

    Every image is of a patient of its own, and all of them are in the step.
    """
    model, weights = copying_weights()
    rebuilt = Rebuilt(graph_of(model))
    rebuilt.load(weights)
    learner = private_runs.GradSampleModule(rebuilt, loss_reduction="sum")
    still = torch.optim.SGD(rebuilt.parameters(), lr=0.0)
    optimizer = private_runs.PatientOptimizer(still, noise, 1.0, 1.0)
    labels = np.zeros(len(images), np.int64)
    batch = Physical(np.arange(len(images)), np.ones(len(images), np.int64))
    found = []
    for _ in range(number):
        private_runs.add_gradients(learner, optimizer, images, labels, batch, 32, 0)
        optimizer.step()
        found.append(rebuilt.named()["1.weight"].grad.numpy().copy())
    return np.stack(found)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize(
    ("noise", "least", "most"),
    [
        (1e-3, 1.0, 1.0),  # without protection the attack works, every time
        (1.0, 0.68, 0.84),  # 0.760 is what two Gaussians of deviation C, C apart, allow
        (3.0, 0.50, 0.68),  # 0.593
    ],
)
def test_weights_that_copy_a_patient_tell_of_it_what_the_mechanism_allows(
    noise: float, least: float, most: float
) -> None:
    """By the best test there is, the image itself laid over the gradient; the area under ROC."""
    grey = np.full((20, 8, 8), 128, np.uint8)
    target = np.where(np.indices((1, 8, 8)).sum(0) % 2, 255, 0).astype(np.uint8)
    pattern = np.tile(target.reshape(-1) / 127.5 - 1, 3)
    direction = np.stack([-pattern, pattern]) / np.linalg.norm([pattern, pattern])
    without, with_target = (
        np.sum(noised_gradients(images, noise, 250) * direction, axis=(1, 2))
        for images in (grey, np.concatenate([grey, target]))
    )
    found = roc_auc_score(np.repeat([0, 1], 250), np.concatenate([without, with_target]))
    assert least <= found <= most


def test_one_image_that_breaks_the_arithmetic_is_not_told_by_it(trainer: Trainer) -> None:
    """Weights that overflow give no number; noise leaves, and not `nan` for who is there."""
    model = tiny()
    for value in (np.inf, np.nan, 3e38, -3e38):
        weights = weights_of(model)
        weights["4.weight"] = np.full_like(weights["4.weight"], value)
        after = trainer.train(weights=weights, steps=1).update.weights
        for name in ("0.weight", "4.bias"):
            assert np.isfinite(after[name]).all(), (name, value)


def test_a_huge_gradient_of_one_patient_moves_a_step_no_more_than_the_clip(
    trainer: Trainer,
) -> None:
    """Scores of 1e30 would shout an image; the step is as long as its noise and the clip allow."""
    model, weights = copying_weights()
    weights["1.weight"] += 1e30
    weights["1.weight"][1] *= -1
    plan: dict[str, Any] = {
        "steps": 1, "sampling_rate": 1.0, "clip_norm": 1e-3, "noise_multiplier": 1.0,
        "expected_batch": 200, "learning_rate": 1.0,
    }  # fmt: skip
    after = trainer.train(graph_of(model), weights, **plan).update.weights["1.bias"]
    assert np.abs(after).max() <= 1e-3 * (1 + 10 / 200)


def test_extra_arrays_do_not_come_back(trainer: Trainer) -> None:
    weights = weights_of(tiny()) | {"note": np.ones(3, np.float32)}
    with pytest.raises(RunFailed):
        trainer.train(weights=weights)


# --- metrics, numbers, time ---------------------------------------------------------------------


def test_nothing_but_parameters_and_a_number_of_the_plan_leaves(trainer: Trainer) -> None:
    result = trainer.train(examples=3)
    assert (result.update.metrics, result.update.counts) == ({}, {})
    assert (result.update.examples, result.undeclared, result.log) == (3, 0, "")
    assert result.trace.calls == ()


@pytest.mark.parametrize("split", ["../train", "train/../../etc", "", "val", "a" * 41])
def test_a_split_is_one_of_the_card(trainer: Trainer, split: str) -> None:
    with pytest.raises((RunFailed, ValueError)):
        trainer.score(split=split)


def test_weights_cannot_count_a_patient_more_than_once_in_a_table(trainer: Trainer) -> None:
    """Scores that are no numbers fall into a bin like any other: no image counts twice or not."""
    for value in (np.nan, np.inf, -np.inf, 3e38):
        weights = weights_of(tiny())
        weights["4.weight"] = np.full_like(weights["4.weight"], value)
        counts = trainer.score(weights, noise_multiplier=1e-3)
        assert counts.sum() == 30


def test_the_exporter_writes_what_a_model_is_and_not_what_it_holds() -> None:
    """Weights, which a text may fill with anything, are not in a graph."""
    model = tiny()
    with torch.no_grad():
        model[0].weight.fill_(0.123456789)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "0.1234" not in json.dumps(exported(model))
