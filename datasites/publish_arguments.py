"""What a person types after `dataset publish`, checked before anything is read.

Each function raises `ConfigurationError` in a sentence for what cannot be meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from datasites.config import Site
from datasites.errors import ConfigurationError
from datasites.imaging.labels import Labels, read_labels
from datasites.imaging.recipe import read_recipe
from datasites.imaging.splits import SPLITS
from datasites.imaging.standardise import (
    Standardisation,
    make_standardisation,
    read_standardisation,
)
from datasites.keys import load_pseudonyms
from datasites.sources import SourceOptions, is_arrays, is_pacs


def make_labels(
    site: Site,
    classes: tuple[str, ...],
    table: Path | None,
    column: str,
    tag: str | None,
    groups: Sequence[str] = (),
) -> Labels:
    """Where the labels are: a CSV, a DICOM attribute, or folders; and the CSV's subgroups."""
    if table is not None and tag is not None:
        raise ConfigurationError("labels come from --labels or from --label-tag, not from both")
    if tag is not None and tag_for_keyword(tag) is None:
        raise ConfigurationError(
            f"`{tag}` is no keyword of a DICOM attribute; write it like BodyPartExamined"
        )
    if table is not None:
        return read_labels(table, classes, load_pseudonyms(site.keys), column, groups)
    if groups:
        raise ConfigurationError("--group names columns of --labels; give that CSV too")
    return Labels(classes, tag=tag)


def make_description(file: Path | None, plain: dict[str, Any]) -> Standardisation:
    """The standardisation in a file, or the default one with what was given."""
    given = {name: value for name, value in plain.items() if value is not None}
    base = read_standardisation(file) if file else Standardisation()
    if file and given:
        raise ConfigurationError(
            f"--standard says all about pixels; leave out {', '.join(f'--{n}' for n in given)}"
        )
    return make_standardisation({**base.model_dump(), **given}) if given else base


def parse_classes(text: str) -> tuple[str, ...]:
    """The class names in `a,b`."""
    titles = tuple(part.strip() for part in text.split(","))
    if len(titles) < 2 or "" in titles or len(set(titles)) < len(titles):
        raise ConfigurationError(
            f"--classes is `{text}`; write at least two different names: normal,pneumonia"
        )
    return titles


def check_report(report: Path | None, source: str) -> None:
    """Refuse a report that could not be written in the end."""
    if report is None:
        return
    if not Path(source).exists() or is_arrays(source):
        raise ConfigurationError("--report names files; it is for a folder or an archive")
    if not report.resolve().parent.is_dir():
        raise ConfigurationError(f"there is no folder for the report {report}")


def check_options(
    source: str, options: SourceOptions, pixels: dict[str, Any], for_files: bool
) -> None:
    """Refuse options that would be ignored."""
    if not is_pacs(source) and any(options.query_only):
        raise ConfigurationError(
            "--modality, --since and the like choose from a PACS; a folder is published whole"
        )
    told = for_files or any(value is not None for value in pixels.values())
    if is_arrays(source) and Path(source).exists() and told:
        raise ConfigurationError(
            "an .npz is published as it is; labels, groups, pixel options and --option do not apply"
        )


def parse_options(names: list[str]) -> tuple[str, ...]:
    """The options of the de-identification profile, each of which there is."""
    try:
        return read_recipe(names).options
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def parse_shares(text: str) -> dict[str, float]:
    """The shares of train, val and test in `0.7,0.1,0.2`; a share of 0 is no split."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    good = len(numbers) == 3 and all(0 <= n <= 1 for n in numbers) and numbers[0] > 0
    if not good or abs(sum(numbers) - 1) > 1e-6:
        raise ConfigurationError(
            f"--splits is `{text}`; write three shares that add up to 1: 0.7,0.1,0.2"
        )
    named = zip(SPLITS, numbers, strict=True)
    return {split: share for split, share in named if share > 0}


def identify(
    site: Site, source: str, options: SourceOptions, labels: Path | None, *how: object
) -> str:
    """The same for the same source and labels: what was read of them need not be read again."""
    where = source if is_pacs(source) else Path(source).resolve()
    table = hashlib.sha256(labels.read_bytes()).hexdigest() if labels else ""
    return load_pseudonyms(site.keys).key("source", f"{where} {options.query_only} {table} {how}")
