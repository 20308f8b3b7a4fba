"""The program of the cage that has the images and no foreign code: the hospital's own trainer.

It is started and spoken to as `datasites.sandbox.worker` is. A request holds a model's graph, a
plan and weights: data, all of it, and no text that could be run. An answer holds trained
parameters, or a noised table of scores, and a number that the plan gave; no loss, no metric, and no
number that was counted.

The files of this program are those in `private_training.TRAINER`; beside libraries there are no
others in the cage.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasites.sandbox.worker import Data, kind_of, serve, warm_up


def main() -> None:
    """Serve runs until the input ends."""
    serve(call, warm_up_all)


def warm_up_all(threads: int) -> None:
    """Import what runs need, once."""
    warm_up(threads)
    from datasites.sandbox import private_runs  # noqa: F401


def call(data: Data, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Train or score as the request says, and write what comes of it."""
    try:
        from datasites.sandbox.private_runs import score, train
        from policies.arrays import pack, unpack

        run = {"train": train, "score": score}[header["entry"]]
        memory_mb = int(header["limits"]["memory_mb"])
        arrays, examples = run(
            data, header["text"].encode(), unpack(payload), header["config"], memory_mb
        )
        return {"undeclared": 0, "metrics": {}, "examples": examples}, pack(arrays)
    except BaseException as error:
        return {"error": kind_of(error)}, b""


if __name__ == "__main__":
    main()
