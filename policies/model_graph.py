"""A model as a declarative graph: which layers there are, and what is called on what.

It is what crosses from the cage where foreign code built the model into the one that has the
images. It names layers of `policies.model_layers` and a few functions, with their arguments; no
text, no array, no buffer and no number of the images is in it. Whoever wrote it, a graph that
`read_graph` accepts computes each image's scores from that image and the parameters alone.

Values are numbered: 0 is the images, k what the k-th call gives; the last one is the scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from policies.findings import Finding, refuse
from policies.model_layers import LAYERS, Layer, Shape, ShapeError, flat, maps
from policies.strict import Strict, some

MAXIMUM_BYTES = 1_000_000
MAXIMUM_CALLS = 2000
MAXIMUM_PARAMETERS = 50_000_000
MAXIMUM_VALUES = 100_000_000
"""Most numbers that all calls together give for one image."""
MAXIMUM_DEPTH = 1000
"""Most calls that are made one on the result of the other."""
TOLD = 5
"""Problems of a graph that are told at once."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]{0,110}$")]
"""A layer's name; with `.weight` behind it it names an array."""
Value = Annotated[int, Field(ge=0, le=MAXIMUM_CALLS)]


class LayerCall(Strict):
    """A layer, called on one value."""

    layer: Name
    """Its name; the parameters are `NAME.weight` and `NAME.bias`."""
    of: tuple[Value]
    """The value that it is called on."""


class _Function(Strict):
    """A function of values; what it computes for an image is from this image's values."""

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The shape of what comes out."""
        raise NotImplementedError


class Combine(_Function):
    """`a + b` or `a * b`, entry by entry; sides of length 1 are stretched."""

    function: Literal["add", "mul"]
    of: tuple[Value, Value]

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The shape of what comes out."""
        first, second = shapes
        fits = len(first) == len(second) and all(
            a == b or 1 in (a, b) for a, b in zip(first, second, strict=True)
        )
        if not fits:
            raise ShapeError(f"shapes {first} and {second}, which do not fit together")
        return tuple(max(a, b) for a, b in zip(first, second, strict=True))


class Concatenate(_Function):
    """`torch.cat` along the channels."""

    function: Literal["cat"]
    of: tuple[Value, ...] = Field(min_length=1, max_length=200)

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The shape of what comes out."""
        if len({shape[1:] for shape in shapes}) != 1:
            raise ShapeError(f"shapes {shapes[0]} and others, which do not fit together")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


class Flat(_Function):
    """`torch.flatten(x, 1)`: all numbers of an image in one row."""

    function: Literal["flatten"]
    of: tuple[Value]

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The shape of what comes out."""
        return flat(shapes[0])


class SpatialMean(_Function):
    """`x.mean((2, 3))`: the mean of each channel."""

    function: Literal["spatial_mean"]
    of: tuple[Value]

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The shape of what comes out."""
        return maps(shapes[0])[:1]


class Activate(_Function):
    """An activation of `torch.nn.functional` without arguments."""

    function: Literal["relu", "relu6", "sigmoid", "silu", "tanh"]
    of: tuple[Value]

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The same shape."""
        return shapes[0]


class AdaptivePool(_Function):
    """`torch.nn.functional.adaptive_avg_pool2d` to a fixed size."""

    function: Literal["adaptive_avg_pool2d"]
    of: tuple[Value]
    output_size: tuple[Annotated[int, Field(ge=1, le=32)], Annotated[int, Field(ge=1, le=32)]]

    def after(self, shapes: tuple[Shape, ...]) -> Shape:
        """The shape of what comes out."""
        return (maps(shapes[0])[0], *self.output_size)


FunctionCall = Annotated[
    Combine | Concatenate | Flat | SpatialMean | Activate | AdaptivePool,
    Field(discriminator="function"),
]
FUNCTIONS = (
    "adaptive_avg_pool2d", "add", "cat", "flatten", "mul", "relu", "relu6", "sigmoid", "silu",
    "spatial_mean", "tanh",
)  # fmt: skip
"""The names of all functions."""


class ModelGraph(Strict):
    """Layers, and the calls on them in order."""

    layers: dict[Name, Layer] = Field(max_length=MAXIMUM_CALLS)
    """Name -> layer, as the parameters are named after."""
    calls: tuple[LayerCall | FunctionCall, ...] = Field(min_length=1, max_length=MAXIMUM_CALLS)
    """What is computed; a call uses values that come before it."""

    @model_validator(mode="after")
    def _calls_fit_layers(self) -> Self:
        called: set[str] = set()
        depth = [0]
        for number, call in enumerate(self.calls, 1):
            if any(value >= number for value in call.of):
                raise ValueError(f"call {number} uses a value that comes after it")
            depth.append(1 + max(depth[value] for value in call.of))
            if isinstance(call, LayerCall):
                self._take(call.layer, called)
        if left := set(self.layers) - called:
            raise ValueError(f"layers that nothing calls: {some(left)}; leave them out")
        if max(depth) > MAXIMUM_DEPTH:
            raise ValueError(f"{max(depth)} calls on top of each other; at most {MAXIMUM_DEPTH}")
        return self

    def _take(self, name: str, called: set[str]) -> None:
        if name not in self.layers:
            raise ValueError(f"layer `{name[:40]}` is called and not declared")
        if name in called and self.layers[name].parameters():
            raise ValueError(
                f"layer `{name[:40]}` has parameters and is called twice; make two layers of it"
            )
        called.add(name)

    def parameters(self) -> dict[str, Shape]:
        """Name -> shape of all that is trained, named as in `state_dict` of the text's model."""
        return {
            f"{name}.{own}": shape
            for name, layer in self.layers.items()
            for own, shape in layer.parameters().items()
        }

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(math.prod(shape) for shape in self.parameters().values())

    def shapes(self, image: Shape) -> list[Shape]:
        """The shapes of all values, for an image of shape (C, H, W).

        Raises:
            ShapeError: A call does not fit what it is called on.
        """
        found = [maps(image)]
        for number, call in enumerate(self.calls, 1):
            of = tuple(found[value] for value in call.of)
            try:
                if isinstance(call, LayerCall):
                    found.append(self.layers[call.layer].after(*of))
                else:
                    found.append(call.after(of))
            except ShapeError as error:
                raise ShapeError(f"call {number} ({_called(call)}): {error}") from error
        return found

    def value_count(self, image: Shape) -> int:
        """How many numbers all calls together give for one image."""
        return sum(math.prod(shape) for shape in self.shapes(image))


def read_graph(raw: bytes) -> ModelGraph | list[Finding]:
    """The graph in hostile bytes, or what is wrong with it.

    Args:
        raw: JSON as the exporter writes it.
    """
    if len(raw) > MAXIMUM_BYTES:
        seen, allowed = f"{len(raw):,} bytes", f"at most {MAXIMUM_BYTES:,}"
        return [refuse("model.size", seen, allowed, "use a smaller model")]
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError):
        return [refuse("model.form", "no JSON", "a graph of layers and calls", "look at the text")]
    if findings := list(_strangers(plain))[:TOLD]:
        return findings
    try:
        return ModelGraph.model_validate_json(raw)
    except ValidationError as error:
        return [
            refuse(
                "model.form", _sentence(one), "layers and calls in their ranges", "change the model"
            )
            for one in error.errors(include_url=False)[:TOLD]
        ]


def image_shape(shape: Sequence[int], size: int) -> Shape:
    """(3, H, W) of what a model gets of images of a card's shape, resized to `size` if not 0."""
    return (3, size, size) if size else (3, shape[0], shape[1])


def check_graph(graph: ModelGraph, image: Shape, classes: int) -> list[Finding]:
    """What keeps a graph from being trained on images of shape (C, H, W); empty if nothing does."""
    count = graph.parameter_count()
    if not 1 <= count <= MAXIMUM_PARAMETERS:
        allowed = f"1 to {MAXIMUM_PARAMETERS:,}"
        return [refuse("model.size", f"{count:,} parameters", allowed, "use another model")]
    try:
        shapes = graph.shapes(image)
    except ShapeError as error:
        return [refuse("model.shape", str(error), "calls that fit", "change the model")]
    if shapes[-1] != (classes,):
        seen, allowed = f"scores of shape {shapes[-1]}", f"({classes},), one per class"
        return [refuse("model.shape", seen, allowed, "build it for the card's classes")]
    values = sum(math.prod(shape) for shape in shapes)
    if values > MAXIMUM_VALUES:
        seen, allowed = f"{values:,} values per image", f"at most {MAXIMUM_VALUES:,}"
        return [refuse("model.size", seen, allowed, "use smaller images, or a smaller model")]
    if not set(_used(graph)) >= set(range(len(graph.calls))):
        return [
            refuse("model.form", "a call whose value nothing uses", "calls that lead to the scores",
                   "leave it out")
        ]  # fmt: skip
    return []


def _used(graph: ModelGraph) -> Iterator[int]:
    """The values that some call uses."""
    for call in graph.calls:
        yield from call.of


def _called(call: LayerCall | FunctionCall) -> str:
    return f"layer `{call.layer}`" if isinstance(call, LayerCall) else f"`{call.function}`"


def _strangers(plain: Any) -> Iterator[Finding]:
    """Findings in the words of who wrote the model, for what is most often not allowed."""
    if not isinstance(plain, dict):
        yield refuse("model.form", "no mapping", "a graph of layers and calls", "look at the text")
        return
    if "untraceable" in plain:
        yield refuse(
            "model.trace", _short(str(plain["untraceable"]), 200),
            "models that torch.fx can trace: no `if` on values, no loop over them",
            "write `forward` as calls of layers and of the allowed functions",
        )  # fmt: skip
        return
    layers, calls = plain.get("layers"), plain.get("calls")
    for name, layer in layers.items() if isinstance(layers, dict) else ():
        kind = layer.get("type") if isinstance(layer, dict) else None
        if kind in LAYERS:
            continue
        seen = f"layer `{_short(name, 60)}` is a `{_short(str(kind), 60)}`"
        if str(kind).startswith(("BatchNorm", "SyncBatchNorm", "InstanceNorm", "LazyBatchNorm")):
            yield refuse(
                "model.layer", seen, "GroupNorm: statistics of one image, and no buffer",
                "use `torch.nn.GroupNorm`; running statistics would carry images without noise",
            )  # fmt: skip
        else:
            yield refuse("model.layer", seen, ", ".join(LAYERS), "use these layers of torch.nn")
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, dict) or "layer" in call or call.get("function") in FUNCTIONS:
            continue
        seen = f"a call of `{_short(str(call.get('function')), 60)}`"
        do = "use these; `flatten(1)` for `view` and `reshape`; parameters only within layers"
        yield refuse("model.function", seen, ", ".join(FUNCTIONS), do)


def _sentence(problem: Any) -> str:
    """The place in a graph that does not fit, and why."""
    place = ".".join(str(part) for part in problem["loc"])
    wrong = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return _short(f"{place}: {wrong}" if place else wrong, 200)
    return _short(f"{place}: {wrong} (seen: {problem['input']!r})", 200)


def _short(text: str, limit: int) -> str:
    """Foreign words in a sentence: printable, on one line, of a length."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return shown if len(text) <= limit else shown + "…"
