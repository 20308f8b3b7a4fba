"""A person is known by an argon2id hash; a stranger is answered like a typo; guessing is slow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nacl.pwhash import argon2id
from sqlalchemy import select

from datasites.errors import AccountError
from datasites.people import (
    Throttle,
    add_person,
    check_password_length,
    check_person,
    generate_password,
)
from datasites.records import Person, Records
from factories import PASSWORD

OWNER = "owner@st-marys.example"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    """Records with one owner; hashing takes its time, so they are made once."""
    opened = Records(f"sqlite:///{tmp_path_factory.mktemp('people') / 'site.db'}")
    add_person(opened, OWNER, "Olga Owner", PASSWORD, 12)
    yield opened
    opened.close()


def stored(records: Records, email: str = OWNER) -> Person:
    with records.read() as session:
        return session.scalars(select(Person).where(Person.email == email)).one()


def test_person_is_known_by_the_password(records: Records) -> None:
    check_person(records, OWNER, PASSWORD)


@pytest.mark.parametrize(
    ("email", "password"),
    [
        (OWNER, PASSWORD + " "),
        (OWNER, PASSWORD[:-1]),
        (OWNER, PASSWORD.upper()),
        (OWNER, ""),
        (OWNER, "x" * 10_000),
        ("nobody@st-marys.example", PASSWORD),
        ("nobody@st-marys.example", ""),
        ("", PASSWORD),
        (OWNER + "' OR '1'='1", PASSWORD),
    ],
)
def test_stranger_and_wrong_password_are_answered_alike(
    records: Records, email: str, password: str
) -> None:
    with pytest.raises(AccountError) as refused:
        check_person(records, email, password)
    assert str(refused.value) == "the e-mail address or the password is wrong"


def test_stranger_is_answered_no_faster(records: Records) -> None:
    def seconds(email: str) -> float:
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            with pytest.raises(AccountError):
                check_person(records, email, "wrong password")
            taken.append(time.perf_counter() - started)
        return min(taken)

    assert seconds("nobody@st-marys.example") > 0.5 * seconds(OWNER)


def test_password_is_kept_as_an_argon2id_hash_only(records: Records) -> None:
    person = stored(records)
    assert person.password_hash.startswith("$argon2id$v=19$m=65536,t=2,p=1$")
    assert argon2id.verify(person.password_hash.encode(), PASSWORD.encode())
    assert PASSWORD not in str(vars(person))


def test_same_password_of_two_people_has_two_hashes(records: Records) -> None:
    add_person(records, "second@st-marys.example", "Sam Second", PASSWORD, 12)
    other = stored(records, "second@st-marys.example").password_hash
    assert other != stored(records).password_hash
    check_person(records, "second@st-marys.example", PASSWORD)


def test_address_is_taken_once(records: Records) -> None:
    before = stored(records).password_hash
    with pytest.raises(AccountError) as refused:
        add_person(records, OWNER, "Mallory", "another password", 12)
    assert str(refused.value) == f"{OWNER} has an account here already"
    assert stored(records).password_hash == before


def test_short_password_makes_no_account(records: Records) -> None:
    with pytest.raises(AccountError) as refused:
        add_person(records, "new@st-marys.example", "New", "x" * 11, 12)
    assert str(refused.value) == "the password has 11 characters; at least 12 are needed"
    with records.read() as session:
        assert session.get(Person, "new@st-marys.example") is None


@pytest.mark.parametrize(("length", "minimum"), [(12, 12), (13, 12), (8, 8)])
def test_password_of_the_minimum_is_long_enough(length: int, minimum: int) -> None:
    check_password_length("x" * length, minimum)


@pytest.mark.parametrize(("length", "minimum"), [(11, 12), (0, 8), (12, 13)])
def test_shorter_password_is_refused(length: int, minimum: int) -> None:
    with pytest.raises(AccountError, match=f"has {length} characters; at least {minimum} are"):
        check_password_length("x" * length, minimum)


def test_generated_passwords_are_long_and_never_the_same() -> None:
    made = {generate_password() for _ in range(200)}
    assert len(made) == 200
    assert {len(password) for password in made} == {24}
    assert all(password.isalnum() and not set(password) & set("Il1O0") for password in made)


@pytest.mark.parametrize("tries", [1, 3, 5])
def test_throttle_lets_so_many_failures_pass_and_no_more(tries: int) -> None:
    throttle = Throttle(tries, 60)
    for _ in range(tries):
        throttle.enter("rita")
    with pytest.raises(AccountError) as refused:
        throttle.enter("rita")
    assert str(refused.value) == "too many failed tries; try again in 60 s"


def test_right_tries_do_not_count() -> None:
    throttle = Throttle(2, 60)
    throttle.enter("rita")
    for _ in range(100):
        throttle.enter("rita")
        throttle.succeeded("rita")
    throttle.enter("rita")
    with pytest.raises(AccountError):
        throttle.enter("rita")


def test_throttle_keeps_names_apart() -> None:
    throttle = Throttle(1, 60)
    throttle.enter("rita")
    throttle.enter("mallory")
    for name in ("rita", "mallory"):
        with pytest.raises(AccountError, match="too many failed tries"):
            throttle.enter(name)


def test_of_tries_at_the_same_time_no_more_than_allowed_are_made() -> None:
    throttle = Throttle(5, 60)

    def made(_: int) -> bool:
        try:
            throttle.enter("rita")
        except AccountError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(made, range(100))) == 5


def test_throttle_opens_when_the_window_has_passed() -> None:
    throttle = Throttle(2, 0.6)
    throttle.enter("rita")
    time.sleep(0.3)
    throttle.enter("rita")
    with pytest.raises(AccountError, match="try again in 1 s"):
        throttle.enter("rita")
    time.sleep(0.35)  # the first has aged, the second has not
    throttle.enter("rita")
    with pytest.raises(AccountError):
        throttle.enter("rita")


def test_a_flood_of_made_up_names_does_not_fill_the_memory() -> None:
    throttle = Throttle(3, 60)
    for k in range(25_000):
        throttle.enter(f"made-up-{k}")
    assert len(throttle._tried) <= 10_001


def test_database_file_holds_no_password(records: Records, tmp_path: Path) -> None:
    folder = Path(str(records._engine.url.database)).parent
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"$argon2id$" in content
    assert PASSWORD.encode() not in content
