"""Where the page listens, by which names it may be called, and where its site is."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from datasites.errors import ConfigurationError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class PageSettings:
    """How the page is served.

    Attributes:
        socket: The site's control socket.
        host: Address to listen on.
        port: TCP port.
        tls: Whether it is served over TLS.
        names: Names and addresses by which a browser may call it.
    """

    socket: Path
    host: str = "127.0.0.1"
    port: int = 8450
    tls: bool = False
    names: frozenset[str] = LOOPBACK_NAMES

    @property
    def scheme(self) -> str:
        """`https` or `http`."""
        return "https" if self.tls else "http"

    @property
    def url(self) -> str:
        """Where people reach the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/"

    @property
    def cookie(self) -> str:
        """Name of the session's cookie.

        Browsers keep one jar per host for all ports, so the port keeps two pages on one machine
        apart. With the prefix a browser takes the cookie over TLS and from this very host only.
        """
        return f"{'__Host-' if self.tls else ''}sitegate-{self.port}"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_names(host: str, certificate: Path | None) -> frozenset[str]:
    """The names a browser may call the page by: loopback, the host, and those of the certificate.

    Raises:
        ConfigurationError: The certificate cannot be read.
    """
    if certificate is None:
        return LOOPBACK_NAMES | {host.lower()}
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise ConfigurationError(
            f"the certificate {certificate} cannot be read, or names no host"
        ) from error
    addresses = names.get_values_for_type(x509.IPAddress)
    called = [host, *names.get_values_for_type(x509.DNSName), *map(str, addresses)]
    return LOOPBACK_NAMES | {name.lower() for name in called}
