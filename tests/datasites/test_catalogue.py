"""A dataset version is its content: written whole, named by its hash, then read-only."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
from datasites.catalogue import (
    Card,
    SplitArrays,
    handle,
    is_intact,
    read_card,
    versions_on_disk,
    write_version,
)
from datasites.dataset_facts import dataset_facts
from datasites.errors import DatasetError
from datasites.imaging.subgroups import Subgroups

ROOT = Path(__file__).parents[2]


def write(
    datasets: Path, splits: Mapping[str, SplitArrays] | None = None, **changes: Any
) -> tuple[str, Card]:
    """Write the dataset of the factories, changed where a test says so."""
    plain: dict[str, Any] = {
        "name": "chest-xray",
        "classes": ("normal", "pneumonia"),
        "source": "a test",
        "licence": "none",
        "description": "",
        "minimum_count": 5,
        **changes,
    }
    return write_version(datasets, factories.splits() if splits is None else splits, **plain)


def labelled(*counts: int) -> SplitArrays:
    """So many images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.zeros((len(labels), 8, 8), np.uint8), labels.astype(np.int64)


def refusal(datasets: Path, splits: Mapping[str, SplitArrays] | None = None, **fields: Any) -> str:
    with pytest.raises(DatasetError) as refused:
        write(datasets, splits, **fields)
    assert versions_on_disk(datasets) == []
    return str(refused.value)


def test_version_holds_what_was_written(tmp_path: Path) -> None:
    version, card = write(tmp_path)
    for split, (images, labels) in factories.splits().items():
        for name, array in (("images", images), ("labels", labels)):
            found = np.load(tmp_path / version / f"{split}_{name}.npy", mmap_mode="r")
            np.testing.assert_array_equal(found, array)
    assert versions_on_disk(tmp_path) == [version]
    assert read_card(tmp_path, version) == card
    assert (card.shape, card.dtype) == ((8, 8), "uint8")
    assert card.counts == {
        "train": {"normal": 60, "pneumonia": 60}, "test": {"normal": 30, "pneumonia": 30},
    }  # fmt: skip
    assert dataset_facts(tmp_path, version).examples == 120
    assert is_intact(tmp_path, version)


def test_same_content_is_the_same_version(tmp_path: Path) -> None:
    version, card = write(tmp_path / "a")
    assert write(tmp_path / "a") == (version, card)
    assert write(tmp_path / "b") == (version, card)
    assert versions_on_disk(tmp_path / "a") == [version]
    assert is_intact(tmp_path / "a", version)
    assert len(version) == 64


def one_pixel() -> dict[str, SplitArrays]:
    splits = factories.splits()
    splits["test"][0][59, 7, 7] ^= 1
    return splits


def one_label() -> dict[str, SplitArrays]:
    splits = factories.splits()
    splits["train"][1][:2] = 1, 0  # the counts stay the same
    return splits


@pytest.mark.parametrize(
    ("splits", "changes"),
    [
        (one_pixel(), {}),
        (one_label(), {}),
        ({"train": factories.splits()["train"]}, {}),
        (None, {"classes": ("normal", "opacity")}),
        (None, {"name": "chest"}),
        (None, {"licence": "CC0"}),
        (None, {"description": "more"}),
        (None, {"minimum_count": 6}),
    ],
)
def test_other_content_is_another_version(
    tmp_path: Path, splits: dict[str, SplitArrays] | None, changes: dict[str, Any]
) -> None:
    version, _ = write(tmp_path)
    other, _ = write(tmp_path, splits, **changes)
    assert versions_on_disk(tmp_path) == sorted([version, other])
    assert version != other


def test_version_is_read_only(tmp_path: Path) -> None:
    version, _ = write(tmp_path / "datasets")
    directory = tmp_path / "datasets" / version
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == 0o500
    files = sorted(directory.iterdir())
    assert [file.name for file in files] == [
        "card.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy",
    ]  # fmt: skip
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o400}


@pytest.mark.parametrize(("count", "shown"), [(0, None), (1, None), (4, None), (5, 5), (6, 6)])
def test_count_below_the_minimum_is_suppressed(
    tmp_path: Path, count: int, shown: int | None
) -> None:
    version, card = write(tmp_path, {"train": labelled(20, count)}, minimum_count=5)
    assert card.counts == {"train": {"normal": 20, "pneumonia": shown}}
    assert card.images("train") == (None if shown is None else 20 + count)
    facts = dataset_facts(tmp_path, version)  # the site's own rules are exact
    assert (facts.examples, facts.classes) == (20 + count, (20, count))


def test_number_of_images_of_an_unknown_split_is_zero(tmp_path: Path) -> None:
    _, card = write(tmp_path)
    assert card.images("val") == 0


@pytest.mark.parametrize(
    ("splits", "changes", "sentence"),
    [
        (
            {"train": labelled(10, 10, 10)},
            {},
            "there is a label 2, and 2 class names (normal, pneumonia); name 3 classes with "
            "--classes",
        ),
        (
            {"train": labelled(10, 10), "test": labelled(0, 0, 0, 0, 7)},
            {},
            "there is a label 4, and 2 class names (normal, pneumonia); name 5 classes with "
            "--classes",
        ),
        (
            {"train": labelled(0, 0)},
            {},
            "the training split is empty; there is nothing to publish",
        ),
        (
            None,
            {"name": "chest xray"},
            "the card does not fit: String should match pattern "
            "'^[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,119}$'",
        ),
        (None, {"description": "x" * 2001}, "the card does not fit: String should have at most "
         "2000 characters"),
        (None, {"minimum_count": 1}, "the card does not fit: Input should be greater than or "
         "equal to 2"),
    ],
)  # fmt: skip
def test_dataset_that_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, splits: dict[str, SplitArrays] | None, changes: dict[str, Any], sentence: str
) -> None:
    assert refusal(tmp_path, splits, **changes) == sentence


def test_label_below_zero_has_no_class_name_either(tmp_path: Path) -> None:
    images, labels = labelled(10, 10)
    labels[0] = -1
    assert "label -1" in refusal(tmp_path, {"train": (images, labels)})


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their counts would be told as one."""
    assert "class" in refusal(tmp_path, classes=("normal", "normal"))


def edit_byte(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["train_images.npy", "train_labels.npy", "test_images.npy", "card.json"]
)
def test_edited_file_is_noticed(tmp_path: Path, name: str) -> None:
    version, _ = write(tmp_path)
    edit_byte(tmp_path / version / name)
    assert not is_intact(tmp_path, version)


@pytest.mark.parametrize("what", ["added", "removed", "renamed"])
def test_added_or_missing_file_is_noticed(tmp_path: Path, what: str) -> None:
    version, _ = write(tmp_path)
    directory = tmp_path / version
    directory.chmod(0o700)
    if what == "added":
        (directory / "val_images.npy").write_bytes(b"")
    elif what == "removed":
        (directory / "test_labels.npy").unlink()
    else:
        (directory / "test_labels.npy").rename(directory / "val_labels.npy")
    assert not is_intact(tmp_path, version)


@pytest.mark.parametrize("version", ["0" * 64, ""])
def test_version_that_is_not_here_is_not_intact(tmp_path: Path, version: str) -> None:
    assert not is_intact(tmp_path, version)
    with pytest.raises(DatasetError, match="there is no dataset version"):
        read_card(tmp_path, version)


def test_version_with_a_broken_card_is_an_error(tmp_path: Path) -> None:
    version, _ = write(tmp_path)
    path = tmp_path / version / "card.json"
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(DatasetError) as refused:
        read_card(tmp_path, version)
    assert str(refused.value) == f"there is no dataset version {version[:12]} here"


def test_there_is_no_version_before_the_first(tmp_path: Path) -> None:
    assert versions_on_disk(tmp_path / "none") == []


class Breaking(Mapping[str, SplitArrays]):
    """Splits of which the second cannot be read any more once the first is in the draft."""

    def __init__(self, datasets: Path, then: Any) -> None:
        self._splits, self._datasets, self._then = factories.splits(), datasets, then

    def __getitem__(self, split: str) -> SplitArrays:
        return self._splits[split]

    def __iter__(self) -> Iterator[str]:
        yield "train"
        if list(self._datasets.glob(".draft-*/*.npy")):
            self._then()
        yield "test"

    def __len__(self) -> int:
        return 2


def test_draft_that_fails_leaves_nothing(tmp_path: Path) -> None:
    drafts: list[list[str]] = []

    def fail() -> None:
        drafts.append([path.name for path in tmp_path.glob(".draft-*/*")])
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write(tmp_path, Breaking(tmp_path, fail))
    assert len(drafts[0]) == 2  # it did fail half-way
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import test_catalogue

datasets = Path(sys.argv[1])
test_catalogue.write(
    datasets, test_catalogue.Breaking(datasets, lambda: os.kill(os.getpid(), signal.SIGKILL))
)
"""


def test_draft_of_a_killed_process_is_no_version(tmp_path: Path) -> None:
    folders = [ROOT, ROOT / "notebooks", ROOT / "tests/support", ROOT / "tests/datasites"]
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".draft-*/*.npy"))) == 2
    assert versions_on_disk(tmp_path) == []
    version, _ = write(tmp_path)
    assert versions_on_disk(tmp_path) == [version]
    assert is_intact(tmp_path, version)


def test_handle_names_the_version_and_holds_no_data() -> None:
    assert handle("chest-xray", "0" * 64) == {
        "dataset": "chest-xray", "version": "sha256:" + "0" * 64,
    }  # fmt: skip


# ----------------------------------------------------------------------------------- subgroups


def subgroups(**members: list[int]) -> Subgroups:
    """The sex of images: 0 `F`, 1 `M`, -1 not known."""
    places = {split: {"sex": np.array(column, np.int8)} for split, column in members.items()}
    return Subgroups({"sex": ("F", "M")}, places)


def test_a_version_without_subgroups_is_what_it_was_before_there_were_any(tmp_path):
    version, card = write(tmp_path)
    assert version == "0fa5746e7287e1aca38f80c2565772f9bc02d8fe938cc382dfd660467182bc49"
    assert write(tmp_path, subgroups=Subgroups({}, {})) == (version, card)
    assert "group" not in (tmp_path / version / "card.json").read_text()
    assert read_card(tmp_path, version).groups == {}


def test_subgroups_are_arrays_of_the_version_and_counted_in_the_card(tmp_path):
    known = {"train": [0, 1] * 60, "test": [0] * 56 + [1] * 4}
    version, card = write(tmp_path, subgroups=subgroups(**known))
    assert card.groups == {"sex": ("F", "M")}
    assert card.group_counts == {
        "train": {"sex": {"F": 60, "M": 60}},
        "test": {"sex": {"F": None, "M": None}},  # 60 less 56 would tell the 4
    }
    assert read_card(tmp_path, version) == card
    for split, column in known.items():
        stored = np.load(tmp_path / version / f"{split}_group_sex.npy")
        assert (stored.dtype, stored.tolist()) == (np.int8, column)
    other, _ = write(tmp_path, subgroups=subgroups(train=[1, 0] * 60, test=known["test"]))
    assert other != version
    path = tmp_path / version / "train_group_sex.npy"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert not is_intact(tmp_path, version)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"train": [0] * 120}, "--group sex: test has 60 images; give each one its place"),
        ({"train": [0] * 119, "test": [0] * 60}, "--group sex: train has 120 images; give each"),
        ({"train": [2] * 120, "test": [0] * 60}, "--group sex: a place of train is 2 or 2; -1 to"),
    ],
)
def test_subgroups_that_do_not_fit_the_images_are_refused(tmp_path, members, sentence):
    assert refusal(tmp_path, subgroups=subgroups(**members)).startswith(sentence)
