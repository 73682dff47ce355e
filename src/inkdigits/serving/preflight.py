"""What is looked at before anything is served: address, certificate, keys, model and log.

All of it is looked at again before a running service takes a new model up (``reload``).
"""

from __future__ import annotations

import errno
import multiprocessing
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from inkdigits.decision.prediction import Reader
from inkdigits.errors import BackendUnavailableError, ConfigError, InkdigitsError
from inkdigits.model.artifact import read_artifact, write_atomically
from inkdigits.serving.api.keys import load_keys
from inkdigits.serving.web.session import session_key
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.log.store import Store

ReaderLoader: TypeAlias = Callable[[Settings], Reader]

TRIAL_TIMEOUT_S: Final = 120
"""Seconds that a model may take to load and to read its first picture."""


def open_store(settings: Settings) -> Store | None:
    """Open the prediction log, unless none is kept.

    Args:
        settings: where the log is, and for how long it keeps what.

    Returns:
        The log, whose database may be away; None if the settings want none.

    Raises:
        InkdigitsError: a URL, folder or schema that can't be used.
    """
    if not settings.keeps_log:
        return None
    from inkdigits.log.database import Options
    from inkdigits.log.store import Store

    return Store.open(
        settings.log_url,
        outbox_dir=settings.outbox_folder,
        options=Options(
            wait_s=settings.log_wait_ms / 1000,
            synchronous=settings.sqlite_synchronous,
            pgbouncer=settings.pgbouncer == "on",
        ),
        retention_days=settings.retention_days,
        keep_pictures=settings.keep_pictures == "on",
    )


def bind_sockets(host: str, port: int, workers: int) -> list[socket.socket]:
    """Bind sockets to an address that nobody else listens on; they don't listen yet.

    The parent keeps them for its workers, so that what the kernel has accepted for a worker that
    dies is answered by the one which takes its place.

    Args:
        host: name or address.
        port: TCP port.
        workers: processes that will accept connections.

    Returns:
        On Linux one socket a worker, among which the kernel spreads connections; on one shared
        socket a few kept-alive connections may all end up with one worker. Elsewhere the option
        doesn't spread anything, and they share one.

    Raises:
        ConfigError: in use, not allowed, or not an address of this machine.
    """
    spreads = sys.platform == "linux"
    listeners: list[socket.socket] = []
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            # Ours share the port on purpose, so a second service beside a first one would start.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        for _ in range(workers if spreads else 1):
            listener = socket.socket(family, kind)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if spreads:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind(address)
    except OSError as error:
        for listener in listeners:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use; stop what uses it or set PORT"
            ) from None
        raise ConfigError(f"can't listen on {host}, port {port}: {error}") from None
    return listeners


def check_certificate(settings: Settings) -> None:
    """Make sure that the certificate and its key belong together, if there are any.

    Raises:
        ConfigError: one is missing, can't be read, or isn't the other's.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return
    if settings.tls_cert is None or settings.tls_key is None:
        raise ConfigError("INKDIGITS_TLS_CERT and INKDIGITS_TLS_KEY are needed together")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert,
            settings.tls_key,
            # Asked for a passphrase, OpenSSL would wait for a terminal.
            password="",
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the certificate {settings.tls_cert} with the key {settings.tls_key} can't be used: "
            f"{error}"
        ) from None


def check_tracing(settings: Settings) -> None:
    """Make sure that traces can be made, if they are to be.

    Raises:
        BackendUnavailableError: OpenTelemetry isn't installed.
    """
    if settings.otlp_endpoint is None:
        return
    try:
        import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        import_module("opentelemetry.sdk.trace")
    except ImportError as error:
        raise BackendUnavailableError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT needs: pip install 'inkdigits[tracing]' ({error})"
        ) from error


def take(settings: Settings, copy: Path, make_reader: ReaderLoader) -> tuple[Settings, str]:
    """Check what the settings name, and take it out of the reach of those who may change it.

    A worker that starts later, in place of one that died, then finds what was checked.

    Args:
        settings: what the operator has set.
        copy: where to put a copy of the artifact.
        make_reader: loads the reader.

    Returns:
        The settings with the copy as ``model_path`` and the file's keys in ``api_keys``, and the
        model's version.

    Raises:
        InkdigitsError: something can't be used; the copy may be there all the same.
    """
    check_certificate(settings)
    check_tracing(settings)
    keys = tuple((key.name, key.digest) for key in load_keys(settings))
    taken = replace(settings, api_keys=keys, api_keys_file=None)
    if settings.model_url is None:
        write_atomically(copy, read_artifact(settings.model_path))
        taken = replace(taken, model_path=copy)
    return taken, check_model(taken, make_reader)


def check_model(settings: Settings, make_reader: ReaderLoader) -> str:
    """Load the model and open the log in a process of its own, and let them go.

    The log's schema is brought up to date here, before several workers would want to.

    Args:
        settings: what to load it by.
        make_reader: loads the reader.

    Returns:
        The model's version.

    Raises:
        InkdigitsError: the model doesn't load, or the log can't be used.
        BackendUnavailableError: the process ended without a word, such as for want of memory, or
            didn't end.
    """
    # Forked as the workers will be, so a loader that can't be pickled will do.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_model, args=(sender, settings, make_reader))
    process.start()
    sender.close()
    try:
        if not receiver.poll(TRIAL_TIMEOUT_S):
            process.kill()
            process.join()
            raise BackendUnavailableError(
                f"the model wasn't loaded within {TRIAL_TIMEOUT_S} seconds"
            )
        report: str | InkdigitsError = receiver.recv()
    except EOFError:
        process.join()
        raise BackendUnavailableError(
            f"the process that was to try the model ended with exit code {process.exitcode}"
        ) from None
    finally:
        receiver.close()
    process.join()
    if isinstance(report, InkdigitsError):
        raise report
    return report


def _report_model(sender: Connection, settings: Settings, make_reader: ReaderLoader) -> None:
    try:
        model_version = make_reader(settings).model_version
        store = open_store(settings)
        if store is not None:
            store.close()
        if settings.page == "on":
            session_key(settings)
        sender.send(model_version)
    except InkdigitsError as error:
        sender.send(error)
