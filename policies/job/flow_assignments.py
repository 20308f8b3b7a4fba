"""Where the data go in an assignment: to names, into objects, onto what is there already."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from policies.job.flow_expressions import Expressions
from policies.job.flow_operations import collected, summed
from policies.job.flow_syntax import key_of, spelled
from policies.job.flow_values import (
    NO_VALUE,
    Mark,
    Reach,
    Trace,
    Value,
    join,
    merge,
)

_IN_PLACE = {"data", "grad", "weight", "bias", "running_mean", "running_var"}
"""Attributes of a parameter or layer that hold its numbers."""


class Assignments(Expressions):
    """The rules for assignments."""

    def __init__(self) -> None:
        super().__init__()
        self.here = 0
        """Loops around the present statement in its own function."""

    def assign(self, target: ast.expr, value: Value) -> None:
        """Gives a value to a name, or puts it into an object."""
        if isinstance(target, ast.Name):
            self.bind(target.id, self.controlled(value).at(target.id, target.lineno))
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target.elts, value)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, value.marked(Mark.LIST))
        elif isinstance(target, ast.Attribute):
            self._set_attribute(target, value)
        elif isinstance(target, ast.Subscript):
            self._set_item(target, value)

    def bind(self, name: str, value: Value) -> None:
        """Gives a value to a name."""
        self.scope.names[name] = value
        scope = self.scope.outer if name in self.scope.shared else None
        while scope is not None:
            scope.names[name] = merge(value, scope.names.get(name, NO_VALUE))
            scope = scope.outer

    def _unpack(self, targets: Sequence[ast.expr], value: Value) -> None:
        known = {key for cell in value.cells for key in cell.parts}
        exact = known == set(range(len(targets))) and not value.own.reach
        starred = any(isinstance(target, ast.Starred) for target in targets)
        for number, target in enumerate(targets):
            if exact and not starred:
                self.assign(target, self.item(value, number))
                continue
            element = self.element(value)
            if element.own.reach == Reach.EACH:
                reach = Reach.CHOSEN if value.own.reach == Reach.EVERY else Reach.EACH
                element = element.with_own(replace(element.own, reach=reach))
            marks = element.marks - {Mark.LOOSE}
            self.assign(target, replace(element, marks=marks))

    def _set_attribute(self, target: ast.Attribute, value: Value) -> None:
        owner, name = self.evaluate(target.value), target.attr
        stored = self.controlled(value).at(spelled(target), target.lineno)
        before = self.attributes.get(name, NO_VALUE)
        self.attributes[name] = merge(before, stored)
        self.changes += stored.own.reach > before.own.reach
        if Mark.PARAMETER in value.marks:
            self.buffers.add(name)
        own_code = any(cell.made_by for cell in owner.cells)
        part_of_state = name in self.buffers | _IN_PLACE or not own_code
        if part_of_state or not (stored.trace.is_raw or Mark.LIST in value.marks):
            self.put(owner, name, value, spelled(target), target.lineno)

    def _set_item(self, target: ast.Subscript, value: Value) -> None:
        owner, index = self.evaluate(target.value), self.evaluate(target.slice)
        if index.trace.is_raw:
            value = value.with_own(join(value.own, index.trace))
        if Mark.COUNTER in index.marks or isinstance(target.slice, ast.Tuple):
            value = collected(value)
        self._store(target, owner, value)

    def _store(self, target: ast.Subscript, owner: Value, value: Value) -> None:
        """Puts a value into an object, or into the name when the object is not known."""
        name, key = spelled(target), key_of(target.slice)
        self.put(owner, key, value, name, target.lineno)
        if isinstance(target.value, ast.Name) and not owner.cells:
            stored = Value(self.controlled(value).at(name, target.lineno).trace)
            self.bind(target.value.id, merge(stored, owner))

    def _Assign(self, node: ast.Assign) -> None:
        value = self.evaluate(node.value)
        if not value.trace.is_raw:
            names = (n for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))
            self.renewed |= {(id(self.scope), n.id) for n in names if isinstance(n.ctx, ast.Store)}
        for target in node.targets:
            self.assign(target, value)

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value))

    def _AugAssign(self, node: ast.AugAssign) -> None:
        target = node.target
        before, added = self.evaluate(target), self.evaluate(node.value)
        own = join(added.trace, self.control)
        adds = isinstance(node.op, ast.Add | ast.Sub)
        if isinstance(target, ast.Subscript):
            own = self._added_at(self.evaluate(target.slice), own, added, adds)
        elif Mark.LIST in before.marks | added.marks:
            own = collected(Value(own)).own
            self.put(before, None, self.element(added), spelled(target), node.lineno)
        elif adds:
            own = summed(own, self._sums_up(target))
        elif self.loops and _shifts(node) and before.own.reach == Reach.MANY:
            own = replace(before.own, reach=Reach.EVERY)
        stored = Value(own.at(spelled(target), node.lineno))
        if isinstance(target, ast.Name):
            self.put(before, None, stored, target.id, node.lineno)
            self.bind(target.id, merge(stored, before))
        elif isinstance(target, ast.Subscript):
            self._store(target, self.evaluate(target.value), stored)
        else:
            self.assign(target, merge(stored, before))

    def _sums_up(self, target: ast.expr) -> bool:
        """Whether what is added to the target in one pass of a loop is there in the next."""
        if isinstance(target, ast.Name):
            return self.here > 0 and (id(self.scope), target.id) not in self.renewed
        return self.loops > 0

    def _added_at(self, index: Value, own: Trace, added: Value, adds: bool) -> Trace:
        """What an entry of a table tells of the images that were added there."""
        if not adds:
            return join(own, index.trace)
        if added.trace.is_raw and Mark.COUNTER in index.marks and not index.trace.is_raw:
            return collected(Value(own)).own
        total = summed(join(own, index.trace), self.loops > 0)
        if index.trace.is_raw and index.trace.pixels and total.reach == Reach.MANY:
            return replace(total, reach=Reach.NOTABLE)
        return total


def _shifts(node: ast.AugAssign) -> bool:
    """Whether an assignment makes room for another number beside the one that is there."""
    if isinstance(node.op, ast.LShift | ast.Pow):
        return True
    factor = node.value.value if isinstance(node.value, ast.Constant) else None
    return isinstance(node.op, ast.Mult) and isinstance(factor, int | float) and factor > 1
