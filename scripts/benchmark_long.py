"""What many rounds leave behind: memory and disk of a site, after few rounds and after many.

A small job is run in rounds at real sites, with TLS, gate, sandbox and audit all on. Sites keep
each round's outcome until the next one has begun, and records and log lines for good.

memory_mb      of a site's processes, pages that several share counted in parts, after the first
               tenth of the rounds and after the last; researcher_mb: of this program
disk_bytes     that a site's state grew by, per round, from the first tenth on
largest_files  what grew most at the first site, in bytes per round
round_s        median seconds of a round in the first and in the last tenth
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import federation
from benchmark_calls import BACK, some_weights, submit
from benchmark_hospitals import CLASSES, make_hospitals, running
from benchmark_processes import pss_mb, tree
from datasites.trial import TrialSite
from federation.job import Job
from federation.rounds import RoundsResult

IMAGES = 60


class Growth:
    """Looks at sites after rounds."""

    def __init__(self, sites: list[TrialSite], rounds: int) -> None:
        self._sites, self._early, self._rounds = sites, max(2, rounds // 10), rounds
        self.seconds: list[float] = []
        self.looks: list[dict[str, Any]] = []
        self._began = time.perf_counter()

    def after_round(self, number: int, _: RoundsResult) -> None:
        """Note a round; the sites are looked at after the first tenth and after the last."""
        self.seconds.append(time.perf_counter() - self._began)
        if number in (self._early, self._rounds):
            self.looks.append(self._look())
        if number % 20 == 0:
            print(f"round {number}: {self.seconds[-1]:.2f} s", file=sys.stderr)
        self._began = time.perf_counter()

    def _look(self) -> dict[str, Any]:
        time.sleep(1)
        return {
            "memory_mb": {s.name: sum(pss_mb(p.pid) for p in tree(s.process_id or 0))
                          for s in self._sites},
            "researcher_mb": pss_mb(os.getpid()),
            "disk": {site.name: disk(site.site.state) for site in self._sites},
        }  # fmt: skip

    def told(self) -> dict[str, Any]:
        """What grew from the first look to the last."""
        first, last = self.looks
        between = self._rounds - self._early
        grown = {
            site: sum(files.values()) - sum(first["disk"][site].values())
            for site, files in last["disk"].items()
        }
        site = self._sites[0].name
        files = {
            name: (size - first["disk"][site].get(name, 0)) / between
            for name, size in last["disk"][site].items()
        }
        most = sorted(files, key=lambda name: -files[name])[:5]
        return {
            "sites": len(self._sites),
            "rounds": self._rounds,
            "memory_mb": [{name: round(mb) for name, mb in look["memory_mb"].items()}
                          for look in self.looks],
            "researcher_mb": [round(look["researcher_mb"]) for look in self.looks],
            "disk_bytes": {name: round(size / between) for name, size in grown.items()},
            "largest_files": {name: round(files[name]) for name in most if files[name] > 0},
            "round_s": [round(statistics.median(self.seconds[1 : self._early]), 3),
                        round(statistics.median(self.seconds[-self._early :]), 3)],
        }  # fmt: skip


def disk(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder that are on the disk; folders of runs count as one."""
    found: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder)).split("/")[0]
            found[name] = found.get(name, 0) + path.stat().st_blocks * 512
    return found


def main() -> None:
    """Run many rounds, print what they left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sites", type=int, default=2, help="default 2")
    parser.add_argument("--rounds", type=int, default=200, help="default 200; at least 20")
    parser.add_argument("--weights", type=int, default=420_610, help="float32; default 420,610")
    asked = parser.parse_args()
    if asked.rounds < 20:
        parser.error(f"--rounds is {asked.rounds}; at least 20 are needed to see growth")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (IMAGES, 28, 28), np.uint8)
    part = (images, np.arange(IMAGES) % len(CLASSES))
    weights = some_weights(asked.weights)
    with tempfile.TemporaryDirectory(prefix="sitegate-bench-") as name:
        sites = make_hospitals(Path(name), [part] * asked.sites, runs=asked.rounds)
        with running(sites) as connected:
            study = submit(
                sites, connected, Job(BACK, "back", "train"), weights, {}, runs=asked.rounds
            )
            growth = Growth(sites, asked.rounds)
            federation.run_rounds(
                study, weights, {}, rounds=asked.rounds, after_round=growth.after_round,
                progress=False,
            )  # fmt: skip
    print(json.dumps(growth.told()))


if __name__ == "__main__":
    main()
