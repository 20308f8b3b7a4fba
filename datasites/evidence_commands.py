"""`sitegate evidence`: export the evidence for one request, and verify a folder of it offline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from datasites.command_line import (
    JsonOption,
    SiteOption,
    out,
    print_json,
    read_public_key,
    request_number,
    say,
    told_plainly,
)
from datasites.config import load_site
from datasites.control import Control
from datasites.evidence.folder import check_free, write_folder
from datasites.evidence.verification import Check, verify_evidence
from datasites.person_options import PasswordFileOption, PersonOption, given_password

EXPORT = "export"


class ExportUnlessNamed(TyperGroup):
    """A group where `evidence R-7 --out DIR` means `evidence export R-7 --out DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name in front of what is not one."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [EXPORT, *args]
        return super().parse_args(ctx, args)


evidence_app = typer.Typer(
    cls=ExportUnlessNamed,
    no_args_is_help=True,
    help="Export the evidence for one request (`sitegate evidence R-7 --out DIR`), and verify it.",
)


@evidence_app.command(EXPORT)
@told_plainly
def export(
    request: Annotated[str, typer.Argument(help="The request: 7 or R-7.")],
    to: Annotated[Path, typer.Option("--out", help="Directory to make; new, or empty.")],
    person: PersonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
) -> None:
    """Write everything that is known about a request into a folder that verifies offline."""
    number = request_number(request)
    check_free(to)
    control = Control(load_site(site).control_socket)
    write_folder(to, control.evidence(number, person, given_password(password_file)))
    say(f"Wrote the evidence for R-{number} to {to}; open {to / 'evidence.html'}.")
    say(f"Anyone verifies it with: sitegate evidence verify {to} --public-key site_key.pub")


@evidence_app.command("verify")
@told_plainly
def verify(
    folder: Annotated[Path, typer.Argument(help="The evidence.")],
    public_key: Annotated[
        Path, typer.Option(help="The site's public key, as the hospital handed it over.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Verify a folder of evidence; needs no site. Exit code 3: it does not hold."""
    checks = verify_evidence(folder, read_public_key(public_key))
    holds = not any(check.problems for check in checks)
    if as_json:
        plain = [dataclasses.asdict(check) for check in checks]
        print_json({"verified": holds, "checks": plain})
    else:
        for check in checks:
            _print(check)
        word = "VERIFIED" if holds else "NOT VERIFIED"
        style = "bold" if holds else "bold red"
        out.print(f"{word}: {folder}", style=style, markup=False, soft_wrap=True)
    if not holds:
        raise typer.Exit(3)


def _print(check: Check) -> None:
    if not check.problems:
        say(f"{check.name:<11} ok   {check.holds}")
    for problem in check.problems:
        # It may quote a file that somebody made to play tricks with a terminal.
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in problem)
        out.print(f"{check.name:<11} BAD  {shown}", style="red", markup=False, soft_wrap=True)
