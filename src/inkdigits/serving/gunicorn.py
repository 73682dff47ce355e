"""Gunicorn around the application: the one arrangement for ``inkdigits serve`` and for Docker.

The model is loaded in each worker, after the fork: a process that inherits ONNX Runtime from its
parent waits for ever for the parent's threads when it ends. Before the first worker a process of
its own loads the model and lets it go (``preflight``), so that a model that doesn't load is an
error at start and not a worker that dies for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flask import Flask

from inkdigits.client import Client
from inkdigits.decision.prediction import Reader
from inkdigits.errors import BackendUnavailableError, InkdigitsError
from inkdigits.ink.decode import Limits
from inkdigits.model.allocator import return_freed_memory, use_one_heap
from inkdigits.model.artifact import shipped_artifact
from inkdigits.reader import load
from inkdigits.serving.app import create_app
from inkdigits.serving.monitoring.logging import configure_logging, resolve_format
from inkdigits.serving.monitoring.metrics import Metrics, forget_process, shared_folder
from inkdigits.serving.preflight import ReaderLoader, bind_sockets, check_certificate, open_store
from inkdigits.settings import Settings

# Seconds without a byte of a request before its client counts as gone. Without it four clients
# with false Content-Lengths would hold a worker's four threads for ever.
READ_TIMEOUT = 20
# Seconds an idle connection is kept, longer than the pools of ordinary clients keep it unused.
KEEPALIVE = 15
# Seconds without a sign of life from a worker's main loop before it is killed and replaced.
HEARTBEAT_TIMEOUT = 60
# Connections that the kernel accepts for a worker which hasn't come to them yet.
BACKLOG = 2048
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
        # A person waits, so it only repeats at once; the log is kept here, where feedback is given.
        return Client(
            settings.model_url,
            api_key=settings.model_key,
            risk=settings.risk,
            record=False,
            retries=2,
            max_wait=0.5,
        )
    return load(
        settings.model_path,
        limits=Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels),
        risk=settings.risk,
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
        "backlog": BACKLOG,
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
    from inkdigits.serving.reload import ReloadingArbiter, Served, Watch, as_binds
    from inkdigits.serving.worker import BoundedWorker

    if settings.keeps_log:
        # Before there are workers, who then share it.
        import_module("inkdigits.serving.web.views")
    if settings.tls_cert is not None:
        settings = replace(settings, https="on")
    check_certificate(settings)
    sockets = bind_sockets(settings.host, settings.port, settings.worker_count)
    is_watched = settings.watch == "on" and settings.model_url is None

    class PropagatingLogger(Logger):  # type: ignore[misc]
        """Gunicorn's own lines, in the format of all others."""

        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            self.error_log.handlers.clear()
            self.error_log.propagate = True

    class Server(BaseApplication):  # type: ignore[misc]
        """What the parent and its workers go by."""

        def __init__(self, served: Served, folder: Path) -> None:
            self.served = served
            self.folder = folder
            self.watch = Watch(settings.model_path or shipped_artifact()) if is_watched else None
            self._binds = as_binds(sockets)
            super().__init__()

        @property
        def settings(self) -> Settings:
            return self.served.settings

        def load_config(self) -> None:
            options = gunicorn_options(settings) | {
                "bind": self._binds,
                "worker_class": BoundedWorker,
                "logger_class": PropagatingLogger,
                "pre_fork": ReloadingArbiter.place,
                "post_fork": ReloadingArbiter.settle_in,
                "post_worker_init": started,
                "child_exit": ended,
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Flask:
            use_one_heap()
            try:
                reader = make_reader(self.settings)
            except InkdigitsError as error:
                logger.critical("a worker can't load the model: %s", error)
                sys.exit(_WORKER_BOOT_ERROR)
            try:
                self.metrics = Metrics(self.folder)
                app = create_app(self.settings, reader, open_store(self.settings), self.metrics)
            except InkdigitsError as error:
                logger.critical("a worker can't start: %s", error)
                sys.exit(_WORKER_BOOT_ERROR)
            return_freed_memory()
            return app

        def is_ready(self, worker: Any) -> bool:
            return self._sign_of(worker).exists()

        def _sign_of(self, worker: Any) -> Path:
            return self.folder / f"ready-{worker.pid}"

    def started(worker: Any) -> None:
        # A terminal that closes, or "pkill -HUP", tells all processes; only the parent is meant.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for stop in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(stop, _stop_worker)
        worker.app._sign_of(worker).touch()
        if worker.age == 1:
            _announce(settings, worker.app.served.model_version)

    def ended(arbiter: Any, worker: Any) -> None:
        arbiter.app._sign_of(worker).unlink(missing_ok=True)
        forget_process(arbiter.app.folder, worker.pid)

    with shared_folder() as folder, ExitStack() as stack:
        for one in sockets:
            stack.callback(one.close)
            bound_silence(one, READ_TIMEOUT)
        served = Served(settings, folder, make_reader)
        try:
            ReloadingArbiter(Server(served, folder)).run()
        except RuntimeError as error:
            logger.critical("the server ended: %s", error)
    # run() ends by SystemExit in every other case.
    sys.exit(1)


def bound_silence(listener: socket.socket, seconds: int) -> None:
    """Let a read or write on any connection that the listener accepts fail after a standstill.

    Gunicorn's threaded worker sets no timeout while it reads a request or sends an answer. The
    options are inherited by accepted connections and hold for headers and bodies alike.

    Args:
        listener: a listening socket.
        seconds: length of the silence.
    """
    time = struct.pack("@ll", seconds, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, time)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time)


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
