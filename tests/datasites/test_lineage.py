"""What a site remembers of its versions, and which of them is the latest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import factories
from datasites.catalogue import write_version
from datasites.errors import DatasetError
from datasites.lineage import (
    Lineage,
    Member,
    latest_version,
    read_headers,
    read_lineage,
    remember_withdrawn,
    retire,
    retired_because,
    withdrawn_patients,
    write_lineage,
)

VERSION = "a" * 64


def member(**changes: Any) -> Member:
    plain: dict[str, Any] = {
        "split": "train", "row": 0, "patient": "0" * 32, "instance": "1" * 32, "frame": 0,
        "label": 1,
    }  # fmt: skip
    return Member(**{**plain, **changes})


def write(datasets: Path, seed: int, name: str = "chest-xray", parent: str | None = None) -> str:
    """A small version, written a second after the one before."""
    version, _ = write_version(
        datasets, factories.splits(seed=seed), name=name, classes=("a", "b"), source="a test",
        licence="none", description="", minimum_count=5, parent=parent,
    )  # fmt: skip
    card = datasets / version / "card.json"
    os.utime(card, (1_000_000 + seed, 1_000_000 + seed))
    return version


def test_a_lineage_is_read_as_it_was_written(tmp_path):
    lineage = Lineage((member(), member(split="test", row=3, patient="2" * 32)), "b" * 64)
    headers = [("train", 0, '{"00080060":{"vr":"CS","Value":["CR"]}}'), ("test", 3, "{}")]
    write_lineage(tmp_path, VERSION, lineage, headers)
    assert read_lineage(tmp_path, VERSION) == lineage
    assert list(read_headers(tmp_path, VERSION)) == headers
    write_lineage(tmp_path, VERSION, Lineage((), "d" * 64), [])
    assert read_lineage(tmp_path, VERSION) == lineage
    assert list(read_headers(tmp_path, VERSION)) == headers
    assert lineage.split_of_patient == {"0" * 32: "train", "2" * 32: "test"}


def test_a_version_of_arrays_has_none(tmp_path):
    assert read_lineage(tmp_path, VERSION) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"{}\n",
        b'{"parent": null}\n{"split": "train"}\n',
        b'{"parent": null}\n[1, 2]\n',
        b'{"parent": null}\n{"split": "tr',
        b'{"parent": null}\n\xff\xfe\n',
    ],
)
def test_a_damaged_lineage_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / f"{VERSION}.jsonl").write_bytes(content)
    with pytest.raises(DatasetError, match="is broken; restore state/lineages"):
        read_lineage(tmp_path, VERSION)


def test_a_lineage_that_lost_its_end_is_not_taken_for_a_whole_one(tmp_path):
    """Cut between two lines: a patient in the lost part could not be withdrawn."""
    write_lineage(tmp_path, VERSION, Lineage(tuple(member(row=k) for k in range(5)), None), [])
    path = tmp_path / f"{VERSION}.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    with pytest.raises(DatasetError, match="is broken"):
        read_lineage(tmp_path, VERSION)


def test_withdrawn_patients_are_remembered_by_dataset(tmp_path):
    assert withdrawn_patients(tmp_path, "a") == frozenset()
    remember_withdrawn(tmp_path, "a", {"1" * 32})
    remember_withdrawn(tmp_path, "b", {"2" * 32})
    remember_withdrawn(tmp_path, "a", {"3" * 32, "1" * 32})
    assert withdrawn_patients(tmp_path, "a") == {"1" * 32, "3" * 32}
    assert withdrawn_patients(tmp_path, "b") == {"2" * 32}


def test_a_retired_version_says_why(tmp_path):
    assert retired_because(tmp_path, VERSION) is None
    retire(tmp_path, VERSION, "the vote of the ethics committee")
    assert retired_because(tmp_path, VERSION) == "the vote of the ethics committee"


def test_the_latest_version_is_the_one_that_was_published_last_and_not_retired(tmp_path):
    datasets, lineages = tmp_path / "datasets", tmp_path / "lineages"
    assert latest_version(datasets, lineages, "chest-xray") is None
    first = write(datasets, 3)
    assert latest_version(datasets, lineages, "chest-xray") == first
    second = write(datasets, 4, parent=first)
    write(datasets, 9, name="other")
    assert latest_version(datasets, lineages, "chest-xray") == second
    retire(lineages, second, "a test")
    assert latest_version(datasets, lineages, "chest-xray") == first
    third = write(datasets, 5)
    assert latest_version(datasets, lineages, "chest-xray") == third
    assert latest_version(datasets, lineages, "nothing") is None


def test_the_file_holds_one_json_line_per_image(tmp_path):
    write_lineage(tmp_path, VERSION, Lineage((member(), member(row=1)), None), [])
    lines = (tmp_path / f"{VERSION}.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert all(isinstance(json.loads(line), dict) for line in lines)
