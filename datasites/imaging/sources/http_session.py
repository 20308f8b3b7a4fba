"""An HTTP session with a PACS: its credentials, its certificate, and the limits of its answers."""

from __future__ import annotations

import base64
import ipaddress
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from datasites.imaging.problems import UnreadableSourceError

TOKEN, USER, PASSWORD = "SITEGATE_PACS_TOKEN", "SITEGATE_PACS_USER", "SITEGATE_PACS_PASSWORD"


class TooLongError(requests.exceptions.RequestException):
    """An answer has more bytes than it may have."""


class PacsSession(requests.Session):
    """Speaks with one address only, and sends its credentials nowhere else.

    Proxies, `.netrc` and certificates that the environment names are not used.

    Attributes:
        is_warned: The last answer had a warning, which is how a search says that there is more
            (DICOM PS3.18 8.3.4.4).
    """

    def __init__(self, address: str, *, ca_file: Path | None, authorization: str | None) -> None:
        super().__init__()
        self.trust_env, self.is_warned = False, False
        self._origin = _origin(urlsplit(address))
        self.verify = str(ca_file) if ca_file else True
        if authorization is not None:
            self.headers["Authorization"] = authorization

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """As `requests.Session.request`; the `Host` is the one of the address, with its port.

        dicomweb-client 0.61.2 sets a `Host` without the port, which a reverse proxy answers with
        redirects to somewhere else.
        """
        headers = options.get("headers") or {}
        options["headers"] = {name: text for name, text in headers.items() if name != "Host"}
        answer = super().request(*args, **options)
        self.is_warned = "Warning" in answer.headers
        return answer

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where an answer leads.

        Raises:
            UnreadableSourceError: To another host, port or protocol.
        """
        target = super().get_redirect_target(resp)
        if target and _origin(urlsplit(urljoin(resp.url, target))) != self._origin:
            resp.close()
            raise UnreadableSourceError(
                "the PACS leads on to another address, which is not followed because the "
                "credentials would go there too; if that address is right, name it instead"
            )
        return target


class LimitedAdapter(HTTPAdapter):
    """Breaks an answer off after `maximum_bytes`, counted after it was unpacked."""

    def __init__(self, maximum_bytes: int) -> None:
        self._maximum_bytes = maximum_bytes
        super().__init__(max_retries=0)

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """As `HTTPAdapter.build_response`, with a body that ends in an error past the limit."""
        response = super().build_response(req, resp)
        response.raw = _Limited(resp, self._maximum_bytes)
        return response


class _Limited:
    """The body of an answer, as urllib3 gives it, up to a limit."""

    def __init__(self, raw: Any, maximum_bytes: int) -> None:
        self._raw, self._left = raw, maximum_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amount: int, decode_content: bool = True) -> Iterator[bytes]:
        for chunk in self._raw.stream(amount, decode_content=decode_content):
            self._left -= len(chunk)
            if self._left < 0:
                self._raw.close()
                raise TooLongError
            yield chunk


def check_address(address: str, *, allow_plain_http: bool) -> str:
    """The address of a DICOMweb service, without a slash at its end.

    Raises:
        UnreadableSourceError: It is no such address, holds a password, or is not encrypted.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise UnreadableSourceError(
            "the address of a DICOMweb service looks like https://pacs.hospital.example/dicom-web"
        )
    if parts.username is not None or parts.password is not None:
        raise UnreadableSourceError(
            f"the address holds a user or a password; take them out and set {USER} and {PASSWORD}"
        )
    if parts.query or parts.fragment:
        raise UnreadableSourceError("the address of a DICOMweb service has no `?` and no `#`")
    if parts.scheme == "http" and not allow_plain_http and not is_loopback(host):
        raise UnreadableSourceError(
            "http to another machine shows images and passwords to the network; use https, or "
            "allow plain http explicitly where the network between is trusted"
        )
    return address.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_authorization(environment: Mapping[str, str] = os.environ) -> str | None:
    """The `Authorization` header for the credentials in the environment, if there are any.

    Raises:
        UnreadableSourceError: There are two kinds, or half of one.
    """
    token, user, password = (environment.get(name) for name in (TOKEN, USER, PASSWORD))
    if token and (user or password):
        raise UnreadableSourceError(f"{TOKEN} and {USER} are both set; unset one of them")
    if bool(user) != bool(password):
        raise UnreadableSourceError(f"{USER} and {PASSWORD} belong together; one is not set")
    if token:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise UnreadableSourceError(f"{TOKEN} holds characters that no bearer token has")
        return f"Bearer {token}"
    if user and password:
        if ":" in user:
            raise UnreadableSourceError(f"{USER} holds a colon, which basic authentication forbids")
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None


def check_ca_file(path: Path | None) -> None:
    """Do nothing if a file holds certificates, or none is named.

    Raises:
        UnreadableSourceError: It is missing or holds none.
    """
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError:  # ssl.SSLError is one
        raise UnreadableSourceError(
            "the CA file is missing or holds no certificate in PEM form"
        ) from None


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
