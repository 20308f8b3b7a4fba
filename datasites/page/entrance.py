"""Logging in and out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from datasites.control import Control
from datasites.errors import ConfigurationError, SiteError
from datasites.page.rendering import render
from datasites.page.visitor import (
    AnyForm,
    OwnForm,
    Person,
    address_of,
    forget_cookie,
    set_cookie,
    settings_of,
)

LONGEST_EMAIL = 200
LONGEST_PASSWORD = 1000

router = APIRouter()


@router.get("/login")
def show_login(request: Request) -> Response:
    """The form, and whose page it is."""
    return _login(request, "")


@router.post("/login")
def log_in(request: Request, form: AnyForm) -> Response:
    """Begin a session; the site checks the password, counts the tries and logs them.

    There is no session yet whose secret the form could carry: that a page of somebody else did not
    send it is known from its origin.
    """
    settings = settings_of(request)
    email, password = form.get("email", "").strip(), form.get("password", "")
    if not 0 < len(email) <= LONGEST_EMAIL or not 0 < len(password) <= LONGEST_PASSWORD:
        return _login(request, "Give your e-mail address and your password.", 409)
    try:
        session = Control(settings.socket).log_in(email, password, address_of(request))
    except SiteError as error:
        if error.exit_code == ConfigurationError.exit_code:
            raise
        return _login(request, _sentence(error), 409, email)
    answer = RedirectResponse("/", 303)
    set_cookie(answer, settings, session["token"])
    return answer


@router.post("/logout")
def log_out(request: Request, who: Person, form: OwnForm) -> Response:
    """End the session."""
    who.control.log_out()
    answer = RedirectResponse("/login", 303)
    forget_cookie(answer, settings_of(request))
    return answer


def _login(request: Request, refused: str, status: int = 200, email: str = "") -> Response:
    site = Control(settings_of(request).socket).status()
    return render("login.html", status, who=None, site=site, refused=refused, email=email)


def _sentence(error: SiteError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
