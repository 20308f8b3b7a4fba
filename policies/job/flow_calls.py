"""Where the data go in a call: into a function of the text, a model, a loss, a list."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import replace

from policies.job.flow_functions import Functions, method_of
from policies.job.flow_operations import (
    CALLERS,
    EXTREMES,
    FREE,
    LOSSES,
    REDUCING,
    SIZES,
    TABLES,
    Arguments,
    apply,
    averaged,
    collected,
    multiplied,
)
from policies.job.flow_syntax import is_narrow, key_of
from policies.job.flow_values import (
    GROUPS,
    NO_VALUE,
    SOURCE,
    Cell,
    Definition,
    Mark,
    Reach,
    Step,
    Trace,
    Value,
    join,
    merge,
    merge_all,
)

DATASET = "data"
_SAME = {"list", "tuple", "sorted", "reversed", "iter", "set", "frozenset", "tqdm"}
_NUMBERS = {"int", "float", "bool", "str", "round", "item", "tolist", "abs"}
_PRODUCTS = {"dot", "matmul", "mm", "addmm", "vdot", "inner"}
_COPIES = {"array", "copy", "clone", "deepcopy", "zeros", "ones", "full", "empty", "astype"}


class Calls(Functions):
    """The rules for calls."""

    @abstractmethod
    def attribute(self, value: Value, name: str, line: int) -> Value:
        """What an attribute of a value may be."""

    def call(self, node: ast.Call) -> Value:
        """What a call gives, after its effects on what it was given."""
        if isinstance(node.func, ast.Attribute):
            receiver, operation = self.evaluate(node.func.value), node.func.attr
            callee = self.attribute(receiver, operation, node.lineno)
            is_method = not receiver.names or DATASET in receiver.names
        else:
            receiver, callee, is_method = NO_VALUE, self.evaluate(node.func), False
            operation = min((n.rsplit(".", 1)[-1] for n in callee.names), default="")
        given = self._arguments(node)
        source = self._source(node, callee.names)
        others = {name for name in callee.names if not name.startswith(f"{DATASET}.")}
        if callee.names and not others and not callee.definitions:
            return source  # or the hospital's own trainer, or the card
        own_code = self._own_code(callee, given, node)
        if own_code is not None:
            return merge(source, own_code)
        if not callee.names and not is_method:
            return self._model(callee, given, node)
        found = self._container(operation, receiver, is_method, given, node)
        if found is None:
            found = self._operation(operation, receiver, callee, is_method, given, node)
        return merge(source, found)

    def _arguments(self, node: ast.Call) -> Arguments:
        values = tuple(self.evaluate(argument) for argument in node.args)
        keywords = {k.arg or "**": self.evaluate(k.value) for k in node.keywords}
        return Arguments(node, values, keywords)

    def _source(self, node: ast.Call, names: Collection[str]) -> Value:
        """What the dataset gives: images and labels, or of each attribute the places of values."""
        if GROUPS in names:
            cell = self.cell(node)
            cell.put(None, Value(Trace(Reach.EVERY, (Step(GROUPS, node.lineno),))), node.lineno)
            return Value(cells=frozenset({cell}))
        if SOURCE not in names:
            return NO_VALUE
        start = (Step(SOURCE, node.lineno),)
        images = Value(Trace(Reach.EVERY, start, pixels=True))
        labels = Value(Trace(Reach.EVERY, start))
        cell = self.cell(node)
        cell.put(0, images, node.lineno)
        cell.put(1, labels, node.lineno)
        return Value(cells=frozenset({cell}), marks=frozenset({Mark.LOOSE}))

    def _own_code(self, callee: Value, given: Arguments, node: ast.Call) -> Value | None:
        """What functions and methods of the text give, None when nothing else may be called."""
        results = [self.enter(d, d.bound_to, given, node.lineno) for d in _in_order(callee)]
        others = {name for name in callee.names if not name.startswith(f"{DATASET}.")}
        return merge_all(results) if results and not others else None

    def _model(self, callee: Value, given: Arguments, node: ast.Call) -> Value:
        """What an object gives that is called: a model's scores, a loss."""
        for cell in _reachable(callee):
            method = method_of(cell, "forward") or method_of(cell, "__call__")
            if method is not None:
                self.enter(method, Value(cells=frozenset({cell})), given, node.lineno)
        own = join(callee.trace, given.trace)
        if Mark.LOSS in callee.marks:
            return Value(averaged(own, given))
        return Value(replace(own, pixels=False, weighted=False), marks=frozenset({Mark.LOOSE}))

    def _container(
        self, operation: str, receiver: Value, is_method: bool, given: Arguments, node: ast.Call
    ) -> Value | None:
        """What an operation on lists and dictionaries gives, None for other operations."""
        subject = receiver if is_method else (given.values or (NO_VALUE,))[0]
        cell = self.cell(node)
        if operation in _SAME and not is_method:
            if any(made.made_by for made in subject.cells):
                cell.put(None, self.element(subject), node.lineno)
                return Value(cells=frozenset({cell}), marks=frozenset({Mark.LIST}))
            return subject.marked(Mark.LIST) if operation != "iter" else subject
        if operation == "next" and not is_method:
            item = self.element(subject)
            chosen = replace(item.own, reach=Reach.CHOSEN)
            return item.with_own(chosen) if item.own.reach == Reach.EACH else item
        if operation in ("zip", "enumerate", "items"):
            pair = Cell()
            if operation == "zip":
                columns = [self.element(value) for value in given.values]
            else:
                columns = [Value(marks=frozenset({Mark.COUNTER})), self.element(subject)]
            for key, column in enumerate(columns):
                pair.put(key, column, node.lineno)
            cell.parts[None] = Value(cells=frozenset({pair}))
            return Value(cells=frozenset({cell}))
        if operation == "dict" and not is_method:
            for name, value in given.keywords.items():
                cell.put(None if name == "**" else name, value, node.lineno)
            for value in given.values:
                cell.put(None, self.element(value), node.lineno)
            return Value(cells=frozenset({cell}), marks=frozenset({Mark.LIST}))
        if operation in ("get", "pop", "popitem", "popleft") and is_method and subject.cells:
            wanted = key_of(node.args[0]) if node.args else None
            fallback = merge_all(given.values[1:])
            return merge(merge(self.item(subject, wanted), fallback), Value(subject.own))
        if operation in ("pop", "popleft") and is_method and subject.own.reach == Reach.EVERY:
            return subject.with_own(replace(subject.own, reach=Reach.CHOSEN))
        if operation == "slice" and not is_method:
            bounds = ast.Slice(*([None] if len(node.args) == 1 else []), *node.args[:3])
            place = frozenset({Mark.PLACE}) if is_narrow(bounds) else frozenset()
            return Value(given.trace, marks=place)
        return None

    def _operation(
        self,
        operation: str,
        receiver: Value,
        callee: Value,
        is_method: bool,
        given: Arguments,
        node: ast.Call,
    ) -> Value:
        """What an operation of a library gives."""
        subject = receiver if is_method else (given.values or (NO_VALUE,))[0]
        called = self._called_back(operation, receiver, given, node)
        self.change(operation, receiver, callee, is_method, given, node)
        if operation in _PRODUCTS and (sides := _sides(receiver, is_method, given)):
            left, right = (side.trace for side in sides)
            return Value(multiplied(left, right, not left.images_first))
        result = apply(operation, subject, is_method, given)
        if is_method and given.trace.is_raw and not receiver.trace.is_raw:
            result = result.with_own(replace(result.own, pixels=False)).marked(Mark.LOOSE)
        result = merge(result, called)
        if operation.endswith("Loss") and averaged(_EVERY, given).reach == Reach.MANY:
            result = result.marked(Mark.LOSS)
        if operation in ("Parameter", "Buffer"):
            result = result.marked(Mark.PARAMETER)
        return replace(result, cells=result.cells | self._shared(operation, subject, given, node))

    def _shared(
        self, operation: str, subject: Value, given: Arguments, node: ast.Call
    ) -> frozenset[Cell]:
        """The objects that a result may be, or share memory with."""
        plain = REDUCING | EXTREMES | TABLES | LOSSES | SIZES | FREE | _NUMBERS
        if operation in plain:
            return frozenset()
        fresh = frozenset({self.cell(node)})
        if operation in _COPIES:
            return fresh
        if given.trace.is_raw:
            subject = NO_VALUE
        return fresh | merge_all((subject, *given.all)).cells

    def _called_back(
        self, operation: str, receiver: Value, given: Arguments, node: ast.Call
    ) -> Value:
        """What functions give that are handed over to be called."""
        functions = [d for value in given.all for d in _in_order(value)]
        if not functions:
            return NO_VALUE
        handed = merge_all(
            self.element(value) if operation in CALLERS else value
            for value in (receiver, *given.all)
            if not value.definitions
        )
        if "hook" in operation:
            step = Step(operation, node.lineno)
            handed = merge(handed, Value(Trace(Reach.EVERY, (step,))))
        every = Arguments(node, (), {"**": handed})
        return collected(merge_all(self.enter(d, None, every, node.lineno) for d in functions))


_EVERY = Trace(Reach.EVERY)


def _sides(receiver: Value, is_method: bool, given: Arguments) -> tuple[Value, ...] | None:
    sides = (receiver, *given.values) if is_method else given.values
    return sides[-2:] if len(sides) >= 2 else None


def _reachable(value: Value) -> Iterable[Cell]:
    seen, waiting = set(value.cells), list(value.cells)
    while waiting:
        cell = waiting.pop()
        for part in cell.parts.values():
            waiting.extend(part.cells - seen)
            seen |= part.cells
    # In the order of the text, so that the same text is always told in the same words.
    return sorted(seen, key=lambda c: c.number)


def _in_order(value: Value) -> list[Definition]:
    return sorted(value.definitions, key=lambda d: (d.node.lineno, d.node.col_offset))
