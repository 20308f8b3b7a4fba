"""Where the data of a job flow: what of single images may reach the result, and how.

The text is read like a program whose values are not numbers but traces: `data.arrays(…)` gives
something of every image; a sum or mean over images, a loss or a count leaves something of many;
what a model learned from such a loss is what is meant to leave. Everything else that reaches the
result, a model's parameters or an exception is told, with its way through the text.

It is advice. A reader should know what it does not see; `tests/policies/job_texts/hostile.txt` has
an example of each, marked as missed:
- A model can be trained to repeat its images: a parameter as large as they are, a loss that
  compares it with them, many steps. Only the reader sees what a model is for.
- Sums with weights that were sent, or differences of two honest sums, can be undone.
- Which images a mask, a slice up to an argument or a split into parts picks is not followed: it
  can be one image.
- A library can be made to fail by the data; only `raise`, `assert` and unused values are seen.
- Nothing is computed: branches that are never taken count, and sizes are not known.
- What a library does is known by the name of the operation alone.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from policies.job.flow_calls import DATASET
from policies.job.flow_memory import Entangled, Event
from policies.job.flow_statements import Statements
from policies.job.flow_syntax import spelled_key
from policies.job.flow_values import NOTHING, Cell, Definition, Reach, Scope, Step, Trace, Value

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of single images in the result: where it ends, and the way it came."""

    trace: Trace
    name: str
    line: int

    @property
    def order(self) -> tuple[object, ...]:
        """Of two leaks with one name the greater is told: the closer to images, then the longer."""
        return (self.trace.reach, len(self.trace.path), self.line, self.trace.path)

    @property
    def way(self) -> str:
        """The way in words: `images (line 5) -> x (line 9) -> weights["w"] (line 14)`."""
        path = self.trace.path
        if path and path[-1].name == self.name:
            path = path[:-1]
        return way((*path, Step(self.name, self.line)))


@dataclass(frozen=True, slots=True)
class Flow:
    """What following the data of one job found."""

    leaks: tuple[Leak, ...]
    events: tuple[Event, ...]
    followed: bool = True
    """False for a text that is too entangled to be followed to its end."""


def follow(tree: ast.Module, entry: str) -> Flow:
    """Follows the data from `data.arrays(…)` to whatever the entry function returns."""
    reader = _Reader()
    try:
        leaks = reader.read(tree, entry)
    except (Entangled, RecursionError):
        return Flow((), (), followed=False)
    events = sorted(set(reader.events), key=lambda e: (e.line, e.kind, -e.trace.reach))
    return Flow(tuple(leaks), tuple(events))


def way(path: Sequence[Step]) -> str:
    """Steps in one line; of a long way the middle is left out."""
    steps = [f"{step.name} (line {step.line})" for step in path]
    if len(steps) > _SHOWN:
        steps = [*steps[: _SHOWN // 2], "…", *steps[-(_SHOWN // 2) :]]
    return " -> ".join(steps)


class _Reader(Statements):
    def read(self, tree: ast.Module, entry: str) -> list[Leak]:
        """What of single images the entry function returns."""
        self.run(tree.body)
        found = [
            d
            for d in self.scope.names.get(entry, Value()).definitions
            if isinstance(d.node, ast.FunctionDef)
        ]
        leaks: dict[str, Leak] = {}
        for definition in sorted(found, key=lambda d: d.node.lineno):
            for leak in self._leaks_of(definition):
                known = leaks.setdefault(leak.name, leak)
                if leak.order > known.order:
                    leaks[leak.name] = leak
        return sorted(leaks.values(), key=lambda leak: (leak.line, leak.name))

    def _leaks_of(self, definition: Definition) -> list[Leak]:
        assert not isinstance(definition.node, ast.ClassDef)  # noqa: S101
        scope = Scope(outer=definition.scope)
        arguments = definition.node.args
        for number, argument in enumerate((*arguments.posonlyargs, *arguments.args)):
            value = Value(cells=frozenset({Cell()}), names=frozenset({"config"}))
            if number == 0:
                value = Value(names=frozenset({DATASET}))
            elif number == 1:
                value = Value(cells=frozenset({Cell()}))
            scope.names[argument.arg] = value
        self.stack.append(definition)
        result = self.body(definition, scope)
        return _ends(result, "result", definition.node.lineno, set(), NOTHING)


def _ends(value: Value, name: str, line: int, seen: set[Cell], above: Trace) -> list[Leak]:
    """Every key of a result under which something of single images leaves."""
    leaks = []
    own = value.own
    if own.reach >= Reach.NOTABLE and own.path != above.path:
        last = own.path[-1] if own.path else Step(name, line)
        leaks.append(Leak(own, name, max(line, last.line)))
    for cell in sorted(value.cells - seen, key=lambda c: c.number):
        seen.add(cell)
        for key, part in cell.parts.items():
            below = _below(name, key)
            leaks.extend(_ends(part, below, cell.lines.get(key, line), seen, own))
    return leaks


def _below(name: str, key: str | int | None) -> str:
    if key is None:
        return name
    shown = spelled_key(key)
    if name == "result" and isinstance(key, str):
        return key if key.isidentifier() else f"result[{shown}]"
    return f"{name}[{shown}]"
