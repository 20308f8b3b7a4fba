"""Who stands behind a call on the control socket: a person with a password, or a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from fastapi import Request
from pydantic import Field

from datasites.audit_log import Event
from datasites.errors import AccountError, DecisionError
from datasites.open_site import OpenSite
from datasites.people import (
    STRANGER,
    Acting,
    Role,
    Throttle,
    check_person,
    find_person,
    named_in_log,
)
from datasites.refusal_log import RefusalLog
from datasites.sessions import ENDED, Session, Sessions
from policies.strict import Strict


class Identified(Strict):
    """A person, by password; left empty where a session says who it is."""

    person: str = Field(default="", max_length=200)
    """E-mail address."""
    password: str = Field(default="", max_length=1000)
    """Their password at this site."""


class Door:
    """Who stands behind a call: a session of the page, or a person with their password.

    Whoever is not let in, or may not do what they want to do, is logged.
    """

    def __init__(self, site: OpenSite) -> None:
        self._site, self._sessions = site, Sessions()
        self._throttle = Throttle(tries=5, window_s=300)
        self._refusals = RefusalLog(site.audit)

    def let_in(self, request: Request, said: Identified, wanted: str, subject: str) -> Acting:
        """The person, or an `AccountError`."""
        if "x-session" in request.headers:
            return self.session(request, wanted, subject).acting
        return self._recognise(said, wanted, subject)

    def owner(self, request: Request, said: Identified, wanted: str, subject: str) -> Acting:
        """As `let_in`, for what only an owner may do."""
        acting = self.let_in(request, said, wanted, subject)
        if acting.role is not Role.OWNER:
            self.refuse(
                acting, wanted, subject, f"{acting.email} is {acting.role}; an owner has to do this"
            )
        return acting

    def decider(self, request: Request, said: Identified, wanted: str, subject: str) -> Acting:
        """As `let_in`, for decisions about requests."""
        acting = self.let_in(request, said, wanted, subject)
        if not acting.role.decides:
            self.refuse(
                acting,
                wanted,
                subject,
                f"{acting.email} has the role {acting.role}: it {acting.role.meaning}. An owner or "
                "a second approver decides",
            )
        return acting

    def refuse(self, acting: Acting, wanted: str, subject: str, reason: str) -> NoReturn:
        """Refuse an act to somebody who was let in; it is logged."""
        self._refusals.append(
            Event.ACT_REFUSED, acting.email, subject, role=acting.role, wanted_to=wanted,
            reason=reason,
        )  # fmt: skip
        raise DecisionError(reason)

    @contextmanager
    def watched(self, acting: Acting, wanted: str, subject: str) -> Iterator[None]:
        """An act whose refusal is logged."""
        try:
            yield
        except DecisionError as error:
            self.refuse(acting, wanted, subject, str(error))

    @contextmanager
    def turn(self, acting: Acting) -> Iterator[None]:
        """The site's turn to decide, if the person still has the role that they came with.

        Raises:
            AccountError: Their account was taken away, or changed, since they were let in.
        """
        with self._site.deciding:
            person = find_person(self._site.records, acting.email)
            if person is None or person.role != acting.role:
                raise AccountError(f"{acting.email} is not {acting.role} here any more")
            yield

    def log_in(self, said: Identified, address: str) -> tuple[str, Session]:
        """Begin a session by password; its token and the session."""
        # Read before the password is checked: what changes meanwhile ends the session.
        person = find_person(self._site.records, said.person)
        acting = self._recognise(said, "log in", "page")
        if person is None:
            raise AccountError(ENDED)
        self._site.audit.append(
            Event.LOGIN, acting.email, "page", role=acting.role, address=address
        )
        return self._sessions.begin(acting, person.name, address, person.password_hash)

    def log_out(self, request: Request) -> Acting:
        """End the session of a call; whose it was."""
        acting = self.session(request, "log out", "page").acting
        self._site.audit.append(Event.SESSION_ENDED, acting.email, "page", role=acting.role)
        self._sessions.end(request.headers["x-session"])
        return acting

    def session(self, request: Request, wanted: str, subject: str) -> Session:
        """The session of a call of the page, or an `AccountError`.

        It is over as soon as the person is gone, or has another role or another password.
        """
        token, address = (request.headers.get(f"x-{name}", "") for name in ("session", "address"))
        try:
            session = self._sessions.find(token, address)
            person = find_person(self._site.records, session.acting.email)
            if (
                person is None
                or person.role != session.acting.role
                or person.password_hash != session.password_hash
            ):
                self._sessions.end(token)
                raise AccountError(ENDED)
        except AccountError as error:
            self._refusals.append(
                Event.LOGIN_REFUSED, STRANGER, subject, wanted_to=wanted, address=address,
                reason=str(error),
            )  # fmt: skip
            raise
        return session

    def _recognise(self, said: Identified, wanted: str, subject: str) -> Acting:
        key = said.person.casefold()  # as people are found by it
        try:
            self._throttle.enter(key)
            acting = check_person(self._site.records, said.person, said.password)
        except AccountError as error:
            actor, role = named_in_log(self._site.records, said.person)
            self._refusals.append(
                Event.LOGIN_REFUSED, actor, subject, role=role, wanted_to=wanted, reason=str(error)
            )
            raise
        self._throttle.succeeded(key)
        return acting
