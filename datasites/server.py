"""One site, one process: the syft datasite behind the gate, with TLS, and a socket for staff.

The network port answers four routes. Everything that the hospital's people do goes through a Unix
socket in the state directory (mode 0700), which no network reaches.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import logging
import logging.handlers
import os
import signal
import socket
import ssl
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

from datasites.audit_log import Event
from datasites.config import Site
from datasites.errors import ConfigurationError
from datasites.keys import load_identity
from datasites.open_site import OpenSite
from datasites.site_lock import only_one

LOGIN_BYTES = 10_000
STOPPING_S = 10
SWEEP_S = 60
"""How often the site looks for requests whose time is over."""
BINARY = "application/octet-stream"

logger = logging.getLogger(__name__)


def serve(site: Site, *, until_stdin_closes: bool = False) -> None:
    """Run a site until SIGTERM or Ctrl-C, or until standard input ends.

    Raises:
        ConfigurationError: Policy, identity or certificate is missing or invalid, or the site runs
            already, or its port is taken.
    """
    os.umask(0o077)
    _return_memory()
    # uvicorn raises the signal again when it has shut down; this ends the process in good order.
    signal.signal(signal.SIGTERM, _end_in_order)
    if until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
    _log_to(site.state / "site.log")
    running = "this site runs already; stop it first (SIGTERM to its process)"
    with only_one(site.state / "site.lock", running), _listening(site) as port:
        opened = OpenSite(site)
        try:
            _serve(opened, port)
        finally:
            opened.close()


def _serve(opened: OpenSite, port: socket.socket) -> None:
    from datasites.control import short_path
    from datasites.control_app import control_app
    from datasites.publishing import publish_all
    from datasites.recovery import recover
    from datasites.standing import expire_due

    site = opened.site
    datasite = _start_datasite(site)
    from datasites.syft_gate import Gate

    gate = Gate(opened, datasite)
    network = _Server(_network_app(gate, opened), opened)
    opened.audit.append(
        Event.SITE_STARTED,
        "site",
        site.config.name,
        url=site.url,
        sandbox=opened.sandbox_in_words,
    )
    opened.audit.append(
        Event.POLICY_IN_FORCE, "site", opened.policy.title, policy_sha256=opened.policy.sha256
    )
    recover(opened)
    gate.mirror_all_decisions()
    expire_due(opened, gate, dt.datetime.now(dt.UTC))
    _every(SWEEP_S, lambda: expire_due(opened, gate, dt.datetime.now(dt.UTC)))
    publish_all(opened, gate)
    site.control_socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(site.control_socket) as path:
        listener.bind(path)  # mode 0700: the umask is 077
    control = uvicorn.Server(
        uvicorn.Config(
            control_app(opened, gate),
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
    )
    thread = threading.Thread(target=control.run, args=([listener],), name="control", daemon=True)
    thread.start()
    try:
        network.run([port])
    finally:
        control.should_exit = True
        thread.join(timeout=10)
        site.control_socket.unlink(missing_ok=True)
        opened.audit.append(Event.SITE_STOPPED, "site", site.config.name)
        opened.audit.checkpoint()


def _return_memory() -> None:
    """Let the allocator give back what is freed: a site holds arrays for a moment, in many threads.

    Each thread would keep a heap of its own, as large as the largest calls that it answered.
    """
    libc = ctypes.CDLL(None)
    for option, value in ((-8, 2), (-3, 256 << 10), (-1, 1 << 20)):
        # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD; elsewhere than in glibc all stays.
        with contextlib.suppress(AttributeError):
            libc.mallopt(option, value)


def _every(seconds: float, what: Callable[[], object]) -> None:
    """Do something again and again as long as the process lives; a failure is logged."""

    def repeat() -> None:
        while True:
            time.sleep(seconds)
            try:
                what()
            except Exception:
                logger.exception("a periodic task failed")

    threading.Thread(target=repeat, name="periodic", daemon=True).start()


def _stop_at_end_of_stdin() -> None:
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def _end_in_order(*_: object) -> None:
    _end_at_the_latest()
    sys.exit(0)


def _end_at_the_latest() -> None:
    """End the process in `STOPPING_S`, come what may; what is on disk survives that at any point.

    An exception that a signal raises inside an import or a destructor is lost, and a thread may
    wait for a peer that is gone. The cages die with this process.
    """
    last = threading.Timer(STOPPING_S, os._exit, [0])
    last.daemon = True
    last.start()


class _Server(uvicorn.Server):
    """The network port: TLS only."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        _end_at_the_latest()
        self._opened.under_way.stop()  # who waits for a run is told to ask again
        super().handle_exit(sig, frame)

    def __init__(self, app: FastAPI, opened: OpenSite) -> None:
        site = opened.site
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                site.certificate, site.certificate_key
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"the certificate {site.certificate} or its key cannot be used"
            ) from error
        config = uvicorn.Config(
            app,
            ssl_certfile=str(site.certificate),
            ssl_keyfile=str(site.certificate_key),
            log_config=None,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,  # idle TLS connections linger; a cut run starts again
            h11_max_incomplete_event_size=65_536,
        )
        super().__init__(config)
        self._opened = opened


def _start_datasite(site: Site) -> Any:
    """Start syft's datasite; its settings are read from the environment when it is imported."""
    identity = load_identity(site.state)
    os.environ.update(
        SERVER_UID=identity.uid,
        SERVER_PRIVATE_KEY=identity.key,
        SYFT_TEMP_ROOT=str(site.state),
        MIN_SIZE_BLOB_STORAGE_MB="1024",
        DEFAULT_ROOT_EMAIL="root@sitegate.example",
        DEFAULT_ROOT_PASSWORD=identity.root_password,
        DEFAULT_ROOT_USERNAME="site",
    )
    for name in ("DEV_MODE", "ENABLE_SIGNUP", "TRACING", "N_CONSUMERS"):
        os.environ.pop(name, None)
    warnings.filterwarnings("ignore", module="syft")
    logging.getLogger("syft").setLevel(logging.CRITICAL + 1)
    with contextlib.redirect_stdout(None):
        with _without_torch():
            from syft.server.datasite import Datasite

        datasite = Datasite(
            name=site.config.name,
            db_url=f"sqlite:///{site.state / 'datasite.db'}",
            reset=False,
            n_consumers=0,
        )
    # syft sets uvicorn's loggers to CRITICAL, and prints part of a hash of its key
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    for secret in ("SERVER_PRIVATE_KEY", "DEFAULT_ROOT_PASSWORD"):
        os.environ.pop(secret, None)
    return datasite


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Let imports find no torch: 250 MB and a second, for no use outside the cages.

    syft 0.9.5 tries to import it, to register how a tensor is written, and goes on without.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # what `import` takes for "not there"
    try:
        yield
    finally:
        del sys.modules["torch"]


def _network_app(gate: Any, opened: OpenSite) -> FastAPI:
    app = FastAPI(title="sitegate", docs_url=None, redoc_url=None, openapi_url=None)
    limit = int(opened.config.max_body_mb * 1e6)

    @app.get("/api/v2/")
    def health() -> dict[str, str]:
        return {"status": "ok", "site": opened.config.name}

    @app.get("/api/v2/metadata")
    def metadata() -> dict[str, str]:
        return gate.public_metadata()  # type: ignore[no-any-return]

    @app.post("/api/v2/login")
    async def login(request: Request) -> Response:
        body = await _read(request, LOGIN_BYTES)
        if body is None:
            return Response(status_code=413)
        address = request.client.host if request.client else "unknown"
        return await _in_thread(gate.log_in_with, body, address)

    @app.post("/api/v2/api_call")
    async def api_call(request: Request) -> Response:
        body = await _read(request, limit)
        if body is None:
            return Response(
                f"The call is larger than the {opened.config.max_body_mb:g} MB that this site "
                "reads.",
                status_code=413,
            )
        return await _in_thread(gate.answer, body)

    return app


async def _in_thread(function: Any, *arguments: Any) -> Response:
    from fastapi.concurrency import run_in_threadpool

    content = await run_in_threadpool(function, *arguments)
    return Response(content, media_type=BINARY)


async def _read(request: Request, limit: int) -> bytes | None:
    """The body, or None as soon as it is longer than `limit` bytes."""
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > limit:
            return None
    return bytes(parts)


@contextlib.contextmanager
def _listening(site: Site) -> Iterator[socket.socket]:
    """The network port, bound before anything else is started; a taken one is refused."""
    host, port = site.config.host, site.config.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} on {host} cannot be had ({error.strerror}); another program may use "
                "it. Change `port` or `host` in site.yaml"
            ) from error
        yield bound


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=5)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s %(message)s")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("datasites").setLevel(logging.INFO)
