"""From DICOM files to a version: the same everywhere, resumable, by patient, within policy."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydicom import dcmread

import factories
from datasites import new_version
from datasites.catalogue import is_intact, read_card, versions_on_disk
from datasites.certificate import read_certificate
from datasites.config import Site
from datasites.errors import DatasetError
from datasites.imaging.dicom_phantoms import MAKERS, write_chest_phantoms, write_head_phantoms
from datasites.imaging.labels import Labels, read_labels
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.sources.folder import Folder
from datasites.imaging.standardise import HounsfieldWindow, Standardisation, read_standardisation
from datasites.imaging.workers import Workers
from datasites.keys import load_pseudonyms
from datasites.lineage import read_headers, read_lineage
from datasites.new_site import example_config, make_site
from datasites.new_version import Outcome, Progress, Publication, publish_arrays, publish_images
from dicom_samples import as_bytes, sample

CLASSES = ("clear", "opacity")
NAME = "chest-xray"
OFF = {"text_search": "off"}


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as made:
        yield made


def make(path: Path, **changes: Any) -> Site:
    """A site whose policy searches no text unless the test says so."""
    changes["publishing"] = {**OFF, **changes.get("publishing", {})}
    policy = path.parent / f"{path.name}-policy.yaml"
    policy.write_text(yaml.safe_dump(factories.policy(**changes).model_dump(mode="json")))
    owner = "olga@st-marys.example"
    return make_site(path, example_config("st-marys"), policy, owner, owner, factories.PASSWORD)


def change_policy(site: Site, **changes: Any) -> None:
    changes["publishing"] = {**OFF, **changes.get("publishing", {})}
    plain = factories.policy(**changes).model_dump(mode="json")
    (site.path / "policy.yaml").write_text(yaml.safe_dump(plain))


def chests(folder: Path, count: int = 60, seed: int = 0, maker: str = "aster") -> dict[str, str]:
    """Writes chest phantoms of 32 pixels; SOP Instance UID -> class."""
    images, labels = draw_chest_phantoms(count, seed=seed, size=32)
    table = write_chest_phantoms(
        folder, images, labels, maker=MAKERS[maker], seed=seed, classes=CLASSES
    )
    return titles_in(table)


def titles_in(table: Path) -> dict[str, str]:
    with table.open(encoding="utf-8") as file:
        return {row[0]: row[1] for row in list(csv.reader(file))[1:]}


def csv_file(path: Path, head: str, rows: Mapping[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([(head, "label"), *rows.items()])
    return path


def labelled(site: Site, path: Path) -> Labels:
    return read_labels(path, CLASSES, load_pseudonyms(site.keys))


def wanted(labels: Labels, **changes: Any) -> Publication:
    plain = Publication(
        name=NAME, classes=labels.classes, licence="none", labels=labels,
        standardisation=Standardisation(size=28), published_by="olga", identity="a test",
    )  # fmt: skip
    return replace(plain, **changes)


def publish(
    site: Site,
    folder: Path,
    labels: Labels,
    workers: Workers,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **changes: Any,
) -> Outcome:
    return publish_images(
        site, Folder(folder, workers), wanted(labels, **changes), workers, on_progress
    )


def arrays(site: Site, version: str, kind: str = "images") -> dict[str, np.ndarray[Any, Any]]:
    found = (site.datasets / version).glob(f"*_{kind}.npy")
    return {path.name.split("_")[0]: np.load(path, mmap_mode="r") for path in found}


def reasons(outcome: Outcome) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for (reason, _), count in outcome.quarantined.items():
        counted[reason.value] += count
    return dict(counted)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of 60 chest images of one maker, and the table of their classes."""
    place = tmp_path_factory.mktemp("source")
    rows = chests(place / "images")
    return place / "images", csv_file(place / "table.csv", "sop_instance_uid", rows)


@pytest.fixture(scope="module")
def first(
    source: tuple[Path, Path], workers: Workers, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Site, Outcome]:
    """A site that published the source."""
    site = make(tmp_path_factory.mktemp("first") / "site")
    return site, publish(site, source[0], labelled(site, source[1]), workers)


# --- what a version holds ----------------------------------------------------------------------


def test_every_image_is_published_once_with_its_label_and_patient(first, source):
    site, outcome = first
    assert outcome.quarantined == {}
    assert is_intact(site.datasets, outcome.version)
    assert sum(len(a) for a in arrays(site, outcome.version).values()) == 60
    titles = titles_in(source[1])
    labels = np.concatenate([*arrays(site, outcome.version, "labels").values()])
    assert Counter(CLASSES[k] for k in labels) == Counter(titles.values())
    lineage = read_lineage(site.lineages, outcome.version)
    pseudonyms = load_pseudonyms(site.keys)
    expected = {}
    for path in source[0].rglob("*.dcm"):
        image = dcmread(path, stop_before_pixels=True)
        patient = pseudonyms.patient(image.PatientID)
        title = titles[image.SOPInstanceUID]
        expected[pseudonyms.key("sop", image.SOPInstanceUID)] = (patient, CLASSES.index(title))
    assert {m.instance: (m.patient, m.label) for m in lineage.members} == expected
    for member in lineage.members:
        assert arrays(site, outcome.version, "labels")[member.split][member.row] == member.label


def test_no_patient_and_no_look_alike_is_in_two_splits(first):
    site, outcome = first
    split_of = defaultdict(set)
    for member in read_lineage(site.lineages, outcome.version).members:
        split_of[member.patient].add(member.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    numbers = arrays(site, outcome.version, "patients")
    assert not set(numbers["train"]) & set(numbers["test"])
    assert sum(len(set(n)) for n in numbers.values()) == len(split_of)


def test_shares_are_kept_within_a_patient_or_two_and_classes_are_in_every_split(first):
    site, outcome = first
    sizes = {split: len(a) for split, a in arrays(site, outcome.version).items()}
    assert sizes["train"] == pytest.approx(42, abs=3)
    assert sizes["val"] == pytest.approx(6, abs=3)
    assert sizes["test"] == pytest.approx(12, abs=3)
    for labels in arrays(site, outcome.version, "labels").values():
        assert set(labels) == {0, 1}


def test_the_same_patient_numbers_tell_nothing_between_sites(first, source, workers, tmp_path):
    site, outcome = first
    other = make(tmp_path / "site")
    again = publish(other, source[0], labelled(other, source[1]), workers)
    mine = {m.patient for m in read_lineage(site.lineages, outcome.version).members}
    theirs = {m.patient for m in read_lineage(other.lineages, again.version).members}
    assert not mine & theirs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 3, "dtype": "float16", "fit": "crop", "resize": "lanczos", "size": 40},
    ],
)
def test_the_same_files_and_description_give_identical_arrays_on_two_sites(
    tmp_path, workers, changes
):
    rows = {}
    for seed, maker in enumerate(("aster", "cobalt", "drift", "ember")):
        rows |= chests(tmp_path / "all" / maker, 16, seed, maker)
    # One image twice, under the names of two patients who have other images too.
    for number, path in enumerate(sorted((tmp_path / "all" / "ember").rglob("*.dcm"))[:2]):
        image = dcmread(path)
        twin = dcmread(sorted((tmp_path / "all" / "aster").rglob("*.dcm"))[0])
        twin.PatientID = image.PatientID
        twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = f"2.25.777{number}"
        twin.save_as(path.with_name(f"twin{number}.dcm"))
        rows[twin.SOPInstanceUID] = CLASSES[0]
    table = csv_file(tmp_path / "table.csv", "sop_instance_uid", rows)
    sites = [make(tmp_path / name) for name in ("one", "two", "three")]
    text = Standardisation(**{"size": 28, **changes}).as_yaml()
    (tmp_path / "standard.yaml").write_text(text)
    standard = read_standardisation(tmp_path / "standard.yaml")
    certificates = []
    for site in sites:
        done = publish(
            site, tmp_path / "all", labelled(site, table), workers, standardisation=standard
        )
        certificates.append(read_certificate(site.datasets, done.version))
    assert certificates[0].images == 66
    assert certificates[0].look_alikes >= 3
    assert certificates[0].arrays == certificates[1].arrays == certificates[2].arrays
    assert len(certificates[0].arrays) == 9
    assert len({c.standardisation_sha256 for c in certificates}) == 1


def test_publishing_the_same_again_is_the_same_version_with_no_parent(first, source, workers):
    site, outcome = first
    again = publish(site, source[0], labelled(site, source[1]), workers)
    assert again.version == outcome.version
    assert versions_on_disk(site.datasets) == [outcome.version]
    assert read_card(site.datasets, outcome.version).parent is None
    assert read_lineage(site.lineages, outcome.version).parent is None


def test_a_shuffled_folder_with_other_file_names_gives_the_same_arrays(
    first, source, workers, tmp_path
):
    site, outcome = first
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(source[0].rglob("*.dcm"), reverse=True)):
        shutil.copy(path, tmp_path / "flat" / f"{number:03d}")
    other = make(tmp_path / "site")
    again = publish(other, tmp_path / "flat", labelled(other, source[1]), workers)
    assert (
        read_certificate(other.datasets, again.version).arrays
        == read_certificate(site.datasets, outcome.version).arrays
    )


def test_the_same_instance_twice_is_published_once_and_counted_once(source, workers, tmp_path):
    shutil.copytree(source[0], tmp_path / "images")
    path = next((tmp_path / "images").rglob("*.dcm"))
    shutil.copy(path, tmp_path / "images" / "copy.dcm")
    site = make(tmp_path / "site")
    outcome = publish(site, tmp_path / "images", labelled(site, source[1]), workers)
    assert read_certificate(site.datasets, outcome.version).images == 60
    assert reasons(outcome) == {"duplicate": 1}


def test_every_refused_file_is_counted_also_those_with_one_uid_or_none(source, workers, tmp_path):
    shutil.copytree(source[0], tmp_path / "images")
    broken = dcmread(next((tmp_path / "images").rglob("*.dcm")))
    broken.PixelData = broken.PixelData[:100]
    for number in range(3):
        broken.save_as(tmp_path / "images" / f"broken{number}.dcm")
    nameless = sample(seed=5)
    for number in range(2):
        nameless.PatientID = f"N{number}"
        nameless.SOPInstanceUID = ""
        (tmp_path / "images" / f"nameless{number}.dcm").write_bytes(as_bytes(nameless))
    site = make(tmp_path / "site")
    outcome = publish(site, tmp_path / "images", labelled(site, source[1]), workers)
    left_out = sum(outcome.quarantined.values())
    assert read_certificate(site.datasets, outcome.version).images + left_out == 65
    certified = read_certificate(site.datasets, outcome.version).quarantined
    assert sum(certified.values()) == left_out


# --- stopped and taken up again ----------------------------------------------------------------


class Stopped(Exception):
    pass


def stop_after(count: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.done >= count:
            raise Stopped

    return stop


def test_a_stopped_publication_goes_on_where_it_was(first, source, workers, tmp_path):
    site = make(tmp_path / "site")
    labels = labelled(site, source[1])
    with pytest.raises(Stopped):
        publish(site, source[0], labels, workers, stop_after(16))
    assert versions_on_disk(site.datasets) == []
    seen = []
    outcome = publish(site, source[0], labels, workers, lambda p: seen.append(p.done))
    assert outcome.resumed == seen[0] >= 16
    assert seen[-1] == 60
    assert (
        read_certificate(site.datasets, outcome.version).arrays
        == read_certificate(first[0].datasets, first[1].version).arrays
    )
    assert list((site.state / "imports").iterdir()) == []


def test_files_that_went_away_or_changed_meanwhile_are_not_published(source, workers, tmp_path):
    """A patient whose files were taken out of the folder after a stop."""
    shutil.copytree(source[0], tmp_path / "images")
    site = make(tmp_path / "site")
    labels = labelled(site, source[1])
    with pytest.raises(Stopped):
        publish(site, tmp_path / "images", labels, workers, stop_after(32))
    pseudonyms = load_pseudonyms(site.keys)
    files = sorted((tmp_path / "images").rglob("*.dcm"))
    gone = dcmread(files[0]).PatientID
    for path in files:
        if dcmread(path).PatientID == gone:
            path.unlink()
    changed = next(path for path in files if path.exists())
    image = dcmread(changed)
    image.PatientID = "INV-NEW"
    image.save_as(changed)
    outcome = publish(site, tmp_path / "images", labels, workers)
    lineage = read_lineage(site.lineages, outcome.version)
    left = sum(1 for _ in (tmp_path / "images").rglob("*.dcm"))
    assert len(lineage.members) == left
    assert pseudonyms.patient(gone) not in {m.patient for m in lineage.members}
    assert pseudonyms.patient("INV-NEW") in {m.patient for m in lineage.members}
    assert reasons(outcome) == {}


def test_a_publication_that_the_policy_refuses_is_taken_up_when_the_policy_allows_it(
    source, workers, tmp_path
):
    site = make(tmp_path / "site", publishing={"minimum_per_class": 1000})
    labels = labelled(site, source[1])
    with pytest.raises(DatasetError, match="wants at least 1000 of each"):
        publish(site, source[0], labels, workers)
    assert versions_on_disk(site.datasets) == []
    change_policy(site)
    assert publish(site, source[0], labels, workers).resumed == 60


@pytest.mark.parametrize("step", ["write_version", "write_lineage"])
def test_a_publication_that_ended_while_it_was_written_is_made_good_by_doing_it_again(
    source, workers, tmp_path, monkeypatch, step
):
    """The process ends right before a step."""
    site = make(tmp_path / "site")
    labels = labelled(site, source[1])

    def end(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(new_version, step, end)
        with pytest.raises(Stopped):
            publish(site, source[0], labels, workers)
    outcome = publish(site, source[0], labels, workers)
    assert versions_on_disk(site.datasets) == [outcome.version]
    lineage = read_lineage(site.lineages, outcome.version)
    assert (len(lineage.members), lineage.parent) == (60, None)
    assert len(list(read_headers(site.lineages, outcome.version))) == 60


def test_control_c_ends_in_a_sentence_and_the_same_command_goes_on(source, tmp_path):
    site = make(tmp_path / "site")
    folder = tmp_path / "images"
    for number in range(4):
        shutil.copytree(source[0], folder / str(number))
    command = [
        *(sys.executable, "-m", "datasites.cli", "dataset", "publish", str(folder)),
        *("--name", NAME, "--classes", ",".join(CLASSES), "--licence", "none"),
        *("--labels", str(source[1]), "--size", "28", "--json", "--site", str(site.path)),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    journal = None
    end = time.monotonic() + 60
    while not (journal and journal.stat().st_size):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < end
        journal = next(site.state.glob("imports/*/journal.jsonl"), None)
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode not in (0, -signal.SIGINT)
    assert b"Traceback" not in said
    assert b"the same command goes on" in said
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] > 0
    (version,) = versions_on_disk(site.datasets)
    assert read_certificate(site.datasets, version).images == 60


# --- from version to version -------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_versions(
    source: tuple[Path, Path], workers: Workers, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Site, Outcome, Outcome]:
    """60 images, then 8 of them gone and 30 new."""
    place = tmp_path_factory.mktemp("two-versions")
    site = make(place / "site")
    shutil.copytree(source[0], place / "images")
    before = publish(site, place / "images", labelled(site, source[1]), workers)
    for path in sorted((place / "images").rglob("*.dcm"))[:8]:
        path.unlink()
    rows = titles_in(source[1])
    rows |= chests(place / "images" / "more", 30, seed=9, maker="ember")
    table = csv_file(place / "table.csv", "sop_instance_uid", rows)
    after = publish(site, place / "images", labelled(site, table), workers, seed=5)
    return site, before, after


def test_a_new_version_names_its_parent_and_counts_what_came_and_went(two_versions):
    site, before, after = two_versions
    card = read_card(site.datasets, after.version)
    assert (card.parent, card.added, card.withdrawn) == (before.version, 30, 8)
    assert read_certificate(site.datasets, after.version).parent == before.version
    assert read_lineage(site.lineages, after.version).parent == before.version


def test_patients_stay_in_their_split_in_the_next_version(two_versions):
    site, before, after = two_versions
    then = read_lineage(site.lineages, before.version).split_of_patient
    now = read_lineage(site.lineages, after.version).split_of_patient
    both = set(then) & set(now)
    assert len(both) >= 20
    assert {p: now[p] for p in both} == {p: then[p] for p in both}


def test_patients_of_a_split_that_is_no_longer_wanted_are_not_lost(source, workers, tmp_path):
    site = make(tmp_path / "site")
    labels = labelled(site, source[1])
    publish(site, source[0], labels, workers)
    try:
        after = publish(site, source[0], labels, workers, shares={"train": 0.8, "test": 0.2})
    except DatasetError as error:
        assert "val" in str(error)  # noqa: PT017  a refusal in a sentence would do
        return
    held = sum(len(a) for a in arrays(site, after.version).values())
    assert held == read_certificate(site.datasets, after.version).images == 60
    for member in read_lineage(site.lineages, after.version).members:
        assert member.row < len(arrays(site, after.version)[member.split])


def test_blank_slices_do_not_chain_all_patients_into_one_split(workers, tmp_path):
    """Every head has an empty slice at its top, and all empty slices look alike."""
    site = make(tmp_path / "site", publishing={"recognisable_heads": "allow"})
    table = write_head_phantoms(
        tmp_path / "heads", patients=30, seed=1, maker=MAKERS["aster"], size=64, slices=3
    )
    for number, path in enumerate(sorted((tmp_path / "heads").rglob("*.dcm"))):
        if number % 3 == 0:
            image = dcmread(path)
            image.PixelData = bytes(len(image.PixelData))
            image.save_as(path)
    labels = read_labels(table, ("clear", "lesion"), load_pseudonyms(site.keys))
    outcome = publish(site, tmp_path / "heads", labels, workers)
    patients = arrays(site, outcome.version, "patients")
    assert set(patients) == {"train", "val", "test"}
    assert len(set(patients["train"])) == pytest.approx(21, abs=3)


def test_copies_of_an_image_under_another_patient_are_reported_and_in_one_split(
    source, workers, tmp_path
):
    shutil.copytree(source[0], tmp_path / "images")
    rows = titles_in(source[1])
    patients = []
    for number, path in enumerate(sorted((tmp_path / "images").rglob("*.dcm"))[:10]):
        image = dcmread(path)
        patients.append((image.PatientID, f"COPY{number}"))
        title = rows[image.SOPInstanceUID]
        image.PatientID = f"COPY{number}"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.888{number}"
        rows[image.SOPInstanceUID] = title
        image.save_as(tmp_path / "images" / f"copy{number}.dcm")
    site = make(tmp_path / "site")
    table = csv_file(tmp_path / "table.csv", "sop_instance_uid", rows)
    outcome = publish(site, tmp_path / "images", labelled(site, table), workers)
    pseudonyms = load_pseudonyms(site.keys)
    split = read_lineage(site.lineages, outcome.version).split_of_patient
    for one, other in patients:
        assert split[pseudonyms.patient(one)] == split[pseudonyms.patient(other)]
    assert outcome.look_alikes >= 20
    assert read_certificate(site.datasets, outcome.version).look_alikes == outcome.look_alikes


# --- the policy --------------------------------------------------------------------------------


def smallest_class(source: tuple[Path, Path]) -> int:
    return min(Counter(list(titles_in(source[1]).values())).values())


@pytest.mark.parametrize("above", [0, 1])
def test_the_smallest_class_is_as_large_as_the_policy_says(source, workers, tmp_path, above):
    least = smallest_class(source) + above
    site = make(tmp_path / "site", publishing={"minimum_per_class": least})
    if above:
        with pytest.raises(DatasetError, match=rf"has {least - 1} images; .* at least {least} of"):
            publish(site, source[0], labelled(site, source[1]), workers)
        assert versions_on_disk(site.datasets) == []
    else:
        publish(site, source[0], labelled(site, source[1]), workers)


@pytest.mark.parametrize("above", [0, 1])
def test_there_are_as_many_patients_as_the_policy_says(source, workers, tmp_path, above):
    patients = {dcmread(p, stop_before_pixels=True).PatientID for p in source[0].rglob("*.dcm")}
    least = len(patients) + above
    site = make(tmp_path / "site", publishing={"minimum_patients": least})
    if above:
        words = rf"has {least - 1} patients; .* at least {least} \(publishing.minimum_patients"
        with pytest.raises(DatasetError, match=words):
            publish(site, source[0], labelled(site, source[1]), workers)
    else:
        publish(site, source[0], labelled(site, source[1]), workers)


@pytest.mark.parametrize("above", [0, 1])
def test_the_training_split_is_as_large_as_an_update_needs(first, source, workers, tmp_path, above):
    least = len(arrays(first[0], first[1].version)["train"]) + above
    site = make(tmp_path / "site", examples={"minimum": least})
    if above:
        with pytest.raises(DatasetError, match=r"nobody could train on it"):
            publish(site, source[0], labelled(site, source[1]), workers)
    else:
        publish(site, source[0], labelled(site, source[1]), workers)


def test_a_name_that_the_policy_does_not_know_is_refused_before_anything_is_read(
    source, workers, tmp_path
):
    site = make(tmp_path / "site")
    with pytest.raises(DatasetError, match="knows no dataset `heads` but chest-xray"):
        publish(site, source[0], labelled(site, source[1]), workers, name="heads")
    assert not (site.state / "imports").exists()


@pytest.mark.parametrize(
    ("options", "refused"),
    [((), True), (("device-maker",), True), (("shift-dates",), False)],
)
def test_methods_that_the_policy_demands_have_to_be_named(
    source, workers, tmp_path, options, refused
):
    site = make(tmp_path / "site", publishing={"options": ["113100", "113107"]})
    if refused:
        with pytest.raises(DatasetError, match=r"113107 would not be applied\. Name them with"):
            publish(site, source[0], labelled(site, source[1]), workers, options=options)
    else:
        outcome = publish(site, source[0], labelled(site, source[1]), workers, options=options)
        card = read_card(site.datasets, outcome.version)
        assert {"113100", "113107"} <= set(card.deidentification)
        methods = read_certificate(site.datasets, outcome.version).methods
        assert tuple(m.code for m in methods) == card.deidentification


@pytest.mark.parametrize("wish", ["required", "if installed", "off"])
def test_without_tesseract_the_policy_decides(source, workers, tmp_path, wish, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    site = make(tmp_path / "site", publishing={"text_search": wish})
    if wish == "required":
        with pytest.raises(DatasetError, match=r"apt install tesseract-ocr"):
            publish(site, source[0], labelled(site, source[1]), workers)
        assert not (site.state / "imports").exists()
        return
    outcome = publish(site, source[0], labelled(site, source[1]), workers)
    search = read_certificate(site.datasets, outcome.version).text_search
    assert (outcome.text_searched, search.tool, search.searched) == (False, None, 0)


@pytest.mark.parametrize("allowed", [True, False])
def test_heads_are_left_out_or_marked_as_the_policy_says(workers, tmp_path, allowed):
    wish = "allow" if allowed else "refuse"
    site = make(tmp_path / "site", publishing={"recognisable_heads": wish})
    table = write_head_phantoms(
        tmp_path / "heads", patients=24, seed=1, maker=MAKERS["ember"], size=64, slices=3
    )
    labels = read_labels(table, ("clear", "lesion"), load_pseudonyms(site.keys))
    if not allowed:
        with pytest.raises(DatasetError, match=r"72 recognisable head"):
            publish(site, tmp_path / "heads", labels, workers)
        return
    outcome = publish(site, tmp_path / "heads", labels, workers)
    assert read_card(site.datasets, outcome.version).recognisable
    certificate = read_certificate(site.datasets, outcome.version)
    assert certificate.recognisable["yes"] == 72
    assert any(sentence.startswith("113102") for sentence in certificate.not_applied)


@pytest.mark.parametrize(
    ("suspects", "marked", "published"),
    [((), None, True), (("CR",), None, False), (("CR",), "NO", True), ((), "YES", False)],
)
def test_suspect_modalities_are_left_out_unless_marked(
    workers, tmp_path, suspects, marked, published
):
    site = make(tmp_path / "site", publishing={"suspect_modalities": list(suspects)})
    for number in range(40):
        image = sample(seed=number, **({"BurnedInAnnotation": marked} if marked else {}))
        folder = tmp_path / "images" / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(as_bytes(image))
    labels = Labels(CLASSES)
    if published:
        assert publish(site, tmp_path / "images", labels, workers).quarantined == {}
    else:
        with pytest.raises(DatasetError, match="no image is left to publish"):
            publish(site, tmp_path / "images", labels, workers)


# --- labels ------------------------------------------------------------------------------------


def samples(folder: Path, count: int = 40, **changes: Any) -> None:
    """Small CR images, each of a study, series and patient of its own, in a folder per class."""
    for number in range(count):
        place = folder / CLASSES[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image = sample(
            seed=number, rows=28, columns=28, AccessionNumber=f"A{number}",
            ProtocolName=CLASSES[number % 2], **changes,
        )  # fmt: skip
        (place / f"{number}.dcm").write_bytes(as_bytes(image))


KINDS = {
    "sop_instance_uid": lambda k, _: f"2.25.9{k}1",
    "series_instance_uid": lambda k, _: f"2.25.9{k}2",
    "study_instance_uid": lambda k, _: f"2.25.9{k}3",
    "accession_number": lambda k, _: f"A{k}",
    "patient": lambda k, pseudonyms: pseudonyms.patient(f"S{k}"),
    "path": lambda k, _: f"{CLASSES[k % 2]}/{k}.dcm",
}


@pytest.mark.parametrize("kind", [*KINDS, "tag", "folder"])
def test_labels_come_from_each_kind_of_place(workers, tmp_path, kind):
    samples(tmp_path / "images")
    site = make(tmp_path / "site")
    pseudonyms = load_pseudonyms(site.keys)
    if kind in KINDS:
        rows = {KINDS[kind](k, pseudonyms): CLASSES[k % 2] for k in range(40)}
        labels = labelled(site, csv_file(tmp_path / "table.csv", kind, rows))
    else:
        labels = Labels(CLASSES, tag="ProtocolName" if kind == "tag" else None)
    outcome = publish(site, tmp_path / "images", labels, workers)
    assert outcome.quarantined == {}
    expected = {pseudonyms.key("sop", f"2.25.9{k}1"): k % 2 for k in range(40)}
    found = read_lineage(site.lineages, outcome.version).members
    assert {m.instance: m.label for m in found} == expected


def test_missing_contradicting_and_unknown_labels_are_reported_and_left_out(workers, tmp_path):
    samples(tmp_path / "images")
    site = make(tmp_path / "site")
    rows = [(f"A{k}", CLASSES[k % 2]) for k in range(40)]
    rows[0] = ("A0", "")
    rows[1] = ("A1", "something else")
    rows.append(("A2", "opacity"))
    rows.append(("A3", "opacity"))
    del rows[4]
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("accession_number", "label"), *rows])
    outcome = publish(site, tmp_path / "images", labelled(site, table), workers)
    assert reasons(outcome) == {
        "no label": 2,
        "unknown class": 1,
        "two different labels": 1,
    }
    assert read_certificate(site.datasets, outcome.version).quarantined == reasons(outcome)


def test_pictures_in_class_folders_need_to_know_their_patients(workers, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "images" / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
        picture.save(folder / f"{number}.{'png' if number % 4 < 2 else 'jpg'}")
    site = make(tmp_path / "site")
    with pytest.raises(DatasetError, match="40 no patient"):
        publish(site, tmp_path / "images", Labels(CLASSES), workers)
    outcome = publish(site, tmp_path / "images", Labels(CLASSES), workers, patient_per_file=True)
    card = read_card(site.datasets, outcome.version)
    assert card.modalities == ("JPEG", "PNG")
    assert read_certificate(site.datasets, outcome.version).patients == 40
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        names = [f"{CLASSES[k % 2]}/{k}.{'png' if k % 4 < 2 else 'jpg'}" for k in range(40)]
        rows = [(name, CLASSES[k % 2], f"P{k // 2}") for k, name in enumerate(names)]
        csv.writer(file).writerows([("path", "label", "patient"), *rows])
    other = make(tmp_path / "other")
    outcome = publish(other, tmp_path / "images", labelled(other, table), workers)
    assert read_certificate(other.datasets, outcome.version).patients == 20


# --- pixels ------------------------------------------------------------------------------------


def publish_values(
    tmp_path: Path, workers: Workers, standard: Standardisation, slices: int = 1, **changes: Any
) -> list[np.ndarray[Any, Any]]:
    """Publishes 30 series of slices; the arrays of the first, in their order."""
    site = make(tmp_path / "site", publishing={"recognisable_heads": "allow"})
    values = changes.pop("values")
    for number in range(30):
        for k in range(slices):
            image = sample(
                seed=number, rows=28, columns=28, values=values(number, k), BodyPartExamined="FOOT",
                SOPInstanceUID=f"2.25.7{number}.{k}", InstanceNumber=slices - k,
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 5 * k],
                **changes,
            )  # fmt: skip
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            folder = tmp_path / "images" / CLASSES[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            # Named against their order in the volume.
            (folder / f"{number}-{(k * 7) % 10}-{k}").write_bytes(as_bytes(image))
    outcome = publish(site, tmp_path / "images", Labels(CLASSES), workers, standardisation=standard)
    lineage = read_lineage(site.lineages, outcome.version)
    pseudonyms = load_pseudonyms(site.keys)
    held = arrays(site, outcome.version)
    by_key = {(m.instance, m.frame): held[m.split][m.row] for m in lineage.members}
    found = []
    for k in range(slices):
        key = pseudonyms.key("sop", f"2.25.7{0}.{k}")
        frames = sorted(frame for instance, frame in by_key if instance == key)
        found += [by_key[key, frame] for frame in frames]
    return found


def hounsfield_ramp(number: int, _: int) -> np.ndarray[Any, Any]:
    """Stored values of -1500 HU to 1500 HU in all images, with a mark that tells them apart."""
    ramp = np.linspace(-1500, 1500, 28 * 28).round().astype(np.int64).reshape(28, 28) + 2000
    ramp[:2, :20] = np.random.default_rng(number).integers(0, 4000, (2, 20))
    return ramp[None, :, :, None]


@pytest.mark.parametrize(
    ("window", "black", "middle", "white"),
    [
        ("mediastinum", -160, 40, 240),
        ("lung", -1350, -600, 150),
        ("bone", -500, 400, 1300),
        (HounsfieldWindow(centre=0, width=200), -100, 0, 100),
    ],
)
def test_ct_is_shown_in_hounsfield_units_with_the_named_window(
    tmp_path, workers, window, black, middle, white
):
    standard = Standardisation(size=28, ct_window=window)
    (image,) = publish_values(
        tmp_path, workers, standard, values=hounsfield_ramp, modality="CT",
        rescale=(1.0, -2000.0), window=(5000.0, 10.0),
    )  # fmt: skip
    units = (hounsfield_ramp(0, 0)[0, :, :, 0] - 2000).astype(float)
    expected = np.rint(np.clip((units - black) / (white - black), 0, 1) * 255)
    assert np.abs(image - expected).max() <= 1
    assert (image[units <= black] == 0).all()
    assert (image[units >= white] == 255).all()
    assert image[np.abs(units - middle).argmin() // 28, np.abs(units - middle).argmin() % 28] in (
        *(125, 126, 127, 128, 129, 130),
    )


def noisy_slices(number: int, k: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(100 * number + k)
    return rng.integers(100 * k, 300 + 500 * k, (1, 28, 28, 1))


def test_mr_is_stretched_between_percentiles_of_its_whole_series(tmp_path, workers):
    standard = Standardisation(size=28, mr_percentiles=(2.0, 98.0), dtype="float32")
    found = publish_values(
        tmp_path, workers, standard, slices=4, values=noisy_slices, modality="MR"
    )
    stored = [noisy_slices(0, k)[0, :, :, 0] for k in range(4)]
    low, high = np.percentile(np.concatenate([s.ravel() for s in stored]), (2, 98))
    for image, values in zip(found, stored, strict=True):
        np.testing.assert_allclose(image, np.clip((values - low) / (high - low), 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6]),
        ("middle", [3]),
        ("every 3", [0, 3, 6]),
        ("every 7", [0]),
        ("every 999", [0]),
    ],
)
def test_slices_are_chosen_along_the_volume_by_the_written_rule(tmp_path, workers, rule, chosen):
    """Neither file names nor instance numbers, which run backwards here, say the order."""
    standard = Standardisation(size=28, slices=rule, mr_percentiles=(0, 100), dtype="float32")
    found = publish_values(
        tmp_path, workers, standard, slices=7, values=noisy_slices, modality="MR"
    )
    stored = [noisy_slices(0, k)[0, :, :, 0] for k in range(7)]
    low = min(values.min() for values in stored)
    high = max(values.max() for values in stored)
    assert len(found) == len(chosen)
    for image, k in zip(found, chosen, strict=True):
        np.testing.assert_allclose(image, (stored[k] - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize(("rule", "count"), [("all", 5), ("middle", 1), ("every 2", 3)])
def test_frames_of_a_file_are_chosen_by_the_same_rule(tmp_path, workers, rule, count):
    values = lambda number, _: np.random.default_rng(number).integers(0, 4096, (5, 28, 28, 1))  # noqa: E731
    standard = Standardisation(size=28, slices=rule)
    found = publish_values(tmp_path, workers, standard, values=values, modality="XA", frames=5)
    assert len(found) == count


@pytest.mark.parametrize(
    ("channels", "dtype", "shape"),
    [(1, "uint8", (28, 28)), (3, "uint8", (28, 28, 3)), (3, "float16", (28, 28, 3)),
     (1, "float32", (28, 28))],
)  # fmt: skip
def test_the_arrays_have_the_shape_and_type_that_was_asked_for(
    source, workers, tmp_path, channels, dtype, shape
):
    site = make(tmp_path / "site")
    standard = Standardisation(size=28, channels=channels, dtype=dtype)
    outcome = publish(site, source[0], labelled(site, source[1]), workers, standardisation=standard)
    card = read_card(site.datasets, outcome.version)
    assert (card.shape, card.dtype, card.standardisation) == (shape, dtype, standard)
    for images in arrays(site, outcome.version).values():
        assert (images.shape[1:], images.dtype.name) == (shape, dtype)
        assert 0.8 <= images.max() / (255 if dtype == "uint8" else 1) <= 1
        if channels == 3:
            assert (images[..., 0] == images[..., 2]).all()


# --- arrays ------------------------------------------------------------------------------------


def test_arrays_are_published_within_the_policy_and_certified_as_what_they_are(tmp_path):
    site = make(tmp_path / "site")
    publication = wanted(Labels(CLASSES), standardisation=Standardisation())
    version, card = publish_arrays(site, factories.splits(), publication, "a file")
    certificate = read_certificate(site.datasets, version)
    assert (certificate.methods, certificate.patients, card.deidentification) == ((), None, ())
    assert certificate.not_applied[0].startswith("no profile")
    assert certificate.images == 180
    again, _ = publish_arrays(site, factories.splits(), publication, "a file")
    assert again == version
    change_policy(site, publishing={"minimum_per_class": 91})
    with pytest.raises(DatasetError, match="has 90 images; policy test v1 wants at least 91"):
        publish_arrays(site, factories.splits(seed=1), publication, "a file")
    change_policy(site, examples={"minimum": 121})
    with pytest.raises(DatasetError, match="nobody could train on it"):
        publish_arrays(site, factories.splits(seed=1), publication, "a file")
    with pytest.raises(DatasetError, match="knows no dataset"):
        publish_arrays(site, factories.splits(), replace(publication, name="heads"), "a file")


# --- memory ------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import numpy as np
from datasites.config import load_site
from datasites.imaging.labels import Labels
from datasites.imaging.preparing import PreparedImage, PreparedUnit
from datasites.imaging.standardise import Standardisation
from datasites.new_version import Publication, publish_images
COUNT, HEADER = {count}, Path({header!r}).read_text()
def print_peak():
    (line,) = (n for n in open('/proc/self/status') if n.startswith('VmHWM'))
    print(int(line.split()[1]) // 1024)
class Source:
    kind, items, lists_everything = "a test", COUNT, False
    def units(self, is_done): yield from ()
class Workers:
    def prepare(self, units, settings):
        list(units)
        base = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)
        for start in range(0, COUNT, 100):
            yield [self.unit(base, k) for k in range(start, min(COUNT, start + 100))]
    def unit(self, base, k):
        image = PreparedImage(base ^ np.uint8(k % 251), k % 2, f"{{k // 3:032x}}", f"{{k:032x}}",
                              0, f"{{k:016x}}", HEADER)
        return PreparedUnit(f"{{k:032x}}", 1, [image])
print_peak()
publish_images(load_site(Path({site!r})), Source(), Publication(
    name="chest-xray", classes=("clear", "opacity"), licence="none",
    labels=Labels(("clear", "opacity")), standardisation=Standardisation()), Workers())
print_peak()
"""
MEASURED, MEANT = 5_000, 20_000


def test_twenty_thousand_images_are_published_with_under_a_gigabyte(first, tmp_path):
    """The publishing process, with the headers of real files; its workers hold a batch each.

    A quarter of them is published, and the growth counted four times.
    """
    site = make(tmp_path / "site")
    header = tmp_path / "header.json"
    header.write_text(next(read_headers(first[0].lineages, first[1].version))[2])
    assert len(header.read_text()) > 2000
    program = MEASURE.format(
        path=[os.getcwd()], count=MEASURED, header=str(header), site=str(site.path)
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        before_mb, peak_mb = map(int, done.stdout.split())
        (version,) = versions_on_disk(site.datasets)
        assert sum(len(a) for a in arrays(site, version).values()) == MEASURED
    finally:
        shutil.rmtree(site.state / "datasets")
        shutil.rmtree(site.state / "imports", ignore_errors=True)
    assert before_mb + (peak_mb - before_mb) * MEANT / MEASURED < 1000 - WORKERS_MB


WORKERS_MB = 400
"""What two workers hold with a batch of ordinary images, see the next test."""


def test_workers_do_not_grow_with_what_they_have_done(tmp_path):
    samples(tmp_path / "images", 400)
    site = make(tmp_path / "site")
    peaks: dict[int, int] = {}

    def look(progress: Progress) -> None:
        for server in _children(os.getpid()):
            for pid in _children(server):
                status = Path(f"/proc/{pid}/smaps_rollup").read_text()
                line = next(n for n in status.splitlines() if n.startswith("Pss:"))
                peaks[pid] = max(peaks.get(pid, 0), int(line.split()[1]) // 1024)

    before = {pid for server in _children(os.getpid()) for pid in _children(server)}
    with Workers(2) as own:
        publish(site, tmp_path / "images", Labels(CLASSES), own, look)
    mine = sorted(peak for pid, peak in peaks.items() if pid not in before)
    assert mine
    assert sum(mine[-2:]) < WORKERS_MB


def _children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
