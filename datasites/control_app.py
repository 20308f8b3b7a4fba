"""The site's side of the control socket: what the hospital's own tools and its page may ask.

A Unix socket in the state directory (mode 0700): only the site's own user reaches it. Reading needs
no more than that. Whatever decides, changes or exports something also needs a person of the
hospital, by password or by a session of the page, who is named in the log.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from datasites.adopted_policy import adopt_policy, adopted_policies
from datasites.audit_log import Event, check_log, read_events
from datasites.certificate import read_certificate
from datasites.countersignature import countersign
from datasites.decisions import approve, checked_reason, deny, request_changes, revoke
from datasites.errors import AccountError, DatasetError, DecisionError, SiteError
from datasites.evidence.export import export_evidence
from datasites.open_site import OpenSite, SyftSide
from datasites.people import (
    STRANGER,
    Acting,
    Role,
    Throttle,
    add_person,
    check_password_length,
    check_person,
    find_person,
    is_person,
    list_people,
    remove_person,
    set_password,
)
from datasites.published import published_versions
from datasites.publishing import publish_all
from datasites.records import Researcher, utc_now
from datasites.rehearsal import latest_rehearsal, rehearse
from datasites.request_states import Verb
from datasites.requests import find_requests, get_request
from datasites.review import review, summarise
from datasites.sessions import Session, Sessions
from datasites.signed_decisions import LineComment
from policies.contract import Line
from policies.explain import explain
from policies.strict import Strict

MAXIMUM_EVENTS = 2000


class Identified(Strict):
    """A person, by password; left empty where a session says who it is."""

    person: str = Field(default="", max_length=200)
    """E-mail address."""
    password: str = Field(default="", max_length=1000)
    """Their password at this site."""


class Decision(Identified):
    """A person's decision about a request."""

    reason: str = Field(max_length=2000)
    """Why; the researcher reads it."""
    comments: tuple[LineComment, ...] = Field(default=(), max_length=50)
    """Remarks on lines, when changes are requested."""


class NewPolicy(Identified):
    """A policy to adopt."""

    text: str = Field(max_length=200_000)
    """The YAML document."""
    reason: str = Field(max_length=1000)
    """Why it changes."""


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


class ToCountersign(Identified):
    """Another site's checkpoint."""

    checkpoint: dict[str, Any]
    """The signed document."""
    public_key: str = Field(max_length=200)
    """The other site's public key, hex."""


def control_app(site: OpenSite, syft: SyftSide) -> FastAPI:
    """The application behind the socket."""
    app = FastAPI(title="sitegate control", docs_url=None, redoc_url=None, openapi_url=None)
    door = _Door(site)

    @app.exception_handler(SiteError)
    async def refuse(_request: Request, error: SiteError) -> JSONResponse:
        return JSONResponse({"error": str(error), "exit_code": error.exit_code}, status_code=409)

    _add_reading(app, site)
    _add_people(app, site, syft, door)
    _add_records(app, site, door)
    _add_requests(app, site, syft, door)

    @app.post("/datasets")
    def publish() -> list[str]:
        return publish_all(site, syft)

    return app


class _Door:
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


def _add_reading(app: FastAPI, site: OpenSite) -> None:
    @app.get("/status")
    def status() -> dict[str, Any]:
        return {
            "name": site.config.name,
            "title": site.config.title,
            "url": site.site.url,
            "policy": site.policy.title,
            "policy_sha256": site.policy.sha256,
            "sandbox": site.sandbox_in_words,
            "public_key": site.key.public_hex,
        }

    @app.get("/requests")
    def requests() -> list[dict[str, Any]]:
        return [summarise(site, row).as_dict() for row in find_requests(site)]

    @app.get("/requests/{number}")
    def request(number: int) -> dict[str, Any]:
        return review(site, number).as_dict()

    @app.get("/policy")
    def policy() -> dict[str, Any]:
        history = adopted_policies(site.records)
        return {
            "title": site.policy.title,
            "sha256": site.policy.sha256,
            "text": history[0].text if history else "",
            "sections": [
                {"heading": s.heading, "sentences": list(s.sentences)} for s in explain(site.policy)
            ],
            "history": [
                {
                    "sha256": row.sha256,
                    "adopted_at": row.adopted_at,
                    "adopted_by": row.adopted_by,
                    "reason": row.reason,
                }
                for row in history
            ],
        }

    @app.get("/people")
    def people() -> list[dict[str, str]]:
        return [
            {"email": p.email, "name": p.name, "role": p.role, "since": p.created_at}
            for p in list_people(site.records)
        ]

    @app.get("/datasets")
    def datasets() -> list[dict[str, Any]]:
        return [
            {
                "name": version.row.name,
                "version": version.row.version,
                "published_at": version.row.published_at,
                "retired": version.retired,
                "card": version.card.model_dump(mode="json"),
                "certificate": _certificate(site, version.row.version),
            }
            for version in published_versions(site)
        ]

    @app.get("/audit")
    def audit(
        subject: str = "", event: str = "", actor: str = "", text: str = "", last: int = 200
    ) -> dict[str, Any]:
        found = check_log(site.site.audit, site.key.public_hex)
        events = [
            line
            for line in read_events(site.site.audit)
            if (not subject or f"{line['subject']}/".startswith(f"{subject}/"))
            and (not event or line["event"] == event)
            and (not actor or actor.casefold() in line["actor"].casefold())
            and (not text or text.casefold() in str(line).casefold())
        ]
        return {
            "lines": found.lines,
            "intact": found.intact,
            "bad_line": found.bad_line,
            "problem": found.problem,
            "checkpoints": found.checkpoints,
            "unsigned_lines": found.unsigned_lines,
            "matching": len(events),
            "events": events[-min(max(last, 1), MAXIMUM_EVENTS) :],
        }


def _add_requests(app: FastAPI, site: OpenSite, syft: SyftSide, door: _Door) -> None:
    @app.post("/requests/{number}/rehearsal")
    def rehearsal(request: Request, number: int) -> dict[str, Any]:
        token = request.headers.get("x-session")
        acting = door.session(request, token).acting if token else None
        rehearse(site, get_request(site, number), acting)
        return review(site, number).as_dict()

    @app.post("/requests/{number}/{verb}")
    def decide(request: Request, number: int, verb: str, said: Decision) -> dict[str, Any]:
        if verb not in set(Verb):
            raise DecisionError(f"`{verb}` is not a decision; use {', '.join(Verb)}")
        acting = door.let_in(request, said, verb, f"R-{number}")
        row, reason = get_request(site, number), checked_reason(said.reason)
        if verb == Verb.APPROVE:
            if acting.role.decides and latest_rehearsal(site, number) is None:
                rehearse(site, row, acting)
            approve(site, syft, number, acting, reason)
        elif verb == Verb.DENY:
            deny(site, syft, number, acting, reason)
        elif verb == Verb.REVOKE:
            revoke(site, syft, number, acting, reason)
        else:
            request_changes(site, number, acting, reason, said.comments)
        return review(site, number).as_dict()


def _add_people(app: FastAPI, site: OpenSite, syft: SyftSide, door: _Door) -> None:
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

    def owner(request: Request, said: Identified, wanted: str, subject: str) -> Acting:
        acting = door.let_in(request, said, wanted, subject)
        if acting.role is not Role.OWNER:
            raise DecisionError(f"{acting.email} is {acting.role}; an owner has to do this")
        return acting

    @app.post("/people")
    def add(request: Request, said: NewPerson) -> dict[str, str]:
        acting = owner(request, said, "add a person", said.email)
        check_password_length(said.new_password, site.config.minimum_password)
        if is_person(site.records, said.email):
            raise AccountError(f"{said.email} has an account here already")
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
        acting = owner(request, said, "remove a person", said.email)
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


def _add_records(app: FastAPI, site: OpenSite, door: _Door) -> None:
    @app.post("/policy")
    def adopt(request: Request, said: NewPolicy) -> dict[str, str]:
        acting = door.let_in(request, said, "adopt a policy", "policy")
        with site.deciding:
            policy = adopt_policy(
                site.site, site.records, site.audit, acting, said.text, said.reason
            )
            site.take_policy(policy)
        return {"title": policy.title, "sha256": policy.sha256}

    @app.post("/checkpoint")
    def checkpoint() -> dict[str, str]:
        site.audit.checkpoint()
        return {"signed_at": dt.datetime.now(dt.UTC).isoformat()}

    @app.post("/countersignatures")
    def countersign_other(request: Request, said: ToCountersign) -> dict[str, Any]:
        acting = door.let_in(request, said, "countersign a log", "audit log")
        return countersign(site, said.checkpoint, said.public_key, acting.email, acting.role)

    @app.post("/requests/{number}/evidence")
    def evidence(request: Request, number: int, said: Identified) -> dict[str, str]:
        acting = door.let_in(request, said, "export evidence", f"R-{number}")
        return export_evidence(site, number, acting)


def _session(session: Session) -> dict[str, str]:
    return {
        "email": session.acting.email,
        "role": session.acting.role,
        "name": session.name,
        "csrf": session.csrf,
    }


def _certificate(site: OpenSite, version: str) -> dict[str, Any] | None:
    try:
        certificate = read_certificate(site.site.datasets, version, site.key.public_hex)
    except DatasetError:
        return None
    return certificate.model_dump(mode="json")
