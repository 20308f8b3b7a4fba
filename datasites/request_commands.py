"""`sitegate request`: read requests, rehearse them, decide about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.audit_log import verify_log
from datasites.command_line import (
    JsonOption,
    SiteOption,
    out,
    print_json,
    request_number,
    say,
    told_plainly,
)
from datasites.config import Site, load_site
from datasites.control import Control, needs_rehearsal, shown_on
from datasites.errors import ConfigurationError, DecisionError
from datasites.keys import load_site_key
from datasites.person_options import PasswordFileOption, PersonOption, given_password
from datasites.show_request import print_queue, print_rehearsal, print_sheet

request_app = typer.Typer(
    no_args_is_help=True, help="Read requests, rehearse them on the mock, and decide about them."
)

ReasonOption = Annotated[
    str, typer.Option("--reason", prompt=True, help="Why; the researcher reads it.")
]
RequestArgument = Annotated[str, typer.Argument(help="The request: 7 or R-7.")]


@request_app.command("list")
@told_plainly
def list_requests(
    site: SiteOption = Path(),
    state: Annotated[
        str, typer.Option(help="Only requests in this state, such as `pending`.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the requests, newest first."""
    control, opened = _control(site)
    rows = [row for row in control.requests() if not state or row["state"] == state]
    if as_json:
        print_json(rows)
        return
    found = verify_log(opened.audit, load_site_key(opened.keys).public_hex)
    print_queue(out, control.status(), rows, found)


@request_app.command("show")
@told_plainly
def show_request(
    request: RequestArgument,
    site: SiteOption = Path(),
    diff: Annotated[
        bool, typer.Option("--diff", help="Show the whole text beside the earlier one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the review sheet of a request: what to look at, what leaves, rules, rehearsal, text."""
    control, _ = _control(site)
    sheet = control.request(request_number(request))
    if as_json:
        print_json(sheet)
    else:
        print_sheet(out, sheet, whole_diff=diff)


@request_app.command("rehearse")
@told_plainly
def rehearse(
    request: RequestArgument, site: SiteOption = Path(), as_json: JsonOption = False
) -> None:
    """Run the exact text on the mock, in the same sandbox, and show what it did.

    Every approval is preceded by this; a request can be rehearsed as often as one likes.
    """
    control, _ = _control(site)
    sheet = _rehearsed(control, request_number(request), as_json)
    if as_json:
        print_json(sheet["rehearsal"])
    else:
        print_rehearsal(out, sheet)


@request_app.command("approve")
@told_plainly
def approve(
    request: RequestArgument,
    person: PersonOption,
    reason: ReasonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Agree to a request as asked for; where the policy wants more people, they agree too.

    The request is rehearsed if it was not yet, and the sheet is shown first. An approval that
    stopped because the policy changed is confirmed with the same command.
    """
    control, _ = _control(site)
    number = request_number(request)
    sheet = control.request(number)
    refused = any(finding["severity"] == "refuse" for finding in sheet["findings"])
    if needs_rehearsal(sheet) and not refused:
        sheet = _rehearsed(control, number, as_json)
    if not as_json:
        print_sheet(out, sheet)
    if refused:
        raise DecisionError(f"R-{number} is refused by policy {sheet['policy']}; it can be denied")
    if not yes:
        typer.confirm(f"Approve R-{number}?", abort=True)
    _decided(
        control, number, "approve", person, password_file, reason, as_json, shown=shown_on(sheet)
    )


@request_app.command("deny")
@told_plainly
def deny(
    request: RequestArgument,
    person: PersonOption,
    reason: ReasonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deny a request that waits; the researcher reads the reason."""
    control, _ = _control(site)
    _decided(control, request_number(request), "deny", person, password_file, reason, as_json)


@request_app.command("changes")
@told_plainly
def changes(
    request: RequestArgument,
    person: PersonOption,
    reason: ReasonOption,
    line: Annotated[
        list[int] | None, typer.Option(help="A line of the text; repeat with --say for more.")
    ] = None,
    remark: Annotated[
        list[str] | None, typer.Option("--say", help="The remark on the --line before it.")
    ] = None,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a request back with remarks on lines; the researcher reads them and submits again.

    Example: sitegate request changes R-6 --reason "almost" --line 31 --say "why this seed?"
    """
    lines, remarks = line or [], remark or []
    if len(lines) != len(remarks):
        raise ConfigurationError(
            f"{len(lines)} times --line and {len(remarks)} times --say; give one --say per --line"
        )
    control, _ = _control(site)
    comments = list(zip(lines, remarks, strict=True))
    _decided(
        control, request_number(request), "changes", person, password_file, reason, as_json,
        comments,
    )  # fmt: skip


@request_app.command("revoke")
@told_plainly
def revoke(
    request: RequestArgument,
    person: PersonOption,
    reason: ReasonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an approval back; the next call is refused."""
    control, _ = _control(site)
    _decided(control, request_number(request), "revoke", person, password_file, reason, as_json)


def _rehearsed(control: Control, number: int, quiet: bool) -> dict[str, Any]:
    if quiet:
        return control.rehearse(number)
    with out.status(f"Rehearsing R-{number} on the mock …"):
        return control.rehearse(number)


def _decided(
    control: Control,
    number: int,
    verb: str,
    person: str,
    password_file: Path | None,
    reason: str,
    as_json: bool,
    comments: list[tuple[int, str]] | None = None,
    shown: tuple[str, str] = ("", ""),
) -> None:
    password = given_password(password_file)
    sheet = control.decide(number, verb, person, password, reason, comments or [], shown)
    if as_json:
        print_json(sheet)
        return
    until = f" until {sheet['expires_at'][:10]}" if sheet["state"] == "approved" else ""
    state = sheet["state"] if sheet["state"] != "partly approved" else sheet["state_in_words"]
    say(f"R-{number}: {state}{until}. Recorded in the audit log.")
    if sheet["state"] == "partly approved" or (verb == "approve" and sheet["stopped"]):
        say(f"It needs {sheet['needed']['in_words']}.")


def _control(path: Path) -> tuple[Control, Site]:
    site = load_site(path)
    return Control(site.control_socket), site
