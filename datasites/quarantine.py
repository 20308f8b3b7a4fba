"""Which files are in quarantine: for the owner's own list, from the source and the site's secret.

The site keeps only keyed hashes of what it left out; to name the files, the source is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from datasites.imaging.dicom_file import parse_dicom, text
from datasites.imaging.preparing import read_item
from datasites.imaging.problems import Quarantined, Reason
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.sources.folder import INDEX_BATCH, Folder
from datasites.imaging.sources.source import Item
from datasites.imaging.workers import Workers


def name_quarantined(
    source: Folder,
    workers: Workers,
    pseudonyms: Pseudonyms,
    keys: Mapping[str, tuple[Reason, str]],
) -> Iterator[tuple[str, str, str]]:
    """File, reason and detail of everything in quarantine."""
    by_instance = {key.split(" ")[0]: why for key, why in keys.items()}
    listed = source.listed
    batches = [listed[k : k + INDEX_BATCH] for k in range(0, len(listed), INDEX_BATCH)]
    found = workers.map(sop_instances, batches, otherwise="")
    for batch, instances in zip(batches, found, strict=True):
        for item, instance in zip(batch, instances, strict=True):
            for name in (item.name, instance):
                why = by_instance.get(pseudonyms.key("sop", name)) if name else None
                if why is not None:
                    yield item.name, why[0].value, why[1]
                    break


def sop_instances(items: list[Item]) -> list[str]:
    """The SOP Instance UID of each item; empty for what is no DICOM file."""
    found = []
    for item in items:
        try:
            found.append(text(parse_dicom(read_item(item), pixels=False), "SOPInstanceUID"))
        except Quarantined:
            found.append("")
    return found
