"""The control socket's calls about accounts: sessions, the hospital's people, researchers."""

from __future__ import annotations

from fastapi import FastAPI, Request
from pydantic import Field

from datasites.audit_log import Event
from datasites.control_door import Door, Identified
from datasites.errors import AccountError, DecisionError
from datasites.open_site import OpenSite, SyftSide
from datasites.people import (
    Role,
    add_person,
    check_password_length,
    find_person,
    is_person,
    is_researcher,
    remove_person,
    set_password,
)
from datasites.records import Researcher, utc_now
from datasites.sessions import Session
from policies.contract import Line
from policies.strict import Strict


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


class NewAccount(Strict):
    """A researcher's account."""

    email: str = Field(max_length=200)
    """Address to log in with."""
    name: str = Field(max_length=200)
    """The researcher's name."""
    institution: str = Field(default="", max_length=200)
    """Where the researcher works."""
    password: str = Field(max_length=1000)
    """First password."""


def add_people(app: FastAPI, site: OpenSite, syft: SyftSide, door: Door) -> None:
    """Sessions of the page, the hospital's people, and researchers' accounts."""

    @app.post("/sessions")
    def log_in(request: Request, said: Identified) -> dict[str, str]:
        address = request.headers.get("x-address", "")
        acting = door.let_in(request, said, "log in", "page")
        person = find_person(site.records, acting.email)
        site.audit.append(Event.LOGIN, acting.email, "page", role=acting.role, address=address)
        token, session = door.sessions.begin(acting, person.name if person else "", address)
        return {"token": token, **_session(session)}

    @app.get("/sessions/mine")
    def who(request: Request) -> dict[str, str]:
        return _session(door.session(request, request.headers.get("x-session", "")))

    @app.delete("/sessions/mine")
    def log_out(request: Request) -> dict[str, str]:
        token = request.headers.get("x-session", "")
        acting = door.session(request, token).acting
        site.audit.append(Event.SESSION_ENDED, acting.email, "page", role=acting.role)
        door.sessions.end(token)
        return {"ended": acting.email}

    @app.post("/people")
    def add(request: Request, said: NewPerson) -> dict[str, str]:
        acting = door.owner(request, said, "add a person", said.email)
        check_password_length(said.new_password, site.config.minimum_password)
        if is_person(site.records, said.email):
            raise AccountError(f"{said.email} has an account here already")
        if said.role is Role.COMPLIANCE and is_researcher(site.records, said.email):
            raise AccountError(
                f"{said.email} has a researcher's account here; compliance has none, so that it "
                "reads and never runs. Give another address"
            )
        site.audit.append(
            Event.PERSON_CHANGED,
            acting.email,
            said.email,
            role=acting.role,
            decision="add",
            account_role=said.role,
        )
        minimum = site.config.minimum_password
        add_person(site.records, said.email, said.name, said.new_password, minimum, said.role)
        return {"email": said.email, "role": said.role}

    @app.post("/people/remove")
    def remove(request: Request, said: NewPerson) -> dict[str, str]:
        acting = door.owner(request, said, "remove a person", said.email)
        site.audit.append(
            Event.PERSON_CHANGED, acting.email, said.email, role=acting.role, decision="remove"
        )
        remove_person(site.records, said.email)
        door.sessions.end_all_of(said.email)
        return {"email": said.email}

    @app.post("/people/password")
    def password(request: Request, said: NewPerson) -> dict[str, str]:
        acting = door.let_in(request, said, "change a password", said.email)
        if acting.role is not Role.OWNER and acting.email != said.email:
            raise DecisionError(f"{acting.email} may change their own password only")
        check_password_length(said.new_password, site.config.minimum_password)
        site.audit.append(Event.PASSWORD_CHANGED, acting.email, said.email, role=acting.role)
        set_password(site.records, said.email, said.new_password, site.config.minimum_password)
        door.sessions.end_all_of(said.email)
        return {"email": said.email}

    @app.post("/accounts")
    def add_account(account: NewAccount) -> dict[str, str]:
        check_password_length(account.password, site.config.minimum_password)
        person = find_person(site.records, account.email)
        if person is not None and person.role == Role.COMPLIANCE:
            raise AccountError(
                f"{person.email} is compliance here, which has no researcher's account. Give "
                "another address"
            )
        site.audit.append(
            Event.ACCOUNT_CREATED,
            "site",
            account.email,
            account_role="researcher",
            institution=account.institution,
        )
        syft.add_researcher(account.email, account.name, account.password)
        with site.records.write() as session:
            session.merge(
                Researcher(
                    email=account.email,
                    name=account.name,
                    institution=account.institution,
                    created_at=utc_now(),
                )
            )
        return {"email": account.email}


def _session(session: Session) -> dict[str, str]:
    return {
        "email": session.acting.email,
        "role": session.acting.role,
        "name": session.name,
        "csrf": session.csrf,
    }
