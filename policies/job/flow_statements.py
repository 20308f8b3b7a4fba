"""Where the data go in a statement: assignments, loops, branches, functions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from policies.job.flow_assignments import Assignments
from policies.job.flow_memory import Event
from policies.job.flow_values import (
    NO_VALUE,
    NOTHING,
    Definition,
    Mark,
    Reach,
    Scope,
    Value,
    join,
    merge,
    merge_all,
)

_PASSES = 4
"""Passes of a loop that are followed; in fewer, the data of honest loops have gone everywhere."""


class Statements(Assignments):
    """The rules for statements: `_If` for an `ast.If`, as `_Call` for an `ast.Call`.

    Statements that have no rule (`pass`, `del`, `break`) move no data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.returned: list[Value] = []
        self.yielded: list[Value] = []

    def body(self, definition: Definition, scope: Scope) -> Value:
        """What a function returns when its parameters are the names of `scope`."""
        outer = self.scope, self.returned, self.yielded, self.here, self.left, self.gone
        self.scope, self.returned, self.yielded, self.here = scope, [], [], 0
        self.left = self.gone = NOTHING
        if isinstance(definition.node, ast.Lambda):
            self.returned.append(self.evaluate(definition.node.body))
        else:
            self.run(definition.node.body)
        result = merge_all(self.returned)
        if self.yielded:
            cell = self.cell(definition.node)
            self.changes += cell.put(None, merge_all(self.yielded), definition.node.lineno)
            result = Value(result.own, result.cells | {cell})
        self.scope, self.returned, self.yielded, self.here, self.left, self.gone = outer
        return result

    def run(self, statements: Iterable[ast.stmt]) -> None:
        """Follows the data through statements, one after the other."""
        control = self.control
        for statement in statements:
            self.depth += 1
            # What follows a `continue`, `break` or `return` tells of the condition for it.
            self.control = join(join(control, self.left), self.gone)
            rule: Callable[[Any], None] | None = getattr(self, f"_{type(statement).__name__}", None)
            if rule is not None:
                rule(statement)
            self.depth -= 1
        self.control = control

    def _Continue(self, _node: ast.Continue) -> None:
        if self.control.is_raw:
            self.left = join(self.left, self.control)

    def _Break(self, _node: ast.Break) -> None:
        if self.control.is_raw:
            # The number of passes is that of one image.
            self.left = join(self.left, replace(self.control, reach=Reach.CHOSEN))

    def _Expr(self, node: ast.Expr) -> None:
        trace = self.evaluate(node.value).trace
        acts = isinstance(node.value, ast.Call | ast.Await | ast.Yield | ast.YieldFrom)
        if trace.is_raw and not acts:
            self.events.append(Event("fail", trace, node.lineno))

    def _Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.returned.append(self.controlled(self.evaluate(node.value)))
        if self.control.is_raw:
            self.gone = join(self.gone, self.control)

    def _Yield(self, node: ast.Yield) -> Value:
        if node.value is not None:
            self.yielded.append(self.controlled(self.evaluate(node.value)))
        return NO_VALUE

    def _YieldFrom(self, node: ast.YieldFrom) -> Value:
        self.yielded.append(self.controlled(self.element(self.evaluate(node.value))))
        return NO_VALUE

    def _Raise(self, node: ast.Raise) -> None:
        said = self.evaluate(node.exc).trace if node.exc else NOTHING
        self.events.append(Event("raise", join(self.control, said), node.lineno))

    def _Assert(self, node: ast.Assert) -> None:
        tested = [self.evaluate(part).trace for part in (node.test, node.msg) if part]
        trace = merge_all(Value(trace) for trace in (self.control, *tested)).own
        self.events.append(Event("raise", trace, node.lineno))

    def _If(self, node: ast.If) -> None:
        trace = self.evaluate(node.test).trace
        narrowed = self._narrowed(node.test)
        start = dict(self.scope.names)
        with self.decided_by(trace, "if", node.lineno):
            self.scope.names.update(narrowed)
            self.run(node.body)
            for name, value in narrowed.items():
                if self.scope.names.get(name) is value:
                    self.scope.names[name] = start[name]
            then, self.scope.names = self.scope.names, start
            self.run(node.orelse)
        self._merge_names(then)

    def _narrowed(self, test: ast.expr) -> dict[str, Value]:
        """Names that stand for one chosen image where the number of a pass is given."""
        if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq | ast.In):
            return {}
        if Mark.COUNTER not in self.evaluate(test.left).marks:
            return {}
        narrowed = {}
        for name, value in self.scope.names.items():
            if value.own.reach == Reach.EACH:
                narrowed[name] = value.with_own(replace(value.own, reach=Reach.CHOSEN))
            elif Mark.COUNTER in value.marks:
                narrowed[name] = replace(value, marks=value.marks - {Mark.COUNTER} | {Mark.PLACE})
        return narrowed

    def _merge_names(self, other: dict[str, Value]) -> None:
        for name, value in other.items():
            self.scope.names[name] = merge(self.scope.names.get(name, NO_VALUE), value)

    def _For(self, node: ast.For | ast.AsyncFor) -> None:
        iterable = self.evaluate(node.iter)
        trace = iterable.trace
        decided = trace if trace.sized else NOTHING
        if decided.is_raw:
            self.events.append(Event("time", trace, node.lineno))
        stops = any(isinstance(statement, ast.Break | ast.Return) for statement in node.body)
        with self.decided_by(decided, "for", node.lineno):
            self._repeat(node.body, lambda: self._next(node, stops))
        self.run(node.orelse)

    _AsyncFor = _For

    def _next(self, node: ast.For | ast.AsyncFor, stops: bool) -> None:
        element = self.looped(node.iter)
        if stops and element.own.reach == Reach.EACH:
            element = element.with_own(replace(element.own, reach=Reach.CHOSEN))
        self.assign(node.target, element)

    def _While(self, node: ast.While) -> None:
        trace = self.evaluate(node.test).trace
        if trace.reach >= Reach.EACH:
            self.events.append(Event("time", trace, node.lineno))
        with self.decided_by(trace, "while", node.lineno):
            self._repeat(node.body, lambda: self.evaluate(node.test))
        self.run(node.orelse)

    def _repeat(self, statements: list[ast.stmt], begin: Callable[[], object]) -> None:
        self.loops += 1
        self.here += 1
        renewed, left, self.left = self.renewed, self.left, NOTHING
        for _ in range(_PASSES):
            before, changes, decided = dict(self.scope.names), self.changes, self.left.reach
            self.renewed = set()
            begin()
            self.run(statements)
            self._merge_names(before)
            same = changes == self.changes and decided == self.left.reach
            if same and _shape(before) == _shape(self.scope.names):
                break
        self.renewed, self.left = renewed, left
        self.loops -= 1
        self.here -= 1

    def _With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            value = self.evaluate(item.context_expr)
            value = merge(value, self.special(value, "__enter__", node.lineno))
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        self.run(node.body)

    _AsyncWith = _With

    def _Try(self, node: ast.Try | ast.TryStar) -> None:
        outer, self.risk = self.risk, NOTHING
        start = dict(self.scope.names)
        self.run(node.body)
        risk = self.risk or NOTHING
        self.risk = outer if outer is None else join(outer, risk)
        self.run(node.orelse)
        done, self.scope.names = self.scope.names, start
        for handler in node.handlers:
            with self.decided_by(risk, "except", handler.lineno):
                self.run(handler.body)
        self._merge_names(done)
        self.run(node.finalbody)

    _TryStar = _Try

    def _Match(self, node: ast.Match) -> None:
        subject = self.evaluate(node.subject)
        with self.decided_by(subject.trace, "match", node.lineno):
            start = dict(self.scope.names)
            for case in node.cases:
                after, self.scope.names = self.scope.names, dict(start)
                for pattern in ast.walk(case.pattern):
                    name = getattr(pattern, "name", None) or getattr(pattern, "rest", None)
                    if name:
                        self.bind(name, self.controlled(subject).at(name, node.lineno))
                if case.guard is not None:
                    self.evaluate(case.guard)
                self.run(case.body)
                self._merge_names(after)

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = [self.evaluate(decorator) for decorator in node.decorator_list]
        own = Value(definitions=frozenset({Definition(node, self.scope)}))
        handed = [d for decorator in decorators for d in decorator.definitions]
        for decorator in handed:
            if not isinstance(decorator.node, ast.ClassDef):
                inner = Scope(outer=decorator.scope)
                for argument in decorator.node.args.args[:1]:
                    inner.names[argument.arg] = own
                own = merge(own, self.body(decorator, inner))
        self.bind(node.name, own)

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.ClassDef) -> None:
        definition = Definition(node, self.scope)
        outer, self.scope = self.scope, Scope(outer=self.scope)
        self.run(node.body)
        for name, value in self.scope.names.items():
            if not value.definitions:
                self.attributes[name] = merge(self.attributes.get(name, NO_VALUE), value)
        self.scope = outer
        self.bind(node.name, Value(definitions=frozenset({definition})))

    def _Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.split(".")[0]
            self.bind(alias.asname or name, Value(names=frozenset({name})))

    def _ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            full = f"{node.module or ''}.{alias.name}"
            self.bind(alias.asname or alias.name, Value(names=frozenset({full})))

    def _Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.scope.shared.update(node.names)

    _Nonlocal = _Global


def _shape(names: dict[str, Value]) -> dict[str, tuple[object, ...]]:
    """What of the names decides where the data go; the way they came does not."""
    return {
        name: (
            value.own.reach, value.own.pixels, value.own.images_first, value.own.sized,
            value.own.weighted,
            value.cells, value.names, value.definitions, value.marks,
        )
        for name, value in names.items()
    }  # fmt: skip
