"""Gunicorn around the application: the one arrangement for ``inkdigits serve`` and for Docker.

The model is loaded in each worker, after the fork: a process that inherits ONNX Runtime from its
parent waits for ever for the parent's threads when it ends. Before the first worker a process of
its own loads the model and lets it go, so that a model that doesn't load is an error at start and
not a worker that dies for ever.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn, TypeAlias

from flask import Flask

from inkdigits.access import load_keys
from inkdigits.app import create_app
from inkdigits.config import Settings
from inkdigits.decoding import Limits
from inkdigits.errors import BackendUnavailableError, ConfigError, InkdigitsError
from inkdigits.inference import Reader, load
from inkdigits.logs import configure_logging, resolve_format
from inkdigits.metrics import Metrics, forget_process, shared_folder
from inkdigits.remote import RemoteReader
from inkdigits.store import Store
from inkdigits.web.session import session_key

ReaderLoader: TypeAlias = Callable[[Settings], Reader]

# Seconds without a byte of a request before its client counts as gone. Without it four clients
# with false Content-Lengths would hold a worker's four threads for ever.
READ_TIMEOUT = 20
# Seconds an idle connection is kept, longer than the pools of ordinary clients keep it unused.
KEEPALIVE = 15
# Seconds without a sign of life from a worker's main loop before it is killed and replaced.
HEARTBEAT_TIMEOUT = 60
_WORKER_BOOT_ERROR = 3  # Gunicorn stops as a whole when a worker exits with it.

logger = logging.getLogger(__name__)


def load_reader(settings: Settings) -> Reader:
    """Load the artifact that the settings name, on the CPU, or reach for the model service.

    Args:
        settings: ``risk``, and ``model_url``; or ``model_path`` and the limits on pictures.

    Returns:
        The reader. A model service need not be there yet.

    Raises:
        ArtifactError: the artifact is missing, damaged or of another version.
    """
    if settings.model_url is not None:
        return RemoteReader(settings.model_url, key=settings.model_key, risk=settings.risk)
    return load(
        settings.model_path,
        limits=Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels),
        risk=settings.risk,
    )


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
    return Store.open(
        settings.log_url,
        spool_dir=settings.spool_folder,
        retention_days=settings.retention_days,
        keep_pictures=settings.keep_pictures == "on",
    )


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Translate the settings into Gunicorn's.

    Args:
        settings: what the operator has set.

    Returns:
        Gunicorn's settings by name.
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options: dict[str, Any] = {
        "bind": [f"{host}:{settings.port}"],
        "worker_class": "gthread",
        "workers": settings.worker_count,
        "threads": settings.threads,
        "preload_app": False,
        # On Linux each worker listens for itself and the kernel spreads the connections; on one
        # shared socket a few kept-alive connections may all end up with one worker. Elsewhere
        # the option doesn't spread anything.
        "reuse_port": sys.platform == "linux",
        "timeout": HEARTBEAT_TIMEOUT,
        "graceful_timeout": settings.graceful_timeout,
        "keepalive": KEEPALIVE,
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        # The application logs its own line a request.
        "accesslog": None,
        "loglevel": "info" if settings.log_level == "debug" else "warning",
        # X-Forwarded-For is read by the application, from the proxies that it is told to trust.
        "forwarded_allow_ips": "",
        "control_socket_disable": True,
        "proc_name": "inkdigits",
    }
    if settings.tls_cert is not None and settings.tls_key is not None:
        options |= {"certfile": str(settings.tls_cert), "keyfile": str(settings.tls_key)}
    if os.access("/dev/shm", os.W_OK):  # noqa: S108  (for Gunicorn's unnamed heartbeat files)
        # On a disk a heartbeat can block for seconds, and the worker would be killed for it.
        options["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
    return options


def serve(settings: Settings, make_reader: ReaderLoader = load_reader) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C, then finish the requests in flight.

    Configures the process's logging. Ends with SystemExit, of status 0 after an ordinary stop.

    Args:
        settings: what the operator has set.
        make_reader: loads the reader; called in a process of its own as a check, then in each
            worker.

    Raises:
        BackendUnavailableError: Gunicorn doesn't run on this system.
        ConfigError: the address is in use, or isn't this machine's; or the certificate or the API
            keys can't be used.
        InkdigitsError: the model doesn't load, or the prediction log can't be used.
    """
    configure_logging(settings.log_format, settings.log_level)
    try:
        from gunicorn.app.base import BaseApplication
        from gunicorn.glogging import Logger
    except ImportError as error:
        raise BackendUnavailableError(
            f"inkdigits serve needs Gunicorn, which runs on Linux and macOS ({error}); "
            "on Windows use Docker or WSL"
        ) from error
    check_certificate(settings)
    if settings.tls_cert is not None:
        settings = replace(settings, https="on")
    load_keys(settings)
    check_address(settings.host, settings.port)
    model_version = check_model(settings, make_reader)

    class PropagatingLogger(Logger):  # type: ignore[misc]
        """Gunicorn's own lines, in the format of all others."""

        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            self.error_log.handlers.clear()
            self.error_log.propagate = True

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = gunicorn_options(settings)
            options["logger_class"] = PropagatingLogger
            options["post_worker_init"] = started
            options["child_exit"] = ended
            for name, value in options.items():
                # Gunicorn before 25.1 has no control socket to disable.
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Flask:
            try:
                reader = make_reader(settings)
            except InkdigitsError as error:
                logger.critical("a worker can't load the model: %s", error)
                sys.exit(_WORKER_BOOT_ERROR)
            try:
                return create_app(settings, reader, open_store(settings), Metrics(folder))
            except InkdigitsError as error:
                logger.critical("a worker can't start: %s", error)
                sys.exit(_WORKER_BOOT_ERROR)

    def started(worker: Any) -> None:
        for listener in worker.sockets:
            bound_reads(listener, READ_TIMEOUT)
        for stop in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(stop, _stop_worker)
        if worker.age == 1:
            _announce(settings, model_version)

    def ended(_server: Any, worker: Any) -> None:
        forget_process(folder, worker.pid)

    with shared_folder() as folder:
        Server().run()
    # run() ends by SystemExit in every case but a RuntimeError, which it has printed.
    sys.exit(1)


def check_address(host: str, port: int) -> None:
    """Make sure that the address can be listened on, and that nobody else does.

    Gunicorn's workers share the port on purpose, so a second service beside a first one would
    start, and take some of its requests.

    Args:
        host: name or address.
        port: TCP port.

    Raises:
        ConfigError: in use, not allowed, or not an address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use; stop what uses it or set PORT"
            ) from None
        raise ConfigError(f"can't listen on {host}, port {port}: {error}") from None


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
        BackendUnavailableError: the process ended without a word, such as for want of memory.
    """
    # Forked as the workers will be, so a loader that can't be pickled will do.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_model, args=(sender, settings, make_reader))
    process.start()
    sender.close()
    try:
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


def bound_reads(listener: socket.socket, seconds: int) -> None:
    """Let a read on any connection that the listener accepts fail after a silence.

    Gunicorn's threaded worker sets no timeout while it reads a request. The option is inherited
    by accepted connections and holds for headers and bodies alike.

    Args:
        listener: a listening socket.
        seconds: length of the silence.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, 0))


def _stop_worker(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Gunicorn's own handler shuts the thread pool down, whose lock the interrupted code may hold:
    # Ctrl-C shortly after a start then hung until the graceful timeout. The pool's threads are
    # joined at exit anyway.
    sys.exit(0)


def _announce(settings: Settings, model_version: str) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    line = (
        f"Inkdigits {version('inkdigits')} (model {model_version}) on "
        f"{scheme}://{host}:{settings.port} — Ctrl-C stops"
    )
    if not (settings.is_local or settings.has_keys):
        logger.warning(
            "whoever reaches %s may use the service: it asks for no API key "
            "(INKDIGITS_API_KEYS_FILE)",
            settings.host,
        )
    if resolve_format(settings.log_format, sys.stderr) == "text":
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    else:
        logger.info(line)
