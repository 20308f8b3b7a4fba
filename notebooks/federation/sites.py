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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests
import urllib3
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from numpy.typing import NDArray

from federation.dataset_table import dataset_table
from federation.errors import (
    AbsentSiteWarning,
    ConnectionLostError,
    FederationError,
    RefusedError,
    UntrustedError,
)
from federation.roster import SiteAddress, read_roster
from federation.side_by_side import ask_each
from federation.study_checks import Quorum, check_quorum, holds
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
from policies.strict import some

if TYPE_CHECKING:
    from federation.submission import Federation

CONNECT_S = 10
ANSWER_S = 60
"""A site answers within 20 s, if only to say that a run is under way."""
KEPT_CONNECTIONS = 16
"""To one site; more may be open at a time."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset version as its site describes it."""

    site: str
    name: str
    version: str
    card: dict[str, Any]
    asset: str

    def _repr_html_(self) -> str:
        return dataset_table(self.name, self.version, self.card)


@dataclass(frozen=True, slots=True)
class Described:
    """What a site says of itself: its policy, who you are there, its datasets."""

    policy: Policy
    requester: Requester
    datasets: list[Dataset]


class Site:
    """One hospital's datasite, as a researcher with an account sees it.

    A site that did not answer yet is logged in to with the first call that it answers.
    """

    def __init__(self, address: SiteAddress, email: str, password: str) -> None:
        self.name, self.url, self.email = address.name, address.url, email
        self.title = address.name
        self._password, self._authority = password, str(address.authority)
        self._session = _session(self.name, self._authority)
        self._logging_in = threading.Lock()
        self._key: Any = None
        self._described: Described | None = None
        self.bytes_sent = self.bytes_received = 0
        """What calls and answers had in their bodies since the connection was made."""

    @property
    def is_absent(self) -> bool:
        """Whether the site has not answered since `connect`."""
        return self._described is None

    def log_in(self) -> Described:
        """Log in and read the site's description, if that has not been done.

        Raises:
            ConnectionLostError: The site does not answer.
            FederationError: It does not let you in, or is no datasite.
        """
        with self._logging_in:
            if self._described is None:
                self._log_in()
                self._described = self._describe()
            return self._described

    def _log_in(self) -> None:
        syft = _syft()
        try:
            metadata = json.loads(self._get("/api/v2/metadata"))
            self._server_uid = str(metadata["server_uid"])
            self._server_key = str(metadata["verify_key"])
        except (ValueError, KeyError, TypeError) as error:
            raise FederationError(
                f"what answers at {self.url} is no datasite; look at the `url` of {self.name} in "
                "the roster, or ask the hospital for its address"
            ) from error
        account = {"email": self.email, "password": self._password}
        login = self._post("/api/v2/login", json.dumps(account))
        answer = syft.deserialize(login, from_bytes=True)
        if isinstance(answer, syft.SyftError):
            raise FederationError(
                f"{self.name} did not log {self.email} in: {answer.message}. Look at both; the "
                "hospital makes accounts and sets passwords anew"
            )
        self._key = answer.signing_key

    def refresh(self) -> None:
        """Read the site's description again: title, policy, datasets."""
        self.log_in()
        self._described = self._describe()

    def _describe(self) -> Described:
        plain = json.loads(self._call("sitegate.describe")[0])
        self.title = plain["title"]
        return Described(
            policy=Policy.model_validate(plain["policy"]),
            requester=Requester(self.email, plain["institution"]),
            datasets=[
                Dataset(self.name, d["name"], d["version"], d["card"], d["asset"])
                for d in plain["datasets"]
            ],
        )

    @property
    def policy(self) -> Policy:
        """What the hospital allows."""
        return self.log_in().policy

    @property
    def requester(self) -> Requester:
        """Who you are, as the hospital wrote it down."""
        return self.log_in().requester

    @property
    def datasets(self) -> list[Dataset]:
        """The dataset versions that the site publishes."""
        return self.log_in().datasets

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
        self.log_in()
        return self._call(path, payload, **arguments)

    def _call(self, path: str, payload: bytes = b"", **arguments: str | int) -> tuple[Any, bytes]:
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
                raise RefusedError(self.title, findings)
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
            raise UntrustedError(
                f"the answer was not signed by {self.name}; do not go on, and tell the hospital"
            ) from error
        parts = split_message(envelope.message)
        if parts is None:
            raise UntrustedError(f"the answer of {self.name} cannot be read; tell the hospital")
        return parts

    def __repr__(self) -> str:
        known = "absent" if self._described is None else f"datasets={len(self._described.datasets)}"
        return f"Site({self.name!r}, {self.url!r}, {known})"

    def _get(self, path: str) -> bytes:
        return self._send("GET", path, None)

    def _post(self, path: str, body: str | bytes) -> bytes:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: str | bytes | None) -> bytes:
        lost = ConnectionLostError(
            f"{self.name} at {self.url} does not answer; try again, and ask the hospital whether "
            "its site is up if that does not help"
        )
        try:
            with self._session.request(
                method, self.url + path, data=body, timeout=(CONNECT_S, ANSWER_S), stream=True
            ) as response:
                content = bytes(response.raw.read())  # at once: `content` joins pieces of 10 kB
        except requests.exceptions.SSLError as error:
            wrong = _certificate_error(error)
            if wrong is None:
                raise lost from error  # the connection was cut in the middle of something
            raise UntrustedError(
                f"{self.name} at {self.url} {_about_the_certificate(wrong)}"
            ) from error
        except urllib3.exceptions.HTTPError as error:  # the answer was cut off
            raise lost from error
        except OSError as error:
            if isinstance(error, requests.exceptions.RequestException):
                raise lost from error
            raise _unreadable_authority(self.name, self._authority) from error
        self.bytes_sent += len(body or b"")
        self.bytes_received += len(content)
        if response.status_code == 413:
            text = content.decode(errors="replace")
            raise FederationError(f"{self.name}: {text or 'the call is too large'}")
        if response.status_code != 200:
            raise ConnectionLostError(f"{self.name} answered with HTTP {response.status_code}")
        return content


def _session(name: str, authority: str) -> requests.Session:
    """Connections for any number of threads at a time, of which some are kept."""
    try:
        ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable_authority(name, authority) from error
    session = requests.Session()
    session.trust_env = False  # no proxy, and no other authorities from the environment
    session.verify = authority
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=KEPT_CONNECTIONS))
    return session


def _unreadable_authority(name: str, file: str) -> FederationError:
    return FederationError(
        f"the authority file {file} of {name} cannot be read; the hospital gives it out, and the "
        "roster says where it lies"
    )


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What in an error of TLS comes from a certificate, and not from the connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _about_the_certificate(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate, and what to do; the numbers are those of OpenSSL."""
    match error.verify_code:
        case 10:
            return "shows a certificate that has expired; ask the hospital to renew it"
        case 62 | 64:
            return (
                "shows a certificate for another address; write the address into the roster as the "
                "hospital gives it"
            )
        case _:
            return (
                "shows a certificate that the authority in the roster did not sign; ask the "
                "hospital for its authority file, and do not log in before you have it"
            )


def connect(
    roster: str | Path | Mapping[str, Any],
    *,
    email: str,
    password: str | Mapping[str, str],
    quorum: Quorum = None,
) -> Federation:
    """Log in to every site of a roster, one thread per site.

    Args:
        roster: YAML file with `sites:`, a list of `name`, `url`, `authority` (paths are relative to
            the file), or the same as a mapping.
        email: The account, the same at each site.
        password: One for all sites, or site name -> password.
        quorum: How many sites, or which ones, have to answer now; all by default. A site that is
            absent is warned about, and logged in to when it answers.

    Raises:
        FederationError: The roster or the quorum is not valid, a site does not let you in, or too
            few answer.
    """
    from federation.submission import Federation

    addresses = read_roster(roster)
    check_quorum(quorum, [address.name for address in addresses])
    by_name = {address.name: address for address in addresses}
    if not isinstance(password, str) and (lacking := set(by_name) - set(password)):
        raise FederationError(
            f"there is no password for {some(lacking)}; give one for each site of the roster"
        )

    sites = {
        name: Site(address, email, password if isinstance(password, str) else password[name])
        for name, address in by_name.items()
    }
    _syft()  # imported once, before the threads
    answered, failed = ask_each(by_name, lambda name: sites[name].log_in())
    for error in failed.values():
        if not isinstance(error, FederationError):
            raise error
    absent = {name for name, error in failed.items() if isinstance(error, ConnectionLostError)}
    if quorum is not None and absent == set(failed) and holds(quorum, answered, list(by_name)):
        for name in sorted(absent):
            told = f"{failed[name]}. The others are there; it is logged in to when it answers"
            warnings.warn(told, AbsentSiteWarning, stacklevel=2)
    elif len(failed) == 1:
        raise next(iter(failed.values()))
    elif failed:
        told = "\n".join(f"- {failed[name]}" for name in by_name if name in failed)
        raise FederationError(f"{len(failed)} of {len(by_name)} sites did not let you in:\n{told}")
    return Federation(list(sites.values()))


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
