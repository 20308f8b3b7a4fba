"""One dataset version as a notebook shows it: what its card says, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from federation.notebook_tables import Cell, Row, html_table

Split = TypeVar("Split")

SUPPRESSED = Cell("suppressed", below="too few to be shown")


def dataset_table(name: str, version: str, card: Mapping[str, Any]) -> str:
    """Two tables: what the images are, and how many there are of each class and subgroup.

    Args:
        name: Name of the dataset.
        version: Hash of its content.
        card: The card, as the site sends it.
    """
    facts: list[Row] = [
        ["dataset", Cell(name, below=card.get("description", ""))],
        ["version", f"{version[:12]}… (SHA-256 of the content)"],
        ["one image", f"{' x '.join(map(str, card['shape']))} pixels, {card['dtype']}"],
        ["made with", _listed(card.get("modalities", ())) or "arrays, as they were given"],
        ["de-identified by", _listed(card.get("deidentification", ())) or "not stated"],
        ["licence", card["licence"]],
    ]
    splits, patients = in_order(card["counts"]), card.get("patients", {})
    counts: list[Row] = [
        [name, *(_shown(splits[split][name]) for split in splits)] for name in card["classes"]
    ]
    if patients:
        counts.append(["patients", *(_shown(patients[split]) for split in splits)])
    for name, values in card.get("groups", {}).items():
        numbers = {split: card["group_counts"][split][name] for split in splits}
        counts += [
            [f"{name}: {value}", *(_shown(numbers[split][value]) for split in splits)]
            for value in values
        ]
    return html_table([], facts) + html_table(["images", *splits], counts)


def in_order(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits of a card in the order in which a study uses them."""
    known = [name for name in ("train", "val", "test") if name in splits]
    return {name: splits[name] for name in [*known, *(n for n in splits if n not in known)]}


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def _shown(number: int | None) -> int | Cell:
    return SUPPRESSED if number is None else number
