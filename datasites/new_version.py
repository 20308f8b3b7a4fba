"""From a source to a dataset version: read, checked, split by patient, certified, written.

Reading may be stopped at any time: the same command goes on where it was (`imaging.journal`). The
version is written in the end, whole or not at all.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasites.catalogue import Card, Rows, SplitArrays, versions_on_disk, write_version
from datasites.certificate import (
    Action,
    Certificate,
    Method,
    TextSearch,
    read_certificate,
    sign_certificate,
)
from datasites.config import Site
from datasites.errors import DatasetError
from datasites.imaging.journal import Entry, Journal
from datasites.imaging.labels import Labels
from datasites.imaging.preparing import Settings
from datasites.imaging.problems import Reason
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.recipe import Recipe, read_recipe
from datasites.imaging.sources.source import Source, Unit
from datasites.imaging.splits import Placed, look_alikes, split_by_patient
from datasites.imaging.standardise import Standardisation
from datasites.imaging.subgroups import Subgroups
from datasites.imaging.text_search import HOW_TO_INSTALL, find_tesseract
from datasites.imaging.workers import Workers
from datasites.keys import load_pseudonyms, load_site_key
from datasites.lineage import (
    Lineage,
    Member,
    latest_version,
    read_lineage,
    retired_versions,
    withdrawn_patients,
    write_lineage,
)
from datasites.minimums import check_minimums, smallest_group
from policies.document import Policy
from policies.strict import canonical_json

LIBRARIES = ("numpy", "Pillow", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg",
             "pylibjpeg-rle")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Publication:
    """What a person asks for when they publish."""

    name: str
    classes: tuple[str, ...]
    licence: str
    labels: Labels
    standardisation: Standardisation = field(default_factory=Standardisation)
    options: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    seed: int = 0
    description: str = ""
    published_by: str = ""
    patient_per_file: bool = False
    identity: str = ""
    """Of source and labels, for resuming; it may be read, so it is a keyed hash."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading is: items looked at, of how many if that is known, images, quarantined."""

    done: int
    total: int | None
    images: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a publication."""

    version: str
    card: Card
    quarantined: Mapping[tuple[Reason, str], int]
    """Reason and detail -> files or images."""
    keys: Mapping[str, tuple[Reason, str]]
    """Key of each item in quarantine; whoever has the source and the secret can name it."""
    resumed: int
    moved: int
    """Patients that are in another split than in the parent."""
    look_alikes: int
    text_searched: bool

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON types, without the keys."""
        return {
            "version": self.version,
            "card": self.card.model_dump(mode="json"),
            "quarantined": [
                {"reason": reason.value, "detail": detail, "files": count}
                for (reason, detail), count in self.quarantined.items()
            ],
            "resumed": self.resumed,
            "moved": self.moved,
            "look_alikes": self.look_alikes,
            "text_searched": self.text_searched,
        }


def publish_images(
    site: Site,
    source: Source,
    wanted: Publication,
    workers: Workers,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Publish a source as a new version of a dataset; the caller tells a running site.

    Raises:
        DatasetError: The policy does not allow it, or nothing is left to publish.
        UnreadableSourceError: The source is not what it should be, or stopped answering.
    """
    policy = site.policy()
    recipe = read_recipe(wanted.options)
    codes = tuple(code for code, _ in recipe.codes)
    _check_allowed(policy, wanted, codes)
    tool = _text_search_tool(policy)
    pseudonyms = load_pseudonyms(site.keys)
    settings = Settings(
        standardisation=wanted.standardisation,
        labels=wanted.labels,
        options=wanted.options,
        search_text=tool is not None,
        suspect_modalities=policy.publishing.suspect_modalities,
        allow_heads=policy.publishing.recognisable_heads == "allow",
        patient_per_file=wanted.patient_per_file,
        secret=pseudonyms.secret,
    )
    identity = [
        wanted.name, wanted.identity, wanted.standardisation.sha256, recipe.sha256,
        list(wanted.classes), settings.search_text, settings.suspect_modalities,
        settings.allow_heads, settings.patient_per_file,
    ]  # fmt: skip
    directory = site.state / "imports" / hashlib.sha256(canonical_json(identity)).hexdigest()[:32]
    journal = Journal(directory, wanted.standardisation.shape, wanted.standardisation.dtype)
    try:
        resumed = journal.looked_at
        _read(source, journal, settings, pseudonyms, workers, on_progress)
        finished = _finish(site, policy, source, wanted, journal, tool, recipe)
    finally:
        journal.close()
    shutil.rmtree(directory)
    return Outcome(
        version=finished.version,
        card=finished.card,
        quarantined=Counter((reason, detail) for _, reason, detail in journal.quarantined),
        keys={key: (reason, detail) for key, reason, detail in journal.quarantined},
        resumed=resumed,
        moved=finished.moved,
        look_alikes=finished.look_alikes,
        text_searched=tool is not None,
    )


def _read(
    source: Source,
    journal: Journal,
    settings: Settings,
    pseudonyms: Pseudonyms,
    workers: Workers,
    on_progress: Callable[[Progress], None],
) -> None:
    there: set[str] = set()

    def is_done(name: str) -> bool:
        key = pseudonyms.key("unit", name)
        there.add(key)
        return journal.is_done(key)

    def counted(units: Iterable[Unit]) -> Iterator[Unit]:
        for unit in units:
            on_progress(_progress(journal, source))
            yield unit

    on_progress(_progress(journal, source))
    for prepared in workers.prepare(counted(source.units(is_done)), settings):
        journal.write(prepared)
        there.update(unit.key for unit in prepared)
        on_progress(_progress(journal, source))
    if source.lists_everything:
        journal.keep_only(there)


def _progress(journal: Journal, source: Source) -> Progress:
    return Progress(journal.looked_at, source.items, len(journal.entries), len(journal.quarantined))


@dataclass(frozen=True, slots=True)
class _Finished:
    version: str
    card: Card
    moved: int
    look_alikes: int


def _finish(
    site: Site,
    policy: Policy,
    source: Source,
    wanted: Publication,
    journal: Journal,
    tool: str | None,
    recipe: Recipe,
) -> _Finished:
    """Split what was read, check it against the policy's minimums, certify and write it."""
    entries = _without_withdrawn(
        _without_duplicates(journal), journal, withdrawn_patients(site.lineages, wanted.name)
    )
    if not entries:
        reasons = Counter((reason, detail) for _, reason, detail in journal.quarantined)
        told = "; ".join(
            f"{count:,} {reason.value}: {detail}"
            for (reason, detail), count in reasons.most_common(6)
        )
        raise DatasetError(
            f"no image is left to publish ({told or 'the source is empty'}); "
            "`sitegate dataset scan` says more"
        )
    parent = latest_version(site.datasets, site.lineages, wanted.name)
    before = read_lineage(site.lineages, parent) if parent else None
    placed = [Placed(e.patient, e.label, e.perceptual_hash, e.digest) for e in entries]
    alike = look_alikes(placed)
    split_of = split_by_patient(
        placed, wanted.shares, seed=wanted.seed,
        earlier=before.split_of_patient if before else None,
    )  # fmt: skip
    members = _members(entries, split_of)
    numbers = {p: n for n, p in enumerate(dict.fromkeys(e.patient for e in entries))}
    splits: dict[str, SplitArrays] = {}
    patients: dict[str, NDArray[np.int32]] = {}
    places: dict[str, dict[str, NDArray[np.int8]]] = {}
    for split in wanted.shares:
        mine = [e for e in entries if split_of[e.patient] == split]
        labels = np.array([e.label for e in mine], dtype=np.int64)
        splits[split] = (journal.rows([e.row for e in mine]), labels)
        patients[split] = np.array([numbers[e.patient] for e in mine], dtype=np.int32)
        places[split] = {
            name: np.array([e.places[k] for e in mine], dtype=np.int8)
            for k, name in enumerate(wanted.labels.groups)
        }
    splits = {split: arrays for split, arrays in splits.items() if len(arrays[1])}
    patients = {split: patients[split] for split in splits}
    check_minimums(policy, splits, wanted.classes, len(numbers))
    added, withdrawn = _changes(before, members)
    codes = recipe.codes if journal.actions else ()  # pictures have no header to de-identify
    _check_methods(policy, tuple(code for code, _ in codes))
    tools = {name: installed(name) for name in LIBRARIES}
    heads = {k: journal.counts[f"head {k}"] for k in ("yes", "possibly")}

    def certify(card: Card, files: dict[str, str]) -> bytes:
        certificate = Certificate(
            dataset=card.name,
            site=site.config.title,
            source=source.kind,
            published_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            published_by=wanted.published_by,
            methods=tuple(Method(code=code, meaning=meaning) for code, meaning in codes),
            recipe_sha256=recipe.sha256 if codes else None,
            actions=tuple(
                Action(attribute=tag, action=action, count=count)
                for (tag, action), count in sorted(journal.actions.items())
            ),
            text_search=TextSearch(
                tool=tool,
                searched=journal.counts["text searched"],
                found=journal.counts["text found"],
            ),
            images=len(entries),
            patients=len(numbers),
            smallest_group=smallest_group(splits, len(wanted.classes)),
            quarantined=dict(Counter(r.value for _, r, _ in journal.quarantined)),
            recognisable=heads,
            look_alikes=alike,
            seed=wanted.seed,
            arrays=files,
            standardisation_sha256=wanted.standardisation.sha256,
            tools={**tools, **({"tesseract": tool.removeprefix("tesseract ")} if tool else {})},
            parent=parent,
        )
        return sign_certificate(certificate, load_site_key(site.keys))

    def remember(version: str) -> None:
        places = {entry.row: (m.split, m.row) for entry, m in zip(entries, members, strict=True)}
        headers = ((*places[row], header) for row, header in journal.headers() if row in places)
        write_lineage(site.lineages, version, Lineage(members, parent), headers)

    version, card = write_version(
        site.datasets,
        splits,
        name=wanted.name,
        classes=wanted.classes,
        source=source.kind,
        licence=wanted.licence,
        description=wanted.description,
        minimum_count=policy.counts.minimum,
        patients=patients,
        subgroups=Subgroups(wanted.labels.groups, places),
        certify=certify,
        remember=remember,
        standardisation=wanted.standardisation,
        modalities=_modalities(journal.counts),
        deidentification=tuple(code for code, _ in codes),
        recognisable=bool(sum(heads.values())),
        made_with=tools,
        retired=retired_versions(site.lineages) | _otherwise_certified(site, tool),
        parent=parent,
        added=added,
        withdrawn=withdrawn,
    )
    return _Finished(version, card, _moved(before, split_of), alike)


def publish_arrays(
    site: Site,
    splits: Mapping[str, SplitArrays],
    wanted: Publication,
    kind: str,
    subgroups: Subgroups | None = None,
) -> tuple[str, Card]:
    """Publish arrays that have neither headers nor patients: a MedMNIST file, drawn phantoms.

    Raises:
        DatasetError: The policy does not allow it, or a label has no class name.
    """
    policy = site.policy()
    _check_allowed(policy, wanted, ())
    check_minimums(policy, splits, wanted.classes, None)
    tool = _text_search_tool(policy) if min(splits["train"][0].shape[1:3]) >= 64 else None
    searched = found = 0
    if tool is not None:
        clear = {split: _without_text(images) for split, (images, _) in splits.items()}
        searched = sum(len(keep) for keep in clear.values())
        found = searched - sum(int(keep.sum()) for keep in clear.values())
        splits = {
            s: (images[:][clear[s]], labels[clear[s]]) for s, (images, labels) in splits.items()
        }
        subgroups = subgroups and subgroups.chosen(clear)
    parent = latest_version(site.datasets, site.lineages, wanted.name)

    def certify(card: Card, files: dict[str, str]) -> bytes:
        certificate = Certificate(
            dataset=card.name,
            site=site.config.title,
            source=kind,
            published_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            published_by=wanted.published_by,
            methods=(),
            recipe_sha256=None,
            not_applied=("no profile: the source holds arrays, without headers or patients",),
            actions=(),
            text_search=TextSearch(tool=tool, searched=searched, found=found),
            images=sum(len(labels) for _, labels in splits.values()),
            patients=None,
            smallest_group=smallest_group(splits, len(wanted.classes)),
            quarantined={Reason.TEXT_FOUND.value: found} if found else {},
            recognisable={},
            look_alikes=0,
            seed=None,
            arrays=files,
            standardisation_sha256=None,
            tools={"numpy": installed("numpy")},
            parent=parent,
        )
        return sign_certificate(certificate, load_site_key(site.keys))

    return write_version(
        site.datasets,
        splits,
        name=wanted.name,
        classes=wanted.classes,
        source=kind,
        licence=wanted.licence,
        description=wanted.description,
        minimum_count=policy.counts.minimum,
        subgroups=subgroups,
        certify=certify,
        retired=retired_versions(site.lineages) | _otherwise_certified(site, tool),
        parent=parent,
    )


def _without_text(images: Rows) -> NDArray[np.bool_]:
    """Which images no word was read in."""
    keep = np.ones(len(images), dtype=np.bool_)
    search = find_tesseract()
    if search is None:
        return keep
    for start in range(0, len(images), 64):
        batch = images[start : start + 64]
        grey = list(batch if batch.ndim == 3 else batch.max(axis=3))
        keep[start : start + 64] = np.array(search.count_words(grey)) == 0
    return keep


def _check_allowed(policy: Policy, wanted: Publication, codes: tuple[str, ...]) -> None:
    if wanted.name not in policy.datasets:
        raise DatasetError(
            f"policy {policy.title} knows no dataset `{wanted.name}` but "
            f"{', '.join(policy.datasets)}; publish under one of these names, or change the policy"
        )
    _check_methods(policy, codes)


def _check_methods(policy: Policy, codes: tuple[str, ...]) -> None:
    if missing := sorted(set(policy.publishing.options) - set(codes)):
        raise DatasetError(
            f"policy {policy.title} demands the de-identification methods "
            f"{', '.join(policy.publishing.options)}; {', '.join(missing)} would not be applied. "
            "Name them with --option"
        )


def _text_search_tool(policy: Policy) -> str | None:
    """Tesseract's name and version; None where the policy goes on without."""
    wish = policy.publishing.text_search
    if wish == "off":
        return None
    found = find_tesseract()
    if found is None and wish == "required":
        raise DatasetError(
            f"policy {policy.title} requires that pixels are searched for text. {HOW_TO_INSTALL} "
            "Or let the policy say `publishing: {text_search: if installed}`"
        )
    return found.version if found else None


def _otherwise_certified(site: Site, tool: str | None) -> frozenset[str]:
    """Versions whose pixels were not searched for text as they are now."""
    found = set()
    for version in versions_on_disk(site.datasets):
        with contextlib.suppress(DatasetError):
            if read_certificate(site.datasets, version).text_search.tool != tool:
                found.add(version)
    return frozenset(found)


def _without_duplicates(journal: Journal) -> list[Entry]:
    """The images in the order of their digests, each SOP instance's frame once.

    Equal images are in the order of what else their patients have, which is the same at every site.
    """
    owned: dict[str, list[str]] = {}
    for entry in journal.entries:
        owned.setdefault(entry.patient, []).append(entry.digest)
    whole = {patient: sorted(digests) for patient, digests in owned.items()}
    first: dict[tuple[str, int], Entry] = {}
    for entry in sorted(
        journal.entries, key=lambda e: (e.digest, e.label, whole[e.patient], e.instance)
    ):
        if (entry.instance, entry.frame) in first:
            detail = "the same SOP instance was read before"
            journal.quarantined.append((entry.instance, Reason.DUPLICATE, detail))
        else:
            first[entry.instance, entry.frame] = entry
    return list(first.values())


def _without_withdrawn(
    entries: list[Entry], journal: Journal, withdrawn: Collection[str]
) -> list[Entry]:
    """The images without those of patients who were withdrawn before."""
    for entry in entries:
        if entry.patient in withdrawn:
            detail = "was withdrawn from this dataset and does not come back"
            journal.quarantined.append((entry.instance, Reason.WITHDRAWN, detail))
    return [entry for entry in entries if entry.patient not in withdrawn]


def _members(entries: list[Entry], split_of: Mapping[str, str]) -> tuple[Member, ...]:
    """Each image's place in the version."""
    places: Counter[str] = Counter()
    members = []
    for e in entries:
        split = split_of[e.patient]
        members.append(Member(split, places[split], e.patient, e.instance, e.frame, e.label))
        places[split] += 1
    return tuple(members)


def _moved(before: Lineage | None, split_of: Mapping[str, str]) -> int:
    """How many patients are in another split than before: look-alikes and other shares do it."""
    then = before.split_of_patient if before else {}
    return sum(then.get(patient, split) != split for patient, split in split_of.items())


def _changes(before: Lineage | None, members: tuple[Member, ...]) -> tuple[int | None, int | None]:
    """How many images were added to the parent's, and withdrawn from them."""
    if before is None:
        return None, None
    now = {(m.instance, m.frame) for m in members}
    then = {(m.instance, m.frame) for m in before.members}
    return len(now - then), len(then - now)


def _modalities(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(k.removeprefix("modality ") for k in counts if k.startswith("modality ")))
