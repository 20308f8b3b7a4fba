"""`sitegate policy`: check, explain, compare and test policies, and see what a new one would do."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from datasites.adopted_policy import adopt_while_stopped, last_adopted
from datasites.command_line import JsonOption, SiteOption, err, out, print_json, say, told_plainly
from datasites.config import Site, load_site
from datasites.control import Control
from datasites.errors import ConfigurationError
from datasites.person_options import PasswordFileOption, PersonOption, given_password
from datasites.policy_impact import policy_impact
from datasites.records import Records
from datasites.show_policy import print_impact, print_report
from policies.case_outcomes import Report, run_cases
from policies.document import Policy, PolicyError, load_policy, parse_policy
from policies.explain import explain
from policies.policy_cases import CaseError, load_cases
from policies.policy_diff import policy_changes

policy_app = typer.Typer(
    no_args_is_help=True,
    help="Policies: what they allow, what changes between two, and whether cases come out as "
    "expected.",
)

FileArgument = Annotated[Path, typer.Argument(help="The policy's YAML file.")]


@policy_app.command("check")
@told_plainly
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Say whether a policy is valid, or every field that is not; exit code 2 if it is not."""
    try:
        policy = load_policy(file)
    except PolicyError as error:
        if as_json:
            print_json({"valid": False, "problems": list(error.problems)})
        else:
            err.print(f"{file} is not valid:", style="red", markup=False)
            for problem in error.problems:
                err.print(f"  {problem}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        plain = {"name": policy.name, "version": policy.version, "sha256": policy.sha256}
        print_json({"valid": True, **plain})
    else:
        say(f"{policy.title} is valid · sha256 {policy.sha256}")


@policy_app.command("explain")
@told_plainly
def explain_policy(file: FileArgument, as_json: JsonOption = False) -> None:
    """Say in plain sentences what a policy allows, refuses, and does not protect against."""
    sections = explain(_policy(file))
    if as_json:
        print_json([asdict(section) for section in sections])
        return
    for section in sections:
        out.print(f"\n{section.heading}", style="bold", markup=False)
        for sentence in section.sentences:
            out.print(Padding(Text(sentence), (0, 0, 0, 2)))


@policy_app.command("diff")
@told_plainly
def diff(
    old: Annotated[Path, typer.Argument(help="The policy's YAML file before.")],
    new: Annotated[Path, typer.Argument(help="The policy's YAML file afterwards.")],
    as_json: JsonOption = False,
) -> None:
    """Say what becomes allowed and what becomes refused from one policy to another."""
    before, after = _policy(old), _policy(new)
    changes = policy_changes(before, after)
    if as_json:
        print_json([change.as_dict() for change in changes])
        return
    say(f"From {before.title} to {after.title}:")
    if not changes:
        say("Both say the same.")
    for effect, group in groupby(changes, key=lambda change: change.effect):
        out.print(f"\n{effect.capitalize()}", style="bold")
        for change in group:
            say(f"  {change.words}  ({change.field})")


@policy_app.command("test")
@told_plainly
def run_tests(
    directory: Annotated[
        Path | None,
        typer.Argument(help="Directory of case files, or one; default: the examples' own cases."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Test this policy instead of the ones the files name.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run cases: a request and the verdict that is expected; exit code 1 if any differs."""
    reports = {str(path): _report(path, policy) for path in _case_files(directory)}
    if as_json:
        print_json([{"file": file, **asdict(report)} for file, report in reports.items()])
    else:
        for file, report in reports.items():
            print_report(out, file, report)
    if any(report.kept < len(report.outcomes) for report in reports.values()):
        raise typer.Exit(1)


@policy_app.command("impact")
@told_plainly
def impact(
    new: Annotated[Path, typer.Argument(help="The YAML file of the policy to be adopted.")],
    site: SiteOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say which approvals, requests and datasets of a site a new policy would stop or refuse."""
    found = policy_impact(load_site(site), _policy(new), dt.datetime.now(dt.UTC))
    if as_json:
        print_json(found.as_dict())
    else:
        print_impact(out, found)


@policy_app.command("adopt")
@told_plainly
def adopt(
    file: FileArgument,
    person: PersonOption,
    reason: Annotated[str, typer.Option(prompt=True, help="Why it changes, for the log.")],
    site: SiteOption = Path(),
    password_file: PasswordFileOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
) -> None:
    """Let a policy be in force, as an owner; what changes is shown first.

    The event is logged, the policy is copied into the site's records and to its policy.yaml.
    Standing approvals stop until they are confirmed with `sitegate request approve`. A running site
    takes it at once; it works while the site is stopped, too.
    """
    opened, new = load_site(site), _policy(file)
    text = file.read_text(encoding="utf-8")
    control = Control(opened.control_socket)
    running = control.is_running()
    before = control.policy()["text"] if running else _last_adopted(opened)
    _show_changes(before, new)
    if not yes:
        typer.confirm(f"Adopt {new.title} (sha256 {new.sha256[:12]}…)?", abort=True)
    password = given_password(password_file)
    if running:
        control.adopt_policy(text, person, password, reason)
    else:
        adopt_while_stopped(opened, person, password, text, reason)
    say(f"{new.title} is in force. Approvals under another policy wait to be confirmed:")
    say("  sitegate request list --state approved")


@policy_app.command("show")
@told_plainly
def show(site: SiteOption = Path(), as_json: JsonOption = False) -> None:
    """Show the policy in force at a running site: its text, and every one before it."""
    plain = Control(load_site(site).control_socket).policy()
    if as_json:
        print_json(plain)
        return
    say(plain["text"].rstrip())
    say(f"\n# in force: {plain['title']}, sha256 {plain['sha256']}")
    for row in plain["history"]:
        say(
            f"# {row['adopted_at'][:16].replace('T', ' ')} UTC  {row['sha256'][:12]}…  "
            f"{row['adopted_by']}: {row['reason']}"
        )


def _last_adopted(site: Site) -> str:
    records = Records(site.database_url)
    try:
        adopted = last_adopted(records)
    finally:
        records.close()
    return adopted.text if adopted else ""


def _show_changes(text: str, new: Policy) -> None:
    """What a policy changes in the one in force, which an older version may have written."""
    try:
        before = parse_policy(text)
    except PolicyError:
        say("What is in force cannot be read any more, so what changes cannot be shown.")
        return
    say(f"In force: {before.title} (sha256 {before.sha256[:12]}…)")
    for change in policy_changes(before, new):
        out.print(Padding(Text(f"{change.effect}: {change.words}"), (0, 0, 0, 2)))


def _policy(file: Path) -> Policy:
    try:
        return load_policy(file)
    except PolicyError as error:
        raise ConfigurationError(str(error)) from error


def _case_files(directory: Path | None) -> list[Path]:
    where = directory or Path(str(files("policies").joinpath("cases")))
    found = sorted(where.glob("*.yaml")) if where.is_dir() else [where]
    if not found:
        raise ConfigurationError(f"{where} has no case files; they end in .yaml")
    return found


def _report(path: Path, policy: Path | None) -> Report:
    try:
        cases = load_cases(path)
        return run_cases(cases, _policy(policy or path.parent / cases.policy))
    except CaseError as error:
        raise ConfigurationError(str(error)) from error
