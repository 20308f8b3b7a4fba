"""Ask several sites at one time, in threads that nobody has to wait for when the user stops."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

Answer = TypeVar("Answer")

LOOK_S = 0.5


def start(work: Callable[[], object]) -> None:
    """Let something go on in a thread that ends with the program; it must not raise.

    Not a `threading.Thread`: starting one waits for it, and Ctrl-C in that moment is an error of
    the lock that it waits on (CPython 3.11).
    """
    _thread.start_new_thread(work, ())


def ask_all(names: Iterable[str], ask: Callable[[str], Answer]) -> dict[str, Answer]:
    """The answer of each, in the order of the names.

    Raises:
        Exception: What `ask` raised for the first name for which it did.
    """
    wanted = list(names)
    found, failed = ask_each(wanted, ask)
    for name in wanted:
        if name in failed:
            raise failed[name]
    return {name: found[name] for name in wanted}


def ask_each(
    names: Iterable[str], ask: Callable[[str], Answer]
) -> tuple[dict[str, Answer], dict[str, Exception]]:
    """The answers, and for the names that have none what was raised."""
    news: SimpleQueue[tuple[str, Callable[[], Answer]]] = SimpleQueue()

    def work(name: str) -> None:
        try:
            answer = ask(name)
        except BaseException as raised:
            error = raised  # kept past the block

            def fail() -> Answer:
                raise error

            news.put((name, fail))
        else:
            news.put((name, lambda: answer))

    waiting = set(names)
    for name in waiting:
        start(partial(work, name))
    found: dict[str, Answer] = {}
    failed: dict[str, Exception] = {}
    while waiting:
        try:
            name, give = news.get(timeout=LOOK_S)
        except Empty:
            continue
        waiting.remove(name)
        try:
            found[name] = give()
        except Exception as error:
            failed[name] = error
    return found, failed
