"""`sitegate person`: the hospital's people and their roles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from datasites.command_line import JsonOption, SiteOption, out, print_json, say, told_plainly
from datasites.config import load_site
from datasites.control import Control
from datasites.people import Role, generate_password
from datasites.person_options import PasswordFileOption, PersonOption, given_password

person_app = typer.Typer(
    no_args_is_help=True,
    help="The hospital's people: owners, second approvers, compliance. Researchers have accounts "
    "of another kind: `sitegate account`.",
)

EmailArgument = Annotated[str, typer.Argument(help="The person's e-mail address.")]


@person_app.command("add")
@told_plainly
def add_person(
    email: EmailArgument,
    name: Annotated[str, typer.Option(help="The person's name.")],
    role: Annotated[
        Role,
        typer.Option(help="; ".join(f"{role}: {role.meaning}" for role in Role)),
    ],
    person: PersonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
) -> None:
    """Give someone an account, as an owner; their password is shown once."""
    new = generate_password()
    control = Control(load_site(site).control_socket)
    control.add_person(email, name, role, new, person, given_password(password_file))
    say(f"{email} is {role} now: {role.meaning}.")
    say(f"Password of {email}, shown this once: {new}")


@person_app.command("remove")
@told_plainly
def remove_person(
    email: EmailArgument,
    person: PersonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
) -> None:
    """Take someone's account away, as an owner; what they decided stays as it is."""
    control = Control(load_site(site).control_socket)
    control.remove_person(email, person, given_password(password_file))
    say(f"{email} has no account here any more.")


@person_app.command("password")
@told_plainly
def set_password(
    email: EmailArgument,
    person: PersonOption,
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
    ask: Annotated[bool, typer.Option(help="Ask for the new password, do not make one.")] = False,
) -> None:
    """Set another password: your own, or anyone's as an owner; their sessions end."""
    now = given_password(password_file)
    new = (
        str(typer.prompt("New password", hide_input=True, confirmation_prompt=True))
        if ask
        else generate_password()
    )
    Control(load_site(site).control_socket).set_password(email, new, person, now)
    say("Done." if ask else f"Password of {email}, shown this once: {new}")


@person_app.command("list")
@told_plainly
def list_people(site: SiteOption = Path(), as_json: JsonOption = False) -> None:
    """List the hospital's people."""
    people = Control(load_site(site).control_socket).people()
    if as_json:
        print_json(people)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("E-mail", "Name", "Role", "Since"):
        table.add_column(heading, overflow="fold")
    for row in people:
        table.add_row(
            Text(row["email"]), Text(row["name"]), Text(row["role"]), Text(row["since"][:10])
        )
    out.print(table)
