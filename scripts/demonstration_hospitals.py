"""The hospitals of the demonstration: made, filled with images, and started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import federation
from datasites.catalogue import Card
from datasites.config import SiteConfig
from datasites.errors import SiteError
from datasites.imaging.dicom_phantoms import HEAD_CLASSES
from datasites.imaging.labels import Labels, read_labels
from datasites.imaging.sources.folder import Folder
from datasites.imaging.sources.medmnist import read_groups
from datasites.imaging.standardise import Standardisation
from datasites.imaging.text_search import find_tesseract
from datasites.imaging.workers import Workers
from datasites.keys import load_pseudonyms
from datasites.lineage import latest_version
from datasites.new_site import example_config, example_policy
from datasites.new_version import Publication, publish_arrays, publish_images
from datasites.people import generate_password
from datasites.trial import TrialSite, free_port, roster
from demonstration_data import (
    TEST_SHARE,
    divide,
    divide_rows,
    draw_phantoms,
    load_images,
    part_of,
    write_dicom,
)
from federation.submission import Federation

ROOT = Path(__file__).resolve().parent.parent
JOBS = ROOT / "notebooks" / "jobs"
CLASSES = ("normal", "pneumonia")
DATASET = "chest-xray"
HEADS = "head-mr"
GROUP = "sex"
"""Whether the model works alike for all: an attribute of the phantoms."""
EMERGENCY = "emergency-xray"
"""A name that policies know and nobody has published yet: notebook 11 does."""
RESEARCHER = "researcher@uni.example"
BINS = 240
MINIMUM_COUNT = 5
RECIPE = {"augmentation": 1.0, "class_weights": "balanced"}
"""What the training job is told beside its defaults for images of a file: the recipe of
`pneumonia_study.py`."""
FOR_PHANTOMS = {"optimizer": "adam", "learning_rate": 0.003, "batch_size": 16, "augmentation": 0.3}
"""The same for phantoms, of which there are fewer."""
MORE_HOSPITALS = ("Lakeside", "Hillcrest", "Riverbank", "Northgate", "Parkview")


@dataclass(slots=True)
class Demonstration:
    """What the steps hand to one another."""

    data: Path | None
    hospitals: int
    rounds: int
    seed: int
    out: Path
    sites: list[TrialSite] = field(default_factory=list)
    images: int = 1680
    decisions: list[dict[str, str]] = field(default_factory=list)
    refusals: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    password: str = field(default_factory=generate_password, repr=False)
    """The researcher's, the same at every hospital."""

    @property
    def training(self) -> dict[str, Any]:
        """What the training job is told beside its defaults."""
        return {**(RECIPE if self.data else FOR_PHANTOMS), "seed": self.seed}

    @property
    def data_name(self) -> str:
        """What the images are, for people."""
        return self.data.name if self.data else "phantoms"

    def site(self, name: str) -> TrialSite:
        """A site by its short name."""
        return next(site for site in self.sites if site.name == name)


def make_hospitals(demonstration: Demonstration, directory: Path) -> None:
    """Make the sites; none has a dataset yet."""
    configs = [example_config(name) for name in ("st-marys", "north-clinic", "seaside")]
    configs += [SiteConfig(name=title.lower(), title=title) for title in MORE_HOSPITALS]
    for k, config in enumerate(configs[: demonstration.hospitals]):
        strict = k == min(2, demonstration.hospitals - 1)
        policy = directory / f"{config.name}-policy.yaml"
        policy.write_text(_policy(demonstration, strict))
        site = TrialSite(
            directory / config.name, config.model_copy(update={"port": free_port()}), policy
        )
        demonstration.sites.append(site)


def publish_arrays_of(demonstration: Demonstration, file: Path) -> Iterator[str]:
    """Divide a MedMNIST file among the hospitals and publish each part; a line for each."""
    splits = load_images(file)
    subgroups = read_groups(file, splits)
    rows_of = divide_rows(splits, demonstration.hospitals)
    for rows, site in zip(rows_of, demonstration.sites, strict=True):
        wanted = _publication("as the file says", Labels(CLASSES))
        _, card = publish_arrays(
            site.site,
            part_of(splits, rows),
            wanted,
            demonstration.data_name,
            subgroups.chosen(rows),
        )
        yield f"{site.site.config.title:<14} {_images(card)}"


def publish_phantoms(demonstration: Demonstration, directory: Path) -> Iterator[str]:
    """Draw phantoms, write them as each hospital's DICOM archive, and publish; a line for each.

    Each goes the way of a hospital's own files: read, de-identified, searched for text, split by
    patient, certified.
    """
    drawn = draw_phantoms(demonstration.images, demonstration.seed)
    parts = divide(drawn, demonstration.hospitals)
    archives = write_dicom(directory / "archives", parts, CLASSES, demonstration.seed)
    with Workers() as workers:
        for archive, site in zip(archives, demonstration.sites, strict=True):
            secrets = load_pseudonyms(site.site.keys)
            labels = read_labels(archive.chest_labels, CLASSES, secrets, groups=(GROUP,))
            wanted = _publication("made by code, free to use", labels, archive.test_share)
            chest = publish_images(site.site, Folder(archive.chest, workers), wanted, workers)
            labels = read_labels(archive.head_labels, HEAD_CLASSES, secrets)
            wanted = replace(
                wanted,
                name=HEADS, classes=HEAD_CLASSES, labels=labels,
                standardisation=Standardisation(size=64),
                shares={"train": 0.8, "test": 0.2},
                description="MR slices of heads that do not exist",
            )  # fmt: skip
            head = publish_images(site.site, Folder(archive.head, workers), wanted, workers)
            left_out = sum(chest.quarantined.values())
            why = {reason.value for reason, _ in chest.quarantined}
            maker = archive.maker
            yield (
                f"{site.site.config.title:<14} {maker.chest} {maker.bits} bits "
                f"{maker.photometric}: {_images(chest.card)}; MR heads: {_images(head.card)}; "
                f"quarantined {left_out} ({', '.join(sorted(why)) or 'nothing'})"
            )


def training_arrays(demonstration: Demonstration) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All hospitals' training images in one place: possible only because this is a demo."""
    images, labels = [], []
    for site in demonstration.sites:
        version = latest_version(site.site.datasets, site.site.lineages, DATASET)
        if version is None:
            raise ValueError(f"{site.name} has published nothing")
        images.append(np.load(site.site.datasets / version / "train_images.npy"))
        labels.append(np.load(site.site.datasets / version / "train_labels.npy"))
    return np.concatenate(images), np.concatenate(labels)


def _publication(licence: str, labels: Labels, test_share: float = TEST_SHARE) -> Publication:
    return Publication(
        name=DATASET,
        classes=CLASSES,
        licence=licence,
        labels=labels,
        standardisation=Standardisation(size=28),
        shares={"train": 1 - test_share, "test": test_share},
        description="Chest X-rays of one hospital of a demonstration",
        published_by="the demonstration",
    )


def _images(card: Card) -> str:
    known = [card.images(split) for split in card.counts]
    return f"{sum(n for n in known if n is not None):,} images"


def _policy(demonstration: Demonstration, strict: bool) -> str:
    """An example policy; its numbers follow the number of rounds that was asked for."""
    kind = "community-hospital" if strict else "university-hospital"
    plain = yaml.safe_load(example_policy(kind).read_text())
    few = max(demonstration.rounds + 2, demonstration.hospitals + 9)  # the notebooks' too
    runs = few if strict else max(60, runs_asked(demonstration))
    plain["runs"] = {"maximum": runs}
    plain["update"]["maximum_total_mb"] = runs * plain["update"]["maximum_mb"]
    # One owner plays all, at once, and changes fewer mock images than a hospital would.
    plain["review"] = {"rehearsal": {**plain["review"]["rehearsal"], "images": 4}}
    plain["arguments"]["epochs"]["high"] = max(20, demonstration.rounds)
    plain["datasets"] = [DATASET, HEADS, EMERGENCY]
    plain["publishing"] = {
        "recognisable_heads": "allow",  # nobody's head
        "text_search": "required" if find_tesseract() else "if installed",
    }
    return yaml.safe_dump(plain, sort_keys=False)


def runs_asked(demonstration: Demonstration) -> int:
    """Runs that the training request asks for: more than the strict hospital allows."""
    return max(demonstration.rounds, demonstration.hospitals + 1) + 10


def prove_cages(demonstration: Demonstration) -> Iterator[tuple[TrialSite, int]]:
    """Let the sites whose policy demands it try their cages; how many checks passed.

    Raises:
        SiteError: A cage does not hold.
    """
    for site in demonstration.sites:
        if site.site.policy().sandbox.proof_days:
            checks = site.control.examine()
            if failed := [check["name"] for check in checks if not check["ok"]]:
                raise SiteError(
                    f"the cage does not hold at {site.site.config.title}: {', '.join(failed)}"
                )
            yield site, len(checks)


def start_hospitals(demonstration: Demonstration) -> Federation:
    """Start every site, make the researcher's accounts, and log in."""
    for site in demonstration.sites:
        site.launch()
    for site in demonstration.sites:
        site.wait_until_up()
        site.add_account(RESEARCHER, "The researcher", demonstration.password)
    return federation.connect(
        roster(demonstration.sites), email=RESEARCHER, password=demonstration.password
    )
