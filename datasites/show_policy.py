"""How the command line shows cases and the impact of a policy to a person."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datasites.policy_impact import Impact, RequestImpact
from policies.case_outcomes import Report
from policies.plain_words import counted


def print_report(out: Console, file: str, report: Report) -> None:
    """Every case of a file, and how many came out as expected."""
    out.print(Text(f"\n{report.policy} · {file}", "bold"), soft_wrap=True)
    table = _table("", "Case", "Expected", "Found")
    for outcome in report.outcomes:
        table.add_row(
            Text("ok", "green") if outcome.as_expected else Text("DIFFERS", "red"),
            escape(outcome.case),
            escape(outcome.expected),
            "as expected" if outcome.expected == outcome.found else escape(outcome.found),
        )
    out.print(table)
    out.print(f"{report.kept} of {counted(len(report.outcomes), 'case')} as expected")
    if report.untested:
        out.print(f"No case is about {', '.join(report.untested)}", markup=False)


def print_impact(out: Console, found: Impact) -> None:
    """Requests and dataset versions under the new policy, and what that means in sum."""
    old, new = found.old, found.new
    out.print(
        f"From {old.title} (sha256 {old.sha256[:8]}…) to {new.title} (sha256 {new.sha256[:8]}…)\n",
        markup=False,
        soft_wrap=True,
    )
    if found.requests:
        table = _table("ID", "State", "From", "Asks for", "Under the new policy")
        for row in found.requests:
            table.add_row(
                f"R-{row.request}", row.state, escape(row.researcher), escape(row.title),
                _fate(row),
            )  # fmt: skip
        out.print(table)
    if found.datasets:
        table = _table("Dataset", "Version", "Under the new policy")
        for version in found.datasets:
            words = "; ".join(version.problems)
            fate = Text(words, "red") if words else Text("may be asked for", "green")
            table.add_row(escape(version.name), version.version[:12], fate)
        out.print(table)
    out.print(f"\n{_in_sum(found)}", markup=False)


def _fate(row: RequestImpact) -> Text:
    if row.refused:
        already = "refused already: " if row.refused_already else "refused: "
        rules = "; ".join(f"{f.rule}: {f.seen}, allowed: {f.allowed}" for f in row.refused)
        return Text(already + rules, "red")
    return Text(f"{'to be confirmed' if row.is_approved else 'to be decided'} by {row.needs}")


def _in_sum(found: Impact) -> str:
    approved = [row for row in found.requests if row.is_approved]
    waiting = [row for row in found.requests if not row.is_approved]
    worse = sum(bool(row.refused) and not row.refused_already for row in waiting)
    unfit = sum(bool(version.problems) for version in found.datasets)
    approvals = counted(len(approved), "standing approval")
    if found.same:
        sentences = [f"Both policies say the same, so that {approvals} would go on."]
    elif approved:
        lost = sum(bool(row.refused) for row in approved)
        sentences = [
            f"The new policy stops {approvals}; {lost} would be refused, and the others run again "
            "when they are confirmed under it."
        ]
    else:
        sentences = ["No approval stands, so that nothing has to be confirmed."]
    if waiting:
        requests = counted(len(waiting), "undecided request")
        sentences.append(f"Of {requests}, {worse} would be refused that could be approved now.")
    if found.datasets:
        versions = counted(len(found.datasets), "dataset version")
        sentences.append(f"Of {versions}, {unfit} would not fit.")
    return " ".join(sentences)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
