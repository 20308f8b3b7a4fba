"""The tools' side of the control socket: how commands and the page talk to a running site.

`datasites.control_app` is the other side. Where something decides, changes or exports, the call
names a person with their password, or carries a session of the page.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx

from datasites.errors import ConfigurationError, SiteError

NOT_RUNNING = "the site does not run; start it with `sitegate serve`"
AT_WORK = "the site is still at work on it; see `sitegate request show`"
PATIENCE_S = 600
"""An approval waits for its rehearsal, which may wait for another."""
Json = dict[str, Any]


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


def shown_on(sheet: Mapping[str, Any]) -> tuple[str, str]:
    """What a sheet shows that an approval depends on: SHA-256 of policy and of rehearsal."""
    rehearsal = sheet["rehearsal"]
    return sheet["policy_sha256"], rehearsal["sha256"] if rehearsal else ""


def needs_rehearsal(sheet: Mapping[str, Any]) -> bool:
    """Whether a request has to be rehearsed before it can be approved."""
    rehearsal = sheet["rehearsal"]
    return rehearsal is None or rehearsal["policy_sha256"] != sheet["policy_sha256"]


class Control:
    """A running site, as its own people's tools see it.

    Args:
        path: The socket.
        session: Token of a session of the page, and the address of the browser that sent it.
    """

    def __init__(self, path: Path, session: tuple[str, str] | None = None) -> None:
        self._socket = path
        self._headers = {"X-Session": session[0], "X-Address": session[1]} if session else {}

    def is_running(self) -> bool:
        """Whether a site listens behind the socket."""
        return _answers(self._socket)

    def status(self) -> Json:
        """Name, address, policy and sandbox of the running site."""
        return self._get("/status")

    def requests(self) -> list[Json]:
        """Every request in short, newest first."""
        return cast(list[Json], self._ask(lambda c: c.get("/requests")))

    def request(self, number: int) -> Json:
        """One review sheet."""
        return self._get(f"/requests/{number}")

    def rehearse(self, number: int) -> Json:
        """Run a request's text on the mock; the sheet afterwards."""
        return self._post(f"/requests/{number}/rehearsal")

    def decide(
        self,
        number: int,
        verb: str,
        person: str = "",
        password: str = "",
        reason: str = "",
        comments: Sequence[tuple[int, str]] = (),
        shown: tuple[str, str] = ("", ""),
    ) -> Json:
        """Approve, deny, revoke, or send back with (line, remark) each; the sheet afterwards.

        An approval says what was `shown`: SHA-256 of the policy and of the rehearsal.
        """
        return self._post(
            f"/requests/{number}/{verb}",
            policy_sha256=shown[0],
            rehearsal_sha256=shown[1],
            person=person,
            password=password,
            reason=reason,
            comments=[{"line": line, "text": text} for line, text in comments],
        )

    def policy(self) -> Json:
        """The policy in force: title, sha256, text, sections in words, history."""
        return self._get("/policy")

    def adopt_policy(self, text: str, person: str, password: str, reason: str) -> Json:
        """Make a policy the one in force; its title and sha256."""
        return self._post("/policy", text=text, person=person, password=password, reason=reason)

    def people(self) -> list[Json]:
        """Everyone of the hospital who has an account: email, name, role, since."""
        return cast(list[Json], self._ask(lambda c: c.get("/people")))

    def add_person(
        self, email: str, name: str, role: str, new_password: str, person: str, password: str
    ) -> None:
        """Give someone of the hospital an account."""
        self._post(
            "/people",
            email=email,
            name=name,
            role=role,
            new_password=new_password,
            person=person,
            password=password,
        )

    def remove_person(self, email: str, person: str, password: str) -> None:
        """Take someone's account away."""
        self._post("/people/remove", email=email, person=person, password=password)

    def set_password(self, email: str, new_password: str, person: str, password: str) -> None:
        """Give someone another password."""
        self._post(
            "/people/password",
            email=email,
            new_password=new_password,
            person=person,
            password=password,
        )

    def add_account(
        self,
        email: str,
        name: str,
        institution: str,
        new_password: str,
        person: str,
        password: str,
    ) -> str:
        """Make a researcher's account; the address to log in with, as the site keeps it."""
        made = self._post(
            "/accounts",
            email=email,
            name=name,
            institution=institution,
            new_password=new_password,
            person=person,
            password=password,
        )
        return str(made["email"])

    def datasets(self) -> list[Json]:
        """Every dataset version that was published, with card and certificate."""
        return cast(list[Json], self._ask(lambda c: c.get("/datasets")))

    def publish(self) -> list[str]:
        """Publish the versions in the store; which are new."""
        return cast(list[str], self._ask(lambda c: c.post("/datasets")))

    def audit(
        self, *, subject: str = "", event: str = "", actor: str = "", text: str = "",
        last: int = 200,
    ) -> Json:  # fmt: skip
        """The events that match, oldest first, and whether the log verifies."""
        wanted: dict[str, str | int] = {
            "subject": subject,
            "event": event,
            "actor": actor,
            "text": text,
            "last": last,
        }
        return cast(Json, self._ask(lambda c: c.get("/audit", params=wanted)))

    def examine(self) -> list[Json]:
        """Let the site try its cage; name, ok and detail of each check."""
        return cast(list[Json], self._ask(lambda c: c.post("/examination")))

    def checkpoint(self) -> None:
        """Sign the audit log as it stands."""
        self._post("/checkpoint")

    def countersign(
        self, checkpoint: Json, public_key: str, person: str = "", password: str = ""
    ) -> Json:
        """Sign another site's checkpoint; the countersignature."""
        return self._post(
            "/countersignatures",
            checkpoint=checkpoint,
            public_key=public_key,
            person=person,
            password=password,
        )

    def evidence(self, number: int, person: str = "", password: str = "") -> dict[str, str]:
        """Everything that proves what happened under a request: file name -> text."""
        return self._post(f"/requests/{number}/evidence", person=person, password=password)

    def log_in(self, person: str, password: str, address: str) -> Json:
        """A session of the page for a person: token, csrf, email, role, name."""
        return cast(
            Json,
            self._ask(
                lambda c: c.post(
                    "/sessions",
                    json={"person": person, "password": password},
                    headers={"X-Address": address},
                )
            ),
        )

    def session(self) -> Json:
        """Whose session this is: csrf, email, role, name."""
        return self._get("/sessions/mine")

    def log_out(self) -> None:
        """End the session."""
        self._ask(lambda c: c.delete("/sessions/mine"))

    def _get(self, path: str) -> Json:
        return cast(Json, self._ask(lambda c: c.get(path)))

    def _post(self, path: str, **body: Any) -> Json:
        return cast(Json, self._ask(lambda c: c.post(path, json=body)))

    def _ask(self, call: Callable[[httpx.Client], httpx.Response]) -> Any:
        if not _answers(self._socket):
            raise ConfigurationError(NOT_RUNNING)
        try:
            with (
                short_path(self._socket) as path,
                httpx.HTTPTransport(uds=path) as transport,
                httpx.Client(
                    transport=transport,
                    base_url="http://site",
                    timeout=PATIENCE_S,
                    headers=self._headers,
                ) as client,
            ):
                response = call(client)
        except httpx.TimeoutException as error:
            raise SiteError(AT_WORK) from error
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
