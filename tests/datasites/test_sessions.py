"""A session belongs to a person at an address, and ends: by idling, after a day, or by hand."""

from __future__ import annotations

import pytest

from datasites.errors import AccountError
from datasites.people import Acting, Role
from datasites.sessions import ENDED, IDLE_S, LONGEST_S, MOST, Sessions

OLIVIA = Acting("olivia@st-marys.example", Role.OWNER)
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
HASH = "$argon2id$v=19$m=65536,t=2,p=1$c2FsdA$aGFzaA"


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


def test_a_session_is_found_by_its_token(sessions: Sessions) -> None:
    token, begun = sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    assert sessions.find(token, HERE) is begun
    assert (begun.acting, begun.name) == (OLIVIA, "Olivia")
    assert len(token) >= 43
    assert len(begun.csrf) >= 43


def test_tokens_are_never_the_same(sessions: Sessions) -> None:
    tokens = {sessions.begin(OLIVIA, "Olivia", HERE, HASH)[0] for _ in range(100)}
    assert len(tokens) == 100


@pytest.mark.parametrize("token", ["", "x", "../etc/passwd"])
def test_an_unknown_token_is_no_session(sessions: Sessions, token: str) -> None:
    with pytest.raises(AccountError, match=ENDED):
        sessions.find(token, HERE)


def test_a_token_from_another_address_is_worth_nothing(sessions: Sessions) -> None:
    token, _ = sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    for address in (ELSEWHERE, "", "127.0.0.10"):
        with pytest.raises(AccountError, match=ENDED):
            sessions.find(token, address)
    sessions.find(token, HERE)  # and the owner's goes on


@pytest.mark.parametrize(("idle", "over"), [(IDLE_S, False), (IDLE_S + 1, True)])
def test_idling_ends_it(sessions: Sessions, clock: Clock, idle: float, over: bool) -> None:
    token, _ = sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    clock.now += idle
    if over:
        with pytest.raises(AccountError, match=ENDED):
            sessions.find(token, HERE)
    else:
        sessions.find(token, HERE)


def test_a_working_day_ends_it_however_busy(sessions: Sessions, clock: Clock) -> None:
    token, _ = sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    while clock.now + IDLE_S <= LONGEST_S:
        clock.now += IDLE_S
        sessions.find(token, HERE)
    clock.now = LONGEST_S + 1
    with pytest.raises(AccountError, match=ENDED):
        sessions.find(token, HERE)


def test_ending_ends_it(sessions: Sessions) -> None:
    token, _ = sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    other, _ = sessions.begin(OLIVIA, "Olivia", ELSEWHERE, HASH)
    sessions.end(token)
    with pytest.raises(AccountError):
        sessions.find(token, HERE)
    sessions.find(other, ELSEWHERE)


def test_sessions_do_not_fill_the_memory(sessions: Sessions, clock: Clock) -> None:
    for _ in range(MOST):
        sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    with pytest.raises(AccountError, match="too many people are logged in"):
        sessions.begin(OLIVIA, "Olivia", HERE, HASH)
    clock.now += IDLE_S + 1
    sessions.begin(OLIVIA, "Olivia", HERE, HASH)
