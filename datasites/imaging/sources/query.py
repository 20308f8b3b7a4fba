"""What is searched for in a PACS: the keys that QIDO-RS and C-FIND have in common.

Both protocols allow an archive to ignore a key that it does not know, and to answer with more than
was asked. So each answer is held against the query again (`among_studies`, `among_series`);
an answer that does not show a key is not trusted to meet it.

References:
    DICOM PS3.4 C.2.2.2 (matching), C.6.2.1 (study root); PS3.18 10.6 (search).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from datasites.imaging.problems import UnreadableSourceError

MODALITY, STUDY_DATE, ACCESSION = "Modality", "StudyDate", "AccessionNumber"
PATIENT, STUDY, DESCRIPTION = "PatientID", "StudyInstanceUID", "StudyDescription"
STATION, MODALITIES = "StationName", "ModalitiesInStudy"

WORDS = {
    MODALITY: "modality",
    STUDY_DATE: "study date",
    ACCESSION: "accession number",
    PATIENT: "patient ID",
    STUDY: "study UID",
    DESCRIPTION: "study description",
    STATION: "station name",
}
_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_MODALITY = re.compile(r"[A-Z][A-Z0-9]{1,15}")
_TEXT = re.compile(r"[ -~]+")


@dataclass(frozen=True, slots=True)
class Query:
    """Which studies and series are wanted; every criterion that is given has to be met.

    Attributes:
        modalities: Such as `CT`; any of them.
        study_from: First study date, included.
        study_to: Last study date, included.
        accession_numbers: Any of them, as they are.
        study_uids: Any of them.
        patient_ids: Any of them, as they are.
        study_description: Any case; `*` stands for any characters, `?` for one. It is looked for in
            what the other criteria find: archives differ in whether they mind the case.
        station_name: Of the device, as it is.
        everything: The whole archive is meant; no other criterion is given.

    Raises:
        UnreadableSourceError: A criterion cannot be meant like that, or there is none.
    """

    modalities: tuple[str, ...] = ()
    study_from: date | None = None
    study_to: date | None = None
    accession_numbers: tuple[str, ...] = ()
    study_uids: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    study_description: str | None = None
    station_name: str | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        criteria = (
            self.modalities, self.study_from, self.study_to, self.accession_numbers,
            self.study_uids, self.patient_ids, self.study_description, self.station_name,
        )  # fmt: skip
        some = any(criterion not in ((), None) for criterion in criteria)
        if not some and not self.everything:
            raise UnreadableSourceError(
                "a query without a criterion would be the whole archive; say --all-studies, "
                "or name a modality, dates, accession numbers, studies or patients"
            )
        if some and self.everything:
            raise UnreadableSourceError(
                "--all-studies stands beside a criterion; leave one of the two out"
            )
        for modality in self.modalities:
            if not _MODALITY.fullmatch(modality):
                raise UnreadableSourceError(
                    "a modality is 2 to 16 capital letters and digits, such as CT, MR or DX"
                )
        self._check_dates()
        for uid in self.study_uids:
            if not is_uid(uid):
                raise UnreadableSourceError(
                    "a study UID is numbers with dots between them, at most 64 characters"
                )
        for numbers, words, longest in (
            (self.accession_numbers, "an accession number", 16),
            (self.patient_ids, "a patient ID", 64),
            ((self.station_name,), "a station name", 16),
        ):
            for number in numbers:
                _check_text(number, words, longest, forbidden="\\*?")
        _check_text(self.study_description, "a study description", 64, forbidden="\\")
        if self.study_description is not None and not self.study_description.strip("*? "):
            raise UnreadableSourceError(
                "a study description of wildcards alone matches everything; leave it out"
            )

    def _check_dates(self) -> None:
        for day in (self.study_from, self.study_to):
            if day is not None and not 1900 <= day.year <= 2200:
                raise UnreadableSourceError("a study date lies between the years 1900 and 2200")
        if self.study_from and self.study_to and self.study_from > self.study_to:
            raise UnreadableSourceError(
                f"the study dates end ({self.study_to}) before they begin ({self.study_from})"
            )

    def study_searches(self) -> Iterator[dict[str, str]]:
        """The searches at study level, as keyword -> value; together they find every study.

        Lists are not matching keys in general, so each value is a search of its own. Only the most
        specific list is searched for; `among_studies` does the rest. The modality is left to that
        too: Orthanc 1.10 counts pages before it looks at ModalitiesInStudy, so that a search by it
        ends too early.
        """
        fixed = {STUDY_DATE: self._date_range()}
        keyword, values = next(
            (
                (keyword, values)
                for keyword, values in (
                    (STUDY, self.study_uids),
                    (ACCESSION, self.accession_numbers),
                    (PATIENT, self.patient_ids),
                )
                if values
            ),
            (STUDY, ("",)),
        )
        for value in dict.fromkeys(values):
            yield {key: text for key, text in {**fixed, keyword: value}.items() if text}

    def series_searches(self) -> Iterator[dict[str, str]]:
        """The searches in one study at series level, as keyword -> value."""
        for modality in dict.fromkeys(self.modalities or ("",)):
            wanted = {MODALITY: modality, STATION: self.station_name or ""}
            yield {key: text for key, text in wanted.items() if text}

    def among_studies(self, answers: list[dict[str, str]]) -> list[dict[str, str]]:
        """Those of the studies that were answered that were asked for, as far as they show.

        Raises:
            UnreadableSourceError: None of them shows a key that was asked for.
        """
        asked = {
            ACCESSION: self.accession_numbers,
            STUDY: self.study_uids,
            PATIENT: self.patient_ids,
            STUDY_DATE: self.study_from or self.study_to,
            DESCRIPTION: self.study_description,
        }
        for keyword, criterion in asked.items():
            if criterion and answers and not any(answer.get(keyword) for answer in answers):
                raise UnreadableSourceError(
                    f"the PACS answers a search by {WORDS[keyword]} without saying the "
                    f"{WORDS[keyword]}, so nobody can tell whether it searched by it; "
                    "search by another criterion"
                )
        return [answer for answer in answers if self._is_met_by_study(answer)]

    def among_series(self, answers: list[dict[str, str]]) -> list[dict[str, str]]:
        """Those of the series that were answered that were asked for."""
        station = (self.station_name or "").strip()
        return [
            answer
            for answer in answers
            if _is_among(answer, MODALITY, self.modalities)
            and (not station or answer.get(STATION, "") == station)
        ]

    def _is_met_by_study(self, answer: Mapping[str, str]) -> bool:
        shown = {text.strip() for text in answer.get(MODALITIES, "").split("\\")} - {""}
        if self.modalities and shown and not shown & set(self.modalities):
            return False
        return (
            _is_among(answer, ACCESSION, self.accession_numbers)
            and _is_among(answer, STUDY, self.study_uids)
            and _is_among(answer, PATIENT, self.patient_ids)
            and self._is_in_range(answer)
            and self._is_described(answer)
        )

    def _date_range(self) -> str:
        if self.study_from is None and self.study_to is None:
            return ""
        first, last = (f"{day:%Y%m%d}" if day else "" for day in (self.study_from, self.study_to))
        return first if first == last else f"{first}-{last}"

    def _is_in_range(self, answer: Mapping[str, str]) -> bool:
        if self.study_from is None and self.study_to is None:
            return True
        day = answer.get(STUDY_DATE, "").replace(".", "")
        first = f"{self.study_from:%Y%m%d}" if self.study_from else "0"
        last = f"{self.study_to:%Y%m%d}" if self.study_to else "9"
        return day != "" and first <= day <= last

    def _is_described(self, answer: Mapping[str, str]) -> bool:
        if self.study_description is None:
            return True
        pattern = "".join(
            {"*": ".*", "?": "."}.get(character, re.escape(character))
            for character in self.study_description.strip()
        )
        description = answer.get(DESCRIPTION, "")
        return re.fullmatch(pattern, description, re.IGNORECASE | re.DOTALL) is not None


def is_uid(text: str) -> bool:
    """Whether a text is a UID (DICOM PS3.5 9.1)."""
    return _UID.fullmatch(text) is not None


def parse_day(text: str) -> date:
    """The day in `2024-01-31` or `20240131`.

    Raises:
        UnreadableSourceError: It is neither.
    """
    for form in ("%Y-%m-%d", "%Y%m%d"):
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{8}", text):
            try:
                return datetime.strptime(text, form).date()
            except ValueError:
                continue
    raise UnreadableSourceError("a study date is written 2024-01-31 or 20240131, and must exist")


def _check_text(text: str | None, words: str, longest: int, *, forbidden: str) -> None:
    if text is None:
        return
    if not text.strip() or len(text) > longest or not _TEXT.fullmatch(text):
        raise UnreadableSourceError(
            f"{words} has 1 to {longest} printable ASCII characters in a query"
        )
    if any(character in text for character in forbidden):
        raise UnreadableSourceError(
            f"{words} with {' or '.join(forbidden)} would match others too; write it in full"
        )


def _is_among(answer: Mapping[str, str], keyword: str, values: tuple[str, ...]) -> bool:
    return not values or answer.get(keyword, "") in {value.strip() for value in values}
