"""Where the data go in a function or class of the text: its parameters, `self`, its result."""

from __future__ import annotations

import ast
from abc import abstractmethod

from policies.job.flow_effects import Effects
from policies.job.flow_operations import Arguments
from policies.job.flow_values import (
    NO_VALUE,
    Cell,
    Definition,
    Mark,
    Scope,
    Value,
    merge,
    merge_all,
)

MAXIMUM_CALLS = 8
"""Calls within calls that are followed."""


class Functions(Effects):
    """The rules for what a text defines; expressions and bodies are read by classes below this."""

    @abstractmethod
    def evaluate(self, node: ast.expr) -> Value:
        """What an expression may give."""

    @abstractmethod
    def body(self, definition: Definition, scope: Scope) -> Value:
        """What a function returns when its parameters are the names of `scope`."""

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
            method = method_of(cell, name)
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
        lines = [cell.made_by.node.lineno for cell in value.cells if cell.made_by]
        if lines:
            line = min(lines)
            batched = Mark.LOOSE in value.marks
            number = Value(marks=frozenset() if batched else frozenset({Mark.COUNTER}))
            items = self.special(value, "__getitem__", line, number)
            every = super().element(self.special(value, "__iter__", line))
            found = merge_all((found, items, every, self.special(value, "__next__", line)))
        return found

    def _instance(self, definition: Definition, given: Arguments, line: int) -> Value:
        cell = self.cell(given.node)
        cell.made_by = definition
        made = Value(cells=frozenset({cell}))
        start = method_of(cell, "__init__")
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


def method_of(cell: Cell, name: str) -> Definition | None:
    """The method that the text defines for an object."""
    if cell.made_by is None or not isinstance(cell.made_by.node, ast.ClassDef):
        return None
    for statement in cell.made_by.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return Definition(statement, cell.made_by.scope)
    return None
