"""Sites in processes that a test lets die: one process with warm imports forks one child per act.

A child opens the site on disk as a server does at its start, makes one call, and tells what it
saw. Records, log, ledger, rules and sandbox are the real ones; the cage belongs to the first
process, so that importing torch is paid once and not per fault.
"""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import datasites.open_site
from datasites.config import load_site
from datasites.sandbox.bubblewrap import find_bubblewrap
from datasites.sandbox.cage import Cage, RunFailed
from tests.faults.durable_steps import Fault, Steps
from tests.faults.states import remove


@dataclass(frozen=True, slots=True)
class Act:
    """What a child does.

    Attributes:
        what: Does it, and gives what the child tells; importable, for it goes to another process.
        folder: The site's directory.
        arguments: What else `what` gets.
        fault: What goes wrong.
        at: At which durable step.
        from_opening: Whether the steps of opening the site count, too.
    """

    what: Callable[..., Any]
    folder: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None
    at: int = -1
    from_opening: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        signal: What ended it; 0 when it came to its end.
        told: What it told before, in order.
    """

    signal: int
    told: list[Any]


class SiteProcesses:
    """The process that forks, as the test sees it."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()

    def do(self, act: Act) -> Ended:
        """Let a child act, and wait for its end."""
        self._ours.send(act)
        ended: Ended = self._ours.recv()
        broken = [told for told in ended.told if isinstance(told, str) and "Traceback" in told]
        assert not broken, "\n".join(broken)
        return ended

    def tell(self, act: Act) -> Any:
        """What a child tells that nothing happens to."""
        ended = self.do(act)
        assert ended.signal == 0
        (told,) = ended.told
        return told

    def close(self) -> None:
        """End the process."""
        self._ours.send(None)
        self._process.join(30)
        self._ours.close()


def _serve(orders: Connection) -> None:
    cages: dict[str, Cage] = {}
    copies = Path(tempfile.mkdtemp())
    try:
        while (act := orders.recv()) is not None:
            orders.send(_in_a_child(act, cages, copies))
    finally:
        for cage in cages.values():
            cage.close()
        remove(copies)


def _in_a_child(act: Act, cages: dict[str, Cage], copies: Path) -> Ended:
    ours, theirs = mp.Pipe()
    gc.freeze()  # a collection in a child would copy all that it shares with this process
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            _act(act, theirs)
        except BaseException:
            theirs.send(("told", traceback.format_exc()))
        finally:
            os._exit(0)  # as a crash: nothing is closed that the act did not close
    theirs.close()
    told: list[Any] = []
    while True:
        try:
            what, content = ours.recv()
        except EOFError:
            break
        if what == "told":
            told.append(content)
        else:
            ours.send(_run(cages, copies, *content))
    ours.close()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told)


def _run(cages: dict[str, Cage], copies: Path, dataset: Path, arguments: tuple[Any, ...]) -> Any:
    """A run in the cage of a dataset version, on a copy of it that outlives the site."""
    if dataset.name not in cages:
        shutil.copytree(dataset, copies / dataset.name)
        cages[dataset.name] = Cage(copies / dataset.name, find_bubblewrap(), 1)
    try:
        return cages[dataset.name].run(*arguments)
    except RunFailed as failed:
        return (failed.kind, failed.log)


def _act(act: Act, parent: Connection) -> None:
    class LentCage:
        """Lets the first process carry out the runs of this one."""

        def __init__(self, dataset: Path, *_: Any) -> None:
            self._dataset = dataset

        def start(self) -> None:
            """It is warm."""

        def run(self, *arguments: Any) -> Any:
            parent.send(("run", (self._dataset, arguments)))
            result = parent.recv()
            if isinstance(result, tuple):
                raise RunFailed(*result)
            return result

        def close(self) -> None:
            """It stays for others."""

    datasites.open_site.Cage = LentCage  # type: ignore[misc,assignment]
    site = load_site(act.folder)
    steps = Steps(site.state, act.fault, act.at)
    if act.from_opening:
        steps.watch()

    def tell(content: Any) -> None:
        parent.send(("told", content))

    act.what(site, steps, tell, **act.arguments)
