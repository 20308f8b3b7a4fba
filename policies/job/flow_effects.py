"""What a call changes: lists it adds to, arrays it writes into, models it trains."""

from __future__ import annotations

import ast

from policies.job.flow_memory import Event, Memory
from policies.job.flow_operations import (
    CONTAINER_CHANGES,
    SUMMING_CHANGES,
    Arguments,
    collected,
    is_change,
    summed,
)
from policies.job.flow_syntax import key_of, spelled
from policies.job.flow_values import NO_VALUE, Reach, Value, join, merge_all, strongest

_BY_INDEX = ("index_add_", "scatter_add_")
"""Changes that add up by an index, whether in a loop or not."""


class Effects(Memory):
    """The rules for what a call does to the objects that it is given."""

    def change(
        self,
        operation: str,
        receiver: Value,
        callee: Value,
        is_method: bool,
        given: Arguments,
        node: ast.Call,
    ) -> None:
        """Changes that a call makes to objects."""
        line = node.lineno
        if operation == "print":
            self.events.append(Event("print", given.trace, line))
        if operation == "backward" and is_method:
            self.gradient = join(self.gradient, receiver.trace.at("gradient", line))
        if operation == "step" and self.gradient.reach == Reach.CHOSEN:
            target = merge_all((receiver, *given.all))
            self.put(target, None, Value(self.gradient), "step", line)
        if "out" in given.keywords:
            self.put(given.keywords["out"], None, Value(given.trace), "out", line)
        if any(name.endswith(".add.at") for name in callee.names) and given.values:
            self._counted_at(given, line)
        elif is_change(operation):
            self._changed(operation, receiver, is_method, given, node)

    def _counted_at(self, given: Arguments, line: int) -> None:
        target, index, added = (*given.values, NO_VALUE, NO_VALUE)[:3]
        own = index.trace if not added.trace.is_raw else added.trace
        if own.reach == Reach.EVERY and index.trace.is_raw:
            own = own.up_to(Reach.NOTABLE if index.trace.pixels else Reach.MANY)
        self.put(target, None, Value(own), "add.at", line)

    def _changed(
        self, operation: str, receiver: Value, is_method: bool, given: Arguments, node: ast.Call
    ) -> None:
        if is_method:
            target, values = receiver, given.all
        else:
            target, values = merge_all(given.all), given.all[1:]
            if operation == "vector_to_parameters":
                values = given.all
        name = f"{spelled(node.func)}()"
        if operation in CONTAINER_CHANGES:
            for key, value in given.keywords.items():
                self.put(target, key, value, name, node.lineno)
            for value in given.values:
                item = self.element(value) if operation in ("extend", "update") else value
                self.put(target, None, collected(item), name, node.lineno)
            return
        if operation in ("register_buffer", "register_parameter") and node.args:
            self.buffers.add(str(key_of(node.args[0])))
        own = strongest(value.trace for value in values)
        if operation in SUMMING_CHANGES:
            own = summed(own, self.loops > 0 or operation in _BY_INDEX)
        self.put(target, None, Value(own), name, node.lineno)
