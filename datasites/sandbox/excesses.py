"""What must end a run, and what must not last: a job's text. `datasites.sandbox.proof` sends it.

Each entry but `leave` and `look` takes as much of something as `config` says, and is ended for it
where the limit holds. `leave` leaves traces in its process and on the disk, and `look` looks for
them in a later run. It imports the standard library, and numpy for an array to return.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MARK = "a-run-was-here"
Result = dict[str, Any]


def _result(examples: int = 0) -> Result:
    return {"weights": {}, "metrics": {}, "examples": examples}


def leave(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Leave traces for a later run: a file, a variable, a changed module, a process."""
    Path(config["scratch"], MARK).touch()
    os.environ[MARK] = MARK
    setattr(json, MARK, MARK)
    if os.fork() == 0:
        os.closerange(0, 64)
        time.sleep(config["sleep_s"])
        os._exit(0)
    return _result()


def look(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Look for what `leave` left; the last line printed is a JSON list."""
    own = {str(os.getpid()), str(os.getppid())}
    found = [
        what
        for what, is_there in (
            ("a file", Path(config["scratch"], MARK).exists()),
            ("a variable", MARK in os.environ),
            ("a changed module", hasattr(json, MARK)),
            ("a process", bool({x for x in os.listdir("/proc") if x.isdigit()} - own)),
        )
        if is_there
    ]
    sys.stdout.write("\n" + json.dumps(found))
    return _result()


def take_memory(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Take `mb` MiB."""
    kept = bytearray(config["mb"] << 20)
    return _result(len(kept) >> 20)


def take_processes(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Have `count` processes at a time."""
    children = []
    for _ in range(config["count"]):
        if (child := os.fork()) == 0:
            time.sleep(1)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return _result(len(children))


def take_time(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Sleep for `seconds`."""
    time.sleep(config["seconds"])
    return _result(1)


def take_cpu(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Compute for `seconds`."""
    end = time.monotonic() + config["seconds"]
    while time.monotonic() < end:
        pass
    return _result(1)


def return_much(data: Any, weights: Any, config: dict[str, Any]) -> Result:
    """Return an array of `mb` MiB."""
    import numpy as np

    return {"weights": {"w": np.zeros(config["mb"] << 20, np.uint8)}, "metrics": {}, "examples": 1}
