"""`sitegate`: the command line of a hospital's data owner and of its compliance reviewer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from datasites.command_line import JsonOption, SiteOption, print_json, say, told_plainly
from datasites.config import load_site
from datasites.control import Control
from datasites.doctor_command import doctor
from datasites.errors import ConfigurationError
from datasites.late_commands import LateCommands
from datasites.new_site import checked_config, example_policy, make_site
from datasites.page_command import page
from datasites.people import generate_password
from datasites.person_options import PasswordFileOption, PersonOption, given_password

app = typer.Typer(
    cls=LateCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sitegate: federated learning on images that stay in the hospital. A site is a directory "
    "made by `sitegate init`; other commands find it by --site or SITEGATE_SITE.",
    epilog="Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; "
    "3 records do not verify or cannot be written; 4 no sandbox.",
)
account_app = typer.Typer(no_args_is_help=True, help="Accounts of researchers.")
app.add_typer(account_app, name="account")
app.command()(page)
app.command()(doctor)


@app.command()
@told_plainly
def init(
    name: Annotated[str, typer.Argument(help="Short name: lower-case letters, digits, dashes.")],
    owner: Annotated[str, typer.Option(prompt="Owner's e-mail address", help="Who may decide.")],
    directory: Annotated[Path | None, typer.Option(help="Where; default: ./NAME.")] = None,
    title: Annotated[str | None, typer.Option(help="The hospital's name.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port.")] = 8443,
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy to copy; default: the university hospital's example."),
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="The hospital's own, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    ask_password: Annotated[
        bool, typer.Option(help="Ask for the owner's password instead of making one.")
    ] = False,
) -> None:
    """Make a site: configuration, policy, keys, certificate and the owner's account."""
    if (tls_certificate is None) != (tls_key is None):
        raise ConfigurationError("give both --tls-certificate and --tls-key, or neither")
    tls = None
    if tls_certificate and tls_key:
        tls = {"certificate": tls_certificate.resolve(), "key": tls_key.resolve()}
    config = checked_config(name=name, title=title or name, host=host, port=port, tls=tls)
    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if ask_password
        else generate_password()
    )
    path = directory or Path(name)
    site = make_site(path, config, policy or example_policy(), owner, owner, password)
    say(f"Made the site {name} in {path}/ (its state is readable by this user only).")
    if not ask_password:
        say(f"Password of {owner}, shown this once: {password}")
    say(f"Next: read {path / config.policy}, publish a dataset, `sitegate serve --site {path}`.")
    say(f"Researchers need {site.keys / 'tls_authority.pem'} and the address {site.url}.")


@app.command()
@told_plainly
def serve(
    site: SiteOption = Path(),
    until_stdin_closes: Annotated[
        bool, typer.Option(help="Stop when standard input ends; for programs that start a site.")
    ] = False,
) -> None:
    """Run the site until SIGTERM or Ctrl-C."""
    from datasites.server import serve as run

    opened = load_site(site)
    policy = opened.policy()
    say(
        f"{opened.config.title} · datasite at {opened.url} · policy {policy.title} "
        f"(sha256 {policy.sha256[:8]}…) · log: {opened.state / 'site.log'}"
    )
    run(opened, until_stdin_closes=until_stdin_closes)


@app.command()
@told_plainly
def status(
    site: SiteOption = Path(),
    wait: Annotated[float, typer.Option(help="Seconds to wait for the site to come up.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Say whether the site runs, where, under which policy and in which sandbox."""
    control = Control(load_site(site).control_socket)
    end = time.monotonic() + wait
    while True:
        try:
            plain = control.status()
            break
        except ConfigurationError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.2)
    if as_json:
        print_json(plain)
    else:
        say(f"{plain['title']} runs at {plain['url']} · policy {plain['policy']}")
        say(f"sandbox: {plain['sandbox']}")
        say(f"sandbox {plain['sandbox_proof']}")


@account_app.command("add")
@told_plainly
def add_account(
    email: Annotated[str, typer.Argument(help="The researcher's e-mail address.")],
    name: Annotated[str, typer.Option(help="The researcher's name.")],
    person: PersonOption,
    institution: Annotated[
        str, typer.Option(help="Where the researcher works; a policy can be about it.")
    ] = "",
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
) -> None:
    """Make an account for a researcher, as an owner; their password is shown once."""
    new = generate_password()
    control = Control(load_site(site).control_socket)
    kept = control.add_account(email, name, institution, new, person, given_password(password_file))
    say(f"Password of {kept}, shown this once: {new}")


if __name__ == "__main__":
    app()
