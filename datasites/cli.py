"""`sitegate`: the command line of a hospital's data owner and of its compliance reviewer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from datasites.audit_commands import audit_app
from datasites.audit_log import verify_log
from datasites.command_line import JsonOption, SiteOption, out, print_json, say, told_plainly
from datasites.config import Site, load_site
from datasites.control import Control
from datasites.dataset_commands import dataset_app
from datasites.errors import ConfigurationError, DecisionError
from datasites.keys import load_site_key
from datasites.new_site import checked_config, example_policy, make_site
from datasites.people import generate_password
from datasites.show import print_queue, print_sheet

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sitegate: federated learning on images that stay in the hospital. A site is a directory "
    "made by `sitegate init`; other commands find it by --site or SITEGATE_SITE.",
    epilog="Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; "
    "3 records do not verify or cannot be written; 4 no sandbox.",
)
request_app = typer.Typer(no_args_is_help=True, help="Read requests and decide about them.")
account_app = typer.Typer(no_args_is_help=True, help="Accounts of researchers.")
app.add_typer(dataset_app, name="dataset")
app.add_typer(request_app, name="request")
app.add_typer(account_app, name="account")
app.add_typer(audit_app, name="audit")

ReasonOption = Annotated[
    str, typer.Option("--reason", prompt=True, help="Why; the researcher reads it.")
]
PersonOption = Annotated[
    str,
    typer.Option(
        "--as", envvar="SITEGATE_PERSON", prompt="Your e-mail address", help="Who decides."
    ),
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(help="File with your password; else SITEGATE_PASSWORD, else you are asked."),
]
RequestArgument = Annotated[str, typer.Argument(help="The request: 7 or R-7.")]


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
        Path | None, typer.Option(help="Policy to copy; default: the example for chest X-rays.")
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
    control, _ = _control(site)
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


@account_app.command("add")
@told_plainly
def add_account(
    email: Annotated[str, typer.Argument(help="The researcher's e-mail address.")],
    name: Annotated[str, typer.Option(help="The researcher's name.")],
    site: SiteOption = Path(),
) -> None:
    """Make an account for a researcher; the password is shown once."""
    password = generate_password()
    Control(load_site(site).control_socket).add_account(email, name, password)
    say(f"Password of {email}, shown this once: {password}")


@request_app.command("list")
@told_plainly
def list_requests(site: SiteOption = Path(), as_json: JsonOption = False) -> None:
    """List the requests, newest first."""
    control, opened = _control(site)
    sheets = control.requests()
    if as_json:
        print_json(sheets)
    else:
        print_queue(out, control.status(), sheets, _verification(opened))


@request_app.command("show")
@told_plainly
def show_request(
    request: RequestArgument, site: SiteOption = Path(), as_json: JsonOption = False
) -> None:
    """Show the review sheet of a request: what it may read, what leaves, rules, text."""
    control, _ = _control(site)
    sheet = control.request(_number(request))
    if as_json:
        print_json(sheet)
    else:
        print_sheet(out, sheet)


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
    """Approve a request as asked for. The sheet is shown first."""
    control, _ = _control(site)
    number = _number(request)
    sheet = control.request(number)
    if not as_json:
        print_sheet(out, sheet)
    if any(finding["severity"] == "refuse" for finding in sheet["findings"]):
        raise DecisionError(f"R-{number} is refused by policy {sheet['policy']}; it can be denied")
    if not yes:
        typer.confirm(f"Approve R-{number}?", abort=True)
    _decided(control, number, "approve", person, password_file, reason, as_json)


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
    """Deny a pending request; the researcher reads the reason."""
    control, _ = _control(site)
    _decided(control, _number(request), "deny", person, password_file, reason, as_json)


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
    _decided(control, _number(request), "revoke", person, password_file, reason, as_json)


def _decided(
    control: Control,
    number: int,
    verb: str,
    person: str,
    password_file: Path | None,
    reason: str,
    as_json: bool,
) -> None:
    sheet = control.decide(number, verb, person, _password(password_file), reason)
    if as_json:
        print_json(sheet)
        return
    until = f" until {sheet['expires_at'][:10]}" if sheet["state"] == "approved" else ""
    out.print(f"R-{number} is {sheet['state']}{until}. Recorded in the audit log.")


def _password(file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"there is no password file {file}") from error
    if password := os.environ.get("SITEGATE_PASSWORD"):
        return password
    return str(typer.prompt("Your password", hide_input=True, err=True))


def _control(path: Path) -> tuple[Control, Site]:
    site = load_site(path)
    return Control(site.control_socket), site


def _verification(site: Site) -> Any:
    return verify_log(site.audit, load_site_key(site.keys).public_hex)


def _number(request: str) -> int:
    digits = request.upper().removeprefix("R-")
    if not digits.isdecimal() or len(digits) > 9:
        raise ConfigurationError(f"`{request}` is not a request; write R-7 or 7")
    return int(digits)


if __name__ == "__main__":
    app()
