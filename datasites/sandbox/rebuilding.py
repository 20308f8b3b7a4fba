"""Rebuilds a model from its graph, in the cage that has the images. Part of the trainer's program.

Layers are made by the classes of `torch.nn` named here, calls are carried out one after the other.
No name of the graph becomes code or an attribute: layers stand in a list, and the names of
parameters are words that weights are found by.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from policies.arrays import Arrays
from policies.model_graph import FunctionCall, LayerCall, ModelGraph
from policies.model_layers import LAYERS, Layer

CLASSES: dict[str, type[nn.Module]] = {name: getattr(nn, name) for name in LAYERS}


class Rebuilt(nn.Module):
    """The model of a graph.

    Args:
        graph: What `policies.model_graph` accepted.
    """

    def __init__(self, graph: ModelGraph) -> None:
        super().__init__()
        self._calls = graph.calls
        self._place = {name: place for place, name in enumerate(graph.layers)}
        self._layers = nn.ModuleList(_made(layer) for layer in graph.layers.values())
        last_use = {value: number for number, call in enumerate(graph.calls) for value in call.of}
        self._done = [
            [value for value in set(call.of) if last_use[value] == number]
            for number, call in enumerate(graph.calls)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes) of images (N, 3, H, W)."""
        values: dict[int, Tensor] = {0: images}
        for number, call in enumerate(self._calls):
            of = [values[value] for value in call.of]
            for value in self._done[number]:
                del values[value]
            if isinstance(call, LayerCall):
                values[number + 1] = self._layers[self._place[call.layer]](*of)
            else:
                values[number + 1] = _computed(call, of)
        return values[len(self._calls)]

    def named(self) -> dict[str, nn.Parameter]:
        """Name of a parameter in the text's model -> the parameter."""
        return {
            f"{name}.{own}": parameter
            for name, place in self._place.items()
            for own, parameter in self._layers[place].named_parameters(recurse=False)
        }

    def load(self, weights: Arrays) -> None:
        """Take weights, which must be the parameters' in name, shape and dtype, and no others.

        Raises:
            ValueError: They are not.
        """
        parameters = self.named()
        if set(weights) != set(parameters):
            raise ValueError("the weights sent are not named as the model's parameters")
        with torch.no_grad():
            for name, parameter in parameters.items():
                array = weights[name]
                if array.shape != tuple(parameter.shape) or array.dtype.name != "float32":
                    raise ValueError("an array sent is no float32 of its parameter's shape")
                parameter.copy_(torch.from_numpy(array))


def _made(layer: Layer) -> nn.Module:
    """A layer of `torch.nn`; its parameters are to be replaced by those that were sent."""
    arguments: dict[str, Any] = layer.model_dump(exclude={"type", "min_val", "max_val"})
    return CLASSES[layer.type](**arguments)


def _computed(call: FunctionCall, of: list[Tensor]) -> Tensor:
    """What a function gives."""
    match call.function:
        case "add":
            return of[0] + of[1]
        case "mul":
            return of[0] * of[1]
        case "cat":
            return torch.cat(of, 1)
        case "flatten":
            return of[0].flatten(1)
        case "spatial_mean":
            return of[0].mean((2, 3))
        case "adaptive_avg_pool2d":
            return nn.functional.adaptive_avg_pool2d(of[0], call.output_size)
        case _:
            return cast("Tensor", getattr(nn.functional, call.function)(of[0]))
