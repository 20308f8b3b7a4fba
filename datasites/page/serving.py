"""The page's process: its port, its certificate, and how it ends."""

from __future__ import annotations

import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from datasites.config import Site
from datasites.errors import ConfigurationError
from datasites.page.app import page_app
from datasites.page.settings import PageSettings, allowed_names, is_loopback


def page_settings(site: Site, host: str, port: int, *, tls: bool) -> PageSettings:
    """How the page of a site is served.

    Raises:
        ConfigurationError: It would be reached from other machines without TLS, or the certificate
            cannot be used.
    """
    if not tls and not is_loopback(host):
        raise ConfigurationError(
            f"{host} is reached from other machines, and passwords would cross the network in the "
            "clear; add --tls, or listen on 127.0.0.1"
        )
    if tls:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                site.certificate, site.certificate_key
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"the certificate {site.certificate} or its key cannot be used"
            ) from error
    names = allowed_names(host, site.certificate if tls else None)
    return PageSettings(site.control_socket, host, port, tls, names)


def serve_page(site: Site, settings: PageSettings, ready: Callable[[], None]) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Args:
        site: The site.
        settings: How.
        ready: Called once the port is bound.

    Raises:
        ConfigurationError: The port is taken.
    """
    with _listening(settings) as port:
        # uvicorn raises the signal again when it has shut down; this ends the process in good order
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        ready()
        server = uvicorn.Server(
            uvicorn.Config(
                page_app(settings),
                ssl_certfile=str(site.certificate) if settings.tls else None,
                ssl_keyfile=str(site.certificate_key) if settings.tls else None,
                log_config=None,
                lifespan="off",
                server_header=False,
                proxy_headers=False,  # a session is bound to the address that truly calls
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=65_536,
            )
        )
        server.run([port])


@contextmanager
def _listening(settings: PageSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"port {settings.port} on {settings.host} cannot be had ({error.strerror}); "
                "another program may use it. Name another with --port"
            ) from error
        yield bound
