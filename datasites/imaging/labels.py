"""Labels: which class each image has, from a CSV, a DICOM tag or the folder it lies in.

Nothing is guessed: an image without a label, with two different ones, or with one that is no class
is left out and counted. Identifiers of a CSV become keyed hashes while it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasites.errors import DatasetError
from datasites.imaging.problems import Quarantined, Reason, UnreadableSourceError
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.subgroups import NO_VALUE, check_attribute, find_values

Kind = Literal["sop", "series", "study", "accession", "patient", "path"]
COLUMNS: dict[str, Kind] = {
    "sop_instance_uid": "sop",
    "series_instance_uid": "series",
    "study_instance_uid": "study",
    "accession_number": "accession",
    "patient": "patient",
    "path": "path",
}
"""Columns of a CSV that say which image a row is about, and what they identify."""
PSEUDONYM = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Labels:
    """Where labels come from.

    Attributes:
        classes: The class names; a label is an index into them.
        kind: What the rows of a CSV identify; None without a CSV.
        rows: Keyed hash -> the labels that the CSV gives it.
        patients: Keyed hash -> the key of the patient, where the CSV names patients too.
        tag: Keyword of the DICOM attribute that holds the label; None for a CSV or folders.
        groups: Attribute -> its values, for subgroups.
        members: Attribute -> keyed hash -> the value that the CSV gives it, if it is one.
    """

    classes: tuple[str, ...]
    kind: Kind | None = None
    rows: Mapping[str, frozenset[str]] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    tag: str | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def find(self, keys: Mapping[str, str], tagged: str, folder: str | None) -> int:
        """The label of an image, 0 to len(classes) - 1.

        Args:
            keys: Kind -> keyed hash of the image's identifier of that kind.
            tagged: The value of `tag`, empty without one.
            folder: The name of the folder, for sources with a folder per class.

        Raises:
            Quarantined: There is no label, more than one, or one that is no class.
        """
        if self.kind is not None:
            found = self.rows.get(keys.get(self.kind, ""), frozenset())
            where = f"the CSV has no row for its {self.kind}"
        elif self.tag is not None:
            found, where = frozenset({tagged} - {""}), f"{self.tag} is empty"
        else:
            found, where = frozenset({folder or ""} - {""}), "it lies in no folder of a class"
        if not found:
            raise Quarantined(Reason.NO_LABEL, where)
        if len(found) > 1:
            raise Quarantined(Reason.TWO_LABELS, "rows of the CSV contradict each other")
        title = next(iter(found))
        if title not in self.classes:
            raise Quarantined(Reason.UNKNOWN_CLASS, "its label is none of the classes")
        return self.classes.index(title)

    def places(self, keys: Mapping[str, str]) -> tuple[int, ...]:
        """Of each attribute the place of an image's value; -1 where it has none, or two."""
        key = keys.get(self.kind or "", "")
        found = ((values, self.members[name].get(key)) for name, values in self.groups.items())
        return tuple(NO_VALUE if value is None else values.index(value) for values, value in found)


def read_labels(
    path: Path,
    classes: tuple[str, ...],
    pseudonyms: Pseudonyms,
    column: str = "label",
    groups: Sequence[str] = (),
) -> Labels:
    """The labels in a CSV with one identifying column of `COLUMNS`, a label and maybe a patient.

    Args:
        path: The CSV.
        classes: The class names.
        pseudonyms: Make the keyed hashes.
        column: The column of labels.
        groups: Columns that become subgroups.

    Raises:
        UnreadableSourceError: It is missing, no CSV, or has no or two identifying columns.
        DatasetError: A column cannot become a subgroup.
    """
    import pandas as pd  # half a second that other commands need not wait for

    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
        )
    except OSError as error:
        raise UnreadableSourceError(f"there is no file {path}") from error
    except (ValueError, UnicodeDecodeError) as error:  # pandas' ParserError is a ValueError
        raise UnreadableSourceError(f"{path.name} is not a CSV in UTF-8") from error
    names = {str(name).strip(): str(name) for name in table.columns}
    found = [name for name in COLUMNS if name in names]
    identifying = [name for name in found if name != "patient"] or found
    if len(identifying) != 1 or column not in names:
        raise UnreadableSourceError(
            f"{path.name} has the columns {', '.join(names) or 'none'}; it needs one of "
            f"{', '.join(COLUMNS)}, and `{column}`"
        )
    kind = COLUMNS[identifying[0]]
    rows: dict[str, set[str]] = {}
    patients: dict[str, str] = {}
    values, titles = table[names[identifying[0]]].str.strip(), table[names[column]].str.strip()
    with_patients = kind != "patient" and "patient" in names
    whose = table[names["patient"]].str.strip() if with_patients else [""] * len(table)
    keys = [key_of(pseudonyms, kind, value) for value in values]
    for key, label, patient in zip(keys, titles, whose, strict=True):
        rows.setdefault(key, set()).update({label} - {""})
        if patient:
            patients[key] = key_of(pseudonyms, "patient", patient)
    values_of: dict[str, tuple[str, ...]] = {}
    members: dict[str, dict[str, str]] = {}
    for name in sorted(set(groups)):
        check_attribute(name)
        if name not in names or name in COLUMNS or name == column:
            raise DatasetError(
                f"--group {name}: {path.name} has no such column beside those of images and "
                f"labels; it has {', '.join(names)}"
            )
        cells = table[names[name]].str.strip().tolist()
        values_of[name] = find_values(name, cells)
        members[name] = _without_contradiction(keys, cells)
    return Labels(
        classes=classes,
        kind=kind,
        rows={k: frozenset(v) for k, v in rows.items()},
        patients=patients,
        groups=values_of,
        members=members,
    )


def _without_contradiction(keys: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Keyed hash -> its value, where there is one and rows do not contradict each other."""
    found: dict[str, set[str]] = {}
    for key, value in zip(keys, cells, strict=True):
        found.setdefault(key, set()).update({value} - {""})
    return {key: next(iter(values)) for key, values in found.items() if len(values) == 1}


def key_of(pseudonyms: Pseudonyms, kind: Kind, value: str) -> str:
    """The keyed hash of an identifier; a patient may be given by the pseudonym itself."""
    if kind == "patient":
        return value if PSEUDONYM.fullmatch(value) else pseudonyms.patient(value)
    return pseudonyms.key(kind, value)
