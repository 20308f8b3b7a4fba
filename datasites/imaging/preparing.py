"""What a worker process does: units in, standardised images and de-identified headers out.

Nothing that identifies a patient leaves this file: names, UIDs and paths become keyed hashes here,
headers are de-identified here, and words found in pixels are counted, not kept.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from datasites.imaging.burned_in import suspicion
from datasites.imaging.deidentify import Deidentifier, identify_patient
from datasites.imaging.dicom_file import MODALITIES, check_image, frame_count, parse_dicom, text
from datasites.imaging.labels import Labels
from datasites.imaging.near_duplicates import perceptual_hash
from datasites.imaging.pixels import decode, render, sample_values
from datasites.imaging.problems import Quarantined, Reason
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.recipe import Recipe, read_recipe
from datasites.imaging.recognisable import shows_head
from datasites.imaging.sources.source import Item, Unit
from datasites.imaging.standardise import Standardisation, standardise
from datasites.imaging.text_search import TextSearch, find_tesseract
from datasites.imaging.transform import Range, Voi, Window

VOLUMES = ("CT", "MR")
"""Modalities whose series are slices of one volume."""
PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
MAXIMUM_PICTURE_PIXELS = 100_000_000
KEPT_IN_MEMORY = 600_000_000
"""Bytes of a unit's files up to which they are parsed once and kept until it is done."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a publishing was asked for; the same for every unit of it."""

    standardisation: Standardisation
    labels: Labels
    options: tuple[str, ...]
    search_text: bool
    suspect_modalities: tuple[str, ...]
    allow_heads: bool
    patient_per_file: bool
    secret: bytes


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image as it will be published, and what is kept about it at the site."""

    array: NDArray[Any]
    label: int
    patient: str
    instance: str
    frame: int
    perceptual_hash: str
    header: str
    """De-identified, DICOM JSON Model (PS3.18 Annex F); `{}` for a picture."""
    places: tuple[int, ...] = ()
    """Of each attribute of `Labels.groups` the place of its value, -1 for none."""


@dataclass(slots=True)
class PreparedUnit:
    """What became of a unit."""

    key: str
    items: int = 0
    """Files or instances that it was made of."""
    images: list[PreparedImage] = field(default_factory=list)
    quarantined: list[tuple[str, Reason, str]] = field(default_factory=list)
    """Key of the item, reason, detail."""
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    """`text searched`, `text found`, `modality CT`, `head yes`, `head possibly`, …"""


@dataclass(frozen=True, slots=True)
class _Belongs:
    """Where an image belongs: its class, its patient's key, the places of its values."""

    label: int
    patient: str
    places: tuple[int, ...]


@dataclass(slots=True)
class _Draft:
    """An image that still has to be searched for text."""

    image: PreparedImage
    view: NDArray[np.uint8]
    """(H, W) at its own size; empty when no text is searched for."""


def prepare(units: list[Unit], settings: Settings) -> list[PreparedUnit]:
    """Prepare a batch of units; text in their pixels is searched for in one go."""
    tools = _tools(settings.secret, settings.options, settings.search_text)
    done, drafts = [], []
    for unit in units:
        prepared = PreparedUnit(tools.pseudonyms.key("unit", unit.name), len(unit.items))
        drafts.append(list(_Series(unit, prepared, settings, tools).drafts()))
        done.append(prepared)
    for prepared, mine, words in zip(done, drafts, _words(drafts, tools.search), strict=True):
        marked = {d.image.instance for d, found in zip(mine, words, strict=True) if found}
        detail = "words were read in its pixels; clean it, or leave it out"
        prepared.quarantined += [(key, Reason.TEXT_FOUND, detail) for key in sorted(marked)]
        prepared.images += [d.image for d in mine if d.image.instance not in marked]
        prepared.counts["text searched"] += len(mine) if tools.search else 0
        prepared.counts["text found"] += sum(d.image.instance in marked for d in mine)
    return done


@dataclass(frozen=True, slots=True)
class _Tools:
    pseudonyms: Pseudonyms
    recipe: Recipe
    deidentifier: Deidentifier
    search: TextSearch | None


@functools.lru_cache(maxsize=2)
def _tools(secret: bytes, options: tuple[str, ...], search_text: bool) -> _Tools:
    """What a worker makes once: the recipe is long, and Tesseract's version takes a process."""
    pseudonyms, recipe = Pseudonyms(secret), read_recipe(options)
    search = find_tesseract() if search_text else None
    return _Tools(pseudonyms, recipe, Deidentifier(recipe, pseudonyms), search)


@dataclass(frozen=True, slots=True)
class _Slice:
    """A frame that may be published: whose it is, and where it lies in its series."""

    instance: _Instance
    frame: int


@dataclass(slots=True)
class _Instance:
    """A DICOM image of a unit; `dataset` is None when it has to be read again."""

    item: Item
    header: Dataset
    dataset: Dataset | None

    def load(self) -> Dataset:
        """The dataset with its pixels."""
        return self.dataset or parse_dicom(read_item(self.item))


class _Series:
    """One unit on its way."""

    def __init__(
        self, unit: Unit, prepared: PreparedUnit, settings: Settings, tools: _Tools
    ) -> None:
        self._unit, self._prepared = unit, prepared
        self._settings, self._tools = settings, tools

    def drafts(self) -> list[_Draft]:
        """Every image of the unit that passes; the others are in quarantine."""
        instances: list[_Instance] = []
        drafts: list[_Draft] = []
        keep = self._unit.size <= KEPT_IN_MEMORY
        for item in self._unit.items:
            try:
                content = read_item(item)
                if picture := picture_kind(content):
                    drafts.append(self._picture(item, content, picture))
                else:
                    instances.append(self._instance(item, content, keep))
            except Quarantined as problem:
                self._refuse(item.name, problem)
        return drafts + self._images(instances)

    def _instance(self, item: Item, content: bytes, keep: bool) -> _Instance:
        dataset = parse_dicom(content)
        check_image(dataset)
        if (suspected := suspicion(dataset, self._settings.suspect_modalities)) is not None:
            raise suspected
        head = shows_head(dataset)
        if head != "no" and not self._settings.allow_heads:
            raise Quarantined(
                Reason.RECOGNISABLE,
                "the policy does not allow CT or MR that may show a face; "
                "a BodyPartExamined that says otherwise, or `recognisable_heads: allow`, does",
            )
        self._prepared.counts[f"head {head}"] += 1
        modality = text(dataset, "Modality")
        self._prepared.counts[f"modality {modality if modality in MODALITIES else 'other'}"] += 1
        if keep:
            return _Instance(item, dataset, dataset)
        header = Dataset()
        header.file_meta = dataset.file_meta
        for tag in dataset.keys():  # noqa: SIM118  a dataset iterates over its elements
            if tag.group != 0x7FE0:
                header[tag] = dataset.get_item(tag)
        return _Instance(item, header, None)

    def _images(self, instances: list[_Instance]) -> list[_Draft]:
        """The chosen slices, rendered; an instance that fails takes none of the others along."""
        slices = self._chosen(instances)
        drafts: list[_Draft] = []
        broken: set[int] = set()
        ranges = self._ranges(instances, broken)
        for chosen in slices:
            instance = chosen.instance
            if id(instance) in broken:
                continue
            try:
                drafts.append(self._image(instance, chosen.frame, ranges))
            except Quarantined as problem:
                broken.add(id(instance))
                self._refuse(instance.item.name, problem)
        return drafts

    def _chosen(self, instances: list[_Instance]) -> list[_Slice]:
        rule = self._settings.standardisation
        volumes = [i for i in instances if text(i.header, "Modality") in VOLUMES]
        volumes.sort(key=_position)
        slices = [_Slice(i, f) for i in volumes for f in range(frame_count(i.header))]
        chosen = [slices[k] for k in rule.chosen(len(slices))]
        for instance in instances:
            if text(instance.header, "Modality") not in VOLUMES:
                frames = rule.chosen(frame_count(instance.header))
                chosen += [_Slice(instance, frame) for frame in frames]
        return chosen

    def _ranges(self, instances: list[_Instance], broken: set[int]) -> Voi | None:
        """Percentiles of an MR series, over all of its slices."""
        values = []
        for instance in instances:
            if text(instance.header, "Modality") != "MR":
                continue
            try:
                dataset = instance.load()
                if text(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
                    for frame in range(frame_count(dataset)):
                        values.append(sample_values(dataset, frame, decode(dataset, frame)))
            except Quarantined as problem:
                broken.add(id(instance))
                self._refuse(instance.item.name, problem)
        joined = np.concatenate(values) if values else np.empty(0)
        if not len(joined):
            return None
        low, high = np.percentile(joined, self._settings.standardisation.mr_percentiles)
        return Range(float(low), float(high))

    def _image(self, instance: _Instance, frame: int, series_range: Voi | None) -> _Draft:
        dataset = instance.load()
        modality = text(dataset, "Modality")
        voi: Voi | None = None
        if modality == "CT":
            voi = Window(*self._settings.standardisation.hounsfield, "LINEAR_EXACT")
        elif modality == "MR":
            voi = series_range
        belongs = self._belongs(instance)
        rendered = render(dataset, frame, decode(dataset, frame), voi)
        made = self._tools.deidentifier(instance.header)
        self._prepared.actions.update(made.actions)
        named = text(dataset, "SOPInstanceUID") or instance.item.name
        instance_key = self._tools.pseudonyms.key("sop", named)
        header = json.dumps(made.header.to_json_dict(), separators=(",", ":"))
        return self._draft(rendered, belongs, instance_key, frame, header)

    def _belongs(self, instance: _Instance) -> _Belongs:
        """Class, patient and subgroups of an instance."""
        header, item, pseudonyms = instance.header, instance.item, self._tools.pseudonyms
        patient_id = identify_patient(header)
        if not patient_id:
            raise Quarantined(Reason.NO_PATIENT, "PatientID (0010,0020) is empty")
        patient = pseudonyms.patient(patient_id)
        named = {
            "sop": text(header, "SOPInstanceUID"),
            "series": text(header, "SeriesInstanceUID"),
            "study": text(header, "StudyInstanceUID"),
            "accession": text(header, "AccessionNumber"),
            "path": item.name,
        }
        keys = {kind: pseudonyms.key(kind, value) for kind, value in named.items() if value}
        labels = self._settings.labels
        tagged = text(header, labels.tag) if labels.tag else ""
        keys["patient"] = patient
        return _Belongs(labels.find(keys, tagged, item.folder), patient, labels.places(keys))

    def _picture(self, item: Item, content: bytes, kind: str) -> _Draft:
        pseudonyms, labels = self._tools.pseudonyms, self._settings.labels
        key = pseudonyms.key("path", item.name)
        label = labels.find({"path": key}, "", item.folder)
        patient = labels.patients.get(key, "")
        if not patient and not self._settings.patient_per_file:
            raise Quarantined(
                Reason.NO_PATIENT,
                "a picture says nothing about its patient; name patients in the CSV (`patient`), "
                "or say --patient-per-file",
            )
        self._prepared.counts[f"modality {kind}"] += 1
        instance = pseudonyms.key("sop", item.name)
        rendered = _read_picture(content, kind)
        belongs = _Belongs(label, patient or instance, labels.places({"path": key}))
        return self._draft(rendered, belongs, instance, 0, "{}")

    def _draft(
        self,
        rendered: NDArray[np.float32],
        belongs: _Belongs,
        instance: str,
        frame: int,
        header: str,
    ) -> _Draft:
        array = standardise(rendered, self._settings.standardisation)
        hashed = perceptual_hash(_grey(array if array.dtype == np.uint8 else array * 255))
        image = PreparedImage(
            array, belongs.label, belongs.patient, instance, frame, hashed, header, belongs.places
        )
        if self._tools.search is None:
            return _Draft(image, np.empty((0, 0), np.uint8))
        return _Draft(image, _grey(np.rint(rendered * np.float32(255))))

    def _refuse(self, name: str, problem: Quarantined) -> None:
        key = self._tools.pseudonyms.key("sop", name)
        self._prepared.quarantined.append((key, problem.reason, problem.detail))


def _words(drafts: list[list[_Draft]], search: TextSearch | None) -> list[list[int]]:
    """How many words were read in each draft of each unit."""
    if search is None:
        return [[0] * len(mine) for mine in drafts]
    counted = iter(search.count_words([draft.view for mine in drafts for draft in mine]))
    return [[next(counted) for _ in mine] for mine in drafts]


def read_item(item: Item) -> bytes:
    """The bytes of an item.

    Raises:
        Quarantined: It was refused before, or cannot be read.
    """
    if item.refused is not None:
        raise item.refused
    try:
        return item.read()
    except MemoryError as error:
        raise Quarantined(Reason.TOO_LARGE, "needs more memory than one file may have") from error
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        RuntimeError,  # zipfile's word for an encrypted member
        NotImplementedError,  # zipfile's word for a way of packing that it does not know
    ) as error:
        raise Quarantined(Reason.BROKEN, "the file cannot be read") from error
    except Exception as error:  # zlib, lzma and bz2 have errors of their own
        raise Quarantined(Reason.BROKEN, "the archive member cannot be unpacked") from error


def picture_kind(content: bytes) -> str | None:
    """`PNG` or `JPEG` by how a file begins, None for anything else."""
    return next((kind for start, kind in PICTURES.items() if content.startswith(start)), None)


def _read_picture(content: bytes, kind: str) -> NDArray[np.float32]:
    """A PNG or JPEG as (H, W) or (H, W, 3) float32 in [0, 1]; nothing but its pixels is read."""
    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as picture:
            if picture.width * picture.height > MAXIMUM_PICTURE_PIXELS:
                raise Quarantined(
                    Reason.TOO_LARGE, f"{picture.width:,} x {picture.height:,} pixels"
                )
            if picture.mode in ("I;16", "I;16B", "I"):
                return (np.asarray(picture, dtype=np.float32) / np.float32(65_535)).clip(0, 1)
            grey = picture.mode in ("1", "L", "LA")
            pixels = np.asarray(picture.convert("L" if grey else "RGB"), dtype=np.float32)
            return pixels / np.float32(255)
    except Quarantined:
        raise
    except Image.DecompressionBombError as error:
        raise Quarantined(Reason.TOO_LARGE, "more pixels than are read") from error
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise Quarantined(Reason.BROKEN, f"the {kind} cannot be decoded") from error


def _position(instance: _Instance) -> tuple[float, int, str]:
    """Order in a volume: along its normal (PS3.3 C.7.6.2.1.1), else by instance number."""
    header = instance.header
    along = 0.0
    try:
        across = np.array([float(v) for v in header.ImageOrientationPatient])
        where = np.array([float(v) for v in header.ImagePositionPatient])
        along = float(np.cross(across[:3], across[3:]) @ where)
    except Exception:  # missing or damaged: the instance number orders
        along = 0.0
    number = text(header, "InstanceNumber")
    return along, int(number) if number.isdecimal() else 0, text(header, "SOPInstanceUID")


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """0 to 255 as (H, W) bytes; of colours the brightest."""
    return np.asarray(image if image.ndim == 2 else image.max(axis=2), dtype=np.uint8)


def array_sha256(array: NDArray[Any]) -> str:
    """Digest of one image; the order of a dataset's images is that of their digests."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
