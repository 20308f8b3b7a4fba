"""How the command line shows the audit log to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from datasites.audit_verification import Verification

_HIDDEN = {"signature", "public_key", "type"}


def print_event(out: Console, line: Mapping[str, Any]) -> None:
    """One event of the log in one line."""
    told = {**line["objects"], **{k: v for k, v in line["detail"].items() if k not in _HIDDEN}}
    if line["reason"]:
        told["reason"] = line["reason"]
    time = line["time"][:16].replace("T", " ")
    words = " ".join(f"{k}={_brief(v)}" for k, v in told.items())
    shown = (
        f"{line['n']:>6}  {time} UTC  {line['event']:<18} {line['subject']:<12} "
        f"{line['actor']} ({line['role']})  {words}"
    )
    # Some of the words are a stranger's: they must not steer the terminal.
    visible = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)
    out.print(visible.rstrip(), markup=False, soft_wrap=True)


def print_verification(out: Console, found: Verification) -> None:
    """What a check of a log found, in a sentence or two."""
    if not found.intact:
        before = f" {_lines(found)} before it verify." if found.lines else ""
        out.print(
            f"DAMAGED: line {found.bad_line} {found.problem}.{before}", style="red", soft_wrap=True
        )
        return
    out.print(
        f"Intact: {_lines(found)}, chain unbroken, {found.checkpoints} signed checkpoints; "
        f"{found.unsigned_lines} lines since the last are chained and not yet signed.",
        soft_wrap=True,
    )
    if found.first_line > 1:
        out.print(
            f"Checked from line {found.first_line:,} on; what went before it is in older files.",
            soft_wrap=True,
        )
    elif found.covered_lines:
        out.print(
            f"It agrees with a checkpoint kept outside of it, which covers {found.covered_lines:,} "
            "lines.",
            soft_wrap=True,
        )
    else:
        out.print(
            "No checkpoint outside of the log was given, so that it was not cut at its end cannot "
            "be said; see --checkpoint and --countersignature.",
            soft_wrap=True,
        )


def _lines(found: Verification) -> str:
    if found.first_line == 1:
        return f"{found.lines:,} lines"
    return f"lines {found.first_line:,} to {found.last_line:,}"


def _brief(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text
