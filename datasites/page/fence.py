"""What stands before every route: the name that was called, who sent a form, how much, and headers.

It works on the bare ASGI messages, so that nothing of a call is parsed before it is let in.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasites.page.rendering import render
from datasites.page.settings import PageSettings

FORM_BYTES = 400_000
"""Largest form that is read; fifty remarks and a reason have a tenth of it."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "script-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Nothing is told to others; within the page, browsers write a form's origin only with this.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Fence:
    """Lets in what comes from a browser that shows this page under one of its names."""

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        if scope["type"] != "http":
            return
        refused = self._refusal(scope["method"], Headers(scope=scope))
        if refused:
            status, sentence = refused
            page = render("message.html", status, who=None, title="Refused", sentence=sentence)
            await page(scope, receive, _with_headers(send, self._settings))
        else:
            await self._app(scope, receive, _with_headers(send, self._settings))

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and sentence for a call that is not let in."""
        called = headers.getlist("host")
        if len(called) != 1 or _without_port(called[0]) not in self._settings.names:
            return 421, "This page is not reached under that name; use the address it printed."
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return 405, "This page reads and posts forms; nothing else."
        if not self._is_own(headers, called[0]):
            return 403, "The form was not sent by this page, so nothing was done."
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > FORM_BYTES:
            return (
                413,
                f"The form has more than the {FORM_BYTES:,} bytes that are read, or no length.",
            )
        return None

    def _is_own(self, headers: Headers, host: str) -> bool:
        """Whether a form comes from this page: by its origin, and by what the browser says of it.

        Browsers write both; a call with neither is no browser's, and has no cookie to be abused,
        but there is no reason to let it in.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None and site is None:
            return False
        own = f"{self._settings.scheme}://{host}"
        return origin in (None, own) and site in (None, "same-origin")


def _without_port(host: str) -> str:
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _with_headers(send: Send, settings: PageSettings) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            _add_headers(message, settings)
        await send(message)

    return sending


def _add_headers(message: MutableMapping[str, Any], settings: PageSettings) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers[name] = value
    if settings.tls:
        headers["Strict-Transport-Security"] = "max-age=31536000"
