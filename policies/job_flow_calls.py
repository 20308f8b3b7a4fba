"""Where the data go in a call: into a function of the text, a model, a loss, a list."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace

from policies.job_flow_effects import Effects
from policies.job_flow_operations import (
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
from policies.job_flow_syntax import is_narrow, key_of
from policies.job_flow_values import (
    NO_VALUE,
    SOURCE,
    Cell,
    Definition,
    Mark,
    Reach,
    Scope,
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
MAXIMUM_CALLS = 8
"""Calls within calls that are followed."""


class Calls(Effects):
    """The rules for calls; expressions and bodies are read by the classes below this one."""

    @abstractmethod
    def evaluate(self, node: ast.expr) -> Value:
        """What an expression may give."""

    @abstractmethod
    def body(self, definition: Definition, scope: Scope) -> Value:
        """What a function returns when its parameters are the names of `scope`."""

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
        source = self._source(node) if f"{DATASET}.arrays" in callee.names else NO_VALUE
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

    @abstractmethod
    def attribute(self, value: Value, name: str, line: int) -> Value:
        """What an attribute of a value may be."""

    def enter(
        self, definition: Definition, first: Value | None, given: Arguments, line: int
    ) -> Value:
        """What a function or class of the text gives for these arguments."""
        if isinstance(definition.node, ast.ClassDef):
            return self._instance(definition, given, line)
        known = sum(entered.node is definition.node for entered in self.stack)
        if known > 1 or len(self.stack) >= MAXIMUM_CALLS:
            return Value(given.trace, merge_all(given.all).cells)
        caller = self.caller
        self.caller = hash((id(given.node), caller))
        self.stack.append(definition)
        result = self.body(definition, self._bound(definition, first, given, line))
        self.stack.pop()
        self.caller = caller
        return result

    def special(self, value: Value, name: str, line: int, *arguments: Value) -> Value:
        """What a special method gives, when the text defines it for this object."""
        found = NO_VALUE
        for cell in sorted(value.cells, key=lambda c: c.number):
            method = _method(cell, name)
            if method is not None:
                call = self.made_calls.setdefault(
                    (cell.number, name),
                    ast.Call(ast.Name(name, ast.Load()), [], [], lineno=line, col_offset=0),
                )
                owner = Value(cells=frozenset({cell}))
                found = merge(
                    found, self.enter(method, owner, Arguments(call, arguments, {}), line)
                )
        return found

    def element(self, value: Value) -> Value:
        """What a loop over a value gives in one pass, objects of the text included."""
        found = super().element(value)
        if any(cell.made_by for cell in value.cells):
            batched = Mark.LOOSE in value.marks
            number = Value(marks=frozenset() if batched else frozenset({Mark.COUNTER}))
            items = self.special(value, "__getitem__", 0, number)
            every = super().element(self.special(value, "__iter__", 0))
            found = merge_all((found, items, every, self.special(value, "__next__", 0)))
        return found

    def _arguments(self, node: ast.Call) -> Arguments:
        values = tuple(self.evaluate(argument) for argument in node.args)
        keywords = {k.arg or "**": self.evaluate(k.value) for k in node.keywords}
        return Arguments(node, values, keywords)

    def _source(self, node: ast.Call) -> Value:
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
            method = _method(cell, "forward") or _method(cell, "__call__")
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

    def _instance(self, definition: Definition, given: Arguments, line: int) -> Value:
        cell = self.cell(given.node)
        cell.made_by = definition
        made = Value(cells=frozenset({cell}))
        start = _method(cell, "__init__")
        if start is not None:
            self.enter(start, made, given, line)
        elif given.all:
            self.put(made, None, Value(given.trace), "object", line)
        return made

    def _bound(
        self, definition: Definition, first: Value | None, given: Arguments, line: int
    ) -> Scope:
        """The names of a function's parameters, with what the call gives for them."""
        assert not isinstance(definition.node, ast.ClassDef)  # noqa: S101
        parameters = definition.node.args
        function = getattr(definition.node, "name", "lambda")
        scope = Scope(outer=definition.scope)
        positional = [a.arg for a in (*parameters.posonlyargs, *parameters.args)]
        values = [*([first] if first is not None else []), *given.values]
        if "**" in given.keywords or any(isinstance(a, ast.Starred) for a in given.node.args):
            everything = merge_all(self.element(v) for v in given.all if v.cells or v.own.reach)
            values += [merge(everything, merge_all(given.all))] * (len(positional) - len(values))
        before, self.scope = self.scope, definition.scope
        caller, self.caller = self.caller, 0  # defaults are made once, not at each call
        names = positional[len(positional) - len(parameters.defaults) :] if positional else []
        for name, default in zip(names, parameters.defaults, strict=False):
            scope.names[name] = self.evaluate(default)
        for argument, optional in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True):
            scope.names[argument.arg] = self.evaluate(optional) if optional else NO_VALUE
        self.scope, self.caller = before, caller
        named = {k: v for k, v in given.keywords.items() if k != "**"}
        rest = merge_all((*values[len(positional) :], *named.values()))
        for name, value in (*zip(positional, values, strict=False), *named.items()):
            scope.names[name] = value.at(f"{function}({name})", line)
        for name in positional:
            scope.names.setdefault(name, NO_VALUE)
        for extra in (parameters.vararg, parameters.kwarg):
            if extra:
                cell = Cell({None: rest}, {None: line})
                scope.names[extra.arg] = Value(rest.own, frozenset({cell}))
        return scope


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


def _method(cell: Cell, name: str) -> Definition | None:
    if cell.made_by is None or not isinstance(cell.made_by.node, ast.ClassDef):
        return None
    for statement in cell.made_by.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return Definition(statement, cell.made_by.scope)
    return None
