"""Mock data laid out like a dataset version, so that a cage can hold it in a version's place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasites.catalogue import Card
from datasites.files import write_private
from datasites.imaging.mock import draw_mock
from policies.strict import canonical_json


class MockStore:
    """The mock of one dataset version on disk; nothing of a patient is in it.

    Every split has as many images as the mock that researchers get; `train` is that very mock.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        self.folder, self.card, self._splits = folder, card, list(card.counts)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for seed, split in enumerate(sorted(card.counts, key=lambda name: name != "train")):
            mock = draw_mock(
                card.shape, len(card.classes), dtype=card.dtype, seed=seed, groups=card.groups
            )
            self.count = len(mock["labels"])
            for name, array in mock.items():
                _save(folder / f"{split}_{name}.npy", array)
            _save(folder / f"{split}_patients.npy", np.arange(self.count, dtype=np.int32))
        write_private(folder / "card.json", canonical_json(card.model_dump(mode="json")))

    @contextmanager
    def changed(self, row: int) -> Iterator[NDArray[np.float64]]:
        """Turn one image of every split into its negative for a while.

        Yields:
            The change of the pixels of `train`'s image, flat.
        """
        kept = {}
        change = np.zeros(0)
        for split in self._splits:
            images = np.load(self.folder / f"{split}_images.npy", mmap_mode="r+")
            kept[split] = np.array(images[row])
            images[row] = (255 if images.dtype == np.uint8 else 1) - images[row]
            if split == "train":
                change = images[row].astype(np.float64).ravel() - kept[split].ravel()
        try:
            yield change
        finally:
            for split, image in kept.items():
                np.load(self.folder / f"{split}_images.npy", mmap_mode="r+")[row] = image


def _save(path: Path, array: NDArray[np.generic]) -> None:
    """Write anew, as another file: a cage may have the old one mapped."""
    path.unlink(missing_ok=True)
    np.save(path, array)
