"""Whatever a site sends, the page shows it as text, cut in lists, and nothing of it is hidden.

The site refuses most of these values itself. Here it is one that sends them all the same.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from datasites.page.app import page_app
from datasites.page.settings import PageSettings
from pages import OWNER
from tests.page.sheets import TEXT, VERSION, comparison, finding, rehearsal, sheet, summary

HOSTILE = {
    "script": "<script>window.pwned=1</script>",
    "image": '"><img src=x onerror=window.pwned=1>',
    "attribute": "' onmouseover='window.pwned=1' x='",
    "template": "{{ 7 * 7 }}{% raw %}",
    "path": "../../../../etc/passwd",
    "address": "javascript:window.pwned=1",
    "turned": "abc\u202egnp.\u2066exe\u200b\x00",
    "markdown": "[click](http://evil.example) <!-- --> ]]>",
    "long word": "x" * 1_000_000,
    "long": "long name " * 100_000,
}
STATUS = {"name": "st-marys", "title": "St Mary's", "policy": "test v1", "sandbox": "none"}
SESSION = {"email": OWNER, "name": "Owner", "role": "owner", "csrf": "secret"}


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_sheet(words: str) -> dict[str, Any]:
    """A sheet with the words wherever a researcher, or code of theirs, has a say."""
    text = f"{TEXT}# {words}\nx = {words!r}\n"
    return sheet(
        title=words,
        purpose=words,
        researcher=words,
        reason=words,
        state="denied",
        state_in_words=f"denied {words}",
        decided_by=words,
        text=text,
        findings=[
            finding(words, "refuse", words, words, words, 3),
            finding("job.flow", "warn", words, words, words, 1),
            finding("job.calls", "read", words, words),
            finding("job.form", "pass", words, words),
        ],
        leaving=[{"name": words, "kind": words, "shape": [4], "dtype": words, "bytes": 1}],
        leaves=words,
        arguments={words: words},
        rehearsal=rehearsal(
            outcome=words,
            influence=words,
            log=words,
            config={words: words},
            metrics={words: 0.5},
            calls=[[words, 1]],
            attempts=[[words, 1]],
            refused=[finding(words, "refuse", words, words)],
        ),
        comparisons=[comparison(f"# {words} old\n", text) | {"title": words}],
        requester=sheet()["requester"]
        | {"account": words, "name": words, "institution": words, "states": {words: 1}},
        earlier=[summary(title=words, state_in_words=words, verdict=words)],
        decisions=[
            {
                "verb": "changes",
                "person": words,
                "role": words,
                "at": "2026-11-25T09:00:00Z",
                "reason": words,
                "comments": [{"line": 1, "text": words}],
            }
        ],
        agreed=[{"person": words, "role": words, "at": words}],
        needed={"in_words": words},
    )


class HostileSite:
    """The site's side of the socket, as far as the page asks it; `words` is what it says."""

    def __init__(self, socket: Path) -> None:
        self.words = ""
        app = FastAPI()
        line = {"n": 1, "time": "2026-11-25T09:00:00Z", "event": "login", "role": "owner"}

        def say(path: str, answer: Any) -> None:
            app.get(path)(lambda: answer(self.words) if callable(answer) else answer)

        say("/status", STATUS)
        say("/sessions/mine", SESSION)
        say("/people", lambda w: [{"email": w, "name": w, "role": "owner", "since": w}])
        say("/requests/6", hostile_sheet)
        say(
            "/requests",
            lambda w: [
                summary(title=w, researcher=w, state="approved", verdict=w, state_in_words=w,
                        decided_by=w, dataset={"name": w, "version": VERSION})
            ],
        )  # fmt: skip
        say(
            "/audit",
            lambda w: {
                "lines": 1, "intact": False, "bad_line": 1, "problem": w, "checkpoints": 0,
                "unsigned_lines": 0, "matching": 1,
                "events": [line | {"actor": w, "subject": f"R-6{w}", "reason": w,
                                   "objects": {w: w}, "detail": {w: [w]}}],
            },
        )  # fmt: skip
        say(
            "/policy",
            lambda w: {"title": w, "sha256": w, "text": w,
                       "sections": [{"heading": w, "sentences": [w]}],
                       "history": [{"sha256": w, "adopted_at": w, "adopted_by": w, "reason": w}]},
        )  # fmt: skip
        config = uvicorn.Config(app, uds=str(socket), log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostileSite, Path]]:
    socket = tmp_path_factory.mktemp("hostile") / "control.sock"
    made = HostileSite(socket)
    made.start()
    yield made, socket
    made.stop()


def load(socket: Path, path: str) -> httpx.Response:
    """A page, as a person who is logged in gets it."""
    settings = PageSettings(socket)

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(page_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers={"Cookie": f"{settings.cookie}=token"})

    return asyncio.run(go())


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["/", "/requests/6", "/approvals", "/audit", "/policy", "/people"])
def test_a_strangers_words_stay_text(site, path, name) -> None:
    hostile, socket = site
    hostile.words = words = HOSTILE[name]
    answer = load(socket, path)
    assert answer.status_code == 200
    page = Seen(answer.text)
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "style", "base"}
    assert not [pair for pair in page.attributes if pair[0].startswith("on")]
    links = [v for n, v in page.attributes if n in ("href", "src", "action", "formaction")]
    assert all(link.startswith(("/", "#", "data:,")) and ".." not in link for link in links)
    assert not [c for c in answer.text if c in "\u202e\u2066\u200b\x00"]
    assert "49" not in page.text or name != "template"
    if name in ("script", "image", "attribute", "path", "address", "markdown"):
        assert words in page.text


@pytest.mark.parametrize("name", ["long word", "long"])
def test_lists_cut_what_is_long(site, name) -> None:
    hostile, socket = site
    hostile.words = HOSTILE[name]
    assert len(load(socket, "/").text) < 20_000
    assert len(load(socket, "/approvals").text) < 20_000
    whole = load(socket, "/requests/6").text
    assert HOSTILE[name].strip() in whole  # in a box that scrolls
