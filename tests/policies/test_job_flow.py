"""What reaches the result is told with its way; what is summed up over images is not."""

from __future__ import annotations

import ast
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.job.flow import Flow, follow
from policies.job.flow_memory import MAXIMUM_EXPRESSIONS
from policies.job.flow_values import NOTHING, Reach, Step, Trace, join

FRAME = """
def train(data, weights, config):
    import numpy as np
    import torch
    images, labels = data.arrays("train")
    net = torch.nn.Linear(784, 2)
    n = len(images)
    {}
    return {{"weights": {{"w": w}}, "metrics": {{}}, "examples": n}}
"""


def flow(*lines: str) -> Flow:
    return follow(ast.parse(FRAME.format("\n    ".join(lines))), "train")


def reach(*lines: str) -> Reach:
    """How closely `w` follows single images after these lines."""
    return max((leak.trace.reach for leak in flow(*lines).leaks), default=Reach.NOTHING)


ONE_IMAGE_SHOWS = [
    "w = images",
    "w = images * 0.001",
    "w = weights['w'] + images",
    "w = torch.from_numpy(images).float()",
    "w = net(images)",
    "w = np.where(labels == 1, 1, 0)",
    "w = images.mean(axis=1)",
    "w = images.mean(axis=(-1, -2))",
    "w = np.mean(images, 1)",
    "w = images.T.mean(axis=0)",
    "w = images.transpose(1, 2, 0).sum(0)",
    "w = images.reshape(1, -1).sum(axis=0)",
    "w = images[np.newaxis].mean(axis=0)",
    "w = images[None].mean(axis=0)",
    "w = images[0].mean()",
    "w = images[-1].sum()",
    "w = images[n - 1].sum()",
    "w = images[n // 2].sum()",
    "w = images[:9].mean(0)",
    "w = images[config['round']].mean()",
    "w = images[0:n][3].mean()",
    "w = np.array(images)[0].mean()",
    "w = list(images)[0].mean()",
    "w = next(iter(images)).mean()",
    "w = [image.mean() for image in images]",
    "w = {i: image.mean() for i, image in enumerate(images)}",
    "w = list(map(np.mean, images))",
    "w = sum(int(y) << i for i, y in enumerate(labels))",
    "w = np.sum(labels * np.arange(n))",
    "w = float(labels[3] == 1)",
    "w = str(images[0])",
    "w = f'{labels}'",
    "w = torch.nn.functional.mse_loss(net(images), labels, reduction='none')",
    "w = torch.nn.CrossEntropyLoss(reduction='none')(net(images), labels)",
    "w = images @ weights['w']",
    "w = images.dot(weights['w'])",
    "w = len([0] * int(images[0, 0, 0]))",
    "w = np.zeros(int(labels[0])).shape[0]",
]
MANY_IMAGES_ONLY = [
    "w = weights['w']",
    "w = n",
    "w = images.shape",
    "w = images[0].shape",
    "w = images.mean()",
    "w = images.mean(axis=0)",
    "w = images.mean(axis=(0, 2))",
    "w = np.mean(images, 0)",
    "w = images.T.mean(axis=1)",
    "w = torch.from_numpy(images).mean(dim=0)",
    "w = images.transpose(0, 2, 1).sum(0)",
    "w = images.reshape(-1, 784).sum(axis=0)",
    "w = images.reshape(n, -1).sum(axis=0)",
    "w = images[:10].mean(0)",
    "w = images[10:].mean(0)",
    "w = images[labels == 1].mean(0)",
    "w = images[:, 3, 3].mean()",
    "w = np.mean([image.mean() for image in images])",
    "w = sum(float(image.mean()) for image in images)",
    "w = np.sum(labels == 1)",
    "w = int((net(images).argmax(1) == labels).sum())",
    "w = np.bincount(labels)",
    "w = np.histogram(net(images).numpy(), 10)[0]",
    "w = torch.nn.functional.mse_loss(net(images), labels)",
    "w = torch.nn.CrossEntropyLoss()(net(images), labels).item()",
    "w = np.dot(images.T, labels)",
    "w = images.T @ labels",
    "w = np.zeros_like(images)",
    "w = net.state_dict()",
    "w = [p.detach() for p in net.parameters()]",
    "w = data.card['classes']",
    "w = images is None",
]


@pytest.mark.parametrize("line", ONE_IMAGE_SHOWS)
def test_value_of_single_images_is_told(line: str) -> None:
    assert reach(line) >= Reach.EVERY


@pytest.mark.parametrize("line", MANY_IMAGES_ONLY)
def test_value_over_many_images_is_not_told(line: str) -> None:
    assert reach(line) <= Reach.MANY


@pytest.mark.parametrize(
    "line",
    [
        "w = images.max()",
        "w = np.median(images)",
        "w = np.histogram(images, 10)[0]",
        "w = np.unique(images)",
        "w = (images > 250).any()",
    ],
)
def test_extreme_or_table_of_pixels_is_to_read(line: str) -> None:
    assert reach(line) == Reach.NOTABLE


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        # sums in a loop, over every image, over one, over none
        (["w = 0", "for x in images:", "    w += x"], False),
        (["w = 0", "for x in images:", "    w += x", "    break"], True),
        (["w = 0", "for i in range(n):", "    w += images[i]"], False),
        (["w = 0", "for i in range(9):", "    w += images[i]"], True),
        (["w = 0", "w += images[0]"], True),
        (["w = 0", "for x in images:", "    w = x"], True),
        (["w = 0", "for x in images:", "    w = 0", "    w += x"], True),
        (["w = 0", "for i, x in enumerate(images):", "    w += x * 10**i"], True),
        (["w = 0", "for i, x in enumerate(images):", "    if i == 3:", "        w += x"], True),
        (["w = 0", "for y in labels:", "    if y == 1:", "        w += 1"], False),
        (["w = 0", "for y in labels:", "    if y == 1:", "        w = 1"], True),
        # tables
        (["w = np.zeros(2)", "for y in labels:", "    w[y] += 1"], False),
        (["w = np.zeros(2)", "for y in labels:", "    w[y] = 1"], True),
        (["w = np.zeros(n)", "for i in range(n):", "    w[i] += labels[i]"], True),
        (["w = np.zeros(2)", "np.add.at(w, labels, 1)"], False),
        (["w = np.zeros(n)", "np.add.at(w, np.arange(n), labels)"], True),
        # lists
        (["w = []", "w.append(images.mean())"], False),
        (["w = []", "w.append(images)"], True),
        (["v = []", "for x in images:", "    v.append(x.mean())", "w = np.mean(v)"], False),
        (["v = []", "for x in images:", "    v.append(x.mean())", "w = v"], True),
        # what decides
        (["w = 1 if images.mean() > 9 else 0"], False),
        (["w = 1 if images[0].mean() > 9 else 0"], True),
        (["w = 0", "while w < images[0, 0, 0]:", "    w += 1"], True),
        (["w = 0", "while w < images.mean():", "    w += 1"], False),
        (["w = 0", "for _ in range(labels[0]):", "    w += 1"], True),
        (["try:", "    w = 1 / labels[0]", "except ZeroDivisionError:", "    w = 2"], True),
        (["try:", "    v = 1 / n", "    w = 1", "except ZeroDivisionError:", "    w = 2"], False),
        # models
        (["net(images).mean().backward()", "w = net.weight.grad"], False),
        (["net(images[:1]).mean().backward()", "w = net.weight.grad"], True),
        (["net.weight.data.copy_(images)", "w = net.state_dict()"], True),
        (["net.weight.data.copy_(images.mean(0))", "w = net.state_dict()"], False),
        (["p = next(net.parameters())", "p.data[0] = images", "w = net.state_dict()"], True),
        (["weights['w'][:] = images", "w = weights['w']"], True),
        (["w = weights['w'].copy()", "weights['w'][:] = images"], False),
    ],
)
def test_statements_move_data(lines: list[str], told: bool) -> None:
    assert (reach(*lines) >= Reach.EVERY) is told


def test_way_is_told_line_by_line() -> None:
    text = (
        "def train(data, weights, config):\n"
        "    images, labels = data.arrays('train')\n"
        "    x = scaled(images)\n"
        "    weights['w'] = x\n"
        "    return {'weights': weights}\n"
        "def scaled(v):\n"
        "    return v / 2\n"
    )
    (leak,) = follow(ast.parse(text), "train").leaks
    assert leak.way == (
        'images (line 2) -> scaled(v) (line 3) -> x (line 3) -> weights["w"] (line 4)'
    )


def test_long_way_keeps_its_ends() -> None:
    names = [f"x{k}" for k in range(20)]
    lines = ["x0 = images", *(f"{b} = {a}" for a, b in pairwise(names))]
    (leak,) = flow(*lines, "w = x19").leaks
    assert leak.way.startswith("images (line 5) -> x0 (line 8) ->")
    assert leak.way.endswith('-> weights["w"] (line 29)')
    assert "…" in leak.way


def test_helper_is_followed_for_each_caller() -> None:
    lines = ["def same(v):", "    return v", "a = same(images)", "w = same(weights['w'])"]
    assert reach(*lines) == Reach.NOTHING


def test_text_with_too_many_ways_is_not_followed() -> None:
    doubled = [f"f{k + 1} = lambda x: f{k}(x) + f{k}(f{k}(x))" for k in range(6)]
    found = flow("f0 = lambda x: x", *doubled, *["f6(f6(f6(f6(images))))"] * 20, "w = 1")
    assert not found.followed
    assert MAXIMUM_EXPRESSIONS < 100_000


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("if labels[0]: raise ValueError", {"raise"}),
        ("if n < 5: raise ValueError", set()),
        ("assert images[0, 0, 0] > 3", {"raise"}),
        ("assert images.ndim == 3", set()),
        ("print(labels)", {"print"}),
        ("print('done')", set()),
        ("[0][labels[0]]", {"fail"}),
        ("while images[0, 0, 0] > n: n += 1", {"time"}),
    ],
)
def test_other_ways_out_are_events(line: str, kinds: set[str]) -> None:
    assert {e.kind for e in flow(line, "w = 1").events if e.trace.is_raw} == kinds


traces = st.builds(
    Trace,
    reach=st.sampled_from(Reach),
    path=st.lists(st.builds(Step, st.sampled_from("ab"), st.integers(1, 3)), max_size=3).map(tuple),
    pixels=st.booleans(),
    images_first=st.booleans(),
    sized=st.booleans(),
    weighted=st.booleans(),
)


@given(traces, traces)
def test_joined_trace_does_not_depend_on_the_order(first: Trace, second: Trace) -> None:
    joined, turned = join(first, second), join(second, first)
    assert joined.reach == max(first.reach, second.reach)
    assert (joined.reach, joined.path) == (turned.reach, turned.path)


@given(traces)
def test_joining_with_nothing_or_itself_changes_nothing(trace: Trace) -> None:
    assert join(trace, trace) == trace
    assert join(trace, NOTHING).reach == trace.reach


# ----------------------------------------------------------------------------------- subgroups


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("w = data.groups('train')['sex']", Reach.EVERY),
        ("w = data.groups('train')[config['by']]", Reach.EVERY),
        ("w = list(data.groups('train').values())", Reach.EVERY),
        ("w = data.groups('train')['sex'][3]", Reach.CHOSEN),
        ("w = (data.groups('train')['sex'] == 1).sum()", Reach.NOTHING),
        (
            "w = images[data.groups('train')[config['by']] == config['group']].mean(0)",
            Reach.NOTHING,
        ),
        ("w = np.bincount(data.groups('train')['sex'] + 1, minlength=3)", Reach.NOTHING),
    ],
)
def test_subgroups_of_images_are_followed_as_labels_are(line: str, expected: Reach) -> None:
    assert reach(line) == expected
    steps = {step.name for leak in flow(line).leaks for step in leak.trace.path}
    assert "data.groups" in steps or expected == Reach.NOTHING
