"""Sessions of the review page: a random token for a person, bound to the address it was given to.

They live in the memory of the running site, so that a restart ends them all. A token is worth
nothing from another address, after some idle time, or after a working day.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from datasites.errors import AccountError
from datasites.people import Acting

IDLE_S = 30 * 60
LONGEST_S = 10 * 3600
MOST = 1000
ENDED = "the session is over; log in again"


@dataclass(slots=True)
class Session:
    """One login.

    Attributes:
        acting: Who logged in.
        name: Their name.
        address: Where from.
        password_hash: The hash of the password that it began with; it ends with that.
        csrf: What every form of the session has to carry.
        began: When, in seconds of the clock.
        seen: When it was last used.
    """

    acting: Acting
    name: str
    address: str
    password_hash: str
    csrf: str
    began: float
    seen: float


class Sessions:
    """The open sessions of one site."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._turn = threading.Lock()

    def begin(
        self, acting: Acting, name: str, address: str, password_hash: str
    ) -> tuple[str, Session]:
        """A new session and its token."""
        token, now = secrets.token_urlsafe(32), self._clock()
        session = Session(acting, name, address, password_hash, secrets.token_urlsafe(32), now, now)
        with self._turn:
            self._open = {t: s for t, s in self._open.items() if not self._is_over(s)}
            if len(self._open) >= MOST:
                raise AccountError("too many people are logged in; try again later")
            self._open[token] = session
        return token, session

    def find(self, token: str, address: str) -> Session:
        """The session of a token.

        Raises:
            AccountError: There is none, it is over, or it belongs to another address.
        """
        with self._turn:
            session = self._open.get(token)
            if session is None or self._is_over(session):
                self._open.pop(token, None)
                raise AccountError(ENDED)
            if not hmac.compare_digest(session.address, address):
                raise AccountError(ENDED)
            session.seen = self._clock()
            return session

    def end(self, token: str) -> None:
        """Forget a session."""
        with self._turn:
            self._open.pop(token, None)

    def _is_over(self, session: Session) -> bool:
        now = self._clock()
        return now - session.seen > IDLE_S or now - session.began > LONGEST_S
