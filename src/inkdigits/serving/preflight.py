"""What a service is made of, as the settings name it, and checked before anything is served."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from inkdigits.client import Client
from inkdigits.decision.prediction import Reader
from inkdigits.errors import BackendUnavailableError, ConfigError, InkdigitsError
from inkdigits.ink.decode import Limits
from inkdigits.reader import load
from inkdigits.serving.api.rate_limits import RateLimits
from inkdigits.serving.web.session import session_key
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.log.store import Store

ReaderLoader: TypeAlias = Callable[[Settings], Reader]

LOAD_TIMEOUT_S: Final = 120
"""Seconds that a model may take to load and to read its first picture."""

# Seconds between two warnings that the log is not open yet.
_WARNING_S: Final = 30.0

logger = logging.getLogger(__name__)


def load_reader(settings: Settings) -> Reader:
    """Load the artifact that the settings name (see ``reader.load``) or ask the model service.

    >>> load_reader(Settings(model_url="http://model:5000")).model_version
    'unknown'
    """
    if settings.model_url is not None:
        # A person waits, so it only repeats at once; the log is kept here, where feedback is given.
        how: dict[str, Any] = {"record": False, "retries": 2, "max_wait": 0.5}
        return Client(settings.model_url, api_key=settings.model_key, risk=settings.risk, **how)
    limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
    return load(settings.model_path, device=settings.device, limits=limits, risk=settings.risk)


def open_store(settings: Settings) -> Store | None:
    """Open the prediction log, whose database may be unavailable; None if none is kept.

    >>> open_store(Settings(page="off")) is None
    True
    """
    if not settings.keeps_log:
        return None
    from inkdigits.log.connections import Options
    from inkdigits.log.record import Shares
    from inkdigits.log.store import Store

    return Store(
        settings.log_url,
        outbox_dir=settings.outbox_folder,
        options=Options(
            wait_s=settings.log_wait_ms / 1000,
            synchronous=settings.sqlite_synchronous,
            pgbouncer=settings.pgbouncer == "on",
        ),
        retention_days=settings.retention_days,
        keep_pictures=settings.keep_pictures == "on",
        shares=Shares(audit=settings.audit_share, twice=settings.double_review),
    )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Load what connections are encrypted with; None without a certificate, or a ConfigError.

    >>> tls_context(Settings()) is None
    True
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise ConfigError("INKDIGITS_TLS_CERT and INKDIGITS_TLS_KEY are needed together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Asked for a passphrase, OpenSSL would wait for a terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the certificate {settings.tls_cert} with the key {settings.tls_key} cannot be used: "
            f"{error}"
        ) from None
    return context


def check(settings: Settings, make_reader: ReaderLoader) -> str:
    """Return the model's version, once the address, tracing, the model and the log can be used.

    A process that ends then loads the model and brings the log's schema up to date, before
    several workers would want to. An InkdigitsError says what cannot be used.

    >>> check(Settings(host="192.0.2.1"), None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.ConfigError: cannot listen on 192.0.2.1, port 5000: ...
    """
    _check_address(settings.host, settings.port)
    _check_tracing(settings)
    # Forked as the workers will be, so a loader that cannot be pickled will do.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_model, args=(sender, settings, make_reader))
    process.start()
    sender.close()
    try:
        if not receiver.poll(LOAD_TIMEOUT_S):
            process.kill()
            process.join()
            raise BackendUnavailableError(f"the model did not load within {LOAD_TIMEOUT_S} seconds")
        report: str | InkdigitsError = receiver.recv()
        if isinstance(report, str):
            report = _report_of_log(receiver)
    except EOFError:
        process.join()
        raise BackendUnavailableError(
            f"the process that tried the model ended with exit code {process.exitcode}"
        ) from None
    finally:
        receiver.close()
    process.join()
    if isinstance(report, InkdigitsError):
        raise report
    return report


def free_port(host: str, first: int) -> int:
    """Return the first of 100 ports from ``first`` on that is free; ``first`` where none is.

    >>> 5000 <= free_port("127.0.0.1", 5000) < 5100
    True
    """
    for port in range(first, min(first + 100, 65_536)):
        with suppress(ConfigError):
            _check_address(host, port)
            return port
    return first


def _check_address(host: str, port: int) -> None:
    """Make sure that nobody listens there: workers would share it, each by its own socket."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            # Without SO_REUSEPORT, so that a second service beside a first one does not start.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            by = ", on macOS most likely by AirPlay Receiver (System Settings, AirDrop & Handoff)"
            by = by if sys.platform == "darwin" and port == 5000 else ""
            raise ConfigError(
                f"port {port} on {host} is in use{by}; stop the other program, use --port auto to "
                "choose a free port, or set PORT"
            ) from None
        raise ConfigError(f"cannot listen on {host}, port {port}: {error}") from None


def _check_tracing(settings: Settings) -> None:
    if settings.otlp_endpoint is None:
        return
    try:
        import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        import_module("opentelemetry.sdk.trace")
    except ImportError as error:
        needs = "OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry"
        raise BackendUnavailableError.without("tracing", needs) from error


def _report_of_log(receiver: Connection) -> str | InkdigitsError:
    """Wait as long as it takes: a migration of the log may be a long one."""
    while not receiver.poll(_WARNING_S):
        logger.warning(
            "the model is loaded; the service waits for the database of the log, which another "
            "process migrates or locks"
        )
    report: str | InkdigitsError = receiver.recv()
    return report


def _report_model(sender: Connection, settings: Settings, make_reader: ReaderLoader) -> None:
    try:
        model_version = make_reader(settings).model_version
        sender.send(model_version)
        RateLimits(settings.rate_limit_url)
        if settings.page == "on":
            session_key(settings)
        store = open_store(settings)
        if store is not None:
            store.close()
        sender.send(model_version)
    except InkdigitsError as error:
        sender.send(error)
