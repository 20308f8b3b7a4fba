"""`sitegate dataset …` as a data owner types it: tables, files, prompts, refusals, exit codes."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from pydicom import dcmread
from typer.testing import CliRunner, Result

import factories
from datasites.catalogue import CERTIFICATE, versions_on_disk
from datasites.certificate import read_certificate
from datasites.cli import app
from datasites.config import Site, load_site
from datasites.dataset_commands import dataset_app
from datasites.imaging.standardise import CT_WINDOWS
from datasites.keys import load_pseudonyms
from datasites.lineage import latest_version, retired_because
from datasites.new_site import example_policy
from datasites.records import ApprovalRow, Records, RequestRow, RunRow
from datasites.trial import free_port

NAME, CLASSES = "chest-xray", "normal,pneumonia"
LICENCE = "for research, © St Mary's"
COUNT = 60
COMMAND = "import sys; from datasites.cli import app; sys.argv[0] = 'sitegate'; app()"
COMMANDS = (
    "certificate", "list", "phantoms", "pseudonym", "publish", "retire", "scan", "standardisation",
    "withdraw",
)  # fmt: skip


def invoke(*arguments: str | Path, typed: str | None = None) -> Result:
    """A command in this process; only the prompts are answered."""
    done = CliRunner().invoke(app, ["dataset", *map(str, arguments)], input=typed)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def run(*arguments: str | Path) -> str:
    """What a command prints that does what it should, and says nothing else."""
    done = invoke(*arguments)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.strip() == ""
    return done.stdout


def refused(code: int, *arguments: str | Path, typed: str | None = None) -> str:
    """The sentence of a command that is refused, in one line."""
    done = invoke(*arguments, typed=typed)
    assert done.exit_code == code, done.output
    assert not re.search(r"Traceback|Error\b|Tuple|dictionary|NoneType", done.stderr)
    return " ".join(done.stderr.split())


def publish_command(site: Site, source: str | Path, **changes: str) -> list[str]:
    plain = {"name": NAME, "classes": CLASSES, "licence": LICENCE, "as": "olga", **changes}
    options = [word for name, value in plain.items() for word in (f"--{name}", value)]
    return ["publish", str(source), "--site", str(site.path), *options]


def make(path: Path, **changes: Any) -> Site:
    """A site made with `sitegate init`, with the example policy as a hospital changes it."""
    policy = yaml.safe_load(example_policy().read_text())
    policy |= {"examples": {"minimum": 20}, **changes}
    policy["publishing"] |= {"text_search": "off", "minimum_per_class": 5}
    file = path.parent / f"{path.name}-policy.yaml"
    file.write_text(yaml.safe_dump(policy))
    done = CliRunner().invoke(
        app,
        ["init", "st-marys", "--owner", "olga@st-marys.example", "--directory", str(path),
         "--policy", str(file)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return load_site(path)


def words(line: str) -> str:
    return " ".join(line.split())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`images` with 60 chest phantoms and `labels.csv`; `odd` has files that are left out, too."""
    place = tmp_path_factory.mktemp("place")
    run("phantoms", place / "images", "--dicom", "--count", str(COUNT), "--size", "32")
    shutil.copytree(place / "images", place / "odd")
    first, second, third = sorted((place / "odd").rglob("*.dcm"))[:3]
    (place / "odd" / "Broken_Barnaby.dcm").write_bytes(first.read_bytes()[:-500])
    (place / "odd" / "letter to Dr Otto.pdf").write_bytes(b"%PDF-1.4\n")
    (place / "odd" / "Twice_Tamsin.dcm").write_bytes(second.read_bytes())
    image = dcmread(third)
    image.BurnedInAnnotation = "YES"
    image.save_as(third)
    stranger = dcmread(first)
    stranger.SOPInstanceUID = stranger.file_meta.MediaStorageSOPInstanceUID = "2.25.7"
    stranger.save_as(place / "odd" / "Without_Label.dcm")
    return place


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site at which everything is refused."""
    site = make(tmp_path_factory.mktemp("empty") / "site")
    load_pseudonyms(site.keys)  # makes the secret
    return site


@pytest.fixture(scope="module")
def published(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Site, subprocess.CompletedProcess[str]]:
    """A site that published `images`, and what the command printed."""
    site = make(tmp_path_factory.mktemp("published") / "site")
    command = publish_command(site, place / "images", labels=str(place / "labels.csv"), size="28")
    return site, spawn(*command)


@pytest.fixture
def site(published: tuple[Site, Any], tmp_path: Path) -> Iterator[Site]:
    """A copy of it, to change."""
    shutil.copytree(published[0].path, tmp_path / "site")
    yield load_site(tmp_path / "site")
    for path in (tmp_path / "site").rglob("*"):
        path.chmod(0o700)


def spawn(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    plain: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "timeout": 60}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "dataset", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, **{**plain, **options},
    )  # fmt: skip


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_and_says_what_it_is(name: str) -> None:
    command = typer.main.get_command(dataset_app).commands[name]  # type: ignore[attr-defined]
    shown = run(name, "--help")
    assert max(map(len, shown.splitlines())) <= 80
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        for spelling in (*parameter.opts, *parameter.secondary_opts):
            assert spelling.startswith("-") is False or f"{spelling} " in shown, spelling


def test_every_command_is_tested_here() -> None:
    assert tuple(sorted(typer.main.get_command(dataset_app).commands)) == COMMANDS  # type: ignore[attr-defined]


# --- phantoms ----------------------------------------------------------------------------------


def test_phantoms_are_dicom_files_with_a_table_of_classes(place: Path, tmp_path: Path) -> None:
    assert len(list((place / "images").rglob("*.dcm"))) == COUNT
    with (place / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(CLASSES.split(","))
    uids = {dcmread(p).SOPInstanceUID for p in (place / "images").rglob("*.dcm")}
    assert {row["sop_instance_uid"] for row in rows} == uids
    again = tmp_path / "again"
    out = run("phantoms", again, "--dicom", "--count", str(COUNT), "--size", "32")
    assert out == (
        f"Drew {COUNT} DICOM files of invented patients: {again}; their classes: "
        f"{tmp_path / 'labels.csv'}\n"
    )
    first, second = (content_of(folder) for folder in (place / "images", again))
    assert list(first.values()) == list(second.values())


def test_phantoms_overwrite_no_folder_and_say_where_they_cannot_be_written(
    place: Path, tmp_path: Path
) -> None:
    assert "is there already" in refused(2, "phantoms", place / "images", "--dicom")
    (tmp_path / "file").touch()
    for target in (["none/x.npz"], ["file/x", "--dicom"]):
        done = invoke("phantoms", tmp_path / target[0], "--count", "20", *target[1:])
        assert done.exit_code in (1, 2)
        assert len(done.stderr) > 20


# --- scan --------------------------------------------------------------------------------------


def test_scan_shows_two_tables_in_80_columns_and_changes_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = content_of(place)
    out = run("scan", place / "odd")
    assert content_of(place) == before
    assert list(tmp_path.iterdir()) == []
    assert max(map(len, out.splitlines())) <= 80
    lines = [words(line) for line in out.splitlines()]
    assert lines[0].startswith("64 files, ")
    assert f"DX Explicit VR Little Endian MONOCHROME2 12 32 x 32 {COUNT + 2}" in lines
    problems = "\n".join(lines[lines.index("Would be left out Why Files") :])
    for reason in ("marked as burned in", "broken file", "not an image"):
        assert re.search(rf"^{reason} .* 1$", problems, re.MULTILINE), problems
    assert_names_no_file(out, place / "odd")


def assert_names_no_file(printed: str, folder: Path) -> None:
    for path in folder.rglob("*"):
        assert path.name not in printed
        if path.suffix == ".dcm" and "Broken" not in path.name:
            image = dcmread(path, stop_before_pixels=True)
            assert str(image.PatientID) not in printed
            assert str(image.SOPInstanceUID) not in printed


def test_scan_as_json_says_the_same(place: Path) -> None:
    found = json.loads(run("scan", place / "odd", "--json"))
    assert found["files"] == 64
    assert [(i["modality"], i["images"]) for i in found["images"]] == [("DX", COUNT + 2)]
    reasons = {problem["reason"]: problem["files"] for problem in found["problems"]}
    assert reasons == {"marked as burned in": 1, "broken file": 1, "not an image": 1}


def test_scan_uses_the_policy_of_a_site(place: Path, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    policy = yaml.safe_load((site.path / "policy.yaml").read_text())
    policy["publishing"]["suspect_modalities"] = ["DX"]
    (site.path / "policy.yaml").write_text(yaml.safe_dump(policy))
    for image in list((place / "images").rglob("*.dcm"))[:2]:
        copy = dcmread(image)
        del copy.BurnedInAnnotation
        (tmp_path / "two").mkdir(exist_ok=True)
        copy.save_as(tmp_path / "two" / image.name)
    suspected = json.loads(run("scan", tmp_path / "two", "--json", "--site", site.path))
    assert [p["reason"] for p in suspected["problems"]] == ["device or modality known for text"]
    assert json.loads(run("scan", tmp_path / "two", "--json"))["problems"] == []


def test_scan_of_arrays_shows_their_splits(tmp_path: Path) -> None:
    run("phantoms", tmp_path / "x.npz", "--count", "50")
    lines = [words(line) for line in run("scan", tmp_path / "x.npz").splitlines()]
    assert lines[0] == "train 50 images of 28 x 28 uint8"
    shapes = json.loads(run("scan", tmp_path / "x.npz", "--json"))["arrays"]
    assert shapes == {"train": [50, 28, 28], "val": [10, 28, 28], "test": [20, 28, 28]}


@pytest.mark.parametrize(
    ("source", "code", "sentence"),
    [
        ("none", 1, "there is no folder or archive"),
        ("none.npz", 1, "there is no file"),
        ("labels.csv", 1, "neither a folder, a zip archive nor an .npz"),
    ],
)
def test_scan_says_what_it_cannot_look_into(
    place: Path, source: str, code: int, sentence: str
) -> None:
    assert sentence in refused(code, "scan", place / source)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_receiver_on_a_port_that_is_none_is_refused(port: int) -> None:
    told = refused(2, "scan", f"receive:{port}", "--senders", "SCANNER1", "--idle", "0.1")
    assert "port" in told


# --- publish -----------------------------------------------------------------------------------


def test_publish_prints_a_table_and_nothing_on_stderr(
    published: tuple[Site, subprocess.CompletedProcess[str]],
) -> None:
    site, done = published
    assert done.stderr.strip() == ""
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    (version,) = versions_on_disk(site.datasets)
    assert words(lines[0]) == "Published normal pneumonia Images Patients"
    assert [line.split()[0] for line in lines[1:4]] == ["train", "val", "test"]
    assert f"{NAME} is version {version}" in lines
    assert "Pixels were NOT searched for text." in lines
    assert lines[-1] == "The site does not run; researchers see it after `sitegate serve`."
    certificate = read_certificate(site.datasets, version)
    assert (certificate.images, certificate.published_by) == (COUNT, "olga")


def test_progress_is_shown_on_a_terminal_and_stdout_stays_clean(
    place: Path, tmp_path: Path
) -> None:
    site = make(tmp_path / "site")
    command = publish_command(site, place / "images", labels=str(place / "labels.csv"), size="28")
    ours, theirs = pty.openpty()
    try:
        done = spawn(*command, "--json", stderr=theirs, env={**os.environ, "TERM": "xterm"})
        os.set_blocking(ours, False)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Publishing" in shown
    assert f"/{COUNT}" in shown
    assert json.loads(done.stdout)["card"]["name"] == NAME


def test_publish_as_json_counts_what_is_left_out_and_the_report_names_it(
    place: Path, tmp_path: Path
) -> None:
    site = make(tmp_path / "site")
    report = tmp_path / "report.csv"
    command = publish_command(
        site, place / "odd", labels=str(place / "labels.csv"), report=str(report), size="28"
    )
    out = run(*command, "--json")
    found = json.loads(out)
    counted = {row["reason"]: row["files"] for row in found["quarantined"]}
    expected = {
        "marked as burned in": 1, "broken file": 1, "not an image": 1, "duplicate": 1,
        "no label": 1,
    }  # fmt: skip
    assert counted == expected
    assert found["version"] in versions_on_disk(site.datasets)
    assert "Barnaby" not in out
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    with report.open() as file:
        rows = list(csv.DictReader(file))
    named = {row["file"]: row["reason"] for row in rows}
    assert named["Broken_Barnaby.dcm"] == "broken file"
    assert named["letter to Dr Otto.pdf"] == "not an image"
    assert named["Without_Label.dcm"] == "no label"
    assert all(row["detail"] for row in rows)
    assert {"marked as burned in", "duplicate"} <= set(named.values())
    for folder in (site.state / "lineages", site.datasets):
        assert not any(b"Barnaby" in content for content in content_of(folder).values())


def test_publish_shows_what_is_left_out_in_80_columns(place: Path, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    command = publish_command(site, place / "odd", labels=str(place / "labels.csv"), size="28")
    out = run(*command)
    lines = [words(line) for line in out.splitlines()]
    table = "\n".join(lines[lines.index("Quarantined Why Files") :])
    for reason in ("marked as burned in", "broken file", "not an image", "duplicate", "no label"):
        assert re.search(rf"^{reason} .* 1$", table, re.MULTILINE), table
    wide = [line for line in out.splitlines() if len(line) > 80]
    assert [line for line in wide if not line.startswith(f"{NAME} is version")] == []


WRONG_USE: dict[str, tuple[list[str], str]] = {
    "splits that add up to more": (["--splits", "0.7,0.2,0.2"], "--splits is `0.7,0.2,0.2`"),
    "two splits": (["--splits", "0.7,0.3"], "0.7,0.1,0.2"),
    "splits in words": (["--splits", "most,some,rest"], "0.7,0.1,0.2"),
    "no training": (["--splits", "0,0.5,0.5"], "0.7,0.1,0.2"),
    "negative split": (["--splits", "1.2,-0.1,-0.1"], "0.7,0.1,0.2"),
    "split that is no number": (["--splits", "nan,0.5,0.5"], "0.7,0.1,0.2"),
    "window": (["--ct-window", "heart"], ", ".join(list(CT_WINDOWS)[:2])),
    "size below": (["--size", "27"], "28"),
    "size above": (["--size", "1025"], "1024"),
    "channels": (["--channels", "2"], "3"),
    "dtype": (["--dtype", "int8"], "float16"),
    "fit": (["--fit", "stretch"], "crop"),
    "slices": (["--slices", "every"], "middle"),
    "option": (["--option", "everything"], "shift-dates"),
    "two sources of labels": (["--label-tag", "BodyPartExamined"], "not from both"),
    "standard and size": (["--standard", "{ok}", "--size", "28"], "leave out --size"),
    "standard that is no YAML": (["--standard", "{broken}"], "is not YAML"),
    "standard with an unknown field": (["--standard", "{unknown}"], "did you mean `size`?"),
    "standard that is a list": (["--standard", "{list}"], "not valid"),
    "standard that is not there": (["--standard", "{none}"], "there is no standardisation"),
    "one class": (["--classes", "normal"], "class"),
    "a class twice": (["--classes", "normal,pneumonia,normal"], "class"),
    "a class without a name": (["--classes", "normal,pneumonia,"], "class"),
    "report into nothing": (["--report", "{none}/report.csv"], "report"),
    "site that is not there": (["--site", "{none}"], "there is no site"),
}


@pytest.mark.parametrize("case", WRONG_USE)
def test_wrong_use_is_said_in_a_sentence_before_anything_is_read(
    case: str, place: Path, empty: Site, tmp_path: Path
) -> None:
    options, sentence = WRONG_USE[case]
    texts = {"ok": "size: 28\n", "broken": "size: [28", "unknown": "sise: 28\n", "list": "- 28\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    files = {name: str(tmp_path / f"{name}.yaml") for name in (*texts, "none")}
    command = publish_command(empty, place / "images", labels=str(place / "labels.csv"))
    before = content_of(empty.path)
    told = refused(2, *command, *(option.format(**files) for option in options))
    assert sentence in told
    assert content_of(empty.path) == before


def test_an_unknown_window_is_answered_with_all_that_there_are(place: Path, empty: Site) -> None:
    command = publish_command(empty, place / "images", labels=str(place / "labels.csv"))
    told = refused(2, *command, "--ct-window", "heart")
    assert [window for window in CT_WINDOWS if window not in told] == []
    assert "Hounsfield" not in told


def test_a_label_tag_that_is_no_attribute_is_refused(place: Path, empty: Site) -> None:
    told = refused(2, *publish_command(empty, place / "images"), "--label-tag", "NoSuchTag")
    assert "NoSuchTag" in told


def test_a_report_needs_a_source_with_files(empty: Site, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/dicom-web"
    command = publish_command(empty, nobody, report=str(tmp_path / "report.csv"))
    assert "--report" in refused(2, *command, "--all-studies")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": "none.csv"}, "there is no file"),
        ({"labels": "images"}, "there is no file"),
        ({"labels": "bare.csv"}, "it needs one of"),
        ({"label-column": "diagnosis"}, "`diagnosis`"),
        ({"source": "none"}, "there is no folder or archive"),
        ({"source": "none.npz"}, "there is no file"),
        ({"source": "labels.csv"}, "neither a folder, a zip archive nor an .npz"),
        ({"name": "heads"}, f"knows no dataset `heads` but {NAME}"),
        ({"classes": "normal,pneumonia,tumour"}, "class `tumour` has 0 images"),
        ({"classes": "clear,opacity"}, "no image is left to publish"),
    ],
)
def test_what_cannot_be_published_is_refused(
    place: Path, empty: Site, changes: dict[str, str], sentence: str
) -> None:
    (place / "bare.csv").write_text("label\nnormal\n")
    before = versions_on_disk(empty.datasets)
    given = {"labels": "labels.csv", "size": "28", **changes}
    source = place / given.pop("source", "images")
    given["labels"] = str(place / given["labels"])
    assert sentence in refused(1, *publish_command(empty, source, **given))
    assert versions_on_disk(empty.datasets) == before


def test_a_class_below_the_minimum_of_the_policy_is_refused(place: Path, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    with (place / "labels.csv").open() as file:
        head, *rows = csv.reader(file)
    kept = [row for row in rows if row[1] == "normal"]
    for count, code in ((4, 1), (5, 0)):
        table = tmp_path / f"{count}.csv"
        few = [row for row in rows if row[1] == "pneumonia"][:count]
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([head, *kept, *few])
        command = publish_command(site, place / "images", labels=str(table), size="28")
        done = invoke(*command)
        assert done.exit_code == code, done.output
        if code:
            told = words(done.stderr)
            assert "class `pneumonia` has 4 images" in told
            assert "at least 5 of each (publishing.minimum_per_class)" in told
            assert versions_on_disk(site.datasets) == []


def test_options_of_the_profile_stand_in_the_certificate(place: Path, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    command = publish_command(site, place / "images", labels=str(place / "labels.csv"), size="28")
    run(*command, "--option", "shift-dates", "--option", "patient-characteristics")
    codes = {
        m["code"]
        for m in json.loads(run("certificate", NAME, "--site", site.path, "--json"))["methods"]
    }
    assert {"113100", "113107", "113108"} <= codes


def test_labels_by_tag_by_patient_pseudonym_and_of_arrays(place: Path, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    tagged = tmp_path / "tagged"
    whose: dict[str, str] = {}
    for number, path in enumerate(sorted((place / "images").rglob("*.dcm"))):
        image = dcmread(path)
        label = whose.setdefault(image.PatientID, CLASSES.split(",")[len(whose) % 2])
        image.BodyPartExamined = label.upper()
        tagged.mkdir(exist_ok=True)
        image.save_as(tagged / f"{number}.dcm")
    table = tmp_path / "pseudonyms.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "label"])
        for patient, label in whose.items():
            key = run("pseudonym", "--patient", patient, "--site", site.path).strip()
            assert key == load_pseudonyms(site.keys).patient(patient)
            writer.writerow([key, label])
    by_tag = publish_command(site, tagged, classes=CLASSES.upper(), size="28")
    run(*by_tag, "--label-tag", "BodyPartExamined")
    by_patient = publish_command(site, tagged, labels=str(table), size="28")
    run(*by_patient)
    one, two = (read_certificate(site.datasets, v) for v in versions_on_disk(site.datasets))
    assert one.images == two.images == COUNT
    assert one.arrays == two.arrays
    run("phantoms", tmp_path / "x.npz", "--count", "50")
    out = run(*publish_command(site, tmp_path / "x.npz"), "--json")
    assert json.loads(out)["card"]["name"] == NAME
    assert "arrays" in refused(1, "standardisation", NAME, "--site", site.path)


# --- list, certificate, standardisation --------------------------------------------------------


def test_list_shows_versions_and_says_when_there_is_none(
    published: tuple[Site, Any], tmp_path: Path
) -> None:
    site, empty = published[0], make(tmp_path / "empty")
    (version,) = versions_on_disk(site.datasets)
    out = run("list", "--site", site.path)
    assert max(map(len, out.splitlines())) <= 80
    assert version[:12] in out
    assert NAME in out
    found = json.loads(run("list", "--site", site.path, "--json"))
    assert found[version]["licence"] == LICENCE
    assert "No dataset yet" in run("list", "--site", empty.path)
    assert json.loads(run("list", "--site", empty.path, "--json")) == {}


def test_the_certificate_fits_80_columns_and_one_page(published: tuple[Site, Any]) -> None:
    site, _ = published
    (version,) = versions_on_disk(site.datasets)
    out = run("certificate", NAME, "--site", site.path)
    *lines, last = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 60
    assert re.fullmatch(r"Signature of the site's key [0-9a-f]{64} is valid\.", last)
    text = words(out)
    for part in (version, "by olga, from folder", f"{COUNT} of ", "113100", "113101", "NOT made"):
        assert part in text
    for start in (version[:6], version):
        assert run("certificate", NAME, "--site", site.path, "--version", start) == out
    found = json.loads(run("certificate", NAME, "--site", site.path, "--json"))
    assert (found["version"], found["images"]) == (version, COUNT)
    assert found["public_key"] in last


@pytest.mark.parametrize(
    "arguments",
    [["heads"], [NAME, "--version", "zz"], [NAME, "--version", "0" * 64]],
)
def test_a_certificate_that_is_not_there_is_refused(
    published: tuple[Site, Any], arguments: list[str]
) -> None:
    told = refused(1, "certificate", *arguments, "--site", published[0].path)
    assert "see `sitegate dataset list`" in told


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: raw.replace(b'"images":60', b'"images":61'), "not signed by this site"),
        (lambda raw: raw.replace(b"olga", b"otto"), "not signed by this site"),
        (lambda raw: raw[:-20], "is broken"),
        (lambda _: b"[]", "is broken"),
        (lambda _: None, "has no certificate"),
    ],
)
def test_a_certificate_that_was_changed_is_not_shown(
    site: Site, damage: Any, sentence: str
) -> None:
    (version,) = versions_on_disk(site.datasets)
    file = site.datasets / version / CERTIFICATE
    file.parent.chmod(0o700)
    file.chmod(0o600)
    before = file.read_bytes()
    after = damage(before)
    assert after != before
    if after is None:
        file.unlink()
    else:
        file.write_bytes(after)
    done = invoke("certificate", NAME, "--site", site.path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert sentence in words(done.stderr)


def test_the_printed_standardisation_makes_the_same_arrays_at_another_site(
    published: tuple[Site, Any], place: Path, tmp_path: Path
) -> None:
    site, _ = published
    printed = run("standardisation", NAME, "--site", site.path)
    assert printed.startswith("# Bit-identical arrays from the same files need the same libraries")
    standard = tmp_path / "standard.yaml"
    standard.write_text(printed)
    other = make(tmp_path / "other")
    run(
        *publish_command(
            other, place / "images", labels=str(place / "labels.csv"), standard=str(standard)
        )
    )
    here, there = (
        read_certificate(s.datasets, *versions_on_disk(s.datasets)) for s in (site, other)
    )
    assert here.arrays == there.arrays
    assert here.standardisation_sha256 == there.standardisation_sha256
    assert "no version of `heads`" in refused(1, "standardisation", "heads", "--site", site.path)


# --- withdraw, retire, pseudonym ---------------------------------------------------------------


def patient_of(place: Path) -> tuple[str, int]:
    """A patient's ID and how many images they have."""
    found = [dcmread(p).PatientID for p in (place / "images").rglob("*.dcm")]
    return max((found.count(patient), patient) for patient in found)[::-1]


def approve(site: Site, number: int, version: str, states: tuple[str, ...]) -> None:
    """Put an approved request with runs into the site's records."""
    terms = factories.terms(version=version, title=f"Study {number}").model_dump_json()
    rows: list[tuple[Any, dict[str, Any]]] = [
        (RequestRow, {"id": number, "terms": terms, "state": "approved",
                      "account": "rita@uni.example", "syft_code": f"c{number}",
                      "syft_request": f"r{number}"}),
        (ApprovalRow, {"id": number, "request": number}),
    ]  # fmt: skip
    rows += [
        (RunRow, {"approval": number, "request": number, "state": state, "round": k, "attempt": 1})
        for k, state in enumerate(states)
    ]
    records = Records(site.database_url)
    try:
        with records.write() as session:
            for table, given in rows:
                columns = {column.name: column for column in table.__table__.columns}
                plain = {
                    name: {int: 0, float: 0.0, bytes: b""}.get(column.type.python_type, "")
                    for name, column in columns.items()
                    if not column.nullable and not column.primary_key
                }
                session.add(table(**plain | {k: v for k, v in given.items() if k in columns}))
    finally:
        records.close()


def test_withdraw_asks_for_the_patient_and_lists_who_has_seen_the_images(
    site: Site, place: Path
) -> None:
    old = latest_version(site.datasets, site.lineages, NAME)
    assert old is not None
    approve(site, 3, old, ("released", "released", "failed"))
    approve(site, 4, "f" * 64, ("released",))
    patient, images = patient_of(place)
    done = invoke("withdraw", NAME, "--site", site.path, "--as", "olga", typed=f"{patient}\n")
    assert (done.exit_code, done.stderr) == (0, "")
    new = latest_version(site.datasets, site.lineages, NAME)
    assert new not in (old, None)
    text = done.stdout
    assert text.startswith("Patient ID, as in the images: ")
    assert f"{images} images withdrawn. {NAME} is version {new}" in text
    assert f"Nothing runs on version {old[:12]} any more" in text
    lines = [words(line) for line in text.splitlines()]
    assert "R-3 rita@uni.example Study 3 approved 2" in lines
    assert not any(line.startswith("R-4") for line in lines)
    assert "tell the researchers" in words(text)
    assert max(map(len, text.splitlines()[3:])) <= 80
    listed = run("list", "--site", site.path)
    assert listed.count("(withdrawn)") == 1
    shown = words(run("certificate", NAME, "--site", site.path))
    assert "1 patient withdrawn" in shown
    assert f"{COUNT - images} of " in shown
    assert not any(patient.encode() in c for c in content_of(site.path).values())


def test_withdraw_as_json_and_by_pseudonym(site: Site, place: Path) -> None:
    patient, images = patient_of(place)
    key = run("pseudonym", "--patient", patient, "--site", site.path).strip()
    out = run("withdraw", NAME, "--site", site.path, "--patient", key, "--json")
    found = json.loads(out)
    assert (found["images"], found["seen"]) == (images, [])
    assert found["new"] == latest_version(site.datasets, site.lineages, NAME)
    assert patient not in out


@pytest.mark.parametrize(
    ("name", "patient", "sentence"),
    [
        (NAME, "INV00000000", "has no image of this patient"),
        (NAME, "0" * 32, "has no image of this patient"),
        (NAME, "", ""),
        (NAME, "   ", ""),
        ("heads", "INV00000000", "there is no dataset `heads` here"),
    ],
)
def test_who_is_unknown_cannot_be_withdrawn_and_is_not_repeated(
    published: tuple[Site, Any], name: str, patient: str, sentence: str
) -> None:
    site, _ = published
    before = versions_on_disk(site.datasets)
    told = refused(1, "withdraw", name, "--site", site.path, "--patient", patient)
    assert sentence in told
    assert "INV" not in told
    assert versions_on_disk(site.datasets) == before
    assert retired_because(site.lineages, before[0]) is None


def test_withdraw_says_when_too_little_would_be_left(site: Site, place: Path) -> None:
    policy = yaml.safe_load((site.path / "policy.yaml").read_text())
    policy["publishing"]["minimum_patients"] = 1000
    (site.path / "policy.yaml").write_text(yaml.safe_dump(policy))
    patient, _ = patient_of(place)
    told = refused(1, "withdraw", NAME, "--site", site.path, "--patient", patient)
    assert "sitegate dataset retire" in told


def test_retire_asks_why_and_lists_who_has_seen_it(site: Site) -> None:
    version = latest_version(site.datasets, site.lineages, NAME)
    assert version is not None
    approve(site, 3, version, ())
    done = invoke("retire", NAME, "--site", site.path, typed="the ethics vote ended\n")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"Nothing runs on {NAME} version {version[:12]} any more" in done.stdout
    lines = [words(line) for line in done.stdout.splitlines()]
    assert "R-3 rita@uni.example Study 3 approved 0" in lines
    assert retired_because(site.lineages, version) == "the ethics vote ended"
    assert "(withdrawn)" in run("list", "--site", site.path)
    for command in (["retire", NAME, "--reason", "again"], ["retire", "heads", "--reason", "x"]):
        assert "there is no dataset" in refused(1, *command, "--site", site.path)


def test_pseudonym_asks_for_the_patient_and_is_the_sites_own(site: Site, empty: Site) -> None:
    done = invoke("pseudonym", "--site", site.path, typed="INV00000001\n")
    assert done.exit_code == 0
    key = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert run("pseudonym", "--site", site.path, "--patient", "INV00000001").strip() == key
    assert run("pseudonym", "--site", empty.path, "--patient", "INV00000001").strip() != key
    done = invoke("pseudonym", "--site", site.path, "--patient", " ")
    assert done.exit_code != 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["certificate", NAME],
        ["standardisation", NAME],
        ["withdraw", NAME, "--patient", "x"],
        ["retire", NAME, "--reason", "x"],
        ["pseudonym", "--patient", "x"],
        ["scan", "."],
    ],
)
def test_a_site_that_is_not_there_is_named(tmp_path: Path, arguments: list[str]) -> None:
    told = refused(2, *arguments, "--site", tmp_path / "none")
    assert "there is no site at" in told
    assert "sitegate init" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "x", "--nmae", "y"],
        ["publish", "x"],
        ["scan"],
        ["phantoms", "x.npz", "--count", "19"],
        ["phantoms", "x.npz", "--size", "225"],
        ["nothing"],
    ],
)
def test_the_wrong_options_are_wrong_usage(arguments: list[str]) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert "Usage: " in done.stderr


# ----------------------------------------------------------------------------------- subgroups


def test_a_column_of_the_table_becomes_a_subgroup(place: Path, tmp_path: Path) -> None:
    site = make(tmp_path / "site")
    table = str(place / "labels.csv")
    told = json.loads(
        run(
            *publish_command(site, place / "images", labels=table, size="28", group="sex"), "--json"
        )
    )
    assert told["card"]["groups"] == {"sex": ["F", "M"]}
    drawn = Counter(dcmread(file).PatientSex for file in (place / "images").rglob("*.dcm"))
    (version,) = versions_on_disk(site.datasets)
    found: Counter[str] = Counter()
    for split in told["card"]["counts"]:
        places = np.load(site.datasets / version / f"{split}_group_sex.npy")
        found.update("FM"[k] for k in places)
    assert found == drawn


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"group": "height"}, "--group height: labels.csv has no such column beside those of"),
        ({"group": "label"}, "--group label: labels.csv has no such column beside those of"),
        ({"group": "Sex"}, "--group is `Sex`; the name of a subgroup is a small letter and up to"),
        ({"group": "many", "labels": "many.csv"}, "--group many: it has 60 different values; 1 to"),
    ],
)
def test_columns_that_are_no_subgroup_are_refused(
    place: Path, empty: Site, changes: dict[str, str], sentence: str
) -> None:
    with (place / "labels.csv").open() as file, (place / "many.csv").open("w") as many:
        head, *rows = csv.reader(file)
        csv.writer(many).writerows([[*head, "many"], *([*row, row[0]] for row in rows)])
    given = {"labels": "labels.csv", "size": "28", **changes}
    given["labels"] = str(place / given["labels"])
    assert sentence in refused(1, *publish_command(empty, place / "images", **given))
    del given["labels"]
    told = refused(2, *publish_command(empty, place / "images", **given))
    assert "--group names columns of --labels; give that CSV too" in told


def test_subgroups_of_an_npz_are_read_from_it(tmp_path: Path) -> None:
    site, file = make(tmp_path / "site"), tmp_path / "phantoms.npz"
    run("phantoms", file, "--count", "60")
    with np.load(file) as arrays:
        content = dict(arrays)
    for split in ("train", "val", "test"):
        count = len(content[f"{split}_labels"])
        content[f"{split}_group_sex"] = np.array(["F", "M"])[np.arange(count) % 2]
    np.savez(file, **content)
    told = json.loads(run(*publish_command(site, file), "--json"))
    assert told["card"]["group_counts"]["train"] == {"sex": {"F": 30, "M": 30}}
