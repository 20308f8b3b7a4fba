"""Models that cross as a graph are the same models: names, shapes, and every bit of the scores."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasites.sandbox.rebuilding import Rebuilt
from policies.model_graph import ModelGraph, check_graph, read_graph
from private_models import CARD, JOB, MODELS, exported, graph_of, tiny, weights_of

SIDE = 40


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    model: torch.nn.Module = JOB.call("build", CARD, {"model": name})
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_rebuilt_model_gives_the_same_scores_to_the_bit(name: str) -> None:
    model = built(name).eval()
    graph = graph_of(model)
    assert check_graph(graph, (3, SIDE, SIDE), 2) == []
    rebuilt = Rebuilt(graph).eval()
    rebuilt.load(weights_of(model))
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), model(images))


@pytest.mark.parametrize("name", MODELS)
def test_its_parameters_are_all_that_the_model_has(name: str) -> None:
    model = built(name)
    graph = graph_of(model)
    shapes = {n: tuple(tensor.shape) for n, tensor in model.state_dict().items()}
    assert graph.parameters() == shapes
    assert {n: tuple(p.shape) for n, p in Rebuilt(graph).named().items()} == shapes
    assert list(Rebuilt(graph).buffers()) == []
    assert read_graph(graph.model_dump_json().encode()) == graph


def test_a_rebuilt_model_has_the_gradients_of_the_model() -> None:
    model = tiny()
    rebuilt = Rebuilt(graph_of(model))
    rebuilt.load(weights_of(model))
    images = torch.rand(4, 3, 8, 8)
    for one in (model, rebuilt):
        one(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(rebuilt.named()[name].grad, parameter.grad)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("0.bias"),
        lambda w: w.update(more=np.zeros(1, np.float32)),
        lambda w: w.update({"0.bias": np.zeros(5, np.float32)}),
        lambda w: w.update({"0.bias": np.zeros(4, np.float64)}),
        lambda w: w.update({"0.bias": np.zeros((4, 1), np.float32)}),
    ],
)
def test_weights_that_are_not_the_parameters_are_refused(change: Any) -> None:
    weights = weights_of(tiny())
    change(weights)
    with pytest.raises(ValueError, match="sent"):
        Rebuilt(graph_of(tiny())).load(weights)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_honest_chain_of_layers_is_rebuilt_to_the_bit(data: st.DataObject) -> None:
    nn, channels, layers = torch.nn, 3, []
    for kind in data.draw(st.lists(st.sampled_from("cgrpad"), max_size=6)):
        if kind == "c":
            after, groups = data.draw(st.sampled_from([(4, 1), (2 * channels, channels), (6, 1)]))
            bias, stride = data.draw(st.booleans()), data.draw(st.integers(1, 2))
            layers.append(nn.Conv2d(channels, after, 3, stride, 1, groups=groups, bias=bias))
            channels = after
        else:
            layers.append({
                "g": nn.GroupNorm(1, channels, eps=data.draw(st.sampled_from([1e-5, 1e-3]))),
                "r": data.draw(st.sampled_from([nn.ReLU(inplace=True), nn.SiLU(), nn.ReLU6()])),
                "p": nn.MaxPool2d(3, 2, 1, ceil_mode=data.draw(st.booleans())),
                "a": nn.AvgPool2d(3, 1, 1, count_include_pad=data.draw(st.booleans())),
                "d": nn.Dropout(0.3),
            }[kind])  # fmt: skip
    layers += [nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(2 * channels, 3)]
    model = nn.Sequential(*layers).eval()
    graph = graph_of(model)
    rebuilt = Rebuilt(graph).eval()
    rebuilt.load(weights_of(model))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), model(images))
    assert check_graph(graph, (3, 32, 32), 3) == []


class Written(torch.nn.Module):
    """A `forward` in the words that people use, which the graph has one word for each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.gate = torch.nn.Conv2d(4, 4, 1)
        self.fc = torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.relu(self.conv(x), inplace=True)
        x = x * torch.sigmoid(self.gate(x))
        x += x
        x = torch.cat((x, x.add(x).tanh()), dim=1)
        x = torch.nn.functional.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(torch.flatten(x, start_dim=1))


def test_functions_operators_and_methods_are_written_alike() -> None:
    model = Written().eval()
    rebuilt = Rebuilt(graph_of(model)).eval()
    rebuilt.load(weights_of(model))
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(rebuilt(images), model(images))


class _Forward(torch.nn.Module):
    """A model with parameters and a `forward` of a test."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(4, 2)
        self.own = torch.nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(2))
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        (lambda m, x: m.fc(x.flatten(1)) + m.own, "a call of `get_attr own`"),
        (lambda m, x: m.fc(x.flatten(1)) + m.seen, "a call of `get_attr seen`"),
        (lambda m, x: m.fc(x.view(x.size(0), -1)), "`flatten(1)` for `view`"),
        (lambda m, x: m.fc(x.flatten()), "a call of `flatten with"),
        (lambda m, x: torch.cat([x, x]), "a call of `cat with"),
        (lambda m, x: m.fc(x.flatten(1)) + 1.0, "a call of `add with"),
        (lambda m, x: m.fc(x.flatten(1)).mean(0), "a call of `spatial_mean with"),
        (lambda m, x: x if x.sum() > 0 else m.fc(x), "model.trace: TraceError"),
        (lambda m, x: m.fc(x.flatten(1)).roll(1, 0), "a call of `roll`"),
    ],
)
def test_what_is_no_layer_and_no_such_function_is_refused(forward: Any, sentence: str) -> None:
    found = read_graph(json.dumps(exported(_Forward(forward))).encode())
    assert not isinstance(found, ModelGraph)
    assert sentence in " ".join(finding.sentence for finding in found)
