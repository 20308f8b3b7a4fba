"""What is remembered while the data of a job are followed: objects, attributes, what decides."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from policies.job.flow_values import (
    NO_VALUE,
    NOTHING,
    Cell,
    Definition,
    Key,
    Mark,
    Reach,
    Scope,
    Trace,
    Value,
    join,
    merge,
)

MAXIMUM_EXPRESSIONS = 10_000
"""Expressions that are looked at; a text that needs more is not followed to its end."""
MAXIMUM_DEPTH = 90


class Entangled(Exception):
    """The text has more ways for data than are followed."""


@dataclass(frozen=True, slots=True)
class Event:
    """A place where something other than the result tells of the data."""

    kind: Literal["raise", "print", "time", "fail"]
    trace: Trace
    line: int


class Memory:
    """Everything that outlives one expression."""

    def __init__(self) -> None:
        self.scope = Scope()
        self.attributes: dict[str, Value] = {}
        """Attributes by name alone, whatever object they are set on."""
        self.buffers: set[str] = set()
        """Names of attributes that are part of a model's state."""
        self.gradient = NOTHING
        self.control = NOTHING
        """What decides whether the present statement runs."""
        self.left = NOTHING
        """What decides whether the present pass of a loop goes on, or the loop does."""
        self.gone = NOTHING
        """What decides whether the present function has returned already."""
        self.risk: Trace | None = None
        """What may have failed in the present `try`."""
        self.loops = 0
        self.renewed: set[tuple[int, str]] = set()
        """Names that the present pass of a loop gave a value to: nothing is summed up in them."""
        self.events: list[Event] = []
        self.stack: list[Definition] = []
        self.caller = 0
        self.depth = 0
        self.changes = 0
        self._cells: dict[tuple[int, int], Cell] = {}
        self.made_calls: dict[tuple[int, str], ast.Call] = {}
        """Calls of special methods, which the text does not write out."""
        self._steps = 0

    def spend(self) -> None:
        """Counts one expression."""
        self._steps += 1
        if self._steps > MAXIMUM_EXPRESSIONS or self.depth > MAXIMUM_DEPTH:
            raise Entangled

    def cell(self, node: ast.AST) -> Cell:
        """The object that an expression makes, one for each place that calls the function."""
        return self._cells.setdefault((id(node), self.caller), Cell(number=len(self._cells)))

    @contextmanager
    def decided_by(self, trace: Trace, what: str, line: int) -> Iterator[None]:
        """What is assigned meanwhile tells of the condition."""
        before = self.control
        if trace.is_raw:
            self.control = join(before, trace.at(what, line))
        yield
        self.control = before

    def controlled(self, value: Value) -> Value:
        """A value, and what decides that it is this one."""
        return value.with_own(join(value.own, self.control)) if self.control.reach else value

    def put(self, target: Value, key: Key, value: Value, name: str, line: int) -> None:
        """Puts a value into every object that `target` may be."""
        stored = self.controlled(value).at(name, line)
        if self.loops and stored.own.reach == Reach.EACH:
            stored = stored.with_own(stored.own.up_to(Reach.EVERY))
        for cell in target.cells:
            self.changes += cell.put(key, stored, line)

    def element(self, value: Value) -> Value:
        """What a loop over a value gives in one pass."""
        own = value.own
        if own.reach == Reach.EVERY and own.images_first and Mark.LOOSE not in value.marks:
            own = replace(own, reach=Reach.EACH)
        marks = value.marks & {Mark.LOOSE}
        if Mark.RAMP in value.marks:
            marks |= {Mark.COUNTER}
        found = Value(replace(own, sized=False), frozenset(), value.names, marks=marks)
        for cell in value.cells:
            found = merge(found, cell.at(None))
            if cell.made_by or not cell.parts:
                found = merge(found, Value(cells=frozenset({cell})))
        return found

    def item(self, value: Value, key: Key) -> Value:
        """What stands at a key of an object, with the object when that is not known exactly."""
        found = NO_VALUE
        for cell in value.cells:
            exact = key is not None and key in cell.parts and not cell.made_by
            found = merge(found, cell.at(key))
            if not exact:
                found = merge(found, Value(cells=frozenset({cell})))
        return found
