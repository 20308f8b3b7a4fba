"""Labels: from tables as hospitals write them, and never guessed."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from datasites.errors import DatasetError
from datasites.imaging.labels import COLUMNS, Labels, key_of, read_labels
from datasites.imaging.problems import Quarantined, Reason, UnreadableSourceError
from datasites.imaging.pseudonyms import Pseudonyms

CLASSES = ("clear", "Trübung")
PSEUDONYMS = Pseudonyms(b"l" * 32)


def table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(tmp_path: Path, content: str | bytes, column: str = "label") -> Labels:
    return read_labels(table(tmp_path, content), CLASSES, PSEUDONYMS, column)


def find(labels: Labels, kind: str, value: str) -> int:
    return labels.find({kind: key_of(PSEUDONYMS, kind, value)}, "", None)


def refused(labels: Labels, kind: str, value: str) -> Reason:
    with pytest.raises(Quarantined) as caught:
        find(labels, kind, value)
    assert value not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("column", COLUMNS)
def test_rows_are_found_by_each_kind_of_identifier(tmp_path, column):
    labels = read(tmp_path, f"{column},label\n1.2.3,Trübung\n1.2.4,clear\n")
    kind = COLUMNS[column]
    assert labels.kind == kind
    assert (find(labels, kind, "1.2.3"), find(labels, kind, "1.2.4")) == (1, 0)
    assert refused(labels, kind, "1.2.5") is Reason.NO_LABEL


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfaccession_number,label\r\nA1,Tr\xc3\xbcbung\r\n",  # Excel's UTF-8
        "accession_number,label\nA1,Trübung",  # no line at the end
        'accession_number,label\n"A1","Trübung"\n',
        " accession_number , label \n A1 , Trübung \n",
        "label,accession_number\nTrübung,A1\n",
        'accession_number,note,label\nA1,"a, b\nc",Trübung\n',
        "accession_number,label\nA1,Trübung\nA1,Trübung\n",  # twice the same
        "accession_number,label,\nA1,Trübung,\n",
        "accession_number,label\nA1,Trübung,\n",  # a comma at the end of rows only
        "accession_number,label\n\nA1,Trübung\n\n",
    ],
)
def test_tables_are_read_as_programs_write_them(tmp_path, content):
    assert find(read(tmp_path, content), "accession", "A1") == 1


def test_identifiers_and_classes_are_texts_not_numbers(tmp_path):
    path = table(tmp_path, "accession_number,label\n007,1\n1e5,0\nNA,1\n")
    labels = read_labels(path, ("0", "1"), PSEUDONYMS)
    assert [find(labels, "accession", value) for value in ("007", "1e5", "NA")] == [1, 0, 1]
    assert refused(labels, "accession", "7") is Reason.NO_LABEL
    assert refused(labels, "accession", "100000") is Reason.NO_LABEL


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("A1,", Reason.NO_LABEL),
        ("A1,clear\nA1,Trübung", Reason.TWO_LABELS),
        ("A1,Clear", Reason.UNKNOWN_CLASS),
        ("A1,pneumonia", Reason.UNKNOWN_CLASS),
        ("A2,clear", Reason.NO_LABEL),
    ],
)
def test_what_is_missing_contradicting_or_unknown_is_refused(tmp_path, rows, reason):
    labels = read(tmp_path, f"accession_number,label\n{rows}\n")
    assert refused(labels, "accession", "A1") is reason


def test_a_row_without_an_identifier_labels_no_image(tmp_path):
    labels = read(tmp_path, "accession_number,label\n,clear\nA1,Trübung\n")
    with pytest.raises(Quarantined):
        labels.find({"patient": "x"}, "", None)


def test_another_column_may_hold_the_label(tmp_path):
    labels = read(tmp_path, "path,label,finding\na/b.dcm,x,clear\n", "finding")
    assert find(labels, "path", "a/b.dcm") == 0


def test_a_patient_is_named_by_identifier_or_pseudonym(tmp_path):
    key = PSEUDONYMS.patient("MRN-1")
    for named in ("MRN-1", key):
        assert find(read(tmp_path, f"patient,label\n{named},clear\n"), "patient", key) == 0


def test_a_table_may_name_the_patients_of_pictures(tmp_path):
    labels = read(tmp_path, "path,label,patient\na.png,clear,P1\nb.png,clear,P1\nc.png,clear,\n")
    assert labels.kind == "path"
    keys = [PSEUDONYMS.key("path", name) for name in ("a.png", "b.png", "c.png")]
    assert labels.patients == dict.fromkeys(keys[:2], PSEUDONYMS.patient("P1"))


def test_nothing_of_the_table_stays_in_clear(tmp_path):
    content = "study_instance_uid,label,patient,name\n1.2.840.99,clear,MRN-77,Quillfeather\n"
    held = repr(read(tmp_path, content))
    assert not any(text in held for text in ("1.2.840.99", "MRN-77", "Quillfeather"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not a CSV in UTF-8"),
        ("a,b\n1,2\n", "has the columns a, b; it needs one of sop_instance_uid"),
        ("sop_instance_uid\n1.2\n", "it needs one of"),
        ("label\nclear\n", "it needs one of"),
        ("sop_instance_uid,path,label\n1.2,a,clear\n", "it needs one of"),
        ("sop_instance_uid;label\n1.2;clear\n", "it needs one of"),
        ("accession_number,label\nA1,Tr\xfcbung\n".encode("latin-1"), "is not a CSV in UTF-8"),
        ("accession_number,label\nA1,clear\n".encode("utf-16"), "is not a CSV in UTF-8"),
        ('accession_number,label\n"A1,clear\n', "is not a CSV in UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused_in_a_sentence(tmp_path, content, words):
    with pytest.raises(UnreadableSourceError, match=words):
        read(tmp_path, content)


def test_a_table_that_is_not_there_or_a_folder_is_refused_in_a_sentence(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UnreadableSourceError, match="there is no file"):
            read_labels(path, CLASSES, PSEUDONYMS)


def test_folders_and_tags_hold_labels_too():
    folders, tagged = Labels(CLASSES), Labels(CLASSES, tag="StudyDescription")
    assert folders.find({}, "Trübung", "clear") == 0
    assert tagged.find({}, "Trübung", "clear") == 1
    for labels, tag, folder, reason in (
        (folders, "", None, Reason.NO_LABEL),
        (folders, "", "other", Reason.UNKNOWN_CLASS),
        (tagged, "", "clear", Reason.NO_LABEL),
        (tagged, "other", "clear", Reason.UNKNOWN_CLASS),
    ):
        with pytest.raises(Quarantined) as caught:
            labels.find({}, tag, folder)
        assert caught.value.reason is reason


def test_ten_times_as_many_rows_take_about_ten_times_as_long(tmp_path):
    seconds = {}
    for count in (10_000, 100_000):
        path = tmp_path / f"{count}.csv"
        with path.open("w", newline="") as file:
            rows = ((f"1.2.840.{k}", CLASSES[k % 2], f"MRN-{k // 3}") for k in range(count))
            csv.writer(file).writerows([("sop_instance_uid", "label", "patient"), *rows])
        start = time.process_time()
        labels = read_labels(path, CLASSES, PSEUDONYMS)
        seconds[count] = time.process_time() - start
        assert len(labels.rows) == len(labels.patients) == count
    assert seconds[100_000] < 40 * seconds[10_000]  # a hundred times where it is quadratic


# ----------------------------------------------------------------------------------- subgroups


TABLE = (
    "path,label,sex,age_band\n"
    "a,clear,F,old\nb,clear,M,\nc,clear,,young\nd,clear,F,old\nd,clear,M,old\n"
)


def test_columns_become_subgroups_and_nothing_is_guessed(tmp_path):
    labels = read_labels(table(tmp_path, TABLE), CLASSES, PSEUDONYMS, groups=["sex", "age_band"])
    assert labels.groups == {"age_band": ("old", "young"), "sex": ("F", "M")}
    found = {name: labels.places({"path": key_of(PSEUDONYMS, "path", name)}) for name in "abcde"}
    assert found == {
        "a": (0, 0), "b": (-1, 1), "c": (1, -1),
        "d": (0, -1),  # rows contradict each other about the sex
        "e": (-1, -1),  # no row
    }  # fmt: skip
    assert read(tmp_path, TABLE).places({}) == ()


@pytest.mark.parametrize("name", ["height", "path", "patient", "label"])
def test_a_column_that_is_not_there_or_names_images_is_no_subgroup(tmp_path, name):
    with pytest.raises(DatasetError) as refused:
        read_labels(table(tmp_path, TABLE), CLASSES, PSEUDONYMS, groups=[name])
    assert str(refused.value) == (
        f"--group {name}: labels.csv has no such column beside those of images and labels; "
        "it has path, label, sex, age_band"
    )
