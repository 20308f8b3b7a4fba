"""What an attacker with an account has: calls that the federation client would not make."""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import struct
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import httpx

from federation.sites import Site
from policies.envelope import CALL, Envelope, signed_part
from policies.findings import Finding, decode_refusal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from syft.client.api import SyftAPICall
    from syft.serde.deserialize import _deserialize
    from syft.serde.serialize import _serialize
    from syft.server.credentials import SyftSigningKey
    from syft.service.response import SyftError
    from syft.types.uid import UID


__all__ = [
    "UID",
    "Answer",
    "Call",
    "SyftSigningKey",
    "attack",
    "client",
    "close_clients",
    "frame",
    "key_of",
    "log_in",
    "post",
    "read_answer",
    "serialise",
    "sign",
]


@dataclass
class Call:
    """One call, every part of which can be made wrong; by default it is a valid one."""

    path: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    args: list[Any] = field(default_factory=list)
    blocking: bool = True
    server_uid: Any = None
    key: SyftSigningKey | None = None
    sent_at: Any = None
    nonce: Any = None

    def message(self, site: Site) -> bytes:
        """The call as it is signed; `...` as time or nonce leaves it out.

        What plain JSON and one payload cannot say (syft's own objects, positional arguments, calls
        that wait in a queue) goes as the syft message that a client of syft itself would send.
        """
        now = int(time.time() * 1000) if self.sent_at is None else self.sent_at
        nonce = secrets.token_hex(16) if self.nonce is None else self.nonce
        fresh = {k: v for k, v in (("sent_at", now), ("nonce", nonce)) if v is not ...}
        if self.args or not self.blocking or not _is_plain(self.kwargs):
            return serialise(
                SyftAPICall(
                    server_uid=self.server_uid or UID.from_string(site._server_uid),
                    path=self.path,
                    args=self.args,
                    kwargs={**self.kwargs, **fresh},
                    blocking=self.blocking,
                )
            )
        arguments = {k: v.no_dash if isinstance(v, UID) else v for k, v in self.kwargs.items()}
        payloads = [arguments.pop(k) for k in list(arguments) if isinstance(arguments[k], bytes)]
        site_id = self.server_uid.no_dash if self.server_uid else site._server_uid
        return frame(
            {"site": site_id, "path": self.path, "arguments": arguments, **fresh}, *payloads
        )

    def body(self, site: Site) -> bytes:
        """The call as it is posted, signed."""
        return sign(self.message(site), self.key or site._key)


def _is_plain(kwargs: dict[str, Any]) -> bool:
    payloads = [v for v in kwargs.values() if isinstance(v, bytes)]
    others = [v for v in kwargs.values() if not isinstance(v, bytes)]
    return len(payloads) <= 1 and all(isinstance(v, str | int | float | UID) for v in others)


def frame(header: Any, payload: bytes = b"") -> bytes:
    """A message as the federation client makes it, around any header."""
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return struct.pack(">I", len(encoded)) + encoded + payload


def serialise(thing: Any) -> bytes:
    """A syft object as it travels."""
    return bytes(_serialize(thing, to_bytes=True))


def sign(message: bytes, key: SyftSigningKey) -> bytes:
    """Any bytes in a valid envelope."""
    signature = key.signing_key.sign(signed_part(CALL, message)).signature
    return Envelope(key.verify_key.verify_key.encode(), signature, message).to_bytes()


@dataclass
class Answer:
    """What came back: a value and arrays, or a refusal with its text and findings."""

    value: Any = None
    arrays: bytes = b""
    refusal: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def rules(self) -> list[str]:
        """The rules of the findings."""
        return [f.rule for f in self.findings]


def post(site: Site, body: bytes) -> Answer:
    """Post a body as it is; anything but HTTP 200 with an answer signed by the site fails."""
    with client(site) as http:
        response = http.post("/api/v2/api_call", content=body)
    assert response.status_code == 200, (response.status_code, response.text[:500])
    return read_answer(site, response.content)


def read_answer(site: Site, content: bytes) -> Answer:
    """The answer in the site's bytes."""
    head, arrays = site._opened(content)
    data = _deserialize(head, from_bytes=True)
    if isinstance(data, SyftError):
        return Answer(refusal=data.message, findings=decode_refusal(data.message) or [])
    return Answer(data.value, arrays)


def attack(site: Site, path: str, **kwargs: Any) -> Answer:
    """Make a fresh, correctly signed call of any path with any objects."""
    return post(site, Call(path, kwargs).body(site))


_clients: dict[str, httpx.Client] = {}


def client(site: Site) -> contextlib.AbstractContextManager[httpx.Client]:
    """An HTTP client that trusts the site's authority; one per site, with kept connections."""
    if site.url not in _clients:
        context = ssl.create_default_context(cafile=site._authority)
        _clients[site.url] = httpx.Client(
            base_url=site.url, verify=context, timeout=60, trust_env=False
        )
    return contextlib.nullcontext(_clients[site.url])


def close_clients() -> None:
    """Close all connections; called once, at the end."""
    while _clients:
        _clients.popitem()[1].close()


def key_of(seed: bytes) -> SyftSigningKey:
    """The syft key that a seed gives."""
    return SyftSigningKey.from_string(seed.hex())


def log_in(site: Site, email: Any, password: Any) -> tuple[int, str]:
    """Status and sentence of a login; the sentence is empty when it gave a key."""
    with client(site) as http:
        response = http.post(
            "/api/v2/login", content=json.dumps({"email": email, "password": password})
        )
    if response.status_code != 200:
        return response.status_code, response.text
    answer = _deserialize(response.content, from_bytes=True)
    return 200, answer.message if isinstance(answer, SyftError) else ""
