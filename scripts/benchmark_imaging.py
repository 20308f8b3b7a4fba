"""What publishing costs beside the bare reading and resizing of the same DICOM files, in one run.

Bare: pydicom decodes, Pillow resizes, in two processes. Ours: everything that publishing does with
a file, in two processes, up to the array on the disk: limits, header checks, de-identification,
labels, modality and VOI transformation, square, resize, perceptual hash, journal. The search for
text has no counterpart in the bare reading; it is measured apart.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from pydicom import dcmread

from datasites.imaging.dicom_phantoms import MAKERS, write_chest_phantoms
from datasites.imaging.journal import Journal
from datasites.imaging.labels import read_labels
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.preparing import Settings
from datasites.imaging.pseudonyms import Pseudonyms
from datasites.imaging.sources.folder import Folder
from datasites.imaging.standardise import Standardisation
from datasites.imaging.text_search import find_tesseract
from datasites.imaging.workers import Workers

CLASSES = ("normal", "pneumonia")
MADE_BY = ("aster", "borealis", "cobalt", "drift")
WANTED = 224
SECRET = bytes(32)


def read_bare(path: str) -> np.ndarray:
    """Decode and resize, and nothing else."""
    pixels = dcmread(path).pixel_array.astype(np.float32)
    picture = Image.fromarray(pixels).resize((WANTED, WANTED), Image.Resampling.BILINEAR)
    return np.asarray(picture).astype(np.uint8)


def main() -> None:
    """Write files, read them both ways in turns, print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=160, help="files (default 160)")
    parser.add_argument("--size", type=int, default=2048, help="rows and columns (default 2048)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default 3)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sitegate-bench-") as name:
        folder = Path(name)
        labels = write_files(folder, asked.images, asked.size)
        files = [str(p) for p in sorted((folder / "files").rglob("*")) if p.is_file()]
        bare, ours = [], []
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["datasites.imaging.preparing"])
        with context.Pool(2) as pool, Workers(2) as workers:
            pool.map(read_bare, files[:4])
            publish(folder, labels, workers, folder / "warm")
            for turn in range(asked.repeats):
                clock = time.perf_counter()
                pool.map(read_bare, files, chunksize=4)
                bare.append(len(files) / (time.perf_counter() - clock))
                clock = time.perf_counter()
                publish(folder, labels, workers, folder / f"journal-{turn}")
                ours.append(len(files) / (time.perf_counter() - clock))
        with Workers(2) as workers, Peak() as peak:
            publish(folder, labels, workers, folder / "peak")
        result = {
            "images": len(files),
            "size": asked.size,
            "images_per_s": round(statistics.median(ours), 1),
            "bare_images_per_s": round(statistics.median(bare), 1),
            "ratio": round(statistics.median(b / o for b, o in zip(bare, ours, strict=True)), 3),
            "peak_mb": round(peak.megabytes),
            "text_search_ms_per_image": search_cost(asked.size),
        }
    print(json.dumps(result))


def write_files(folder: Path, count: int, size: int) -> Path:
    """Chest radiographs of four makers: uncompressed, JPEG 2000, RLE; 8 to 14 bits."""
    small, labels = draw_chest_phantoms(count, seed=0, size=224)
    tables = []
    for k, name in enumerate(MADE_BY):
        mine = range(k, count, len(MADE_BY))
        images = np.stack(
            [np.asarray(Image.fromarray(small[i]).resize((size, size))) for i in mine]
        )
        table = write_chest_phantoms(
            folder / "files" / name / "f", images, labels[list(mine)], maker=MAKERS[name], seed=k,
            classes=CLASSES,
        )  # fmt: skip
        tables.append(table.rename(folder / f"{name}.csv"))
    rows = ["path,label"]
    for path in sorted((folder / "files").rglob("*")):
        if path.is_file():
            rows.append(f"{path.relative_to(folder / 'files').as_posix()},{CLASSES[0]}")
    for table in tables:
        table.unlink()
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def publish(folder: Path, labels: Path, workers: Workers, journal_at: Path) -> None:
    """All of publishing but the search for text and the writing of the version."""
    settings = Settings(
        standardisation=Standardisation(size=WANTED),
        labels=read_labels(labels, CLASSES, Pseudonyms(SECRET)),
        options=(),
        search_text=False,
        suspect_modalities=("SC", "US"),
        allow_heads=False,
        patient_per_file=False,
        secret=SECRET,
    )
    journal = Journal(journal_at, settings.standardisation.shape, "uint8")
    source = Folder(folder / "files", workers)
    for prepared in workers.prepare(source.units(lambda _: False), settings):
        journal.write(prepared)
    count = len(journal.entries)
    journal.close()
    if count != source.items:
        raise SystemExit(f"{count} of {source.items} files were read: {journal.quarantined[:3]}")


def search_cost(size: int) -> float | None:
    """Milliseconds that Tesseract takes for one image of this size, None without it."""
    search = find_tesseract()
    if search is None:
        return None
    images = [
        np.asarray(Image.fromarray(image).resize((size, size)))
        for image in draw_chest_phantoms(4, seed=1, size=224)[0]
    ]
    clock = time.perf_counter()
    search.count_words(images)
    return round((time.perf_counter() - clock) / len(images) * 1000)


class Peak:
    """The most memory that this process and its children hold together (resident, 10^6 bytes)."""

    def __enter__(self) -> Peak:
        self.megabytes, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.05):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.megabytes = max(self.megabytes, total / 1e6)


if __name__ == "__main__":
    main()
