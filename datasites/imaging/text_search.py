"""Finds words in pixels with Tesseract, Debian's `tesseract-ocr`, one process per batch of images.

What stands on a radiograph has an uneven ground and noise, which Tesseract reads badly: it is taken
away first. Each image becomes up to two pages, one of what is brighter than its surroundings and
one of what is darker, with everything below the noise made white. A page without ink is not read.

Measured on chest phantoms, names, dates and numbers in Pillow's default font, on a busy machine:

    pixels  clean images flagged  found, by contrast in grey levels  side markers  ms an image
                                   80 or more   50 to 80   30 to 50    flagged
    112          0 of 300            32 of 45    8 of 17    7 of 16    0 of 60        49
    224          0 of 300            78 of 82   12 of 15    8 of 11    0 of 60        38
    1792         0 of 12             25 of 25    2 of 2       -        1 of 20       400

That is the first look. Where it leaves a trace of a word, the image is looked at again, enlarged
more: 40 of 40 burned-in names of 20 to 28 pixels were found then (34 at first), and 0 of 300 clean
images at 224 and 2 of 300 at 112 were taken for text.
At 112 the text is as wide as the image. Phantoms of 1792 are enlarged ones, with coarse noise. Text
with less contrast is hardly ever found (2 of 36 at 224).
Not found by it: handwriting, writing that is not Latin, turned text, and text without contrast.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import grey_closing, grey_opening

HOW_TO_INSTALL = (
    "Text in images is searched with Tesseract, which is not installed; "
    "run `apt install tesseract-ocr`."
)
MINIMUM_LETTERS = 3
MINIMUM_CONFIDENCE = 30.0
TRACE_LETTERS = 2
"""Letters and digits, at any confidence, after which an image is looked at more closely."""
SHORT_WORD, SHORT_WORD_CONFIDENCE = 4, 70.0
"""Words of up to so many letters and digits need more: noise reads as short words."""
SHORTEST_SIDE, CLOSER_SIDE, LONGEST_SIDE, COARSE_SIDE = 448, 900, 1280, 640
STROKE, NOISE_DEVIATIONS, LEAST_CONTRAST, LEAST_INK = 5, 6.0, 12.0, 20
"""Widest stroke in pixels; how far ink stands out from noise, and from the ground in grey levels;
pixels of ink below which there is no word."""
TIMEOUT_PER_IMAGE_S = 20.0


def find_tesseract() -> TextSearch | None:
    """The search, or nothing where Tesseract is not installed: `HOW_TO_INSTALL` says what to do."""
    program = shutil.which("tesseract")
    return TextSearch(Path(program)) if program else None


class TextSearch:
    """Counts words in images. What they say never leaves this class: it may name a patient."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.version = self._read_version()

    def count_words(self, images: Sequence[NDArray[np.uint8]]) -> list[int]:
        """How many words each image holds, 0 for none.

        images: (H, W) uint8 each, text bright on dark or dark on bright.
        """
        if not images:
            return []
        found = self._search(images, SHORTEST_SIDE)
        if found is None:
            if len(images) == 1:
                return [1]
            return [count for image in images for count in self.count_words([image])]
        words, traces = found
        doubtful = [i for i, trace in enumerate(traces) if trace and not words[i]]
        closer = self._search([images[i] for i in doubtful], CLOSER_SIDE)
        for k, i in enumerate(doubtful):
            words[i] = closer[0][k] if closer else 1
        return words

    def _search(
        self, images: Sequence[NDArray[np.uint8]], shortest: int
    ) -> tuple[list[int], list[int]] | None:
        """Words and traces of words by image, or nothing if Tesseract failed or took too long."""
        pages = [(i, page) for i, image in enumerate(images) for page in _find_ink(image, shortest)]
        words, traces = [0] * len(images), [0] * len(images)
        if not pages:
            return words, traces
        tiff = io.BytesIO()
        pages[0][1].save(tiff, "TIFF", save_all=True, append_images=[page for _, page in pages[1:]])
        command = [str(self._program), "stdin", "stdout", "--psm", "11", "--dpi", "96", "tsv"]
        try:
            done = subprocess.run(
                command,
                input=tiff.getvalue(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT_PER_IMAGE_S * len(images),
                check=True,
                env={**os.environ, "OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"},
            )
        except (subprocess.SubprocessError, OSError):
            return None
        for number, is_word in _read_table(done.stdout.decode("utf-8", "replace")):
            if 0 < number <= len(pages):
                traces[pages[number - 1][0]] += 1
                words[pages[number - 1][0]] += is_word
        return words, traces

    def _read_version(self) -> str:
        done = subprocess.run(
            [str(self._program), "--version"], capture_output=True, timeout=20, check=True
        )
        return done.stdout.decode("utf-8", "replace").splitlines()[0].strip()


def _find_ink(image: NDArray[np.uint8], shortest: int) -> Iterator[Image.Image]:
    """Pages, black on white, of what is brighter and of what is darker than its surroundings.

    An image of more than a coarse side is looked at twice, so that large letters have thin strokes.
    """
    yield from _lift(_reduce(image, LONGEST_SIDE), shortest)
    if max(image.shape) > 1.5 * COARSE_SIDE:
        yield from _lift(_reduce(image, COARSE_SIDE), shortest)


def _lift(grey: NDArray[np.float32], shortest: int) -> Iterator[Image.Image]:
    if min(grey.shape) < 2 * STROKE:
        return
    size = (STROKE, STROKE)
    for height in (grey - grey_opening(grey, size), grey_closing(grey, size) - grey):
        middle = float(np.median(height))
        deviation = 1.4826 * float(np.median(np.abs(height - middle)))
        least = max(middle + NOISE_DEVIATIONS * deviation, LEAST_CONTRAST)
        ink = height[height > least]
        if ink.size < LEAST_INK:
            continue
        white = 0.6 * least
        black = max(float(np.percentile(ink, 75)), white + 1)
        page = 255 - 255 * np.clip((height - white) / (black - white), 0, 1)
        yield _enlarge(np.pad(page.astype(np.uint8), 4, constant_values=255), shortest)


def _reduce(image: NDArray[np.uint8], longest: int) -> NDArray[np.float32]:
    if max(image.shape) > longest:
        height, width = (max(1, side * longest // max(image.shape)) for side in image.shape)
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
        image = np.asarray(picture)
    return image.astype(np.float32)


def _enlarge(page: NDArray[np.uint8], shortest: int) -> Image.Image:
    """The page enlarged by a whole factor, so that small letters have enough pixels."""
    picture = Image.fromarray(page)
    factor = -(-shortest // min(picture.size))
    longest_factor = max(1, LONGEST_SIDE // max(picture.size))
    factor = min(factor, longest_factor)
    if factor == 1:
        return picture
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
    )


def _read_table(table: str) -> Iterator[tuple[int, bool]]:
    """Page (from 1) of each trace in Tesseract's table (TSV), and whether it counts as a word."""
    for line in table.splitlines():
        columns = line.split("\t")
        if len(columns) != 12 or not columns[1].isdecimal():
            continue
        letters = sum(character.isalnum() for character in columns[11])
        least = SHORT_WORD_CONFIDENCE if letters <= SHORT_WORD else MINIMUM_CONFIDENCE
        if letters >= TRACE_LETTERS:
            is_word = letters >= MINIMUM_LETTERS and float(columns[10]) >= least
            yield int(columns[1]), is_word
