"""What both PACS sources are made of: queries, patience, parts of an answer, UIDs in raw bytes."""

from __future__ import annotations

import dataclasses
import io
import struct
import time
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

import pacs
from datasites.imaging.problems import SourceLostError, UnreadableSourceError
from datasites.imaging.sources.instance_uids import InstanceUids, read_instance_uids
from datasites.imaging.sources.multipart import BrokenAnswerError, read_boundary, read_parts
from datasites.imaging.sources.patience import Patience, UnavailableError
from datasites.imaging.sources.query import Query, parse_day


@pytest.mark.parametrize(
    ("criteria", "sentence"),
    [
        ({}, "would be the whole archive; say --all-studies"),
        ({"modalities": ()}, "would be the whole archive"),
        ({"everything": True}, None),
        ({"everything": True, "modalities": ("CT",)}, "leave one of the two out"),
        ({"modalities": ("CT",)}, None),
        ({"modalities": ("CT", "*")}, "2 to 16 capital letters"),
        ({"modalities": ("ct",)}, "2 to 16 capital letters"),
        ({"modalities": ("",)}, "2 to 16 capital letters"),
        ({"accession_numbers": ("A" * 16,)}, None),
        ({"accession_numbers": ("A" * 17,)}, "1 to 16 printable"),
        ({"accession_numbers": ("A*",)}, "would match others too"),
        ({"patient_ids": ("P?",)}, "would match others too"),
        ({"patient_ids": ("P\\Q",)}, "would match others too"),
        ({"patient_ids": ("",)}, "1 to 64 printable"),
        ({"patient_ids": ("P" * 65,)}, "1 to 64 printable"),
        ({"patient_ids": ("P\n",)}, "1 to 64 printable"),
        ({"study_uids": ("1.2.3",)}, None),
        ({"study_uids": ("1.2.*",)}, "numbers with dots"),
        ({"study_uids": ("1.02",)}, "numbers with dots"),
        ({"study_uids": ("1/2",)}, "numbers with dots"),
        ({"study_uids": ("1." * 32 + "1",)}, "numbers with dots"),
        ({"study_description": "chest*"}, None),
        ({"study_description": "*"}, "wildcards alone"),
        ({"study_description": "a\\b"}, "would match others too"),
        ({"station_name": "CT1"}, None),
        ({"station_name": "CT*"}, "would match others too"),
        ({"study_from": date(2024, 1, 2), "study_to": date(2024, 1, 2)}, None),
        ({"study_from": date(2024, 1, 2), "study_to": date(2024, 1, 1)}, "end (2024-01-01) before"),
        ({"study_from": date(1899, 12, 31)}, "between the years"),
    ],
)
def test_query_that_cannot_be_meant_is_refused(
    criteria: dict[str, Any], sentence: str | None
) -> None:
    if sentence is None:
        Query(**criteria)
        return
    with pytest.raises(UnreadableSourceError) as refused:
        Query(**criteria)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024-01-31", date(2024, 1, 31)),
        ("20240131", date(2024, 1, 31)),
        ("2024-02-30", None),
        ("2024-1-31", None),
        ("31.1.2024", None),
        ("20240101-20240131", None),
        ("", None),
    ],
)
def test_day_is_written_in_one_of_two_ways(text: str, day: date | None) -> None:
    if day:
        assert parse_day(text) == day
    else:
        with pytest.raises(UnreadableSourceError, match="2024-01-31 or 20240131"):
            parse_day(text)


@pytest.mark.parametrize(
    ("criteria", "keys"),
    [
        ({"study_from": date(2024, 1, 2)}, {"StudyDate": "20240102-"}),
        ({"study_to": date(2024, 1, 2)}, {"StudyDate": "-20240102"}),
        ({"study_from": date(2024, 1, 2), "study_to": date(2024, 1, 2)}, {"StudyDate": "20240102"}),
        ({"modalities": ("CT",)}, {}),
        ({"patient_ids": ("P",), "accession_numbers": ("A",)}, {"AccessionNumber": "A"}),
    ],
)
def test_search_has_the_keys_of_the_query(criteria: dict[str, Any], keys: dict[str, str]) -> None:
    assert list(Query(**criteria).study_searches()) == [keys]


def test_each_value_of_a_list_is_a_search() -> None:
    searches = Query(patient_ids=("P1", "P2", "P1"), modalities=("CT", "MR")).study_searches()
    assert list(searches) == [{"PatientID": "P1"}, {"PatientID": "P2"}]


@pytest.mark.parametrize(
    ("answer", "met"),
    [
        ({"StudyDate": "20240101"}, False),
        ({"StudyDate": "20240102"}, True),
        ({"StudyDate": "2024.01.03"}, True),
        ({"StudyDate": "20240104"}, False),
        ({"StudyDate": "20240102", "ModalitiesInStudy": "CT\\SR"}, True),
        ({"StudyDate": "20240102", "ModalitiesInStudy": "MR\\SR"}, False),
        ({}, False),
    ],
)
def test_answer_is_held_against_the_query(answer: dict[str, str], met: bool) -> None:
    query = Query(study_from=date(2024, 1, 2), study_to=date(2024, 1, 3), modalities=("CT",))
    other = {"StudyDate": "19990101"}
    assert query.among_studies([answer, other]) == ([answer] if met else [])


# Patience


def test_patience_waits_longer_each_time_and_tells() -> None:
    waits: list[str] = []
    answers = iter([None, UnavailableError("gone"), UnavailableError("gone"), "here"])

    def ask() -> str | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    patience = Patience(5, waits.append)
    assert patience.ask(ask) is None
    assert patience.ask(ask) == "here"
    assert waits == ["gone; trying again in 0.2 s", "gone; trying again in 0.5 s"]


@pytest.mark.parametrize(("answered", "error"), [(True, SourceLostError), (False, ValueError)])
def test_patience_ends(answered: bool, error: type[Exception]) -> None:
    def ask() -> None:
        raise UnavailableError("gone", answered=answered)

    started = time.monotonic()
    with pytest.raises(error, match="gone"):
        Patience(0.4).ask(ask)
    assert 0.3 * answered <= time.monotonic() - started < 0.4 + 0.4 * answered


def test_patience_that_is_stopped_waits_no_more() -> None:
    patience = Patience(60)
    patience.ask(lambda: None)
    patience.stop()

    def ask() -> None:
        raise UnavailableError("gone")

    started = time.monotonic()
    with pytest.raises(SourceLostError):
        patience.ask(ask)
    assert time.monotonic() - started < 1


# Multipart


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("start", [b"", b"a preamble\r\n"])
def test_parts_are_what_was_put_together(chunk: int, start: bytes) -> None:
    parts = [b"", b"a", b"\r\n--xy", b"\r\n--", b"-x", b"\r\n\r\n" * 3, bytes(range(256)) * 4]
    body = start + b"".join(b"--x\r\nA: b\r\nC: d\r\n\r\n" + part + b"\r\n" for part in parts)
    body += b"--x--\r\nafter"
    chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]
    assert list(read_parts(chunks, b"x", 10_000)) == parts


@pytest.mark.parametrize("chunk", [100, 5000])
def test_part_past_the_limit_is_left_out(chunk: int) -> None:
    body = b"".join(b"--x\r\nA: b\r\n\r\n" + part + b"\r\n" for part in (b"1", b"2" * 90_000, b"3"))
    chunks = [(body + b"--x--")[i : i + chunk] for i in range(0, len(body) + 5, chunk)]
    assert list(read_parts(chunks, b"x", 10_000)) == [b"1", b"3"]


@pytest.mark.parametrize("body", [b"", b"nothing", b"--x\r\n\r\n\r\nA", b"--x\r\n\r\n\r\nA\r\n--x"])
def test_answer_that_ends_early_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        list(read_parts([body], b"x", 100))


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related; boundary="a b"; type=x', b"a b"),
        ("multipart/related", None),
        ("text/html; boundary=abc", None),
        ("", None),
    ],
)
def test_boundary_is_read(header: str, boundary: bytes | None) -> None:
    assert read_boundary(header) == boundary


# UIDs in raw bytes


def written(image: Dataset, syntax: str) -> bytes:
    image.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def nested() -> Dataset:
    """An image with sequences of both lengths, and UIDs of others in them, before its own."""
    image = pacs.dicom(1, series="1.2.3", instance="1.2.4")
    inner = Dataset()
    inner.SeriesInstanceUID, inner.SOPInstanceUID = "9.9.9", "9.9.8"
    outer = Dataset()
    outer.ReferencedInstanceSequence = Sequence([inner, inner])
    for undefined in (True, False):
        keyword = "ReferencedSeriesSequence" if undefined else "ReferencedStudySequence"
        setattr(image, keyword, Sequence([outer, Dataset()]))
        image[keyword].is_undefined_length = undefined
    outer.is_undefined_length_sequence_item = True
    image.add_new(0x00091001, "UN", b"\0" * 70_000)
    return image


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_uids_are_those_of_the_data_set(syntax: str) -> None:
    assert read_instance_uids(written(nested(), syntax)) == InstanceUids("1.2.4", "1.2.3")


def test_uids_are_read_in_big_endian() -> None:
    image = Dataset()
    image.file_meta = pacs.dicom(1, series="1.2.3").file_meta
    image.SOPInstanceUID, image.SeriesInstanceUID, image.Rows = "1.2.4", "1.2.3", 32
    assert read_instance_uids(written(image, ExplicitVRBigEndian)) == InstanceUids("1.2.4", "1.2.3")


def test_uids_of_the_file_meta_are_not_believed() -> None:
    image = pacs.dicom(1, series="1.2.3", instance="1.2.4")
    raw = pacs.encoded(image).replace(b"1.2.4\0", b"1.2.7\0", 1)
    assert read_instance_uids(raw) == InstanceUids("1.2.4", "1.2.3")


def test_bomb_is_not_inflated() -> None:
    image = pacs.dicom(1, series="1.2.3", instance="1.2.4")
    image.add_new(0x00091001, "OB", b"\0" * 100_000_000)
    raw = written(image, DeflatedExplicitVRLittleEndian)
    assert len(raw) < 200_000
    started = time.monotonic()
    assert read_instance_uids(raw) is None
    assert time.monotonic() - started < 0.5


def test_depth_of_sequences_is_limited() -> None:
    head = pacs.encoded(pacs.dicom(1, series="1.2.3"))
    meta_end = 132 + 12 + struct.unpack("<L", head[140:144])[0]
    deep = b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 50_000
    assert read_instance_uids(head[:meta_end] + deep) is None


RAW = pacs.encoded(nested())


@given(st.lists(st.tuples(st.integers(128, 1500), st.integers(0, 255)), max_size=6))
def test_damaged_file_never_raises(edits: list[tuple[int, int]]) -> None:
    raw = bytearray(RAW)
    for position, value in edits:
        raw[position] = value
    found = read_instance_uids(bytes(raw))
    assert found is None or dataclasses.is_dataclass(found)


@pytest.mark.parametrize("length", range(0, 1000, 13))
def test_truncated_file_never_raises(length: int) -> None:
    assert read_instance_uids(RAW[:length]) is None
