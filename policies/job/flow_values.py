"""What the data flow of a job knows of a value: how closely it follows single images, and how.

A `Value` is what an expression may give: the strongest `Trace` of the data in it, the mutable
objects (`Cell`) it may share with other names, and what can be called under its name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, auto
from typing import NamedTuple


class Reach(IntEnum):
    """How closely a value follows single images, from least to most."""

    NOTHING = 0
    MANY = 1
    """A sum, mean or count over many images: what may leave."""
    NOTABLE = 2
    """A table of pixel values, or an extreme: one image may show in it."""
    EVERY = 3
    """Something of every image."""
    EACH = 4
    """Something of one image, another in each pass of a loop."""
    CHOSEN = 5
    """Something of a few images that the text picks."""


class Step(NamedTuple):
    """A place that the data pass on their way: what it is called in the text, and the line."""

    name: str
    line: int


SOURCE = "data.arrays"
"""The step at which data come in, when they have no other name yet."""
GROUPS = "data.groups"
"""The step at which the subgroups of images come in."""
MAXIMUM_STEPS = 8


@dataclass(frozen=True, slots=True)
class Trace:
    """What of the data is in a value, and the way it came."""

    reach: Reach = Reach.NOTHING
    path: tuple[Step, ...] = ()
    pixels: bool = False
    """Pixels that no model has turned into scores."""
    images_first: bool = True
    """The first axis of the array runs over images."""
    sized: bool = False
    """The length is what the data decide, not only the entries."""
    weighted: bool = False
    """Multiplied by the number of a place: what is added up so can be told apart again."""

    @property
    def is_raw(self) -> bool:
        """Whether single images can be read out of the value."""
        return self.reach >= Reach.EVERY

    def at(self, name: str, line: int) -> Trace:
        """The trace after one more step; steps beyond the first few replace the last."""
        if not self.reach or (self.path and self.path[-1].name == name):
            return self
        kept = self.path if len(self.path) < MAXIMUM_STEPS else self.path[:-1]
        if kept == (Step(SOURCE, line),):
            kept = ()
        return replace(self, path=(*kept, Step(name, line)))

    def up_to(self, reach: Reach) -> Trace:
        """The trace with at most this reach."""
        return replace(self, reach=min(self.reach, reach))


NOTHING = Trace()


def join(first: Trace, second: Trace) -> Trace:
    """The stronger of two traces, with the doubts of both; of two equal ones the shorter."""
    if (-second.reach, len(second.path), second.path) < (-first.reach, len(first.path), first.path):
        first, second = second, first
    if not second.is_raw:
        return first
    joined = (
        first.pixels or second.pixels,
        first.images_first and second.images_first,
        first.sized or second.sized,
        first.weighted or second.weighted,
    )
    if joined == (first.pixels, first.images_first, first.sized, first.weighted):
        return first
    return Trace(first.reach, first.path, *joined)


class Mark(Enum):
    """What else matters of a value for the way of the data."""

    LOOSE = auto()
    """A pair or a batch, not an array: its first item is not the first image."""
    PLACE = auto()
    """A number that is fixed while the job runs: an index made of it picks one image."""
    RAMP = auto()
    """0, 1, 2 and so on."""
    COUNTER = auto()
    """The number of a pass of a loop."""
    LIST = auto()
    """A list, set or dictionary: adding to it keeps every item."""
    LOSS = auto()
    """A loss that averages over a batch."""
    PARAMETER = auto()
    """A parameter or buffer of a model: it leaves with the model."""


Key = str | int | None
"""Where a part stands in an object; None where the text does not say."""


@dataclass(eq=False, slots=True)
class Cell:
    """An object that can change: everything that was ever put into it, by key."""

    parts: dict[Key, Value] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)
    made_by: Definition | None = None
    number: int = 0
    """In the order in which the text makes its objects."""

    def put(self, key: Key, value: Value, line: int) -> bool:
        """Adds a part, what was there before stays; says whether the data reach further now."""
        before = self.parts.get(key)
        self.parts[key] = value if before is None else merge(before, value)
        grown = before is None or value.own.reach > before.own.reach
        if grown:
            self.lines[key] = line
        return grown

    def at(self, key: Key) -> Value:
        """What may stand at a key; None stands for any key."""
        if key is None:
            return merge_all(self.parts.values())
        return merge(self.parts.get(key, NO_VALUE), self.parts.get(None, NO_VALUE))


@dataclass(eq=False, slots=True)
class Scope:
    """The names of one call of a function."""

    names: dict[str, Value] = field(default_factory=dict)
    outer: Scope | None = None
    shared: set[str] = field(default_factory=set)
    """Names of an outer scope that are written here."""

    def find(self, name: str) -> Value | None:
        """The value of a name, here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or class of the text, with the names around it."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
    scope: Scope
    bound_to: Value | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression may give."""

    own: Trace = NOTHING
    cells: frozenset[Cell] = frozenset()
    names: frozenset[str] = frozenset()
    """Imported names and builtins, in full: `numpy.load`; the dataset is `data`."""
    definitions: frozenset[Definition] = frozenset()
    marks: frozenset[Mark] = frozenset()

    @property
    def trace(self) -> Trace:
        """The strongest trace in the value and in everything that can be reached from it."""
        strongest, seen, waiting = self.own, set(self.cells), list(self.cells)
        while waiting:
            for part in waiting.pop().parts.values():
                strongest = join(strongest, part.own)
                new = part.cells - seen
                seen |= new
                waiting.extend(new)
        return strongest

    def with_own(self, own: Trace) -> Value:
        """The value with another trace of its own."""
        return replace(self, own=own)

    def marked(self, *marks: Mark) -> Value:
        """The value with these marks as well."""
        return replace(self, marks=self.marks | set(marks))

    def at(self, name: str, line: int) -> Value:
        """The value after one more step."""
        return self.with_own(self.own.at(name, line))


NO_VALUE = Value()


def merge(first: Value, second: Value) -> Value:
    """What is either of two values."""
    if first is second or second == NO_VALUE:
        return first
    return Value(
        join(first.own, second.own),
        first.cells | second.cells,
        first.names | second.names,
        first.definitions | second.definitions,
        first.marks | second.marks,
    )


def merge_all(values: Iterable[Value]) -> Value:
    """What is any of these values."""
    merged = NO_VALUE
    for value in values:
        merged = merge(merged, value)
    return merged


def strongest(traces: Iterable[Trace]) -> Trace:
    """The strongest of these traces, with the doubts of all."""
    joined = NOTHING
    for trace in traces:
        joined = join(joined, trace)
    return joined
