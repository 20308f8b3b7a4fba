"""`sitegate privacy`: what the patients' privacy was spent on, and whether the ledger is true."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datasites.adopted_policy import last_adopted
from datasites.audit_log import read_events
from datasites.command_line import JsonOption, SiteOption, out, print_json, say, told_plainly
from datasites.config import Site, load_site
from datasites.privacy_ledger import Entry, compare, entries, entry_in_log, spent_on
from datasites.records import Records, RequestRow
from policies.document import Policy, parse_policy
from policies.plain_words import counted
from policies.privacy.accounting import Accountant, epsilon
from policies.privacy.mechanisms import Spent

DELTA = 1e-5
"""The delta of epsilons that are shown where the policy fixes none."""

privacy_app = typer.Typer(
    no_args_is_help=True,
    help="The ledger of differential privacy: what was spent on each dataset, and by whom.",
)


@privacy_app.command("show")
@told_plainly
def show(
    site: SiteOption = Path(),
    plot: Annotated[
        Path | None, typer.Option(help="Also draw epsilon over time into this PNG or SVG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show epsilon per patient for each dataset: spent, cap, left, and what each request took."""
    opened = load_site(site)
    records = Records(opened.database_url)
    try:
        policy, kept = _policy(opened, records), entries(records)
        datasets = [_dataset(records, policy, name, kept) for name in _names(policy, kept)]
    finally:
        records.close()
    if plot is not None:
        from datasites.privacy_figure import draw_spending

        draw_spending(plot, kept, policy.privacy)
    if as_json:
        print_json({"policy": policy.title, "mode": policy.privacy.mode, "datasets": datasets})
        return
    mode = policy.privacy.mode
    out.print(Text(f"Policy {policy.title}, privacy mode ") + Text(mode, _style(mode)))
    say(policy.privacy.guarantee())
    out.print()
    _print_datasets(datasets)
    if plot is not None:
        say(f"\nWrote {plot}.")


@privacy_app.command("verify")
@told_plainly
def verify(site: SiteOption = Path(), as_json: JsonOption = False) -> None:
    """Make the ledger anew from the audit log, and compare the two. Exit code 3: they differ.

    The log itself is verified by `sitegate audit verify`.
    """
    opened = load_site(site)
    records = Records(opened.database_url)
    try:
        kept = entries(records)
    finally:
        records.close()
    told: dict[str, Entry] = {}
    for line in read_events(opened.audit):
        if (entry := entry_in_log(line)) is not None:
            told.setdefault(entry.run, entry)
    found = compare(kept, told)
    if as_json:
        print_json({"holds": found.holds, **asdict(found)})
    else:
        say(f"{counted(found.agreeing, 'charge')} of the records and the log agree")
        for runs, what in (
            (found.only_in_log, "in the log and NOT IN THE RECORDS"),
            (found.different, "DIFFERENT in log and records"),
            (found.only_in_records, "charged, and not started as far as the log tells"),
        ):
            for run in runs:
                say(f"  {run}: {what}")
        say("The ledger holds." if found.holds else "The ledger does NOT hold.")
        if not found.holds:
            say("What the log tells and the records lack is charged at the next start of the site.")
    if not found.holds:
        raise typer.Exit(3)


def _policy(site: Site, records: Records) -> Policy:
    adopted = last_adopted(records)
    return site.policy() if adopted is None else parse_policy(adopted.text)


def _names(policy: Policy, kept: list[Entry]) -> list[str]:
    return sorted({*policy.datasets, *(entry.dataset for entry in kept)})


def _dataset(records: Records, policy: Policy, name: str, kept: list[Entry]) -> dict[str, Any]:
    """What was spent on one dataset, as JSON types."""
    rule = policy.privacy
    delta = rule.delta or DELTA
    mine = [entry for entry in kept if entry.dataset == name]
    ever = Spent(entry.mechanism for entry in mine)
    counts = spent_on(records, name, rule.period_days)
    spent = epsilon(counts, delta, rule.accountant)
    ways: tuple[Accountant, ...] = ("rdp", "pld")
    return {
        "dataset": name,
        "delta": delta,
        "accountant": rule.accountant,
        "cap": rule.maximum_epsilon,
        "period_days": rule.period_days,
        "spent": spent,
        "left": None if rule.maximum_epsilon is None else max(0.0, rule.maximum_epsilon - spent),
        "spent_ever": {way: epsilon(ever, delta, way) for way in ways},
        "runs": len(mine),
        "requests": _requests(records, mine, delta, rule.accountant),
    }


def _requests(
    records: Records, mine: list[Entry], delta: float, accountant: Accountant
) -> list[dict[str, Any]]:
    found = []
    with records.read() as session:
        for number, group in groupby(sorted(mine, key=lambda e: e.request), lambda e: e.request):
            runs, row = list(group), session.get(RequestRow, number)
            spent = epsilon(Spent(entry.mechanism for entry in runs), delta, accountant)
            found.append(
                {
                    "request": number,
                    "researcher": row.account if row else "",
                    "runs": len(runs),
                    "epsilon": spent,
                    "first": runs[0].at,
                    "last": runs[-1].at,
                }
            )
    return found


def _print_datasets(datasets: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("Dataset", "Runs", "Spent", "Cap", "Left", "Ever (RDP, PLD)"):
        table.add_column(heading, justify="left" if heading == "Dataset" else "right")
    for one in datasets:
        ever = one["spent_ever"]
        table.add_row(
            escape(one["dataset"]), f"{one['runs']:,}", f"{one['spent']:.3g}",
            *(("no account", "–") if one["cap"] is None else
              (f"{one['cap']:g}", Text(f"{one['left']:.3g}", "" if one["left"] else "bold red"))),
            f"{ever['rdp']:.3g}, {ever['pld']:.3g}",
        )  # fmt: skip
    out.print(table)
    for one in datasets:
        if not one["requests"]:
            continue
        requests = Table(box=None, pad_edge=False, title_justify="left")
        requests.title = f"\n{escape(one['dataset'])}, delta {one['delta']:g}"
        for heading in ("Request", "Researcher", "Runs", "Epsilon alone", "Last run"):
            right = heading in ("Runs", "Epsilon alone")
            requests.add_column(heading, justify="right" if right else "left")
        for asked in one["requests"]:
            requests.add_row(
                f"R-{asked['request']}", escape(asked["researcher"]), f"{asked['runs']:,}",
                f"{asked['epsilon']:.3g}", asked["last"][:16].replace("T", " "),
            )  # fmt: skip
        out.print(requests)


def _style(mode: str) -> str:
    return "bold red" if mode == "none" else "bold green"
