"""What the images of all sites look like, from counts and means that leave; no image is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from federation.description_figure import description_figure, spread
from federation.errors import FederationError, RefusedError
from federation.evaluation import SUPPRESSED, TOO_FEW
from federation.side_by_side import ask_all
from federation.study_checks import check_config
from federation.submission import Study


@dataclass(frozen=True, slots=True)
class Described:
    """Some images: how many of each class, and how bright they are.

    Attributes:
        classes: Name of a class -> images; None where they are too few to be counted, or none.
        mean: Mean brightness of all pixels of the images counted, from 0 to 1; NaN without images.
        deviation: Standard deviation of the brightness of these pixels; NaN without images.
        intensities: (classes, bins) images of each class, divided among equal bins of the
            brightness by their pixels. Small cells are merged into neighbouring ones.
    """

    classes: dict[str, int | None]
    mean: float
    deviation: float
    intensities: NDArray[np.int64]

    @property
    def images(self) -> int | None:
        """Images counted; None where they are too few to be shown."""
        return int(self.intensities.sum()) or None


@dataclass(frozen=True, slots=True)
class Description:
    """One split of a dataset, at each site and over all of them.

    Attributes:
        sites: Short name of the site -> its images.
        overall: All images.
        titles: Short name of the site -> its title.
        minimum_count: Fewest images of a class that a site counts.
    """

    sites: dict[str, Described]
    overall: Described
    titles: dict[str, str]
    minimum_count: int

    @property
    def rows(self) -> dict[str, Described]:
        """Title of a site, and `all` -> its images."""
        return {**{self.titles[n]: d for n, d in self.sites.items()}, "all": self.overall}

    def frame(self) -> pd.DataFrame:
        """One row per site and one over all: mean, deviation, images, images of each class."""
        rows = [
            {
                "site": title,
                "mean": described.mean,
                "deviation": described.deviation,
                "images": described.images,
                **described.classes,
            }
            for title, described in self.rows.items()
        ]
        counts = dict.fromkeys(["images", *self.overall.classes], "Int64")
        return pd.DataFrame(rows).set_index("site").astype(counts)

    def figure(self) -> Figure:
        """How often each brightness occurs, by class: a column per site and one over all."""
        parts = [
            np.array([spread(row, self.minimum_count) for row in described.intensities])
            for described in self.sites.values()
        ]
        tables = [*parts, np.sum(parts, axis=0)]
        return description_figure(
            {
                title: dict(zip(described.classes, table, strict=True))
                for (title, described), table in zip(self.rows.items(), tables, strict=True)
            },
            self.minimum_count,
        )

    def _repr_html_(self) -> str:
        table = pd.DataFrame(
            [
                {
                    "": title,
                    "images": _count(described.images),
                    **{name: _count(n) for name, n in described.classes.items()},
                    "mean brightness": _brightness(described.mean),
                    "deviation": _brightness(described.deviation),
                }
                for title, described in self.rows.items()
            ]
        ).set_index("")
        return table.to_html(index_names=False) + (
            "<p>Brightness of pixels from 0 (black) to 1 (white). A class of fewer than "
            f"{self.minimum_count} images at a site is suppressed: it is in no number.</p>"
        )


def describe(
    study: Study,
    config: Mapping[str, Any],
    *,
    round_number: int = 1,
    sites: Sequence[str] | None = None,
) -> Description:
    """Describe one split of the dataset at every site of a study, and put the counts together.

    A site whose images are too few for its policy is shown as suppressed.

    Args:
        study: An approved study of `notebooks/jobs/describe_dataset.py`.
        config: The job's arguments.
        round_number: Tells one split from another.
        sites: Sites to describe; all of the study by default.

    Raises:
        FederationError: There is no site, `config` is not what the study asked for, or two sites
            name their classes differently, so that counts cannot be added.
        RefusedError: A site refused for another reason, with the rule and what to do.
    """
    names = list(sites or study.sites)
    if not names:
        raise FederationError("there is no site to describe; submit the job to some first")
    check_config(study, config)
    titles = {name: study.federation[name].title for name in names}
    classes = _common_classes(
        [
            (titles[name], study.federation[name].dataset(study.wanted.dataset).card["classes"])
            for name in names
        ]
    )
    nothing = np.zeros((len(classes), int(config["bins"])), np.int64)

    def visit(name: str) -> Described:
        try:
            update = study.run(name, {}, config, round_number=round_number)
        except RefusedError as refused:
            if {finding.rule for finding in refused.findings} <= TOO_FEW:
                return described(classes, nothing, math.nan, math.nan)
            raise
        table = update.counts["intensities"].astype(np.int64)
        return described(classes, table, update.metrics["mean"], update.metrics["deviation"])

    found = ask_all(names, visit)
    overall = together([found[name] for name in sorted(found)])
    return Description(found, overall, titles, int(config["minimum_count"]))


def described(
    classes: Sequence[str], intensities: NDArray[np.int64], mean: float, deviation: float
) -> Described:
    """What one site released, in the words of its card; without images there is no brightness."""
    counts = intensities.sum(axis=1)
    known = {name: int(n) or None for name, n in zip(classes, counts, strict=True)}
    if not counts.any():
        mean = deviation = math.nan
    return Described(known, mean, deviation, intensities)


def together(parts: Sequence[Described]) -> Described:
    """All images of some sites.

    Means are weighted by images. The variance over all is the mean of the variances within sites
    and of the squared distances of their means. Where images differ in size between sites, each
    image counts alike, not each pixel.
    """
    intensities = np.sum([part.intensities for part in parts], axis=0)
    counted = [part for part in parts if part.images]
    images = np.array([part.images for part in counted], np.float64)
    mean = deviation = math.nan
    if counted:
        means = np.array([part.mean for part in counted])
        variances = np.array([part.deviation for part in counted]) ** 2
        mean = float(np.average(means, weights=images))
        deviation = math.sqrt(float(np.average(variances + (means - mean) ** 2, weights=images)))
    return described(list(parts[0].classes), intensities, mean, deviation)


def _common_classes(classes: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The classes, if they are the same at all sites, each given with its title."""
    (first, expected), *others = classes
    for title, names in others:
        if list(names) != list(expected):
            raise FederationError(
                f"{title} has the classes {', '.join(names)}, {first} has {', '.join(expected)}: "
                "describe them one by one, with `sites`"
            )
    return list(expected)


def _count(images: int | None) -> str:
    return SUPPRESSED if images is None else f"{images:,}"


def _brightness(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else SUPPRESSED
