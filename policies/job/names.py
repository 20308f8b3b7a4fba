"""What the names of a text stand for: imports, builtins, and other names given to them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

_PASSES = 10
"""Names given to names given to names: how many times in a row are followed."""
_MEANINGS = 6
"""Meanings of one name that are kept; an honest name has one."""
_PARTS = 12
"""Dots in a name that was given to another; `a = a.b` would go on for ever."""


class Names:
    """Every dotted name that a name or a chain of attributes of a text may stand for.

    Which function a name belongs to is not told apart: a name stands for everything that is
    given to it anywhere, so that nothing harmless hides something else.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._known: dict[str, set[str]] = defaultdict(set)
        nodes = list(ast.walk(tree))
        for node in nodes:
            if isinstance(node, ast.Import):
                for a in node.names:
                    first = a.name.split(".")[0]
                    self._known[a.asname or first].add(a.name if a.asname else first)
            elif isinstance(node, ast.ImportFrom):
                for a in node.names:
                    self._known[a.asname or a.name].add(f"{node.module}.{a.name}")
        self.imported = frozenset(self._known)
        """Names that an import binds."""
        self.modules = frozenset(t.split(".")[0] for ts in self._known.values() for t in ts)
        """The top-level modules that are imported."""
        self.tangled = False
        """Some name has more meanings than are kept."""
        given = [pair for node in nodes for pair in _given(node)]
        for _ in range(_PASSES):
            if not sum(self._give(name, value) for name, value in given):
                break

    def _give(self, name: str, value: ast.expr) -> bool:
        """Adds the meanings of a value to a name; says whether any was new."""
        known = self._known[name]
        imported = {full for full in self.of(value) if full.split(".")[0] in self.modules}
        new = imported - known
        if len(known) + len(new) > _MEANINGS or any(n.count(".") > _PARTS for n in new):
            self.tangled = True
        if self.tangled:
            return False
        known |= new
        return bool(new)

    def of(self, node: ast.AST) -> set[str]:
        """What a name or a chain of attributes may stand for; empty for other nodes."""
        below: list[str] = []
        while isinstance(node, ast.Attribute):
            below.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            roots = set(self._known.get(node.id) or {node.id})
            if node.id not in self.imported:
                roots.add(node.id)
        else:
            roots = {"?"} if below else set()
        return {".".join([root, *reversed(below)]) for root in roots}


def _given(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names, and the names or attributes that a statement gives to them."""
    pairs: list[tuple[ast.expr, ast.expr | None]] = []
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.For | ast.comprehension) and isinstance(
        node.iter, ast.Tuple | ast.List
    ):
        pairs = [(node.target, item) for item in node.iter.elts]
    elif isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        names = positional[len(positional) - len(arguments.defaults) :]
        defaults = [*zip(names, arguments.defaults, strict=True)]
        defaults += [
            (a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d
        ]
        yield from ((a.arg, d) for a, d in defaults if isinstance(d, ast.Name | ast.Attribute))
    while pairs:
        target, value = pairs.pop()
        if isinstance(target, ast.Name) and isinstance(value, ast.Name | ast.Attribute):
            yield target.id, value
        elif (
            isinstance(target, ast.Tuple | ast.List)
            and isinstance(value, ast.Tuple | ast.List)
            and len(target.elts) == len(value.elts)
        ):
            pairs.extend(zip(target.elts, value.elts, strict=True))
