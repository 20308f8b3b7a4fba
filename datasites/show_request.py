"""How the command line shows requests to a person: the queue, the sheet, the rehearsal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datasites.attention import Kind, what_to_look_at
from datasites.audit_log import Verification
from datasites.privacy_standing import standing_in_words
from policies.contract import in_megabytes
from policies.findings import Severity
from policies.plain_words import counted
from policies.text_lines import lines_of

STYLES = {"pass": "green", "read": "yellow", "warn": "bold magenta", "refuse": "bold red"}
KIND_STYLES = {
    Kind.REFUSED: "bold red",
    Kind.WARNING: "bold magenta",
    Kind.REHEARSAL: "bold magenta",
    Kind.CHANGED: "yellow",
    Kind.READ: "yellow",
    Kind.GOOD: "green",
}
DIFF_STYLES = {"same": "", "changed": "yellow", "added": "green", "removed": "red"}
CALLS_SHOWN = 8
RETURNED_SHOWN = 6
ATTENTION_SHOWN = 15


def print_queue(
    out: Console,
    status: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    found: Verification,
) -> None:
    """All requests in one table, with what to do next."""
    audit = f"audit intact, {found.lines:,} lines" if found.intact else "AUDIT LOG DAMAGED"
    out.print(
        f"{status['title']} · datasite running at {status['url']} · policy {status['policy']} "
        f"(sha256 {status['policy_sha256'][:4]}…) · {audit}\n",
        markup=False,
    )
    if not rows:
        out.print("No request yet.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "From", "Dataset", "Asks for", "Age", "Verdict", "State"):
        if heading == "From":
            table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=24)
        else:
            table.add_column(heading, overflow="fold")
    for row in rows:
        leaves = in_megabytes(row["leaves_bytes"]) if row["leaves_bytes"] is not None else "?"
        table.add_row(
            f"R-{row['request']}",
            escape(row["researcher"]),
            escape(f"{row['dataset']['name']} {row['dataset']['version'][:8]}"),
            escape(f"{row['title']} ({row['runs']['asked']} x {leaves})"),
            _age(row["submitted_at"]),
            Text(row["verdict"], _verdict_style(row["verdict"])),
            escape(row["state_in_words"]),
        )
    out.print(table)
    waiting = [row for row in rows if row["state"] in ("pending", "partly approved")]
    if waiting:
        out.print(f"\nNext: sitegate request show R-{waiting[-1]['request']}")


def print_sheet(out: Console, sheet: Mapping[str, Any], *, whole_diff: bool = False) -> None:
    """The review sheet, most decisive first."""
    number = f"R-{sheet['request']}"
    out.rule(Text(f"{number} · {sheet['title']}"), align="left")
    _print_head(out, sheet)
    out.print()
    _print_attention(out, sheet)
    _print_leaving(out, sheet)
    _print_rules(out, sheet)
    print_rehearsal(out, sheet)
    _print_text(out, sheet, whole_diff)
    _print_next(out, sheet, number)


def print_rehearsal(out: Console, sheet: Mapping[str, Any]) -> None:
    """What happened on the mock."""
    report = sheet["rehearsal"]
    if report is None:
        out.print("REHEARSAL  none yet; every approval is preceded by one\n", style="bold")
        return
    style = "" if report["succeeded"] and not report["suspicious"] else STYLES["warn"]
    out.print(
        Text("REHEARSAL  ", "bold")
        + Text(
            f"on {report['images']} mock images: {report['outcome']}, {report['seconds']:.2g} s, "
            f"{report['memory_mb']} MB; {_returned_in_words(report)}",
            style,
        )
    )
    for array in report["returned"][:RETURNED_SHOWN]:
        shape = " x ".join(map(str, array["shape"])) or "one number"
        out.print(
            Text(f"  returned: {array['kind']} {_visible(array['name'])}, {shape} {array['dtype']}")
        )
    if (more := len(report["returned"]) - RETURNED_SHOWN) > 0:
        out.print(f"  and {more} more arrays")
    for name, value in report["metrics"].items():
        out.print(Text(f"  returned: metric {_visible(name)} = {value:.4g}"))
    for finding in report["refused"]:
        out.print(Text(f"  would not leave: {finding['rule']}: {finding['seen']}", STYLES["warn"]))
    for attempt, times in report["attempts"]:
        out.print(Text(f"  tried: {_visible(attempt)} ({times} times)", STYLES["warn"]))
    calls = ", ".join(f"{name} x{times}" for name, times in report["calls"][:CALLS_SHOWN])
    more = len(report["calls"]) - CALLS_SHOWN
    if calls:
        out.print(Text(f"  calls: {_visible(calls)}" + (f" and {more} more" if more > 0 else "")))
    influence_style = STYLES["warn"] if report["suspicious"] else ""
    out.print(Text(f"  single images: {report['influence']}", influence_style))
    for line in report["log"].splitlines()[-5:]:
        out.print(Text(f"  said: {_visible(line[:200])}"))
    out.print()


def _print_head(out: Console, sheet: Mapping[str, Any]) -> None:
    runs, dataset, who = sheet["runs"], sheet["dataset"], sheet["requester"]
    _field(out, "State", f"{sheet['state_in_words']} · submitted {_when(sheet['submitted_at'])}")
    for decision in sheet["decisions"]:
        said = f"{decision['verb']} by {decision['person']} ({decision['role']})"
        _field(out, "", f"{said}, {_when(decision['at'])}: {decision['reason']}")
        for comment in decision["comments"]:
            _field(out, "", f"  line {comment['line']}: {comment['text']}")
    at = f", {who['institution']}" if who["institution"] else ""
    states = ", ".join(f"{n} {state}" for state, n in who["states"].items())
    before = f"{who['requests']} other requests here" + (f": {states}" if states else "")
    _field(out, "From", f"{sheet['researcher']}{at}")
    _field(out, "", f"{before}; {who['runs']} runs, {who['released']} updates released")
    _field(out, "Purpose", f"{sheet['purpose']} (use: {sheet['use']})")
    shown = dataset["training_images"]
    images = f"{shown:,} training images" if shown is not None else "number suppressed"
    _field(out, "MAY READ", f"{dataset['name']} version {dataset['version'][:12]} ({images})")
    _field(out, "De-ident.", certificate_in_words(dataset["certificate"]))
    _field(out, "LEAVES", f"per run: {sheet['leaves']}")
    if sheet["total_bytes"] is not None:
        total = in_megabytes(sheet["total_bytes"])
        _field(out, "", f"over all {runs['asked']} runs: {total} of arrays")
    style = STYLES["refuse"] if sheet["privacy"]["mode"] == "none" else ""
    for number, line in enumerate(standing_in_words(sheet["privacy"])):
        _field(out, "" if number else "PRIVACY", line, style)
    _field(
        out, "Budget",
        f"{runs['asked']} runs asked for, {runs['used']} used, {runs['left']} left; failed runs "
        "count",
    )  # fmt: skip
    _field(
        out, "Holds", f"{sheet['terms']['expires_in_days']} days from approval "
        f"{sheet['expires_at'][:16].replace('T', ' ')}",
    )  # fmt: skip
    agreed = ", ".join(f"{a['person']} ({a['role']})" for a in sheet["agreed"]) or "nobody yet"
    needed = sheet["needed"]
    wait = f"; the last of them from {_when(needed['earliest'])} on" if needed["earliest"] else ""
    _field(out, "Needs", f"{needed['in_words']}{wait}; agreed: {agreed}")
    if needed["lacking"]:
        _field(out, "", needed["lacking"])


def _print_attention(out: Console, sheet: Mapping[str, Any]) -> None:
    attention = what_to_look_at(sheet)
    out.print(Text("LOOK AT  ", "bold") + Text(attention.headline, KIND_STYLES[attention.kind]))
    for point in attention.points[:ATTENTION_SHOWN]:
        line = f" (line {point.line})" if point.line else ""
        said = f"{point.what}{line}" + (f": {point.instead}" if point.instead else "")
        out.print(Text(f"  {point.kind:<10} {_visible(said)}", KIND_STYLES[point.kind]))
    if (more := len(attention.points) - ATTENTION_SHOWN) > 0:
        out.print(f"  and {more} more, below")
    out.print()


def _print_leaving(out: Console, sheet: Mapping[str, Any]) -> None:
    arguments = Table(box=None, pad_edge=False, title="ARGUMENTS", title_justify="left")
    arguments.add_column("Argument")
    arguments.add_column("How it is bound", overflow="fold")
    for name, bound in sheet["arguments"].items():
        arguments.add_row(escape(name), escape(bound))
    out.print(arguments)
    out.print()
    leaving = Table(box=None, pad_edge=False, title="WHAT LEAVES, PER RUN", title_justify="left")
    for heading in ("Name", "Kind", "Shape", "Type", "Bytes"):
        leaving.add_column(heading, overflow="fold")
    for row in sheet["leaving"][:12]:
        shape = " x ".join(map(str, row["shape"])) or "one number"
        leaving.add_row(escape(row["name"]), row["kind"], shape, row["dtype"], f"{row['bytes']:,}")
    out.print(leaving)
    if (more := len(sheet["leaving"]) - 12) > 0:
        out.print(f"and {more} more")
    out.print()


def _print_rules(out: Console, sheet: Mapping[str, Any]) -> None:
    out.print(f"POLICY {sheet['policy']}: {sheet['verdict']}", style="bold", markup=False)
    rules = Table(box=None, pad_edge=False)
    for heading in ("", "Rule", "Seen", "Allowed"):
        rules.add_column(heading, overflow="fold")
    for finding in sorted(sheet["findings"], key=lambda f: -Severity(f["severity"]).rank):
        where = f" (line {finding['line']})" if finding["line"] else ""
        rules.add_row(
            Text(finding["severity"], STYLES[finding["severity"]]),
            escape(finding["rule"] + where),
            Text(_visible(finding["seen"])),
            Text(_visible(finding["allowed"])),
        )
    out.print(rules)
    out.print()


def _print_text(out: Console, sheet: Mapping[str, Any], whole_diff: bool) -> None:
    comparisons = sheet["comparisons"]
    first = _compared(comparisons[0]) if comparisons else "nothing like it was approved here"
    out.print(f"TEXT   sha256 {sheet['text_sha256']} · {first}", style="bold")
    for number, comparison in enumerate(comparisons):
        if number:
            out.print(f"       {_compared(comparison)}", style="bold")
        for row in comparison["rows"] if not comparison["same"] else ():
            if whole_diff or row["change"] != "same":
                _print_diff_row(out, row)
        out.print()
    marked: dict[int, str] = {}
    for finding in sheet["findings"]:
        if finding["line"]:
            before = marked.get(finding["line"], "pass")
            marked[finding["line"]] = max(
                before, finding["severity"], key=lambda word: Severity(word).rank
            )
    for n, line in enumerate(lines_of(sheet["text"]), start=1):
        style = STYLES[marked[n]] if n in marked else ""
        out.print(Text(f"{n:4d}  {_visible(line)}", style), soft_wrap=True)


def _compared(comparison: Mapping[str, Any]) -> str:
    """`3 lines differ from R-4, which was approved`."""
    standing = "which was approved" if comparison["approved"] else "whose place it takes"
    differ = "differs" if comparison["changed"] == 1 else "differ"
    said = f"{counted(comparison['changed'], 'line')} {differ} from"
    said = "the text of" if comparison["same"] else said
    return f"{said} R-{comparison['request']}, {standing}"


def _print_diff_row(out: Console, row: Mapping[str, Any]) -> None:
    style = DIFF_STYLES[row["change"]]
    if row["old"] is not None and row["change"] != "same":
        out.print(Text(f"{row['old_line']:4d} - {_visible(row['old'])}", "red"), soft_wrap=True)
    if row["new"] is not None:
        sign = " " if row["change"] == "same" else "+"
        out.print(
            Text(f"{row['new_line']:4d} {sign} {_visible(row['new'])}", style), soft_wrap=True
        )


def _print_next(out: Console, sheet: Mapping[str, Any], number: str) -> None:
    possible = {
        "pending": ("rehearse", "approve", "changes", "deny"),
        "partly approved": ("rehearse", "approve", "changes", "deny"),
        "changes requested": ("deny",),
        "approved": ("approve", "revoke") if sheet["stopped"] else ("revoke",),
    }.get(sheet["state"], ())
    if possible:
        out.print(
            "\n" + " · ".join(f"sitegate request {verb} {number}" for verb in possible),
            style="bold",
            soft_wrap=True,
        )


def _returned_in_words(report: Mapping[str, Any]) -> str:
    if report["outcome"] != "returned":
        return "nothing came back"
    declared = "exactly what was declared" if not report["refused"] else "not what was declared"
    arrays, metrics = len(report["returned"]), len(report["metrics"])
    return f"{declared}: {arrays} arrays, {metrics} metrics, {report['examples']} images counted"


def _verdict_style(verdict: str) -> str:
    if "refused" in verdict:
        return STYLES["refuse"]
    return STYLES["warn"] if "warning" in verdict else ""


def _visible(text: str) -> str:
    """A researcher's text with everything that a terminal would not show as it is, as escapes."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


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


def _field(out: Console, name: str, value: str, style: str = "") -> None:
    out.print(Text(f"{name:<10}", "bold") + Text(value, style), soft_wrap=False)


def _when(time: str) -> str:
    return time[:16].replace("T", " ") + " UTC"


def _age(time: str) -> str:
    seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(time)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"
