"""Which graphs of models are read, and the sentence about each that is not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from policies.model_graph import (
    FUNCTIONS,
    MAXIMUM_BYTES,
    MAXIMUM_DEPTH,
    ModelGraph,
    check_graph,
    read_graph,
)
from policies.model_layers import LAYERS, Layer, ShapeError

CONV = {"type": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": [3, 3]}
HONEST: dict[str, Any] = {
    "layers": {
        "conv": CONV,
        "norm": {"type": "GroupNorm", "num_groups": 2, "num_channels": 4},
        "fc": {"type": "Linear", "in_features": 4, "out_features": 2},
    },
    "calls": [
        {"layer": "conv", "of": [0]},
        {"layer": "norm", "of": [1]},
        {"function": "relu", "of": [2]},
        {"function": "spatial_mean", "of": [3]},
        {"layer": "fc", "of": [4]},
    ],
}


def read(plain: Any) -> Any:
    return read_graph(json.dumps(plain).encode())


def changed(*path: Any, value: Any) -> dict[str, Any]:
    """The honest graph with one thing changed."""
    plain = copy.deepcopy(HONEST)
    place: Any = plain
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return plain


def told(plain: Any) -> str:
    found = read(plain)
    assert isinstance(found, list), found
    return " | ".join(finding.sentence for finding in found)


def test_an_honest_graph_is_read_and_names_its_parameters() -> None:
    graph = read(HONEST)
    assert isinstance(graph, ModelGraph)
    assert graph.parameters() == {
        "conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "norm.weight": (4,), "norm.bias": (4,),
        "fc.weight": (2, 4), "fc.bias": (2,),
    }  # fmt: skip
    assert graph.parameter_count() == 130
    assert graph.shapes((3, 8, 8))[1:] == [(4, 6, 6)] * 3 + [(4,), (2,)]
    assert check_graph(graph, (3, 8, 8), 2) == []


REFUSED: list[tuple[Any, str]] = [
    # statistics over images would leave without noise
    (changed("layers", "norm", value={"type": "BatchNorm2d", "num_features": 4}),
     "layer `norm` is a `BatchNorm2d`; allowed: GroupNorm"),
    (changed("layers", "norm", value={"type": "InstanceNorm2d"}), "GroupNorm"),
    # other code than torch's own layers
    (changed("layers", "norm", value={"type": "Backdoor"}), "layer `norm` is a `Backdoor`"),
    (changed("layers", "norm", value=["GroupNorm"]), "layer `norm` is a `None`"),
    (changed("calls", 2, value={"function": "torch.load", "of": [2]}), "a call of `torch.load`"),
    (changed("calls", 2, value={"function": "get_attr table", "of": []}), "`get_attr table`"),
    # arguments: unknown, out of range, of another kind
    (changed("layers", "conv", value={**CONV, "weight": [1.0]}), "Extra inputs"),
    (changed("layers", "conv", value={**CONV, "kernel_size": [33, 3]}), "less than or equal to 32"),
    (changed("layers", "conv", value={**CONV, "padding_mode": "circular"}), "'zeros'"),
    (changed("layers", "conv", value={**CONV, "out_channels": 2**40}), "8192"),
    (changed("layers", "conv", value={**CONV, "groups": 2}), "`groups` must divide"),
    (changed("layers", "norm", "eps", value=float("nan")), "finite number"),
    (changed("calls", 2, value={"function": "relu", "of": [2], "inplace": True}), "Extra inputs"),
    (changed("calls", 2, value={"function": "cat", "of": [2], "dim": 0}), "Extra inputs"),
    # names that are no names
    (changed("layers", "a b", value=CONV), "pattern"),
    (changed("layers", "__class__.__init__/../x", value=CONV), "pattern"),
    # calls that do not fit together
    (changed("calls", 2, "of", value=[3]), "call 3 uses a value that comes after it"),
    (changed("calls", 2, "of", value=[-1]), "greater than or equal to 0"),
    (changed("calls", 4, "layer", value="no"), "layer `no` is called and not declared"),
    (changed("layers", "more", value=CONV), "layers that nothing calls: more"),
    ({**HONEST, "calls": [*HONEST["calls"], {"layer": "norm", "of": [2]}]}, "is called twice"),
    ({**HONEST, "calls": []}, "at least 1 item"),
    ({**HONEST, "buffers": {"seen": [1.0]}}, "Extra inputs"),
    ({"layers": {}, "calls": [{"function": "relu", "of": [k]} for k in range(MAXIMUM_DEPTH + 1)]},
     "1001 calls on top of each other; at most 1000"),
    # not a graph at all
    ([], "no mapping"),
    ({"untraceable": "TraceError: symbolically traced\nvariables"}, "TraceError: symbolically"),
]  # fmt: skip


@pytest.mark.parametrize(("plain", "sentence"), REFUSED, ids=lambda x: x if type(x) is str else "")
def test_a_graph_is_refused_in_a_sentence(plain: Any, sentence: str) -> None:
    assert sentence in told(plain)
    assert "\n" not in told(plain)


def test_calls_as_deep_as_allowed_are_read() -> None:
    calls = [{"function": "relu", "of": [k]} for k in range(MAXIMUM_DEPTH)]
    assert isinstance(read({"layers": {}, "calls": calls}), ModelGraph)


def test_more_bytes_than_a_graph_may_have_are_not_parsed() -> None:
    (finding,) = read_graph(b" " * (MAXIMUM_BYTES + 1))  # type: ignore[misc]
    assert finding.sentence.startswith("model.size: 1,000,001 bytes; allowed: at most 1,000,000")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b'{"layers": {}}', b"nan", b"1"])
def test_nonsense_is_refused(raw: bytes) -> None:
    assert isinstance(read_graph(raw), list)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([*LAYERS, *FUNCTIONS, "layer", "function", "of", "type"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["layers", "calls", "type", "layer", "function", "of", "untraceable"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_no_bytes_make_reading_raise(plain: Any) -> None:
    found = read_graph(json.dumps(plain).encode())
    assert isinstance(found, ModelGraph | list)


@pytest.mark.parametrize(
    ("image", "classes", "sentence"),
    [
        ((3, 8, 8), 3, "scores of shape (2,); allowed: (3,), one per class"),
        ((1, 8, 8), 2, "call 1 (layer `conv`): 1 channels where 3 are declared"),
        ((3, 2, 2), 2, "call 1 (layer `conv`): a window of 3 on a side of 2"),
        ((3, 4096, 4096), 2, "values per image; allowed: at most 100,000,000"),
    ],
)
def test_a_graph_that_does_not_fit_the_images_is_refused(
    image: tuple[int, ...], classes: int, sentence: str
) -> None:
    assert sentence in " ".join(f.sentence for f in check_graph(read(HONEST), image, classes))


BATCH_MIXING = [
    # a convolution over rows would take the images of a batch for channels
    [{"function": "flatten", "of": [0]}, {"layer": "conv", "of": [1]}],
    [{"function": "spatial_mean", "of": [0]}, {"function": "spatial_mean", "of": [1]}],
    [{"layer": "fc", "of": [0]}],
    [{"function": "spatial_mean", "of": [0]}, {"function": "add", "of": [0, 1]}],
]


@pytest.mark.parametrize("calls", BATCH_MIXING)
def test_what_could_mix_images_has_no_shape(calls: list[Any]) -> None:
    layers = {c["layer"]: HONEST["layers"][c["layer"]] for c in calls if "layer" in c}
    with pytest.raises(ShapeError):
        read({"layers": layers, "calls": calls}).shapes((3, 8, 8))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_shapes_are_those_that_torch_computes(data: st.DataObject) -> None:
    """A window's number of places, with stride, padding, dilation and rounding up."""
    side = st.integers(1, 12)
    small = st.integers(1, 4)
    kind = data.draw(st.sampled_from(["Conv2d", "MaxPool2d", "AvgPool2d"]))
    plain: dict[str, Any] = {
        "type": kind,
        "kernel_size": [data.draw(small), data.draw(small)],
        "stride": [data.draw(small), data.draw(small)],
        "padding": [0, 0],
    }
    plain["padding"] = [data.draw(st.integers(0, k // 2)) for k in plain["kernel_size"]]
    if kind == "Conv2d":
        plain |= {"in_channels": 2, "out_channels": 3, "dilation": [data.draw(small), 1]}
    else:
        plain["ceil_mode"] = data.draw(st.booleans())
    layer: Any = TypeAdapter(Layer).validate_python(plain)
    image = (2, data.draw(side), data.draw(side))
    made = getattr(torch.nn, kind)(**{k: v for k, v in plain.items() if k != "type"})
    try:
        real = tuple(made(torch.zeros(1, *image)).shape[1:])
    except RuntimeError:
        with pytest.raises(ShapeError):
            layer.after(image)
        return
    try:
        assert layer.after(image) == real
    except ShapeError:  # torch lets a window stand out where it rounds up; this does not
        assert plain.get("ceil_mode")
