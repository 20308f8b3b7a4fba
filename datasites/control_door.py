"""Who stands behind a call on the control socket: a person with a password, or a session."""

from __future__ import annotations

from fastapi import Request
from pydantic import Field

from datasites.audit_log import Event
from datasites.errors import AccountError, DecisionError
from datasites.open_site import OpenSite
from datasites.people import STRANGER, Acting, Role, Throttle, check_person, is_person
from datasites.sessions import Session, Sessions
from policies.strict import Strict


class Identified(Strict):
    """A person, by password; left empty where a session says who it is."""

    person: str = Field(default="", max_length=200)
    """E-mail address."""
    password: str = Field(default="", max_length=1000)
    """Their password at this site."""


class Door:
    """Who stands behind a call: a session of the page, or a person with their password."""

    def __init__(self, site: OpenSite) -> None:
        self._site, self.sessions = site, Sessions()
        self._throttle = Throttle(tries=5, window_s=300)

    def let_in(self, request: Request, said: Identified, wanted: str, subject: str) -> Acting:
        """The person, or an `AccountError`; refused tries are logged."""
        if token := request.headers.get("x-session"):
            return self.session(request, token).acting
        try:
            self._throttle.enter(said.person)
            acting = check_person(self._site.records, said.person, said.password)
        except AccountError as error:
            known = is_person(self._site.records, said.person)
            self._site.audit.append(
                Event.LOGIN_REFUSED,
                said.person if known else STRANGER,
                subject,
                wanted_to=wanted,
                reason=str(error),
                role="person" if known else None,
            )
            raise
        self._throttle.succeeded(said.person)
        return acting

    def session(self, request: Request, token: str) -> Session:
        """The session of a call of the page."""
        return self.sessions.find(token, request.headers.get("x-address", ""))

    def owner(self, request: Request, said: Identified, wanted: str, subject: str) -> Acting:
        """As `let_in`, for what only an owner may do."""
        acting = self.let_in(request, said, wanted, subject)
        if acting.role is not Role.OWNER:
            raise DecisionError(f"{acting.email} is {acting.role}; an owner has to do this")
        return acting
