"""`sitegate doctor`: proves the cage on this machine by trying what must fail."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from datasites.command_line import JsonOption, SiteOption, err, out, print_json, say, told_plainly
from datasites.config import load_site
from datasites.control import Control
from datasites.errors import SandboxError

FAILED = SandboxError.exit_code


@told_plainly
def doctor(site: SiteOption = Path(), as_json: JsonOption = False) -> None:
    """Prove the cage: start one, try from inside what must fail, and show how that went.

    With a site, running or not, the result goes into its audit log; a policy can demand one that
    is not too old (`sandbox.proof_days`). Without a site, this machine is examined and nothing is
    kept. It takes some ten seconds. Exit code 4: the cage does not hold.
    """
    is_site = site != Path() or Path("site.yaml").exists() or "SITEGATE_SITE" in os.environ
    with err.status("Trying what must fail inside a cage …"):
        checks = _examined(site if is_site else None)
    failed = [check for check in checks if not check["ok"]]
    if as_json:
        print_json(checks)
    else:
        out.print(_table(checks))
        if failed:
            say(f"The cage does NOT hold here: {len(failed)} of {len(checks)} checks fail.")
        else:
            say(f"The cage holds here: {len(checks)} of {len(checks)} checks pass.")
        say("It is in the site's audit log." if is_site else "No site was named: nothing is kept.")
    if failed:
        raise typer.Exit(FAILED)


def _examined(path: Path | None) -> list[dict[str, Any]]:
    site = load_site(path) if path is not None else None
    if site is not None and (control := Control(site.control_socket)).is_running():
        return control.examine()  # its own process tries it, under what the machine imposes on it
    from datasites.doctor import examine, examine_while_stopped

    checks = examine()[0] if site is None else examine_while_stopped(site)
    return [asdict(check) for check in checks]


def _table(checks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "Tried", "How it went"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = Text("ok", "green") if check["ok"] else Text("FAILS", "bold red")
        table.add_row(mark, Text(check["name"]), Text(check["detail"]))
    return table
