"""What verifying an audit log costs beside merely reading and hashing its bytes, in one run."""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from datasites.audit_checkpoint import sign_checkpoint
from datasites.audit_events import Event, event_content
from datasites.audit_lines import Chain
from datasites.audit_log import CHECKPOINT_EVERY, ROTATE_BYTES, AuditLog
from datasites.audit_segments import segment_path
from datasites.audit_verification import verify_log
from datasites.keys import SiteKey
from datasites.records import utc_now
from policies.strict import canonical_json

KEY = SiteKey(bytes(range(32)))


def main() -> None:
    """Write a log, verify it and hash it in turns, print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines (default 1,000,000)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default 3)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sitegate-bench-") as name:
        log = Path(name) / "audit.jsonl"
        write(log, asked.lines)
        files = sorted(Path(name).glob("audit*.jsonl"))
        size = sum(path.stat().st_size for path in files)
        bare, ours = [], []
        for _ in range(asked.repeats):
            bare.append(timed(lambda: [read_and_hash(path) for path in files]))
            ours.append(timed(lambda: verify(log, asked.lines)))
        result = {
            "lines": asked.lines,
            "files": len(files),
            "bytes_per_line": round(size / asked.lines),
            "verify_s": round(statistics.median(ours), 2),
            "read_and_hash_s": round(statistics.median(bare), 2),
            "ratio": round(statistics.median(o / b for b, o in zip(bare, ours, strict=True)), 1),
            "append_ms": round(append_cost(Path(name) / "small.jsonl"), 2),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        }
    print(json.dumps(result))


def write(log: Path, lines: int) -> None:
    """A log as a site writes it, in files of its usual size, without waiting for the disk."""
    chain, since, size, first = Chain(), 0, 0, 1
    file = log.open("wb")
    while chain.lines < lines:
        now = utc_now()
        if since == CHECKPOINT_EVERY:
            signed = sign_checkpoint(KEY, "bench", chain.lines, chain.head, now)
            detail = signed.model_dump(mode="json")
            content = event_content(Event.CHECKPOINT, "site", "audit log", now, detail=detail)
            since = 0
        else:
            k = chain.lines
            detail = {"number": k, "text_sha256": hashlib.sha256(str(k).encode()).hexdigest()}
            subject = f"R-7/{k}/1"
            content = event_content(
                Event.RUN_STARTED, "rita@uni.example", subject, now, detail=detail
            )
            since += 1
        if size >= ROTATE_BYTES:
            file.close()
            log.rename(segment_path(log, first))
            file, size, first = log.open("wb"), 0, chain.lines + 1
        raw, chain = chain.extend(canonical_json(content))
        size += file.write(raw)
    file.close()


def verify(log: Path, lines: int) -> None:
    """Verify the log, which has to be intact."""
    found = verify_log(log, KEY.public_hex)
    if (found.intact, found.lines) != (True, lines):
        raise SystemExit(f"line {found.bad_line} {found.problem}")


def read_and_hash(path: Path) -> str:
    """SHA-256 of each line, and nothing else."""
    with path.open("rb") as file:
        for raw in file:
            hashlib.sha256(raw).digest()
    return path.name


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


def append_cost(path: Path) -> float:
    """Median milliseconds to write one event and wait for the disk."""
    log = AuditLog(path, KEY)
    times = [timed(lambda: log.append(Event.LOGIN, "rita@uni.example", "login")) for _ in range(99)]
    log.close()
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
