"""Burned-in text is found on phantoms, clean phantoms are not, and no text leaves the search."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from datasites.imaging import text_search
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.text_search import HOW_TO_INSTALL, TextSearch, find_tesseract

TEXTS = ("DOE^JANE", "SMITH JOHN", "1956-03-12", "MRN 4471829", "12.03.1971", "ID:889-12-34")


@pytest.fixture(scope="module")
def search() -> TextSearch:
    found = find_tesseract()
    assert found is not None, HOW_TO_INSTALL
    return found


def burn(
    image: NDArray[np.uint8], text: str, *, height: int, grey: int, top: int = 3
) -> NDArray[np.uint8]:
    picture = Image.fromarray(image.copy())
    font = ImageFont.load_default(height)
    ImageDraw.Draw(picture).text((4, top), text, fill=grey, font=font)
    return np.asarray(picture)


def enlarged(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    resized = [Image.fromarray(image).resize((size, size)) for image in images]
    return [np.asarray(image) for image in resized]


def test_version_is_that_of_the_program(search: TextSearch) -> None:
    assert search.version.startswith("tesseract ")


@pytest.mark.parametrize(("size", "height", "least"), [(112, 12, 15), (224, 12, 22), (224, 20, 20)])
def test_white_text_is_found(search: TextSearch, size: int, height: int, least: int) -> None:
    images, _ = draw_chest_phantoms(24, seed=21, size=size)
    burned = [
        burn(image, TEXTS[i % len(TEXTS)], height=height, grey=255)
        for i, image in enumerate(images)
    ]
    counts = search.count_words(burned)
    assert sum(count > 0 for count in counts) >= least


@pytest.mark.parametrize("height", [32, 80])
def test_white_text_is_found_on_an_image_of_full_size(search: TextSearch, height: int) -> None:
    images, _ = draw_chest_phantoms(3, seed=22, size=224)
    burned = [
        burn(image, text, height=height, grey=255, top=40)
        for image, text in zip(enlarged(images, 1792), TEXTS, strict=False)
    ]
    assert all(search.count_words(burned))


def test_black_text_is_found_on_a_bright_ground(search: TextSearch) -> None:
    images, _ = draw_chest_phantoms(24, seed=23, size=224)
    bright = [np.maximum(image, 120) for image in images]  # a contrast of 120 grey levels
    burned = [
        burn(image, TEXTS[i % len(TEXTS)], height=16, grey=0) for i, image in enumerate(bright)
    ]
    assert sum(count > 0 for count in search.count_words(burned)) >= 18


def test_at_most_one_clean_phantom_in_a_hundred_is_flagged(search: TextSearch) -> None:
    small, _ = draw_chest_phantoms(60, seed=24, size=112)
    large, _ = draw_chest_phantoms(60, seed=25, size=224)
    counts = search.count_words([*small, *large])
    assert sum(count > 0 for count in counts) <= 2


def test_side_markers_pass(search: TextSearch) -> None:
    images, _ = draw_chest_phantoms(20, seed=26, size=224)
    marked = [burn(image, "LR"[i % 2], height=24, grey=255) for i, image in enumerate(images)]
    assert search.count_words(marked) == search.count_words(list(images)) == [0] * 20


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((224, 224), np.uint8),
        np.full((64, 64), 255, np.uint8),
        np.zeros((1, 1), np.uint8),
        np.zeros((9, 3000), np.uint8),
    ],
)
def test_image_without_ink_is_not_even_read(
    image: NDArray[np.uint8], search: TextSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("was started"))
    assert search.count_words([image]) == [0]
    assert search.count_words([]) == []


def test_counts_belong_to_their_images(search: TextSearch) -> None:
    blank = np.full((224, 224), 30, np.uint8)
    text = burn(blank, "SMITH JOHN", height=24, grey=255)
    counts = search.count_words([blank, text, blank, text, text])
    assert [count > 0 for count in counts] == [False, True, False, True, True]


def test_images_of_different_sizes_share_a_batch(search: TextSearch) -> None:
    small = burn(np.full((120, 160), 20, np.uint8), "DOE JANE", height=16, grey=255)
    wide = burn(np.full((300, 2600), 20, np.uint8), "DOE JANE", height=48, grey=255)
    assert all(search.count_words([small, wide]))


def test_image_that_cannot_be_searched_counts_as_one_with_text(tmp_path: Path) -> None:
    broken = tmp_path / "tesseract"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo tesseract 0 && exit\nexit 1\n')
    broken.chmod(0o755)
    ink = burn(np.zeros((64, 128), np.uint8), "DOE", height=16, grey=255)
    assert TextSearch(broken).count_words([ink, ink]) == [1, 1]


def test_search_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "tesseract"
    slow.write_text('#!/bin/sh\n[ "$1" = --version ] && echo tesseract 0 && exit\nexec sleep 60\n')
    slow.chmod(0o755)
    monkeypatch.setattr(text_search, "TIMEOUT_PER_IMAGE_S", 0.2)
    ink = burn(np.zeros((64, 128), np.uint8), "DOE", height=16, grey=255)
    assert TextSearch(slow).count_words([ink]) == [1]


def test_text_is_neither_kept_nor_printed(
    search: TextSearch, capfd: pytest.CaptureFixture[str]
) -> None:
    blank = np.full((224, 224), 30, np.uint8)
    assert search.count_words([burn(blank, "SMITH", height=30, grey=255)]) != [0]
    assert capfd.readouterr() == ("", "")
    assert "SMITH" not in repr(vars(search))


def test_missing_program_is_nothing_and_the_sentence_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_tesseract() is None
    assert "apt install tesseract-ocr" in HOW_TO_INSTALL
