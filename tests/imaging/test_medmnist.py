"""A MedMNIST file is read as it is, or refused with what was found in it."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasites.errors import DatasetError
from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources import medmnist
from datasites.imaging.sources.medmnist import read_groups, read_medmnist

GREY = (28, 28)
COLOUR = (28, 28, 3)


def arrays(shape: tuple[int, ...] = GREY, **counts: int) -> dict[str, np.ndarray]:
    """Random images and labels of some splits, in the layout of MedMNIST."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for split, count in (counts or {"train": 6, "val": 2, "test": 3}).items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        made[f"{split}_labels"] = rng.integers(0, 2, (count, 1), dtype=np.uint8)
    return made


def saved(folder: Path, content: dict[str, np.ndarray], compressed: bool = False) -> Path:
    path = folder / "source.npz"
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableSourceError) as refused:
        read_medmnist(path)
    return str(refused.value)


@pytest.mark.parametrize("shape", [GREY, COLOUR, (64, 64), (224, 224, 3), (5, 9)])
@pytest.mark.parametrize("compressed", [False, True])
def test_splits_are_read_as_they_are(
    tmp_path: Path, shape: tuple[int, ...], compressed: bool
) -> None:
    sent = arrays(shape)
    found = read_medmnist(saved(tmp_path, sent, compressed))
    assert list(found) == ["train", "val", "test"]
    for split, (images, labels) in found.items():
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(images, sent[f"{split}_images"])
        np.testing.assert_array_equal(labels, sent[f"{split}_labels"][:, 0])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("flat", [False, True])
def test_labels_may_be_a_column_or_a_row_of_whole_numbers(
    tmp_path: Path, dtype: str, flat: bool
) -> None:
    sent = arrays(train=6)
    labels = np.array([0, 1, 2, 3, 4, 100]).astype(dtype)
    sent["train_labels"] = labels if flat else labels[:, None]
    _, found = read_medmnist(saved(tmp_path, sent))["train"]
    assert found.dtype == np.int64
    assert found.tolist() == [0, 1, 2, 3, 4, 100]


def test_splits_but_the_training_one_may_be_missing(tmp_path: Path) -> None:
    assert list(read_medmnist(saved(tmp_path, arrays(train=1)))) == ["train"]
    half = {k: v for k, v in arrays().items() if k != "val_labels"}
    assert list(read_medmnist(saved(tmp_path, half))) == ["train", "test"]


def test_empty_split_is_read(tmp_path: Path) -> None:
    images, labels = read_medmnist(saved(tmp_path, arrays(train=2, test=0)))["test"]
    assert (images.shape, labels.shape) == ((0, 28, 28), (0,))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"train_images": np.zeros((6, 28, 28), np.float32)},
            "source.npz: train_images is float32 (6, 28, 28); "
            "uint8 (N, H, W) or (N, H, W, 3) is needed",
        ),
        (
            {"train_images": np.zeros((6, 28, 28), np.int8)},
            "source.npz: train_images is int8 (6, 28, 28); "
            "uint8 (N, H, W) or (N, H, W, 3) is needed",
        ),
        *(
            (
                {"train_images": np.zeros(shape, np.uint8)},
                f"source.npz: train_images is uint8 {shape}; "
                "uint8 (N, H, W) or (N, H, W, 3) is needed",
            )
            for shape in ((6, 28), (6,), (), (6, 28, 28, 1), (6, 28, 28, 4), (6, 28, 28, 28, 3))
        ),
        (
            {"test_labels": np.zeros((2, 1), np.uint8)},
            "source.npz: test_labels is uint8 (2, 1); one whole number per image (3) is needed",
        ),
        (
            {"test_labels": np.zeros((4, 1), np.uint8)},
            "source.npz: test_labels is uint8 (4, 1); one whole number per image (3) is needed",
        ),
        (  # several findings per image, as in ChestMNIST
            {"train_labels": np.zeros((6, 14), np.uint8)},
            "source.npz: train_labels is uint8 (6, 14); one whole number per image (6) is needed",
        ),
        (  # as many numbers as images, but not one per image
            {"train_labels": np.zeros((3, 2), np.uint8)},
            "source.npz: train_labels is uint8 (3, 2); one whole number per image (6) is needed",
        ),
        *(
            (
                {"train_labels": np.zeros((6, 1), dtype)},
                f"source.npz: train_labels is {np.dtype(dtype).name} (6, 1); "
                "one whole number per image (6) is needed",
            )
            for dtype in (np.float64, np.bool_, "U3", "S3", np.complex64)
        ),
        (
            {"train_labels": np.array([0, 1, 0, 1, 0, -1])},
            "source.npz: train_labels has a negative label",
        ),
        (
            {"val_images": np.zeros((2, 29, 28), np.uint8)},
            "source.npz: the splits have images of different sizes",
        ),
        (
            {"val_images": np.zeros((2, 28, 28, 3), np.uint8)},
            "source.npz: the splits have images of different sizes",
        ),
    ],
)
def test_array_of_another_form_is_refused_with_what_was_found(
    tmp_path: Path, changes: dict[str, np.ndarray], sentence: str
) -> None:
    assert refusal(saved(tmp_path, {**arrays(), **changes})) == sentence


def test_label_too_large_for_a_class_is_not_made_negative(tmp_path: Path) -> None:
    sent = arrays(train=2)
    sent["train_labels"] = np.array([0, 2**64 - 1], np.uint64)
    assert "train_labels" in refusal(saved(tmp_path, sent))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "no arrays"),
        (arrays(test=3), "test_images, test_labels"),
        ({"train_images": arrays()["train_images"]}, "train_images"),
        ({"x": np.zeros(3)}, "x"),
    ],
)
def test_file_without_a_training_split_is_refused_with_what_it_has(
    tmp_path: Path, content: dict[str, np.ndarray], found: str
) -> None:
    assert refusal(saved(tmp_path, content)) == (
        f"source.npz has {found}; `train_images` and `train_labels` are needed"
    )


def test_missing_file_is_told_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "none.npz"
    assert refusal(path) == f"there is no file {path}"


UNREADABLE = "source.npz is not a readable .npz of arrays"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["train_images", "train_labels", "beside"])
def test_pickle_is_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    sprung = tmp_path / "sprung"
    sent = {**arrays(), name: np.array([Trap(sprung)] * 6, object)}
    assert refusal(saved(tmp_path, sent)) == UNREADABLE
    assert not sprung.exists()


def zipped(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "source.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_npy_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    content = npy(np.zeros((6, 28, 28), np.uint8)).replace(b"(6, 28, 28)", b"(9, 99, 99)")
    labels = npy(np.zeros(9, np.uint8))
    path = zipped(tmp_path, {"train_images.npy": content, "train_labels.npy": labels})
    assert refusal(path) == UNREADABLE


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_member_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    path = zipped(tmp_path, {"train_images.npy": content, "train_labels.npy": content})
    with pytest.raises(UnreadableSourceError):
        read_medmnist(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04", npy(np.zeros(3))])
def test_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "source.npz"
    path.write_bytes(content)
    assert refusal(path) == UNREADABLE


def test_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "source.npz"
    path.mkdir()
    assert refusal(path) == UNREADABLE


@pytest.mark.parametrize(("spare", "read"), [(0, True), (-1, False)])
def test_size_after_unpacking_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int, read: bool
) -> None:
    path = saved(tmp_path, arrays(), compressed=True)
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    monkeypatch.setattr(medmnist, "MAXIMUM_BYTES", size + spare)
    if read:
        read_medmnist(path)
    else:
        assert refusal(path) == (
            f"source.npz unpacks to {size:,} bytes; at most {size - 1:,} are read"
        )


def test_bomb_is_refused_by_its_header_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte of zeros is a thousand bytes in the file."""
    monkeypatch.setattr(medmnist, "MAXIMUM_BYTES", 1_000_000)
    path = saved(tmp_path, {"train_images": np.zeros((1, 1000, 1001), np.uint8)}, compressed=True)
    assert path.stat().st_size < 5000
    assert refusal(path) == "source.npz unpacks to 1,001,128 bytes; at most 1,000,000 are read"


def test_bomb_that_lies_in_its_header_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medmnist, "MAXIMUM_BYTES", 100_000)
    sent = {"train_images": np.zeros((1, 1000, 1001), np.uint8), "train_labels": np.zeros(1, int)}
    path = saved(tmp_path, sent, compressed=True)
    true_size, claimed = struct.pack("<I", 1_001_128), struct.pack("<I", 128)
    content = path.read_bytes()
    assert true_size in content
    path.write_bytes(content.replace(true_size, claimed))
    assert refusal(path) == UNREADABLE


CONTENT = io.BytesIO()
np.savez_compressed(CONTENT, **arrays(train=2))
RAW = CONTENT.getvalue()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 255)), max_size=3))
@pytest.mark.filterwarnings("ignore::UserWarning")  # zipfile warns of names that occur twice
def test_damaged_file_is_read_or_refused_in_one_way(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    raw = bytearray(RAW)
    for position, value in edits:
        raw[position] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(raw)
    try:
        images, labels = read_medmnist(path)["train"]
    except UnreadableSourceError:
        return
    assert len(images) == len(labels)


@pytest.mark.parametrize("length", range(0, len(RAW), 37))
def test_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "source.npz"
    path.write_bytes(RAW[:length])
    assert refusal(path) == UNREADABLE


def test_texts_beside_the_images_are_subgroups(tmp_path: Path) -> None:
    texts = {
        "train_group_sex": np.array([*"FMFMF", ""]),
        "test_group_sex": np.array([*"FFM"]),
    }
    path = saved(tmp_path, arrays(train=6, test=3) | texts)
    found = read_groups(path, read_medmnist(path))
    assert found.values == {"sex": ("F", "M")}
    assert found.members["train"]["sex"].tolist() == [0, 1, 0, 1, 0, -1]
    assert found.members["test"]["sex"].tolist() == [0, 0, 1]
    plain = saved(tmp_path, arrays())
    assert read_groups(plain, read_medmnist(plain)).values == {}


@pytest.mark.parametrize("other", [{}, {"test_group_sex": np.zeros(3)}])
def test_texts_that_a_split_does_not_have_are_refused(
    tmp_path: Path, other: dict[str, np.ndarray]
) -> None:
    texts = {"train_group_sex": np.array([*"FMFMFM"]), **other}
    path = saved(tmp_path, arrays(train=6, test=3) | texts)
    with pytest.raises(DatasetError) as refused:
        read_groups(path, read_medmnist(path))
    assert str(refused.value) == (
        "source.npz: sex is not a text for each image of each split; write train_group_sex, "
        "test_group_sex"
    )
