"""The hospital's people who decide: accounts of the site itself, not of syft.

Whoever can approve in syft can also read all private data and every row. So nobody has such an
account: a person's decision is checked here, and the site carries it out.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict

from nacl.exceptions import InvalidkeyError
from nacl.pwhash import argon2id

from datasites.errors import AccountError
from datasites.records import Person, Records, utc_now

STRANGER = "unknown account"
"""Who is named in the log where nobody is known."""
WRONG = "the e-mail address or the password is wrong"


def add_person(records: Records, email: str, name: str, password: str, minimum: int) -> None:
    """Add someone who may decide.

    Raises:
        AccountError: The address is taken, or the password too short.
    """
    check_password_length(password, minimum)
    with records.write() as session:
        if session.get(Person, email):
            raise AccountError(f"{email} has an account here already")
        session.add(
            Person(email=email, name=name, password_hash=_hash(password), created_at=utc_now())
        )


def check_person(records: Records, email: str, password: str) -> None:
    """Do nothing if this is the person's password.

    Raises:
        AccountError: It is not, or there is no such person; both answer alike and take as long.
    """
    with records.read() as session:
        person = session.get(Person, email)
    try:
        argon2id.verify((person.password_hash if person else _NOBODY).encode(), password.encode())
    except InvalidkeyError as error:
        raise AccountError(WRONG) from error
    if person is None:
        raise AccountError(WRONG)


def is_person(records: Records, email: str) -> bool:
    """Whether someone with this address may decide here."""
    with records.read() as session:
        return session.get(Person, email) is not None


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


_NOBODY = _hash(secrets.token_hex(16))


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
