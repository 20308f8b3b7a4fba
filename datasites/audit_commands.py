"""`sitegate audit`: read the audit log, verify it, and let other sites vouch for it."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from datasites.audit_checkpoint import read_checkpoint
from datasites.audit_log import verify_log
from datasites.audit_search import find_events
from datasites.audit_segments import checkpoint_path
from datasites.command_line import (
    JsonOption,
    SiteOption,
    out,
    print_json,
    read_public_key,
    say,
    told_plainly,
)
from datasites.config import load_site
from datasites.control import Control
from datasites.countersignature import read_countersignature
from datasites.errors import ConfigurationError
from datasites.files import write_private
from datasites.keys import load_site_key
from datasites.person_options import PasswordFileOption, PersonOption, given_password
from datasites.show_audit import print_event, print_verification

audit_app = typer.Typer(
    no_args_is_help=True,
    help="Read the audit log, verify it, and countersign another site's.",
)

OutOption = Annotated[Path | None, typer.Option("--out", help="File to write; default: print it.")]


@audit_app.command("show")
@told_plainly
def show_audit(
    site: SiteOption = Path(),
    subject: Annotated[str, typer.Option(help="Only what is about R-7, or R-7/3/1.")] = "",
    actor: Annotated[str, typer.Option(help="Only what this person or `site` did.")] = "",
    last: Annotated[int, typer.Option(min=0, help="How many lines from the end; 0 for all.")] = 40,
    as_json: JsonOption = False,
) -> None:
    """Show the audit log, oldest first."""
    events = find_events(load_site(site).audit, subject=subject, actor=actor)
    for line in deque(events, last or None):
        if as_json:
            out.print_json(data=line, indent=None)
        else:
            print_event(out, line)


@audit_app.command("verify")
@told_plainly
def verify_audit(
    log: Annotated[Path | None, typer.Argument(help="A log file; default: the site's.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The site's public key file, to verify offline.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint of the log that was kept elsewhere.")
    ] = None,
    countersignature: Annotated[
        Path | None, typer.Option(help="Another site's countersignature of the log.")
    ] = None,
    countersigner: Annotated[
        Path | None, typer.Option(help="Public key file of the site that countersigned.")
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="This file only, without the older ones beside it.")
    ] = False,
    site: SiteOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Verify lines, chain and checkpoints; needs nothing but the files and the public key.

    Older files and the last checkpoint beside the log are verified with it. Exit code 3: damaged.
    """
    if (log is None) != (public_key is None):
        raise ConfigurationError("give a log file and its --public-key, or neither")
    if (countersignature is None) != (countersigner is None):
        raise ConfigurationError("give both --countersignature and --countersigner, or neither")
    if log is not None and public_key is not None:
        key = read_public_key(public_key)
    else:
        opened = load_site(site)
        log, key = opened.audit, load_site_key(opened.keys).public_hex
    kept = [read_checkpoint(checkpoint)] if checkpoint else []
    if countersignature is not None and countersigner is not None:
        kept.append(read_countersignature(countersignature, read_public_key(countersigner)))
    found = verify_log(log, key, checkpoints=kept, alone=alone)
    if as_json:
        print_json({"intact": found.intact, "lines": found.lines, **dataclasses.asdict(found)})
    else:
        print_verification(out, found)
    if not found.intact:
        raise typer.Exit(3)


@audit_app.command("checkpoint")
@told_plainly
def make_checkpoint(site: SiteOption = Path(), to: OutOption = None) -> None:
    """Let the running site sign its log as it stands; keep the document elsewhere."""
    opened = load_site(site)
    Control(opened.control_socket).checkpoint()
    signed = read_checkpoint(checkpoint_path(opened.audit))
    _hand_over(signed.model_dump(mode="json"), to)


@audit_app.command("countersign")
@told_plainly
def countersign(
    checkpoint: Annotated[Path, typer.Argument(help="The other site's checkpoint document.")],
    public_key: Annotated[Path, typer.Option(help="The other site's public key file.")],
    person: PersonOption,
    site: SiteOption = Path(),
    to: OutOption = None,
    password_file: PasswordFileOption = None,
) -> None:
    """Countersign another site's checkpoint, so that its log cannot be replaced quietly."""
    control = Control(load_site(site).control_socket)
    plain = read_checkpoint(checkpoint).model_dump(mode="json")
    signed = control.countersign(
        plain, read_public_key(public_key), person, given_password(password_file)
    )
    _hand_over(signed, to)


def _hand_over(document: dict[str, object], to: Path | None) -> None:
    if to is None:
        print_json(document)
        return
    write_private(to, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode(), 0o644)
    say(f"Wrote {to}.")
