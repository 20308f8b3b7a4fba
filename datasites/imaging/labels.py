"""Labels: which class each image has, from a CSV, a DICOM tag or the folder it lies in.

Nothing is guessed: an image without a label, with two different ones, or with one that is no class
is left out and counted. Identifiers of a CSV become keyed hashes while it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasites.imaging.problems import Quarantined, Reason, UnreadableSourceError
from datasites.imaging.pseudonyms import Pseudonyms

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
    """

    classes: tuple[str, ...]
    kind: Kind | None = None
    rows: Mapping[str, frozenset[str]] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    tag: str | None = None

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


def read_labels(
    path: Path, classes: tuple[str, ...], pseudonyms: Pseudonyms, column: str = "label"
) -> Labels:
    """The labels in a CSV with one identifying column of `COLUMNS`, a label and maybe a patient.

    Raises:
        UnreadableSourceError: It is missing, no CSV, or has no or two identifying columns.
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
    for value, label, patient in zip(values, titles, whose, strict=True):
        key = key_of(pseudonyms, kind, value)
        rows.setdefault(key, set()).update({label} - {""})
        if patient:
            patients[key] = key_of(pseudonyms, "patient", patient)
    return Labels(classes, kind, {k: frozenset(v) for k, v in rows.items()}, patients)


def key_of(pseudonyms: Pseudonyms, kind: Kind, value: str) -> str:
    """The keyed hash of an identifier; a patient may be given by the pseudonym itself."""
    if kind == "patient":
        return value if PSEUDONYM.fullmatch(value) else pseudonyms.patient(value)
    return pseudonyms.key(kind, value)
