"""Who is let in: a browser that shows this page under one of its names, and nobody else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from datasites.page.fence import FORM_BYTES, HEADERS, Fence
from datasites.page.settings import PageSettings

OWN = {"Host": "127.0.0.1:8450"}
POSTED = {**OWN, "Origin": "http://127.0.0.1:8450", "Sec-Fetch-Site": "same-origin"}


def call(method: str, headers: dict[str, str], body: bytes = b"", tls: bool = False):
    async def inside(request):
        return PlainTextResponse("in")

    app = Starlette(routes=[Route("/", inside, methods=["GET", "POST", "PUT", "DELETE"])])
    settings = PageSettings(Path("control.sock"), tls=tls)

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(Fence(app, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, "/", headers=headers, content=body)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8450", 200), ("localhost:8450", 200), ("LOCALHOST", 200), ("[::1]:8450", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example:8450", 421), ("", 421),
        ("evil.example:8450", 421), ("[::2]:8450", 421), ("127.0.0.2:8450", 421),
    ],
)  # fmt: skip
def test_only_its_own_names_reach_it(host, status) -> None:
    assert call("GET", {"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (POSTED, 200),
        ({**OWN, "Origin": "http://127.0.0.1:8450"}, 200),  # a browser before 2020
        ({**OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        (OWN, 403),  # no browser
        ({**POSTED, "Origin": "http://evil.example"}, 403),
        ({**POSTED, "Origin": "null"}, 403),
        ({**POSTED, "Origin": "https://127.0.0.1:8450"}, 403),  # another scheme
        ({**POSTED, "Origin": "http://127.0.0.1:9999"}, 403),  # another port
        ({**POSTED, "Origin": "http://localhost:8450"}, 403),  # another name
        ({**POSTED, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**POSTED, "Sec-Fetch-Site": "same-site"}, 403),
        ({**POSTED, "Sec-Fetch-Site": "none"}, 403),
    ],
)
def test_forms_come_from_the_page_itself(headers, status) -> None:
    assert call("POST", headers, b"a=1").status_code == status


@pytest.mark.parametrize(("size", "status"), [(FORM_BYTES, 200), (FORM_BYTES + 1, 413)])
def test_forms_have_a_largest_size(size, status) -> None:
    assert call("POST", POSTED, b"x" * size).status_code == status


@pytest.mark.parametrize("length", ["-1", "1e3", "ten"])
def test_a_length_that_is_no_number_is_refused(length) -> None:
    headers = {**POSTED, "Content-Length": length}
    assert call("POST", headers, b"a").status_code == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method) -> None:
    assert call(method, POSTED).status_code == 405


@pytest.mark.parametrize("headers", [OWN, {"Host": "evil.example"}])
def test_every_answer_carries_the_headers(headers) -> None:
    answer = call("GET", headers)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "Strict-Transport-Security" not in answer.headers


def test_with_tls_browsers_are_told_to_stay_with_it() -> None:
    assert "max-age" in call("GET", OWN, tls=True).headers["Strict-Transport-Security"]
