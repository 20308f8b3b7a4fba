"""The control socket: how the hospital's own tools talk to a running site.

The server side is an HTTP application on a Unix socket in the state directory, so that only the
site's own user reaches it. Reading needs no more than that; a decision also needs the e-mail
address and password of a person of the hospital, who is named in the log and in the approval.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from datasites.audit_log import Event
from datasites.decisions import approve, deny, revoke
from datasites.errors import AccountError, ConfigurationError, SiteError
from datasites.open_site import OpenSite, SyftSide
from datasites.people import (
    STRANGER,
    Throttle,
    check_password_length,
    check_person,
    is_person,
)
from datasites.publishing import publish_all
from datasites.requests import find_requests
from datasites.review import review, review_row
from policies.strict import Strict

NOT_RUNNING = "the site does not run; start it with `sitegate serve`"
DECISIONS = {"approve": approve, "deny": deny, "revoke": revoke}


class Decision(Strict):
    """A person's decision."""

    person: str = Field(max_length=200)
    """E-mail address of who decides."""
    password: str = Field(max_length=1000)
    """Their password at this site."""
    reason: str = Field(max_length=2000)
    """Why; the researcher reads it."""


class NewAccount(Strict):
    """A researcher's account."""

    email: str = Field(max_length=200)
    """Address to log in with."""
    name: str = Field(max_length=200)
    """The researcher's name."""
    password: str = Field(max_length=1000)
    """First password."""


def control_app(site: OpenSite, syft: SyftSide) -> FastAPI:
    """The application behind the socket."""
    app = FastAPI(title="sitegate control", docs_url=None, redoc_url=None, openapi_url=None)
    throttle = Throttle(tries=5, window_s=300)

    @app.exception_handler(SiteError)
    async def refuse(_request: Request, error: SiteError) -> JSONResponse:
        return JSONResponse({"error": str(error), "exit_code": error.exit_code}, status_code=409)

    @app.get("/status")
    def status() -> dict[str, Any]:
        return {
            "name": site.config.name,
            "title": site.config.title,
            "url": site.site.url,
            "policy": site.policy.title,
            "policy_sha256": site.policy.sha256,
            "sandbox": site.sandbox_in_words,
        }

    @app.get("/requests")
    def requests() -> list[dict[str, Any]]:
        return [review_row(site, row).as_dict() for row in find_requests(site)]

    @app.get("/requests/{number}")
    def request(number: int) -> dict[str, Any]:
        return review(site, number).as_dict()

    @app.post("/requests/{number}/{verb}")
    def decide(number: int, verb: str, decision: Decision) -> dict[str, Any]:
        if verb not in DECISIONS:
            raise ConfigurationError(f"`{verb}` is not a decision; use approve, deny or revoke")
        try:
            throttle.enter(decision.person)
            check_person(site.records, decision.person, decision.password)
        except AccountError as error:
            actor = decision.person if is_person(site.records, decision.person) else STRANGER
            site.audit.append(
                Event.LOGIN_REFUSED, actor, f"R-{number}", wanted_to=verb, reason=str(error)
            )
            raise
        throttle.succeeded(decision.person)
        DECISIONS[verb](site, syft, number, decision.person, decision.reason)
        return review(site, number).as_dict()

    @app.post("/accounts")
    def add_account(account: NewAccount) -> dict[str, str]:
        check_password_length(account.password, site.config.minimum_password)
        site.audit.append(Event.ACCOUNT_CREATED, "site", account.email, role="researcher")
        syft.add_researcher(account.email, account.name, account.password)
        return {"email": account.email}

    @app.post("/datasets")
    def publish() -> list[str]:
        return publish_all(site, syft)

    @app.post("/checkpoint")
    def checkpoint() -> dict[str, str]:
        site.audit.checkpoint()
        return {"signed_at": dt.datetime.now(dt.UTC).isoformat()}

    return app


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of at most 108 bytes, the kernel's limit, for a socket in any directory."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def _answers(path: Path) -> bool:
    """Whether a process listens; a site that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with short_path(path) as name:
                probe.connect(name)
        except OSError:
            return False
    return True


class Control:
    """The tools' side of the socket."""

    def __init__(self, path: Path) -> None:
        self._socket = path

    def status(self) -> dict[str, Any]:
        """Name, address, policy and sandbox of the running site."""
        return self._ask(lambda c: c.get("/status"))  # type: ignore[no-any-return]

    def requests(self) -> list[dict[str, Any]]:
        """Every request's review sheet, newest first."""
        return self._ask(lambda c: c.get("/requests"))  # type: ignore[no-any-return]

    def request(self, number: int) -> dict[str, Any]:
        """One review sheet."""
        return self._ask(lambda c: c.get(f"/requests/{number}"))  # type: ignore[no-any-return]

    def decide(
        self, number: int, verb: str, person: str, password: str, reason: str
    ) -> dict[str, Any]:
        """Approve, deny or revoke; the sheet afterwards."""
        body = {"person": person, "password": password, "reason": reason}
        return self._ask(  # type: ignore[no-any-return]
            lambda c: c.post(f"/requests/{number}/{verb}", json=body)
        )

    def add_account(self, email: str, name: str, password: str) -> None:
        """Make a researcher's account."""
        body = {"email": email, "name": name, "password": password}
        self._ask(lambda c: c.post("/accounts", json=body))

    def publish(self) -> list[str]:
        """Publish the versions in the store; which are new."""
        return self._ask(lambda c: c.post("/datasets"))  # type: ignore[no-any-return]

    def checkpoint(self) -> None:
        """Sign the audit log as it stands."""
        self._ask(lambda c: c.post("/checkpoint"))

    def _ask(self, call: Callable[[httpx.Client], httpx.Response]) -> Any:
        if not _answers(self._socket):
            raise ConfigurationError(NOT_RUNNING)
        try:
            with (
                short_path(self._socket) as path,
                httpx.HTTPTransport(uds=path) as transport,
                httpx.Client(transport=transport, base_url="http://site", timeout=120) as client,
            ):
                response = call(client)
        except httpx.TransportError as error:
            raise ConfigurationError(NOT_RUNNING) from error
        if response.status_code == 409:
            refused = response.json()
            told = SiteError(refused["error"])
            told.exit_code = refused["exit_code"]
            raise told
        if response.status_code != 200:
            raise SiteError(f"the site answered {response.status_code}; the site's log says why")
        return response.json()
