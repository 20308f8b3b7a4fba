"""A patient is withdrawn: from every version, by an identifier that is kept nowhere, for good."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydicom import dcmread

import factories
from datasites import withdrawal
from datasites.catalogue import is_intact, read_card, versions_on_disk
from datasites.certificate import read_certificate
from datasites.config import Site
from datasites.errors import DatasetError
from datasites.imaging.labels import Labels
from datasites.imaging.sources.folder import Folder
from datasites.imaging.standardise import Standardisation
from datasites.imaging.workers import Workers
from datasites.keys import load_pseudonyms, load_site_key
from datasites.lineage import latest_version, read_headers, read_lineage, retired_because
from datasites.new_site import example_config, make_site
from datasites.new_version import Outcome, Publication, publish_arrays, publish_images
from datasites.records import ApprovalRow, Records, RequestRow, RunRow
from datasites.withdrawal import retire_dataset, withdraw_patient
from dicom_samples import as_bytes, sample

CLASSES = ("clear", "opacity")
NAME = "chest-xray"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make(tmp_path / "site")


def make(path: Path, **publishing: Any) -> Site:
    policy = path.parent / "policy.yaml"
    plain = factories.policy(publishing={"text_search": "off", **publishing})
    policy.write_text(yaml.safe_dump(plain.model_dump(mode="json")))
    owner = "olga@st-marys.example"
    return make_site(path, example_config("st-marys"), policy, owner, owner, factories.PASSWORD)


def images(folder: Path, patients: range) -> Path:
    """Two images of each patient, one of each class."""
    for number in patients:
        for k, title in enumerate(CLASSES):
            image = sample(seed=2 * number + k, rows=28, columns=28, PatientID=f"MRN-{number:04d}")
            (folder / title).mkdir(parents=True, exist_ok=True)
            (folder / title / f"{number}.dcm").write_bytes(as_bytes(image))
    return folder


def publish(site: Site, folder: Path, workers: Workers, **changes: Any) -> Outcome:
    plain: dict[str, Any] = {
        "name": NAME, "classes": CLASSES, "licence": "none", "labels": Labels(CLASSES),
        "standardisation": Standardisation(size=28), "published_by": "olga",
    }  # fmt: skip
    return publish_images(
        site, Folder(folder, workers), Publication(**{**plain, **changes}), workers
    )


def patients_of(site: Site, version: str) -> set[str]:
    lineage = read_lineage(site.lineages, version)
    assert lineage is not None
    return {member.patient for member in lineage.members}


def approve(site: Site, number: int, version: str, states: tuple[str, ...]) -> None:
    """Puts a request with an approval and runs into the site's records."""
    records = Records(site.database_url)
    columns: dict[str, Any] = {"state": "approved", "account": "rita@uni.example"}
    columns |= {"syft_code": f"code {number}", "syft_request": f"request {number}"}
    terms = factories.terms(version=version, title=f"Study {number}").model_dump_json()
    try:
        with records.write() as session:
            session.add(row_of(RequestRow, id=number, terms=terms, **columns))
            session.add(row_of(ApprovalRow, id=number, request=number))
            for k, state in enumerate(states):
                session.add(
                    row_of(
                        RunRow, approval=number, request=number, state=state, round=k + 1, attempt=1
                    )
                )
    finally:
        records.close()


def row_of(table: Any, **values: Any) -> Any:
    """A row with something in every column that must not be empty."""
    plain = {}
    for column in table.__table__.columns:
        if column.name in values or column.nullable or column.autoincrement is True:
            continue
        if column.primary_key and column.type.python_type is int:
            continue
        plain[column.name] = {int: 0, float: 0.0, bytes: b""}.get(column.type.python_type, "")
    known = {column.name for column in table.__table__.columns}
    return table(**plain, **{k: v for k, v in values.items() if k in known})


def test_a_new_version_without_the_patient_takes_the_place_of_the_old_one(site, tmp_path, workers):
    before = publish(site, images(tmp_path / "images", range(30)), workers)
    done = withdraw_patient(site, NAME, " MRN-0007 ", "olga")
    key = load_pseudonyms(site.keys).patient("MRN-0007")
    assert (done.old, done.images) == (before.version, 2)
    assert key in patients_of(site, done.old)
    assert patients_of(site, done.new) == patients_of(site, done.old) - {key}
    assert "withdrawn" in retired_because(site.lineages, done.old)
    assert retired_because(site.lineages, done.new) is None
    assert latest_version(site.datasets, site.lineages, NAME) == done.new
    card = read_card(site.datasets, done.new)
    assert (card.parent, card.added, card.withdrawn) == (done.old, None, None)
    assert is_intact(site.datasets, done.old)
    assert is_intact(site.datasets, done.new)


def test_the_other_images_stay_as_they_were_and_where_they_were(site, tmp_path, workers):
    publish(site, images(tmp_path / "images", range(30)), workers)
    done = withdraw_patient(site, NAME, "MRN-0003", "olga")
    old = {(m.instance, m.frame): m for m in read_lineage(site.lineages, done.old).members}
    for member in read_lineage(site.lineages, done.new).members:
        then = old[member.instance, member.frame]
        assert (member.split, member.label) == (then.split, then.label)
        for kind in ("images", "labels"):
            now_held = np.load(site.datasets / done.new / f"{member.split}_{kind}.npy")
            then_held = np.load(site.datasets / done.old / f"{then.split}_{kind}.npy")
            assert (now_held[member.row] == then_held[then.row]).all()
    headers = {(s, r): h for s, r, h in read_headers(site.lineages, done.old)}
    assert len(headers) == 60
    moved = {(s, r): h for s, r, h in read_headers(site.lineages, done.new)}
    assert len(moved) == 58
    for member in read_lineage(site.lineages, done.new).members:
        then = old[member.instance, member.frame]
        assert moved[member.split, member.row] == headers[then.split, then.row]


def test_the_certificate_of_the_new_version_counts_anew_and_is_signed(site, tmp_path, workers):
    publish(site, images(tmp_path / "images", range(30)), workers)
    done = withdraw_patient(site, NAME, "MRN-0003", "peter")
    key = load_site_key(site.keys).public_hex
    certificate = read_certificate(site.datasets, done.new, key)
    assert (certificate.images, certificate.patients) == (58, 29)
    assert (certificate.parent, certificate.withdrawn_patients) == (done.old, 1)
    assert certificate.published_by == "peter"
    assert certificate.methods == read_certificate(site.datasets, done.old).methods


def files_with(site: Site, text: str) -> list[str]:
    return [
        str(path.relative_to(site.path))
        for path in site.path.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("in_latest", [True, False])
def test_the_original_identifier_is_kept_nowhere(site, tmp_path, workers, in_latest):
    folder = images(tmp_path / "images", range(30))
    publish(site, folder, workers)
    if not in_latest:
        for path in folder.rglob("7.dcm"):
            path.unlink()
        publish(site, folder, workers)
    done = withdraw_patient(site, NAME, "MRN-0007", "olga")
    assert "MRN" not in json.dumps(done.as_dict())
    assert files_with(site, "MRN-0007") == []
    assert not list(site.lineages.glob("*MRN*"))


def test_a_patient_may_be_named_by_the_pseudonym(site, tmp_path, workers):
    publish(site, images(tmp_path / "images", range(30)), workers)
    key = load_pseudonyms(site.keys).patient("MRN-0005")
    done = withdraw_patient(site, NAME, key, "olga")
    assert done.images == 2
    assert key not in patients_of(site, done.new)


def test_every_version_with_the_patient_is_retired_and_all_who_saw_one_are_listed(
    site, tmp_path, workers
):
    folder = images(tmp_path / "images", range(30))
    first = publish(site, folder, workers)
    second = publish(site, images(folder, range(30, 40)), workers)
    approve(site, 1, first.version, ("released", "released", "refused"))
    approve(site, 2, second.version, ())
    approve(site, 3, "f" * 64, ("released",))
    done = withdraw_patient(site, NAME, "MRN-0007", "olga")
    assert retired_because(site.lineages, first.version) is not None
    assert retired_because(site.lineages, second.version) is not None
    assert [(s.request, s.released) for s in done.seen] == [(1, 2), (2, 0)]
    assert done.seen[0].researcher == "rita@uni.example"
    assert done.seen[0].title == "Study 1"


def test_a_version_that_never_had_the_patient_is_not_retired(site, tmp_path, workers):
    folder = images(tmp_path / "images", range(30))
    first = publish(site, folder, workers)
    second = publish(site, images(folder, range(30, 40)), workers)
    done = withdraw_patient(site, NAME, "MRN-0035", "olga")
    assert done.old == second.version
    assert retired_because(site.lineages, first.version) is None


def test_a_patient_who_is_in_an_older_version_only_is_withdrawn_from_that(site, tmp_path, workers):
    folder = images(tmp_path / "images", range(30))
    first = publish(site, folder, workers)
    for path in folder.rglob("7.dcm"):
        path.unlink()
    second = publish(site, folder, workers)
    withdraw_patient(site, NAME, "MRN-0007", "olga")
    assert retired_because(site.lineages, first.version) is not None
    assert retired_because(site.lineages, second.version) is None
    assert latest_version(site.datasets, site.lineages, NAME) == second.version


def test_a_withdrawn_patient_does_not_come_back_with_the_next_publication(site, tmp_path, workers):
    folder = images(tmp_path / "images", range(30))
    publish(site, folder, workers)
    done = withdraw_patient(site, NAME, "MRN-0007", "olga")
    again = publish(site, folder, workers)
    key = load_pseudonyms(site.keys).patient("MRN-0007")
    assert key not in patients_of(site, again.version)
    assert again.version == done.new or read_card(site.datasets, again.version).parent == done.new
    assert retired_because(site.lineages, again.version) is None
    more = publish(site, images(folder, range(30, 40)), workers)
    assert key not in patients_of(site, more.version)
    assert read_card(site.datasets, more.version).added == 20
    assert sum(more.quarantined.values()) == 2


def test_two_patients_are_withdrawn_one_after_the_other(site, tmp_path, workers):
    publish(site, images(tmp_path / "images", range(30)), workers)
    one = withdraw_patient(site, NAME, "MRN-0001", "olga")
    two = withdraw_patient(site, NAME, "MRN-0002", "olga")
    assert two.old == one.new
    assert len(patients_of(site, two.new)) == 28


def test_who_is_not_there_is_refused_in_a_sentence_without_the_identifier(site, tmp_path, workers):
    with pytest.raises(DatasetError, match="there is no dataset `chest-xray` here"):
        withdraw_patient(site, NAME, "MRN-0001", "olga")
    publish(site, images(tmp_path / "images", range(30)), workers)
    with pytest.raises(DatasetError, match="no image of this patient") as refused:
        withdraw_patient(site, NAME, "MRN-9999", "olga")
    assert "MRN" not in str(refused.value)
    assert len(versions_on_disk(site.datasets)) == 1
    assert files_with(site, "MRN") == []


def test_a_dataset_of_arrays_has_no_patients_to_withdraw(site):
    publication = Publication(NAME, CLASSES, "none", Labels(CLASSES))
    publish_arrays(site, factories.splits(), publication, "a file")
    with pytest.raises(DatasetError, match="published as arrays, without patients"):
        withdraw_patient(site, NAME, "MRN-0001", "olga")


@pytest.mark.parametrize(
    ("rule", "least", "refused"),
    [
        ("minimum_per_class", 29, False),
        ("minimum_per_class", 30, True),
        ("minimum_patients", 29, False),
        ("minimum_patients", 30, True),
    ],
)
def test_what_is_left_is_held_to_the_policy(tmp_path, workers, rule, least, refused):
    site = make(tmp_path / "site", **{rule: least})
    before = publish(site, images(tmp_path / "images", range(30)), workers)
    if refused:
        with pytest.raises(DatasetError, match="too little is left"):
            withdraw_patient(site, NAME, "MRN-0007", "olga")
        assert versions_on_disk(site.datasets) == [before.version]
        assert retired_because(site.lineages, before.version) is None
    else:
        withdraw_patient(site, NAME, "MRN-0007", "olga")


@pytest.mark.parametrize("step", ["write_version", "write_lineage", "retire"])
def test_a_withdrawal_that_was_interrupted_is_made_good_by_doing_it_again(
    site, tmp_path, workers, monkeypatch, step
):
    """The process ends right after the step before."""
    first = publish(site, images(tmp_path / "images", range(30)), workers)

    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(withdrawal, step, end)
        with pytest.raises(KeyboardInterrupt):
            withdraw_patient(site, NAME, "MRN-0007", "olga")
    withdraw_patient(site, NAME, "MRN-0007", "olga")
    key = load_pseudonyms(site.keys).patient("MRN-0007")
    latest = latest_version(site.datasets, site.lineages, NAME)
    assert key not in patients_of(site, latest)
    assert len(patients_of(site, latest)) == 29
    assert retired_because(site.lineages, first.version) is not None


def test_a_whole_dataset_is_retired_and_published_anew(site, tmp_path, workers):
    folder = images(tmp_path / "images", range(30))
    first = publish(site, folder, workers)
    approve(site, 1, first.version, ("released",))
    version, seen = retire_dataset(site, NAME, 'the "ethics" vote\nhas ended')
    assert version == first.version
    assert [s.released for s in seen] == [1]
    assert "ethics" in retired_because(site.lineages, version)
    assert "\n" not in retired_because(site.lineages, version)
    assert latest_version(site.datasets, site.lineages, NAME) is None
    with pytest.raises(DatasetError, match="there is no dataset"):
        retire_dataset(site, NAME, "again")
    again = publish(site, images(folder, range(30, 40)), workers)
    assert retired_because(site.lineages, again.version) is None


def test_what_the_site_remembers_is_readable_by_its_user_only(site, tmp_path, workers):
    publish(site, images(tmp_path / "images", range(30)), workers)
    withdraw_patient(site, NAME, "MRN-0007", "olga")
    for path in [site.lineages, *site.lineages.iterdir()]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path.name


def test_subgroups_stay_with_the_images_that_are_left(site, tmp_path, workers):
    folder, key = images(tmp_path / "images", range(30)), load_pseudonyms(site.keys).key
    files = sorted(folder.rglob("*.dcm"))
    keys = [key("sop", str(dcmread(file).SOPInstanceUID)) for file in files]
    sex = {name: "FM"[k % 2] for k, name in enumerate(keys)}
    classes = {n: frozenset({file.parent.name}) for n, file in zip(keys, files, strict=True)}
    labels = Labels(CLASSES, "sop", classes, groups={"sex": ("F", "M")}, members={"sex": sex})
    publish(site, folder, workers, labels=labels)
    done = withdraw_patient(site, NAME, "MRN-0003", "olga")
    assert read_card(site.datasets, done.new).groups == {"sex": ("F", "M")}
    members = read_lineage(site.lineages, done.new).members
    assert len(members) == 58
    for member in members:
        place = np.load(site.datasets / done.new / f"{member.split}_group_sex.npy")[member.row]
        assert "FM"[place] == sex[member.instance]
