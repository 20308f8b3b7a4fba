"""Invents patients, visits, doctors and UIDs for phantoms, the same ones for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

_FAMILIES = (
    "Mooring", "Quillfeather", "Tidewater", "Larkspur", "Ambergate", "Fennimore", "Oxbow",
    "Brindlewood", "Saltmarsh", "Thistledown", "Underhollow", "Weathervane", "Yarrowby",
)  # fmt: skip
_GIVEN = {
    "F": ("Isolde", "Marigold", "Ottiline", "Persis", "Rosamund", "Tamsin"),
    "M": ("Barnaby", "Crispin", "Evander", "Lysander", "Peregrine", "Silvan"),
}
_DOCTORS = ("Doctormann^Otto", "Physicker^Hester", "Leechcraft^Wynn", "Bonesetter^Alma")
_STREETS = ("Cloudberry Lane", "Make-Believe Road", "Paper Moon Street", "Nowhere Crescent")
_TOWNS = ("Inventington", "Port Pretend", "Fabledon", "Upper Figment")


@dataclass(frozen=True, slots=True)
class Patient:
    """Someone who does not exist; `number` counts them from 0."""

    number: int
    name: str
    identifier: str
    sex: str
    birth: date
    address: str
    telephone: str


class Inventor:
    """Invents the patients, doctors and UIDs of one hospital, always the same for one seed."""

    def __init__(self, station: str, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"Phantoms refused: `seed` is {seed}, allowed is at least 0.")
        self._origin = f"{seed}\0{station}\0"

    def number(self, kind: str, key: object) -> int:
        """256 bits that belong to something."""
        return int.from_bytes(hashlib.sha256(f"{self._origin}{kind}\0{key}".encode()).digest())

    def pick(self, choices: Sequence[str], kind: str, key: object) -> str:
        """One of some words, the same for the same thing."""
        return choices[self.number(kind, key) % len(choices)]

    def uid(self, kind: str, key: object) -> str:
        """A UUID-derived UID (PS3.5 B.2)."""
        return f"2.25.{UUID(int=self.number(kind, key) >> 128, version=4).int}"

    def patient(self, number: int) -> Patient:
        """The patient with a number."""
        sex = self.pick("FM", "sex", number)
        name = f"{self.pick(_FAMILIES, 'family', number)}^{self.pick(_GIVEN[sex], 'given', number)}"
        house = self.number("house", number) % 98 + 1
        street, town = self.pick(_STREETS, "street", number), self.pick(_TOWNS, "town", number)
        return Patient(
            number=number,
            name=name,
            identifier=f"INV{self.number('patient', number) % 10**8:08d}",
            sex=sex,
            birth=date(1935, 1, 1) + timedelta(days=self.number("birth", number) % 27_000),
            address=f"{house} {street}, {town}",
            telephone=f"555-01{self.number('telephone', number) % 100:02d}",
        )


class Study:
    """One visit of a patient: numbers, dates and the doctors who saw them."""

    def __init__(self, invent: Inventor, patient: Patient, visit: int, number: int) -> None:
        key = f"{patient.number}.{visit}"
        days = invent.number("first visit", patient.number) % 1_400 + visit * 90
        self.day = date(2019, 1, 1) + timedelta(days=days)
        seconds = invent.number("time", key) % 36_000 + 25_200
        self.time = f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
        self.uid = invent.uid("study", key)
        self.accession = f"A{invent.number('accession', key) % 10**6:06d}{number:06d}"
        self.referring = invent.pick(_DOCTORS, "referring", key)
        self.performing = invent.pick(_DOCTORS, "performing", key)
        self.age = (self.day - patient.birth).days // 365


def patients_of(
    invent: Inventor, images: int, per_patient: tuple[int, int]
) -> Iterator[tuple[Patient, int]]:
    """Whose each image is, and which visit of that patient it is from."""
    low, high = per_patient
    if not 1 <= low <= high:
        raise ValueError(
            f"Phantoms refused: `images_per_patient` is {per_patient}, "
            "allowed are two numbers from 1 on, the least first."
        )
    given, number = 0, 0
    while given < images:
        patient = invent.patient(number)
        visits = min(low + invent.number("visits", number) % (high - low + 1), images - given)
        yield from ((patient, visit) for visit in range(visits))
        given, number = given + visits, number + 1
