"""The control socket's calls about accounts: sessions, the hospital's people, researchers."""

from __future__ import annotations

from fastapi import FastAPI, Request
from pydantic import Field

from datasites.audit_log import Event
from datasites.control_door import Door, Identified
from datasites.errors import AccountError
from datasites.open_site import OpenSite, SyftSide
from datasites.people import (
    Role,
    add_person,
    check_new_person,
    check_password_length,
    get_person,
    removable_person,
    remove_person,
    set_password,
)
from datasites.researchers import find_researcher, free_address, write_down
from datasites.sessions import Session
from policies.contract import Line


class NewPerson(Identified):
    """Someone of the hospital who gets an account, or another password."""

    email: str = Field(max_length=200)
    """Their address."""
    name: Line = "-"
    """Their name."""
    role: Role = Role.SECOND
    """What they may do."""
    new_password: str = Field(default="", max_length=1000)
    """Their password."""


class NewAccount(Identified):
    """A researcher's account."""

    email: str = Field(max_length=200)
    """Address to log in with."""
    name: Line
    """The researcher's name."""
    institution: str = Field(default="", max_length=200)
    """Where the researcher works."""
    new_password: str = Field(max_length=1000)
    """First password."""


def add_people(app: FastAPI, site: OpenSite, syft: SyftSide, door: Door) -> None:
    """Sessions of the page, the hospital's people, and researchers' accounts.

    What changes an account is checked, logged and done in one turn of the site.
    """
    minimum = site.config.minimum_password

    @app.post("/sessions")
    def log_in(request: Request, said: Identified) -> dict[str, str]:
        token, session = door.log_in(said, request.headers.get("x-address", ""))
        return {"token": token, **_session(session)}

    @app.get("/sessions/mine")
    def who(request: Request) -> dict[str, str]:
        return _session(door.session(request, "read the page", "page"))

    @app.delete("/sessions/mine")
    def log_out(request: Request) -> dict[str, str]:
        return {"ended": door.log_out(request).email}

    @app.post("/people")
    def add(request: Request, said: NewPerson) -> dict[str, str]:
        acting = door.owner(request, said, "add a person", said.email)
        with door.turn(acting):
            check_new_person(site.records, said.email, said.new_password, minimum)
            if said.role is Role.COMPLIANCE and find_researcher(site.records, said.email):
                raise AccountError(
                    f"{said.email} has a researcher's account here; compliance has none, so that "
                    "it reads and never runs. Give another address"
                )
            site.audit.append(
                Event.PERSON_CHANGED,
                acting.email,
                said.email,
                role=acting.role,
                decision="add",
                account_role=said.role,
            )
            add_person(site.records, said.email, said.name, said.new_password, minimum, said.role)
        return {"email": said.email, "role": said.role}

    @app.post("/people/remove")
    def remove(request: Request, said: NewPerson) -> dict[str, str]:
        acting = door.owner(request, said, "remove a person", said.email)
        with door.turn(acting):
            email = removable_person(site.records, said.email).email
            site.audit.append(
                Event.PERSON_CHANGED, acting.email, email, role=acting.role, decision="remove"
            )
            remove_person(site.records, email)
        return {"email": email}

    @app.post("/people/password")
    def password(request: Request, said: NewPerson) -> dict[str, str]:
        wanted = "change a password"
        acting = door.let_in(request, said, wanted, said.email)
        if acting.role is not Role.OWNER and acting.email.casefold() != said.email.casefold():
            door.refuse(
                acting, wanted, said.email, f"{acting.email} may change their own password only"
            )
        with door.turn(acting):
            check_password_length(said.new_password, minimum)
            email = get_person(site.records, said.email).email
            site.audit.append(Event.PASSWORD_CHANGED, acting.email, email, role=acting.role)
            set_password(site.records, email, said.new_password, minimum)
        return {"email": email}

    @app.post("/accounts")
    def add_account(request: Request, said: NewAccount) -> dict[str, str]:
        acting = door.owner(request, said, "make an account", said.email)
        with door.turn(acting):
            check_password_length(said.new_password, minimum)
            email = free_address(site, syft, said.email)
            site.audit.append(
                Event.ACCOUNT_CREATED,
                acting.email,
                email,
                role=acting.role,
                account_role="researcher",
                institution=said.institution,
            )
            # syft's account last: without it, the same call makes good what a crash left.
            write_down(site.records, email, said.name, said.institution)
            syft.add_researcher(email, said.name, said.new_password)
        return {"email": email}


def _session(session: Session) -> dict[str, str]:
    return {
        "email": session.acting.email,
        "role": session.acting.role,
        "name": session.name,
        "csrf": session.csrf,
    }
