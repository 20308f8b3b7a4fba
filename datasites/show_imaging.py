"""How the command line shows scans, publications, certificates and datasets to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datasites.catalogue import Card
from datasites.certificate import Certificate
from datasites.imaging.scan import Scan
from datasites.imaging.splits import SPLITS
from datasites.new_version import Outcome
from datasites.withdrawal import Seen


def print_scan(out: Console, scan: Scan) -> None:
    """What a source holds, and what would go to quarantine."""
    out.print(f"{scan.files:,} files, {scan.series:,} series or pictures\n")
    table = _table("Modality", "Transfer syntax", "Photometric", "Bits", "Columns x rows", "Images")
    for kind, frames in sorted(scan.images.items(), key=lambda pair: (-pair[1], pair[0])):
        table.add_row(
            kind.modality, kind.syntax, kind.photometric, str(kind.bits), kind.size, f"{frames:,}"
        )
    out.print(table if scan.images else "No image was found.")
    if scan.heads:
        yes, possibly = scan.heads["yes"], scan.heads["possibly"]
        out.print(
            f"\nFaces may be recognisable: {yes:,} CT or MR files show a head, {possibly:,} do not "
            "say what they show. A policy decides (publishing.recognisable_heads)."
        )
    if scan.problems:
        out.print()
        problems = _table("Would be left out", "Why", "Files")
        for (reason, detail), count in scan.problems.most_common():
            problems.add_row(reason, escape(detail), f"{count:,}")
        out.print(problems)


def print_outcome(out: Console, outcome: Outcome) -> None:
    """What a publication published, and what it left out."""
    card = outcome.card
    if outcome.resumed:
        out.print(f"Resumed: {outcome.resumed:,} files had been read before.")
    table = _table("Published", *card.classes, "Images", "Patients")
    for split in _splits(card):
        counts, images = card.counts[split], card.images(split)
        table.add_row(
            split,
            *(_number(counts[title]) for title in card.classes),
            _number(images),
            _number(card.patients.get(split)),
        )
    out.print(table)
    if outcome.quarantined:
        out.print()
        left_out = _table("Quarantined", "Why", "Files")
        for (reason, detail), count in Counter(outcome.quarantined).most_common():
            left_out.add_row(reason.value, escape(detail), f"{count:,}")
        out.print(left_out)
    if not outcome.text_searched:
        out.print("\nPixels were NOT searched for text.", style="yellow")
    if outcome.moved:
        out.print(
            f"\n{outcome.moved:,} patients are in another split than in the version before: of a "
            "model trained on that one, measures on this one would flatter.",
            style="yellow",
        )
    if outcome.look_alikes:
        out.print(
            f"\n{outcome.look_alikes:,} images look like another patient's; such patients are in "
            "one split."
        )
    out.print()
    out.print(f"{card.name} is version {outcome.version}", markup=False, soft_wrap=True)


def print_certificate(out: Console, certificate: Certificate, version: str, key: str) -> None:
    """The certificate on one page."""
    found = certificate
    out.rule(f"De-identification certificate · {escape(found.dataset)} · {escape(found.site)}")
    _field(out, "Version", f"sha256 {version}")
    _field(out, "Published", f"{found.published_at} by {found.published_by}, from {found.source}")
    patients = f"{found.patients:,} patients" if found.patients is not None else "patients unknown"
    _field(out, "Images", f"{found.images:,} of {patients}; smallest group {found.smallest_group}")
    applied = "; ".join(f"{m.code} {m.meaning}" for m in found.methods) or "none"
    _field(out, "Applied", applied)
    for sentence in found.not_applied:
        _field(out, "NOT applied", sentence)
    search = found.text_search
    ocr = (
        f"{search.searched:,} images searched with {search.tool}, words found in {search.found:,}"
        if search.tool
        else "NOT made"
    )
    _field(out, "Text search", ocr)
    heads = found.recognisable
    if sum(heads.values()):
        _field(
            out, "Faces",
            f"{heads.get('yes', 0):,} CT or MR files show a head, {heads.get('possibly', 0):,} "
            "possibly; faces are not removed",
        )  # fmt: skip
    left_out = ", ".join(f"{reason} {n:,}" for reason, n in sorted(found.quarantined.items()))
    _field(out, "Quarantined", left_out or "nothing")
    _field(out, "Look-alikes", f"{found.look_alikes:,} images; kept in one split")
    if found.parent:
        gone = f", {found.withdrawn_patients} patient withdrawn" if found.withdrawn_patients else ""
        _field(out, "Parent", f"sha256 {found.parent}{gone}")
    tools = ", ".join(f"{tool} {number}" for tool, number in found.tools.items())
    _field(out, "Made with", tools)
    by_action: dict[tuple[str, int], list[str]] = {}
    for action in found.actions:
        if action.action != "kept":
            keyword = action.attribute.rpartition(" ")[2]
            name = action.attribute if action.attribute.islower() else keyword
            by_action.setdefault((action.action, action.count), []).append(name)
    if by_action:
        out.print("\nWhat was done with which attribute, and how often in what was read (kept are")
        out.print("technical ones; --json has all):")
    for (did, count), names in sorted(
        by_action.items(), key=lambda pair: (pair[0][0], -pair[0][1])
    ):
        _field(out, f"{did} x{count:,}", ", ".join(names))
    out.print()
    out.print(f"Signature of the site's key {key} is valid.", markup=False, soft_wrap=True)


def print_datasets(out: Console, cards: Mapping[str, Card], retired: Collection[str]) -> None:
    """The dataset versions in one table."""
    table = _table("Dataset", "Version", "Images", "Shape", "Classes", "Licence")
    for version, card in cards.items():
        images = "  ".join(f"{split} {_number(card.images(split))}" for split in _splits(card))
        shape = " x ".join(map(str, card.shape))
        state = " (withdrawn)" if version in retired else ""
        table.add_row(
            card.name, version[:12] + state, images, shape, escape(", ".join(card.classes)),
            escape(card.licence),
        )  # fmt: skip
    out.print(table if cards else "No dataset yet. Publish one with `sitegate dataset publish`.")


def print_seen(out: Console, seen: Sequence[Seen]) -> None:
    """Who was approved for a version, and what they took along."""
    if not seen:
        out.print("No request was ever approved for it.")
        return
    table = _table("Request", "From", "Title", "State", "Updates released")
    for row in seen:
        table.add_row(
            f"R-{row.request}", escape(row.researcher), escape(row.title), row.state,
            f"{row.released:,}",
        )  # fmt: skip
    out.print("\nIt was seen by:")
    out.print(table)
    if any(row.released for row in seen):
        out.print(
            "Models trained on these updates have seen the withdrawn images; tell the researchers."
        )


def _field(out: Console, name: str, value: str) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=11)
    grid.add_column(overflow="fold")
    grid.add_row(f"[bold]{name}[/bold]", escape(value))
    out.print(grid)


def _splits(card: Card) -> list[str]:
    known = [split for split in SPLITS if split in card.counts]
    return known + sorted(set(card.counts) - set(known))


def _number(count: int | None) -> str:
    return "suppressed" if count is None else f"{count:,}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        right = heading in ("Files", "Images", "Patients", "Bits")
        table.add_column(heading, overflow="fold", justify="right" if right else "left")
    return table
