"""Who looks at the page: the session behind the cookie, and the forms that are truly theirs."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.responses import Response

from datasites.control import Control
from datasites.errors import ConfigurationError, SiteError
from datasites.page.settings import PageSettings
from datasites.people import Role

MAXIMUM_FIELDS = 5000
Form = dict[str, str]


class NotLoggedInError(Exception):
    """There is no session, or it is over."""


class ForgedFormError(Exception):
    """A form without the secret of the session, or one that is no form."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person who logged in.

    Attributes:
        control: The site, asked in this person's name.
        email: Their address.
        name: Their name.
        role: What they may do.
        csrf: What each of their forms carries.
        site: The site's own words: title, policy, address.
    """

    control: Control
    email: str
    name: str
    role: Role
    csrf: str
    site: dict[str, Any]


def settings_of(request: Request) -> PageSettings:
    """The settings that the page was started with."""
    return request.app.state.settings  # type: ignore[no-any-return]


def address_of(request: Request) -> str:
    """The address a call came from; a session is bound to it."""
    return request.client.host if request.client else ""


def find_visitor(request: Request) -> Visitor:
    """The person behind a call.

    Raises:
        NotLoggedInError: There is no session, it is over, or it is another address's.
        ConfigurationError: The site does not run.
    """
    settings = settings_of(request)
    token = request.cookies.get(settings.cookie, "")
    if not token or not token.isascii() or not token.isprintable():
        raise NotLoggedInError
    control = Control(settings.socket, session=(token, address_of(request)))
    try:
        session, site = control.session(), control.status()
    except SiteError as error:
        if error.exit_code == ConfigurationError.exit_code:
            raise
        raise NotLoggedInError from error
    return Visitor(
        control, session["email"], session["name"], Role(session["role"]), session["csrf"], site
    )


async def read_form(request: Request) -> Form:
    """The fields of a posted form; of a field that is there twice, the last."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise ForgedFormError
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, max_num_fields=MAXIMUM_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise ForgedFormError from error
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


AnyForm = Annotated[Form, Depends(read_form)]
Person = Annotated[Visitor, Depends(find_visitor)]


def read_own_form(who: Person, form: AnyForm) -> Form:
    """A form that this person's session was given.

    Raises:
        ForgedFormError: It does not carry the secret of the session.
    """
    sent = form.get("csrf", "")
    if not hmac.compare_digest(sent.encode(), who.csrf.encode()):
        raise ForgedFormError
    return form


OwnForm = Annotated[Form, Depends(read_own_form)]


def set_cookie(response: Response, settings: PageSettings, token: str) -> None:
    """Give a browser the session; it ends with the browser, or when the site says so."""
    response.set_cookie(
        settings.cookie, token, httponly=True, samesite="strict", secure=settings.tls, path="/"
    )


def forget_cookie(response: Response, settings: PageSettings) -> None:
    """Take the session from a browser."""
    response.delete_cookie(
        settings.cookie, httponly=True, samesite="strict", secure=settings.tls, path="/"
    )
