"""What the data flow reads off the text itself: keys, numbers, narrow slices, short loops."""

from __future__ import annotations

import ast

from policies.job.flow_values import Key

FEW = 10
"""A slice or loop over fewer images than this counts as images that the text picks."""


def key_of(node: ast.expr) -> Key:
    """The key that stands in the text, None when it is computed."""
    if isinstance(node, ast.Constant) and type(node.value) in (str, int):
        return node.value  # type: ignore[return-value]
    return None


def spelled_key(key: Key) -> str:
    """A key as a text spells it."""
    return f'"{key}"' if isinstance(key, str) else "…" if key is None else str(key)


def spelled(node: ast.expr) -> str:
    """A name, its attributes and its constant keys, as the text spells them."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{spelled(node.value)}.{node.attr}"
    if isinstance(node, ast.Subscript):
        key = key_of(node.slice)
        return f"{spelled(node.value)}[{spelled_key(key)}]"
    return "…"


def is_new_axis(node: ast.expr) -> bool:
    """Whether an index puts an axis in front: `None`, `numpy.newaxis`."""
    if isinstance(node, ast.Attribute):
        return node.attr == "newaxis"
    return isinstance(node, ast.Constant) and node.value is None


def is_narrow(node: ast.Slice) -> bool:
    """Whether a slice holds few images, as far as the text says."""
    lower, upper = node.lower, node.upper
    if upper is None:
        start = _number(lower)
        return start is not None and -FEW < start < 0
    if isinstance(upper, ast.BinOp) and isinstance(upper.op, ast.Add) and lower is not None:
        width = _number(upper.right)
        same = ast.dump(upper.left) == ast.dump(lower)
        return same and width is not None and width < FEW
    start, end = _number(lower) if lower else 0, _number(upper)
    return start is not None and end is not None and 0 <= end - start < FEW


def _number(node: ast.expr | None) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _number(node.operand)
        return None if number is None else -number
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def is_short(node: ast.expr) -> bool:
    """Whether a loop runs over few places that stand in the text."""
    if isinstance(node, ast.Tuple | ast.List):
        return all(isinstance(item, ast.Constant) for item in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        numbers = [_number(argument) for argument in node.args]
        return all(n is not None for n in numbers) and _length(numbers) < FEW
    return False


def _length(numbers: list[int | None]) -> int:
    known = [n or 0 for n in numbers]
    if not 1 <= len(known) <= 3 or (len(known) == 3 and known[2] == 0):
        return FEW
    return (
        abs(known[1] - known[0]) // abs(known[2])
        if len(known) == 3
        else abs(known[0] if len(known) == 1 else known[1] - known[0])
    )
