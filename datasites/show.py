"""How the command line shows sheets, queues and logs to a person."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datasites.audit_log import Verification
from policies.contract import in_megabytes

STYLES = {"pass": "green", "read": "yellow", "refuse": "red"}


def print_queue(
    out: Console,
    status: Mapping[str, Any],
    sheets: Sequence[Mapping[str, Any]],
    found: Verification,
) -> None:
    """All requests in one table, with what to do next."""
    audit = f"audit intact, {found.lines:,} lines" if found.intact else "AUDIT LOG DAMAGED"
    out.print(
        f"{status['title']} · datasite running at {status['url']} · policy {status['policy']} "
        f"(sha256 {status['policy_sha256'][:4]}…) · {audit}\n",
        markup=False,
    )
    if not sheets:
        out.print("No request yet.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "From", "Dataset", "Asks for", "Age", "Verdict", "State"):
        table.add_column(heading, overflow="fold")
    for sheet in sheets:
        runs = sheet["runs"]
        state = sheet["state"]
        if state == "approved":
            state += f", {runs['used']} of {runs['asked']} used"
        table.add_row(
            f"R-{sheet['request']}",
            escape(sheet["researcher"]),
            escape(f"{sheet['dataset']['name']} {sheet['dataset']['version'][:8]}"),
            escape(f"{runs['asked']} runs: {sheet['terms']['title']}"),
            _age(sheet["submitted_at"]),
            Text(sheet["verdict"], STYLES["refuse"] if "refused" in sheet["verdict"] else ""),
            state,
        )
    out.print(table)
    pending = [sheet for sheet in sheets if sheet["state"] == "pending"]
    if pending:
        out.print(f"\nNext: sitegate request show R-{pending[-1]['request']}")


def print_sheet(out: Console, sheet: Mapping[str, Any]) -> None:
    """The review sheet, most decisive first."""
    terms, dataset, runs = sheet["terms"], sheet["dataset"], sheet["runs"]
    number = f"R-{sheet['request']}"
    out.rule(Text(f"{number} · {terms['title']}"), align="left")
    _field(out, "State", f"{sheet['state']} · submitted {_when(sheet['submitted_at'])}")
    if sheet["decided_at"]:
        decided = f"{sheet['decided_by']}, {_when(sheet['decided_at'])}: {sheet['reason']}"
        _field(out, "Decided", decided)
    _field(out, "From", sheet["researcher"])
    _field(out, "Purpose", terms["purpose"])
    shown = dataset["training_images"]
    images = f"{shown:,} training images" if shown is not None else "number suppressed"
    _field(out, "MAY READ", f"{dataset['name']} version {dataset['version'][:12]} ({images})")
    _field(out, "De-ident.", certificate_in_words(dataset["certificate"]))
    _field(out, "LEAVES", f"per run: {sheet['leaves']}")
    if sheet["leaves_bytes"] is not None:
        total = in_megabytes(sheet["leaves_bytes"] * runs["asked"])
        _field(out, "", f"over all {runs['asked']} runs: {total} of arrays")
    _field(out, "Runs", f"{runs['asked']} asked for, {runs['used']} used; failed runs count")
    _field(out, "Holds", f"{terms['expires_in_days']} days from approval {sheet['expires_at']}")
    out.print()
    arguments = Table(box=None, pad_edge=False, title="Arguments", title_justify="left")
    arguments.add_column("Argument")
    arguments.add_column("How it is bound", overflow="fold")
    for name, bound in sheet["arguments"].items():
        arguments.add_row(escape(name), escape(bound))
    out.print(arguments)
    out.print()
    out.print(f"POLICY {sheet['policy']}: {sheet['verdict']}", style="bold", markup=False)
    rules = Table(box=None, pad_edge=False)
    for heading in ("", "Rule", "Seen", "Allowed"):
        rules.add_column(heading, overflow="fold")
    order = {"refuse": 0, "read": 1, "pass": 2}
    for finding in sorted(sheet["findings"], key=lambda f: order[f["severity"]]):
        where = f" (line {finding['line']})" if finding["line"] else ""
        rules.add_row(
            Text(finding["severity"], STYLES[finding["severity"]]),
            escape(finding["rule"] + where),
            escape(finding["seen"]),
            escape(finding["allowed"]),
        )
    out.print(rules)
    out.print()
    marked = {f["line"]: f["severity"] for f in sheet["findings"] if f["line"]}
    out.print(f"TEXT   sha256 {sheet['text_sha256']}", style="bold")
    for n, line in enumerate(sheet["text"].splitlines(), start=1):
        visible = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)
        out.print(Text(f"{n:4d}  {visible}", STYLES.get(marked.get(n, ""), "")), soft_wrap=True)
    if sheet["state"] == "pending":
        out.print(
            f'\nsitegate request approve {number} · sitegate request deny {number} --reason "…"',
            style="bold",
        )


def certificate_in_words(certificate: Mapping[str, Any] | None) -> str:
    """How a dataset version was de-identified, in a line."""
    if certificate is None:
        return "NO certificate signed by this site"
    codes = ", ".join(method["code"] for method in certificate["methods"]) or "no profile"
    search = certificate["text_search"]
    searched = (
        f"{search['searched']:,} images searched for text, {search['found']:,} with text left out"
        if search["tool"]
        else "NOT searched for text"
    )
    heads = sum(certificate["recognisable"].values())
    faces = f"; {heads:,} files may show FACES" if heads else ""
    left_out = sum(certificate["quarantined"].values())
    return (
        f"{codes}; {searched}; {left_out:,} in quarantine; smallest group "
        f"{certificate['smallest_group']}{faces}"
    )


def _field(out: Console, name: str, value: str) -> None:
    out.print(Text(f"{name:<10}", "bold") + Text(value), soft_wrap=False)


def _when(time: str) -> str:
    return time[:16].replace("T", " ") + " UTC"


def _age(time: str) -> str:
    seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(time)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"
