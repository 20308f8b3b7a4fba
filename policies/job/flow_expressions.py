"""Where the data go in an expression: indices, operators, containers, comprehensions."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from policies.job.flow_calls import Calls
from policies.job.flow_functions import method_of
from policies.job.flow_operations import (
    FREE_ATTRIBUTES,
    collected,
    multiplied,
)
from policies.job.flow_syntax import FEW, is_narrow, is_new_axis, is_short, key_of
from policies.job.flow_values import (
    NO_VALUE,
    NOTHING,
    Definition,
    Mark,
    Reach,
    Scope,
    Trace,
    Value,
    join,
    merge,
    merge_all,
    strongest,
)

_WEIGHTING = (ast.Mult, ast.Div, ast.FloorDiv, ast.Pow, ast.LShift, ast.Add, ast.Sub, ast.BitOr)
_TRANSPOSED = {"T", "mT", "H", "mH"}
_LONGEST = 100
"""Characters of a dotted name that is followed; libraries have no longer ones."""


class Expressions(Calls):
    """The rules for expressions."""

    def evaluate(self, node: ast.expr) -> Value:
        """What an expression may give."""
        self.spend()
        self.depth += 1
        rule: Callable[[Any], Value] | None = getattr(self, f"_{type(node).__name__}", None)
        value = self._parts(node) if rule is None else rule(node)
        self.depth -= 1
        if self.risk is not None and value.own.reach >= Reach.EACH:
            self.risk = join(self.risk, value.own)
        return value

    @abstractmethod
    def assign(self, target: ast.expr, value: Value) -> None:
        """Gives a value to a name, or puts it into an object; `Assignments` does it."""

    def attribute(self, value: Value, name: str, line: int) -> Value:
        """What an attribute of a value may be."""
        trace = value.trace
        names = frozenset(f"{known}.{name}" for known in value.names if len(known) < _LONGEST)
        if name in FREE_ATTRIBUTES:
            own = trace if trace.sized else trace.up_to(Reach.NOTHING)
            return Value(own, names=names, marks=frozenset({Mark.LOOSE}))
        if name == "grad":
            return Value(join(trace, self.gradient), value.cells, names)
        own = value.own
        if name in _TRANSPOSED:
            own = replace(own, images_first=not own.images_first)
        known = self.attributes.get(name)
        if known is not None:
            apart = known.cells and name not in self.buffers
            found = merge(known, Value(own, frozenset() if apart else value.cells, names))
        else:
            found = Value(own, value.cells, names, marks=value.marks & {Mark.LIST})
        methods = (method_of(cell, name) for cell in value.cells)
        bound = {replace(method, bound_to=value) for method in methods if method is not None}
        if any(_is_property(method) for method in bound):
            return merge(found, self.special(value, name, line))
        return replace(found, definitions=found.definitions | bound) if bound else found

    def _parts(self, node: ast.expr) -> Value:
        """The rule for expressions that have none of their own."""
        return merge_all(
            Value(self.evaluate(child).trace)
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.expr)
        )

    def _Constant(self, node: ast.Constant) -> Value:
        return Value(marks=frozenset({Mark.PLACE})) if type(node.value) is int else NO_VALUE

    def _Name(self, node: ast.Name) -> Value:
        found = self.scope.find(node.id)
        return Value(names=frozenset({node.id})) if found is None else found

    def _NamedExpr(self, node: ast.NamedExpr) -> Value:
        value = self.evaluate(node.value)
        self.assign(node.target, value)
        return value

    def _Attribute(self, node: ast.Attribute) -> Value:
        return self.attribute(self.evaluate(node.value), node.attr, node.lineno)

    def _Call(self, node: ast.Call) -> Value:
        return self.call(node)

    def _Subscript(self, node: ast.Subscript) -> Value:
        value, index = self.evaluate(node.value), self.evaluate(node.slice)
        key = key_of(node.slice)
        item = self.item(value, key)
        item = merge(item, self.special(value, "__getitem__", node.lineno, index))
        own = _picked(value, node.slice, index, self._first_index(node.slice, index))
        if index.trace.is_raw:
            index_trace = index.trace
            if index_trace.reach >= Reach.EACH:
                index_trace = replace(index_trace, sized=True)
            own = join(own, index_trace)
        marks = frozenset({Mark.PLACE}) if "config" in value.names else item.marks
        marks |= value.marks & {Mark.RAMP}
        if Mark.LOOSE in value.marks and key is None:
            marks |= {Mark.LOOSE}
        return merge(Value(own, marks=marks), item)

    def _first_index(self, node: ast.expr, index: Value) -> Value:
        """The index along the first axis."""
        if isinstance(node, ast.Tuple) and node.elts:
            return self.evaluate(node.elts[0])
        return index

    def _Slice(self, node: ast.Slice) -> Value:
        bounds = [part for part in (node.lower, node.upper, node.step) if part]
        return Value(strongest(self.evaluate(bound).trace for bound in bounds))

    def _Starred(self, node: ast.Starred) -> Value:
        return self.evaluate(node.value)

    def _Lambda(self, node: ast.Lambda) -> Value:
        return Value(definitions=frozenset({Definition(node, self.scope)}))

    def _BinOp(self, node: ast.BinOp) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        return self.combined(node.op, left, right)

    def combined(self, operator: ast.operator, left: Value, right: Value) -> Value:
        """What an operator makes of two values."""
        first, second = left.trace, right.trace
        if isinstance(operator, ast.MatMult):
            return Value(multiplied(first, second, not first.images_first))
        marks = (left.marks | right.marks) & {Mark.LIST, Mark.RAMP, Mark.COUNTER}
        places = {Mark.RAMP, Mark.COUNTER}
        own = join(first, second)
        if own.is_raw:
            if marks & places and isinstance(operator, _WEIGHTING):
                own = replace(own, weighted=True)
            marks -= places
        elif Mark.PLACE in left.marks & right.marks:
            marks |= {Mark.PLACE}
        if isinstance(operator, ast.Mult) and Mark.LIST in marks and own.is_raw:
            own = replace(own, sized=True)
        cells = left.cells | right.cells if Mark.LIST in marks else frozenset()
        return Value(own, cells, marks=frozenset(marks))

    def _UnaryOp(self, node: ast.UnaryOp) -> Value:
        value = self.evaluate(node.operand)
        return Value(value.trace, marks=value.marks - {Mark.LIST})

    def _BoolOp(self, node: ast.BoolOp) -> Value:
        values = [self.evaluate(value) for value in node.values]
        return merge(merge_all(values), Value(strongest(value.trace for value in values)))

    def _Compare(self, node: ast.Compare) -> Value:
        sides = [self.evaluate(side) for side in (node.left, *node.comparators)]
        if all(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops):
            return NO_VALUE
        return Value(strongest(side.trace for side in sides))

    def _IfExp(self, node: ast.IfExp) -> Value:
        test = self.evaluate(node.test).trace
        with self.decided_by(test, "if", node.lineno):
            values = [self.controlled(self.evaluate(part)) for part in (node.body, node.orelse)]
        return merge_all(values)

    def _Dict(self, node: ast.Dict) -> Value:
        cell = self.cell(node)
        own = NOTHING
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.evaluate(item)
            if key is None:
                for other in value.cells:
                    for name, part in other.parts.items():
                        self.changes += cell.put(name, part, node.lineno)
                cell.put(None, Value(value.own, value.cells), item.lineno)
                continue
            own = join(own, self.evaluate(key).trace)
            self.changes += cell.put(key_of(key), collected(self.controlled(value)), item.lineno)
        return Value(own, frozenset({cell}), marks=frozenset({Mark.LIST}))

    def _Tuple(self, node: ast.Tuple) -> Value:
        return self._items(node, node.elts)

    def _List(self, node: ast.List) -> Value:
        return self._items(node, node.elts, row_by_row=True)

    def _Set(self, node: ast.Set) -> Value:
        return self._items(node, node.elts)

    def _items(self, node: ast.expr, items: list[ast.expr], row_by_row: bool = False) -> Value:
        """A display; in a list of arrays the first axis runs over the arrays, not over images."""
        cell = self.cell(node)
        spread = any(isinstance(item, ast.Starred) for item in items)
        for number, item in enumerate(items):
            value = self.evaluate(item)
            if isinstance(item, ast.Starred):
                value = self.element(value)
            if row_by_row and value.own.reach == Reach.EVERY:
                value = value.with_own(replace(value.own, images_first=False))
            self.changes += cell.put(None if spread else number, value, item.lineno)
        few = 0 < len(items) < FEW and all(Mark.PLACE in v.marks for v in cell.parts.values())
        marks = frozenset({Mark.LIST, Mark.PLACE} if few and row_by_row else {Mark.LIST})
        return Value(cells=frozenset({cell}), marks=marks)

    def _ListComp(self, node: ast.ListComp) -> Value:
        return self._comprehended(node, node.generators, None, node.elt)

    def _SetComp(self, node: ast.SetComp) -> Value:
        return self._comprehended(node, node.generators, None, node.elt)

    def _GeneratorExp(self, node: ast.GeneratorExp) -> Value:
        return self._comprehended(node, node.generators, None, node.elt)

    def _DictComp(self, node: ast.DictComp) -> Value:
        return self._comprehended(node, node.generators, node.key, node.value)

    def _comprehended(
        self,
        node: ast.expr,
        generators: list[ast.comprehension],
        key: ast.expr | None,
        item: ast.expr,
    ) -> Value:
        outer, before, loops = self.scope, self.control, self.loops
        self.scope = Scope(outer=outer)
        self.loops += 1
        for generator in generators:
            self.assign(generator.target, self.looped(generator.iter))
            for condition in generator.ifs:
                trace = self.evaluate(condition).trace
                if trace.is_raw:
                    self.control = join(self.control, trace.at("if", condition.lineno))
        own = self.evaluate(key).trace if key else NOTHING
        value = collected(self.controlled(self.evaluate(item)))
        own = collected(Value(own)).own
        self.scope, self.control, self.loops = outer, before, loops
        cell = self.cell(node)
        self.changes += cell.put(None, value, item.lineno)
        return Value(own, frozenset({cell}), marks=frozenset({Mark.LIST}))

    def looped(self, iterable: ast.expr) -> Value:
        """What a loop gives in one pass; a loop over a few numbers picks images."""
        element = self.element(self.evaluate(iterable))
        if is_short(iterable):
            marks = (element.marks - {Mark.COUNTER}) | {Mark.PLACE}
            element = replace(element, marks=marks)
            if element.own.reach == Reach.EACH:
                element = element.with_own(replace(element.own, reach=Reach.CHOSEN))
        return element


def _picked(value: Value, node: ast.expr, index: Value, first: Value) -> Trace:
    """What of an array an index picks: every image, one per pass, or chosen ones."""
    own = value.own
    outermost = node.elts[0] if isinstance(node, ast.Tuple) and node.elts else node
    if own.is_raw and is_new_axis(outermost):
        return replace(own, images_first=False)
    if own.reach not in (Reach.EVERY, Reach.EACH) or not own.images_first:
        return own
    if Mark.LOOSE in value.marks and not isinstance(node, ast.Tuple):
        return own
    if isinstance(outermost, ast.Slice):
        return replace(own, reach=Reach.CHOSEN) if is_narrow(outermost) else own
    if own.reach == Reach.EACH:
        return own
    if Mark.COUNTER in first.marks and not first.own.reach:
        return replace(own, reach=Reach.EACH)
    if Mark.PLACE in first.marks:
        return replace(own, reach=Reach.CHOSEN)
    return own


def _is_property(method: Definition) -> bool:
    decorators = getattr(method.node, "decorator_list", [])
    return any(getattr(d, "id", getattr(d, "attr", "")).endswith("property") for d in decorators)
