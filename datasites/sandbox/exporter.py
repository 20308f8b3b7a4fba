"""Builds the model of a job's text and writes it down as a graph: a text for a cage without data.

`datasites.sandbox.private_training` sends it, with the job's text as an argument. It runs beside
that text, so what it says is the text's word: `policies.model_graph` reads it as hostile bytes, and
refuses what is not on its lists. This file only has to be right for honest models.
"""

from __future__ import annotations

import json
from typing import Any

FUNCTIONS = {
    "add": "add", "iadd": "add", "add_": "add", "mul": "mul", "imul": "mul", "mul_": "mul",
    "cat": "cat", "concat": "cat", "concatenate": "cat", "relu": "relu", "relu_": "relu",
    "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu", "tanh": "tanh",
    "adaptive_avg_pool2d": "adaptive_avg_pool2d", "flatten": "flatten", "mean": "spatial_mean",
}  # fmt: skip
"""Name of a function, operator or method -> what the graph calls it."""
LEFT_OUT = ("inplace", "output_padding")
"""What changes no result: layers are rebuilt so that they keep what they are called on."""
PAIRS = ("kernel_size", "stride", "padding", "dilation", "output_size")


def export_model(data: Any, weights: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The graph of what the text's entry function builds from card and arguments, as JSON bytes."""
    import numpy as np

    names: dict[str, Any] = {"__name__": "job", "__builtins__": __builtins__}
    exec(compile(config["text"], "job.py", "exec"), names)  # noqa: S102  what this cage is for
    model = names[config["entry"]](data.card, config["config"])
    written = json.dumps(describe(model)).encode()
    return {
        "weights": {"graph": np.frombuffer(written, np.uint8)},
        "metrics": {},
        "examples": 0,
    }


def describe(model: Any) -> dict[str, Any]:
    """The graph of a model, or why it cannot be traced."""
    import torch

    try:
        traced = torch.fx.Tracer().trace(model)
    except Exception as error:
        return {"untraceable": f"{type(error).__name__}: {error}"[:300]}
    layers: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    values: dict[Any, int] = {}
    for node in traced.nodes:
        if node.op == "placeholder":
            values[node] = len(values)
        elif node.op != "output":
            if node.op == "call_module":
                layers[node.target] = _layer(model.get_submodule(node.target))
            calls.append(_call(node, values))
            values[node] = len(calls)
    return {"layers": layers, "calls": calls}


def _layer(layer: Any) -> dict[str, Any]:
    """The class of a layer and the arguments that it was made with."""
    told: dict[str, Any] = {"type": type(layer).__name__}
    for name in getattr(layer, "__constants__", ()):
        if name not in LEFT_OUT and hasattr(layer, name):
            value = getattr(layer, name)
            pair = name in PAIRS and isinstance(value, int)
            told[name] = [value, value] if pair else value
    if told["type"] in ("Conv2d", "Linear"):
        told["bias"] = layer.bias is not None
    if told["type"] == "AvgPool2d" and not isinstance(layer.stride, int | tuple):
        told["stride"] = told["kernel_size"]
    return told


def _call(node: Any, values: dict[Any, int]) -> dict[str, Any]:
    """A call as the graph writes it; what it cannot write gets a name that is refused."""
    used = [values[one] for one in node.all_input_nodes]
    if node.op == "call_module":
        return {"layer": node.target, "of": used}
    if node.op == "get_attr":
        return {"function": f"get_attr {node.target}", "of": used}
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    told: dict[str, Any] = {"function": FUNCTIONS.get(name, name), "of": used}
    constants = [x for x in (*node.args, *node.kwargs.values()) if not _is_value(x)]
    if name in ("add", "iadd", "add_", "mul", "imul", "mul_"):
        told["of"] = [values[x] for x in node.args if x in values]  # x + x uses a value twice
        return told if len(told["of"]) == 2 and not node.kwargs else _other(told, node)
    if told["function"] == "cat":
        parts, dim = _arguments(node, ("tensors", "dim"), (None, 0))
        told["of"] = [values[x] for x in parts]
        return told if dim == 1 else _other(told, node)
    if name == "flatten":
        _, start, end = _arguments(node, ("input", "start_dim", "end_dim"), (None, 0, -1))
        return told if (start, end) == (1, -1) else _other(told, node)
    if name == "mean":
        _, dim, keep = _arguments(node, ("input", "dim", "keepdim"), (None, None, False))
        fits = sorted(dim) in ([2, 3], [-2, -1]) if isinstance(dim, list | tuple) else False
        return told if fits and not keep else _other(told, node)
    if name == "adaptive_avg_pool2d":
        _, size = _arguments(node, ("input", "output_size"), (None, None))
        return {**told, "output_size": [size, size] if isinstance(size, int) else size}
    return told if not [x for x in constants if x not in (True, False)] else _other(told, node)


def _is_value(argument: Any) -> bool:
    return hasattr(argument, "op")


def _arguments(node: Any, names: tuple[str, ...], usual: tuple[Any, ...]) -> list[Any]:
    """The arguments of a call by their place, given by place or by name."""
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return [given.get(name, default) for name, default in zip(names, usual, strict=True)]


def _other(told: dict[str, Any], node: Any) -> dict[str, Any]:
    """A known function with arguments that the graph has no word for."""
    return {"function": f"{told['function']} with {node.args[1:]} {dict(node.kwargs)}", "of": []}
