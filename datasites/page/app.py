"""The page's application: routes, what they answer when something is refused, and the fence."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from datasites.control import NOT_RUNNING
from datasites.errors import SiteError
from datasites.page import entrance, record_pages, request_pages
from datasites.page.fence import Fence
from datasites.page.rendering import FOLDER, render
from datasites.page.settings import PageSettings
from datasites.page.visitor import ForgedFormError, NotLoggedInError, forget_cookie

FORGED = (
    "The form was not sent by this page for your session, so nothing was done. Go back, load the "
    "page again, and repeat it."
)


def page_app(settings: PageSettings) -> ASGIApp:
    """The page of one site."""
    app = FastAPI(title="sitegate page", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings = settings
    for room in (entrance, request_pages, record_pages):
        app.include_router(room.router)

    @app.get("/page.css")
    def style() -> Response:
        return FileResponse(FOLDER / "static" / "page.css", media_type="text/css")

    _add_refusals(app, settings)
    return Fence(app, settings)


def _add_refusals(app: FastAPI, settings: PageSettings) -> None:
    """What a person sees in place of a page that cannot be shown; never a traceback."""

    @app.exception_handler(NotLoggedInError)
    async def to_login(_request: Request, _error: NotLoggedInError) -> Response:
        answer = RedirectResponse("/login", 303)
        forget_cookie(answer, settings)
        return answer

    @app.exception_handler(ForgedFormError)
    async def forged(_request: Request, _error: ForgedFormError) -> Response:
        return _message(403, "Refused", FORGED)

    @app.exception_handler(SiteError)
    async def refused(_request: Request, error: SiteError) -> Response:
        if str(error) == NOT_RUNNING:
            return _message(503, "The site does not run", "Start it with `sitegate serve`; then "
                            "load this page again.")  # fmt: skip
        return _message(409, "Not done", f"{error}.")

    @app.exception_handler(HTTPException)
    @app.exception_handler(RequestValidationError)
    async def unknown(_request: Request, _error: Exception) -> Response:
        return _message(404, "Not found", "There is no such page.")

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> Response:  # uvicorn tells of it
        return _message(500, "Something broke", "It is told on the page's console. Nothing was "
                        "decided unless the audit log says so.")  # fmt: skip


def _message(status: int, title: str, sentence: str) -> Response:
    return render("message.html", status, who=None, title=title, sentence=sentence)
