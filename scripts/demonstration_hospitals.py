"""The hospitals of the demonstration: made, filled with images, and started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import federation
from datasites.config import SiteConfig
from datasites.new_site import example_config, example_policy
from datasites.people import generate_password
from datasites.trial import TrialSite, free_port, roster
from demonstration_data import divide, load_images
from federation.submission import Federation

ROOT = Path(__file__).resolve().parent.parent
JOBS = ROOT / "notebooks" / "jobs"
CLASSES = ("normal", "pneumonia")
DATASET = "chest-xray"
RESEARCHER = "researcher@uni.example"
BINS = 240
MINIMUM_COUNT = 5
TRAINING = {"learning_rate": 0.05, "momentum": 0.9, "batch_size": 32, "shift": 2}
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
    images: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, str]] = field(default_factory=list)
    refusals: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def data_name(self) -> str:
        """What the images are, for people."""
        return self.data.name if self.data else "phantoms"

    def site(self, name: str) -> TrialSite:
        """A site by its short name."""
        return next(site for site in self.sites if site.name == name)


def make_hospitals(demonstration: Demonstration, directory: Path) -> None:
    """Make the sites and write each one's images as a dataset version."""
    demonstration.images = load_images(demonstration.data, demonstration.seed)
    parts = divide(demonstration.images, demonstration.hospitals)
    configs = [example_config(name) for name in ("st-marys", "north-clinic", "seaside")]
    configs += [SiteConfig(name=title.lower(), title=title) for title in MORE_HOSPITALS]
    for k, (part, config) in enumerate(zip(parts, configs, strict=False)):
        strict = k == min(2, demonstration.hospitals - 1)
        policy = directory / f"{config.name}-policy.yaml"
        policy.write_text(_policy(demonstration, strict))
        site = TrialSite(
            directory / config.name, config.model_copy(update={"port": free_port()}), policy
        )
        demonstration.sites.append(site)
        site.write_dataset(
            part,
            name=DATASET,
            classes=CLASSES,
            source=demonstration.data_name,
            licence="as the file says" if demonstration.data else "made by code, free to use",
            description="Chest X-rays of one hospital of a demonstration",
        )


def _policy(demonstration: Demonstration, strict: bool) -> str:
    """An example policy; its numbers follow the number of rounds that was asked for."""
    plain = yaml.safe_load(
        example_policy("chest-xray-strict" if strict else "chest-xray").read_text()
    )
    few = max(demonstration.rounds, demonstration.hospitals + 1) + 2
    plain["runs"]["maximum"] = few if strict else max(60, runs_asked(demonstration))
    plain["arguments"]["epochs"]["high"] = max(20, demonstration.rounds)
    return yaml.safe_dump(plain, sort_keys=False)


def runs_asked(demonstration: Demonstration) -> int:
    """Runs that the training request asks for: more than the strict hospital allows."""
    return max(demonstration.rounds, demonstration.hospitals + 1) + 10


def start_hospitals(demonstration: Demonstration) -> Federation:
    """Start every site, make the researcher's accounts, and log in."""
    for site in demonstration.sites:
        site.launch()
    passwords = {site.name: generate_password() for site in demonstration.sites}
    for site in demonstration.sites:
        site.wait_until_up()
        site.control.add_account(RESEARCHER, "The researcher", passwords[site.name])
    return federation.connect(roster(demonstration.sites), email=RESEARCHER, password=passwords)
