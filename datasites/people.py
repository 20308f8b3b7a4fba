"""The hospital's people: accounts of the site itself, not of syft, each with one role.

Whoever can approve in syft can also read all private data and every row. So nobody has such an
account: a person's decision is checked here, and the site carries it out.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from nacl.exceptions import InvalidkeyError
from nacl.pwhash import argon2id
from sqlalchemy import select

from datasites.errors import AccountError
from datasites.records import Person, Records, utc_now

STRANGER = "unknown account"
"""Who is named in the log where nobody is known."""
WRONG = "the e-mail address or the password is wrong"


class Role(StrEnum):
    """What a person may do; the value is the word that people read and the log holds."""

    OWNER = "owner"
    SECOND = "second approver"
    COMPLIANCE = "compliance"

    @property
    def meaning(self) -> str:
        """The sentence that explains the word."""
        return {
            Role.OWNER: "decides about requests; adopts policies, adds people, exports evidence",
            Role.SECOND: "decides about requests beside an owner",
            Role.COMPLIANCE: "reads everything and exports evidence; decides nothing",
        }[self]

    @property
    def decides(self) -> bool:
        """Whether this role decides about requests."""
        return self is not Role.COMPLIANCE


@dataclass(frozen=True, slots=True)
class Acting:
    """Someone of the hospital who was recognised by a password or a session."""

    email: str
    role: Role


def add_person(
    records: Records, email: str, name: str, password: str, minimum: int, role: Role = Role.OWNER
) -> None:
    """Add someone of the hospital.

    Raises:
        AccountError: The address is taken or none, or the password too short.
    """
    check_new_person(records, email, password, minimum)
    with records.write() as session:
        session.add(
            Person(
                email=email,
                name=name,
                role=role,
                password_hash=_hash(password),
                created_at=utc_now(),
            )
        )


def check_new_person(records: Records, email: str, password: str, minimum: int) -> None:
    """Raise an `AccountError` if `add_person` would."""
    check_password_length(password, minimum)
    if "@" not in email or email != email.strip() or not email.isprintable():
        raise AccountError(f"`{email}` is not an e-mail address")
    if find_person(records, email) is not None:
        raise AccountError(f"{email} has an account here already")


def remove_person(records: Records, email: str) -> None:
    """Take someone's account away; what they decided stays.

    Raises:
        AccountError: There is no such person, or it is the last owner.
    """
    person = removable_person(records, email)
    with records.write() as session:
        session.delete(session.get_one(Person, person.email))


def removable_person(records: Records, email: str) -> Person:
    """The person with an address, whose account may be taken away.

    Raises:
        AccountError: There is no such person, or it is the last owner.
    """
    person = get_person(records, email)
    owners = [p for p in list_people(records) if p.role == Role.OWNER]
    if person.role == Role.OWNER and len(owners) == 1:
        raise AccountError(f"{email} is the only owner; add another owner first")
    return person


def set_password(records: Records, email: str, password: str, minimum: int) -> None:
    """Give someone another password.

    Raises:
        AccountError: It is too short, or there is no such person.
    """
    check_password_length(password, minimum)
    person = get_person(records, email)
    with records.write() as session:
        session.get_one(Person, person.email).password_hash = _hash(password)


def check_person(records: Records, email: str, password: str) -> Acting:
    """Who this is, if it is the person's password.

    Raises:
        AccountError: It is not, or there is no such person; both answer alike and take as long.
    """
    person = find_person(records, email)
    try:
        argon2id.verify((person.password_hash if person else _nobody()).encode(), password.encode())
    except InvalidkeyError as error:
        raise AccountError(WRONG) from error
    if person is None:
        raise AccountError(WRONG)
    return Acting(person.email, Role(person.role))


def find_person(records: Records, email: str) -> Person | None:
    """The person with an address, whatever its capitals."""
    return next((p for p in list_people(records) if p.email.casefold() == email.casefold()), None)


def get_person(records: Records, email: str) -> Person:
    """The person with an address, or an `AccountError`."""
    person = find_person(records, email)
    if person is None:
        raise AccountError(f"{email} has no account here; see `sitegate person list`")
    return person


def named_in_log(records: Records, email: str) -> tuple[str, str]:
    """Actor and role of somebody who gives an address and was not recognised."""
    person = find_person(records, email)
    return (person.email, person.role) if person else (STRANGER, "unknown")


def list_people(records: Records) -> Sequence[Person]:
    """Everyone who has an account here, in the order in which they got it."""
    with records.read() as session:
        return session.scalars(select(Person).order_by(Person.created_at)).all()


def check_password_length(password: str, minimum: int) -> None:
    """Raise an `AccountError` if a password is too short."""
    if len(password) < minimum:
        raise AccountError(
            f"the password has {len(password)} characters; at least {minimum} are needed"
        )


def generate_password() -> str:
    """A password of 24 random letters and digits (about 140 bits), to be shown once."""
    alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    return "".join(secrets.choice(alphabet) for _ in range(24))


def _hash(password: str) -> str:
    return argon2id.str(
        password.encode(), argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE
    ).decode()


@cache
def _nobody() -> str:
    """A hash that nobody's password has, so that unknown people take as long as known ones."""
    return _hash(secrets.token_hex(16))


class Throttle:
    """Slows down guessing: after `tries` failures a key waits until the oldest has aged."""

    def __init__(self, tries: int, window_s: float) -> None:
        self._tries, self._window_s = tries, window_s
        self._tried: dict[str, list[float]] = defaultdict(list)
        self._turn = threading.Lock()

    def enter(self, key: str) -> None:
        """Count a try before it is made, so that tries at the same time count too.

        Raises:
            AccountError: The key has to wait.
        """
        now = time.monotonic()
        with self._turn:
            if len(self._tried) > 10_000:  # a flood of made-up names must not fill the memory
                self._tried = defaultdict(list, {k: v for k, v in self._tried.items() if k == key})
            recent = [t for t in self._tried.pop(key, []) if now - t < self._window_s]
            if len(recent) >= self._tries:
                self._tried[key] = recent
                wait = int(self._window_s - (now - recent[0])) + 1
                raise AccountError(f"too many failed tries; try again in {wait} s")
            self._tried[key] = [*recent, now]

    def succeeded(self, key: str) -> None:
        """Take the last try back: it was right."""
        with self._turn:
            if self._tried.get(key):
                self._tried[key].pop()
