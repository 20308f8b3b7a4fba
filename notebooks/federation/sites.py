"""Connections to sites: TLS pinned to each site's own authority, signed calls, findings as errors.

The calls name syft API paths and are signed with the account's syft key. This module makes them
itself, on connections that it keeps: syft's own client opens one per request, fetches 3 MB of API
description at login, cannot take a port or an authority per site, and sends a format that a site
must not parse (see `policies.envelope`).
"""

from __future__ import annotations

import json
import secrets
import ssl
import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests
import urllib3
import yaml
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from federation.errors import ConnectionLostError, FederationError, RefusedError
from policies.document import Policy
from policies.envelope import (
    ANSWER,
    CALL,
    Call,
    Envelope,
    open_envelope,
    signed_part,
    split_message,
)
from policies.findings import decode_refusal
from policies.request_rules import Requester
from policies.strict import Strict, validation_sentences

if TYPE_CHECKING:
    from federation.submission import Federation

CONNECT_S = 10
ANSWER_S = 60
"""A site answers within 20 s, if only to say that a run is under way."""
KEPT_CONNECTIONS = 16
"""To one site; more may be open at a time."""


class SiteAddress(Strict):
    """One line of the roster."""

    name: str = Field(min_length=1, max_length=40)
    """The site's short name."""
    url: str = Field(pattern=r"^https://[^/\s]+$")
    """Address, such as `https://127.0.0.1:8443`."""
    authority: Path
    """PEM file of the certificate authority that signed the site's certificate."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset version as its site describes it."""

    site: str
    name: str
    version: str
    card: dict[str, Any]
    asset: str


class Site:
    """One hospital's datasite, as a researcher with an account sees it."""

    def __init__(self, address: SiteAddress, email: str, password: str) -> None:
        self.name, self.url, self.email = address.name, address.url, email
        self._authority = str(address.authority)
        self._session = _session(self._authority)
        self.bytes_sent = self.bytes_received = 0
        """What calls and answers had in their bodies since the connection was made."""
        syft = _syft()
        metadata = json.loads(self._get("/api/v2/metadata"))
        self._server_uid = str(metadata["server_uid"])
        self._server_key = str(metadata["verify_key"])
        login = self._post("/api/v2/login", json.dumps({"email": email, "password": password}))
        answer = syft.deserialize(login, from_bytes=True)
        if isinstance(answer, syft.SyftError):
            raise FederationError(f"{self.name} did not log you in: {answer.message}")
        self._key = answer.signing_key
        self.refresh()

    def refresh(self) -> None:
        """Read the site's description again: title, policy, datasets."""
        plain = json.loads(self.call("sitegate.describe"))
        self.title: str = plain["title"]
        self.public_key: str = plain["public_key"]
        self.policy = Policy.model_validate(plain["policy"])
        self.policy_sha256: str = plain["policy_sha256"]
        self.requester = Requester(self.email, plain["institution"])
        self.datasets = [
            Dataset(self.name, d["name"], d["version"], d["card"], d["asset"])
            for d in plain["datasets"]
        ]

    def dataset(self, name: str) -> Dataset:
        """The newest version of a dataset.

        Raises:
            FederationError: The site has no dataset of this name.
        """
        found = [d for d in self.datasets if d.name == name]
        if not found:
            names = ", ".join(sorted({d.name for d in self.datasets})) or "none"
            raise FederationError(f"{self.title} has no dataset `{name}`; it publishes: {names}")
        return found[-1]

    def mock(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Mock images and labels with the schema of a dataset, made from no patient."""
        answer = self.call("action.get_mock", uid=self.dataset(name).asset)
        return dict(answer.syft_action_data)

    def call(self, path: str, payload: bytes = b"", **arguments: str | int) -> Any:
        """Make one signed call of a syft API path and give its value.

        Args:
            path: The path.
            payload: Arrays that the call carries.
            arguments: Its other arguments.

        Raises:
            RefusedError: The site refused, with findings.
            ConnectionLostError: It did not answer.
            FederationError: It refused in a sentence, or the answer is not signed by the site.
        """
        return self.call_for_arrays(path, payload, **arguments)[0]

    def call_for_arrays(
        self, path: str, payload: bytes = b"", **arguments: str | int
    ) -> tuple[Any, bytes]:
        """As `call`; the value, and the arrays that the answer carries."""
        syft = _syft()
        message = Call(
            site=self._server_uid,
            path=path,
            arguments=arguments,
            payload=payload,
            sent_at=int(time.time() * 1000),
            nonce=secrets.token_hex(16),
        ).to_bytes()
        signature = self._key.signing_key.sign(signed_part(CALL, message)).signature
        key = self._key.verify_key.verify_key.encode()
        head, arrays = self._opened(
            self._post("/api/v2/api_call", Envelope(key, signature, message).to_bytes())
        )
        answer = syft.deserialize(head, from_bytes=True)
        if isinstance(answer, syft.SyftError):
            findings = decode_refusal(answer.message)
            if findings is not None:
                raise RefusedError(getattr(self, "title", self.name), findings)
            raise FederationError(f"{self.name}: {answer.message}")
        return answer.value, arrays

    def _opened(self, body: bytes) -> tuple[bytes, bytes]:
        """Head and payload of an answer that this site signed."""
        envelope = open_envelope(body)
        try:
            if envelope is None or envelope.key.hex() != self._server_key:
                raise BadSignatureError
            VerifyKey(envelope.key).verify(
                signed_part(ANSWER, envelope.message), envelope.signature
            )
        except BadSignatureError as error:
            raise FederationError(
                f"the answer was not signed by {self.name}; do not go on"
            ) from error
        parts = split_message(envelope.message)
        if parts is None:
            raise FederationError(f"the answer of {self.name} cannot be read")
        return parts

    def __repr__(self) -> str:
        return f"Site({self.name!r}, {self.url!r}, datasets={len(self.datasets)})"

    def _get(self, path: str) -> bytes:
        return self._send("GET", path, None)

    def _post(self, path: str, body: str | bytes) -> bytes:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: str | bytes | None) -> bytes:
        lost = ConnectionLostError(f"{self.name} at {self.url} does not answer")
        try:
            with self._session.request(
                method, self.url + path, data=body, timeout=(CONNECT_S, ANSWER_S), stream=True
            ) as response:
                content = bytes(response.raw.read())  # at once: `content` joins pieces of 10 kB
        except requests.exceptions.SSLError as error:
            if not _is_about_the_certificate(error):
                raise lost from error  # the connection was cut in the middle of something
            raise FederationError(
                f"{self.name} at {self.url} shows a certificate that the authority in the roster "
                "did not sign; ask the hospital for its authority file"
            ) from error
        except urllib3.exceptions.HTTPError as error:  # the answer was cut off
            raise lost from error
        except OSError as error:
            if isinstance(error, requests.exceptions.RequestException):
                raise lost from error
            raise FederationError(
                f"the authority file {self._authority} of {self.name} cannot be read"
            ) from error
        self.bytes_sent += len(body or b"")
        self.bytes_received += len(content)
        if response.status_code == 413:
            text = content.decode(errors="replace")
            raise FederationError(f"{self.name}: {text or 'the call is too large'}")
        if response.status_code != 200:
            raise ConnectionLostError(f"{self.name} answered with HTTP {response.status_code}")
        return content


def _session(authority: str) -> requests.Session:
    """Connections for any number of threads at a time, of which some are kept."""
    session = requests.Session()
    session.trust_env = False  # no proxy, and no other authorities from the environment
    session.verify = authority
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=KEPT_CONNECTIONS))
    return session


def _is_about_the_certificate(error: BaseException | None) -> bool:
    """Whether an error of TLS comes from a certificate, and not from the connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def connect(
    roster: str | Path | Mapping[str, Any], *, email: str, password: str | Mapping[str, str]
) -> Federation:
    """Log in to every site of a roster, one thread per site.

    Args:
        roster: YAML file with `sites:`, a list of `name`, `url`, `authority` (paths are relative to
            the file), or the same as a mapping.
        email: The account, the same at each site.
        password: One for all sites, or site name -> password.

    Raises:
        FederationError: The roster is not valid, or a site does not let you in.
    """
    from federation.submission import Federation

    addresses = _read_roster(roster)

    def log_in(address: SiteAddress) -> Site:
        one = password if isinstance(password, str) else password.get(address.name)
        if one is None:
            raise FederationError(f"there is no password for {address.name}")
        return Site(address, email, one)

    _syft()  # imported once, before the threads
    with ThreadPoolExecutor(len(addresses)) as pool:
        return Federation(list(pool.map(log_in, addresses)))


def _read_roster(roster: str | Path | Mapping[str, Any]) -> list[SiteAddress]:
    folder = Path()
    if not isinstance(roster, Mapping):
        folder = Path(roster).parent
        try:
            roster = yaml.safe_load(Path(roster).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise FederationError(f"the roster {roster} cannot be read") from error
    entries = roster.get("sites") if isinstance(roster, Mapping) else None
    try:
        addresses = TypeAdapter(list[SiteAddress]).validate_python(entries)
    except ValidationError as error:
        sentences = "; ".join(validation_sentences(error, SiteAddress))
        raise FederationError(f"the roster is not valid: {sentences}") from error
    names = [a.name for a in addresses]
    if not names or len(set(names)) != len(names):
        raise FederationError("the roster needs at least one site, and each name once")
    return [a.model_copy(update={"authority": folder / a.authority}) for a in addresses]


class _Syft:
    """The few names of syft 0.9.5 that a call needs; imported late, for it takes seconds."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from syft.serde.deserialize import _deserialize
            from syft.service.response import SyftError
        self.SyftError, self.deserialize = SyftError, _deserialize


_loaded: list[_Syft] = []
_loading = threading.Lock()


def _syft() -> _Syft:
    with _loading:
        if not _loaded:
            _loaded.append(_Syft())
        return _loaded[0]
