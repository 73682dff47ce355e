"""Stock Gunicorn around the application: how ``inkdigits serve`` and the images start.

Only public settings and hooks are used (docs.gunicorn.org/en/stable/settings.html). The model is
loaded in each worker, after the fork: a process that inherits ONNX Runtime from its parent waits
for ever for the parent's threads when it ends. Before the first worker a process of its own loads
the model once, so that a model that cannot be used is an error at start.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import sys
import time
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from flask import Flask, Response

from inkdigits.client import Client
from inkdigits.decision.prediction import Reader
from inkdigits.errors import BackendUnavailableError, InkdigitsError
from inkdigits.ink.decode import Limits
from inkdigits.model.allocator import return_freed_memory, use_one_heap
from inkdigits.model.artifact import shipped_artifact
from inkdigits.reader import load
from inkdigits.serving.api.error_handlers import error_response
from inkdigits.serving.api.health import Readiness
from inkdigits.serving.api.keys import load_keys
from inkdigits.serving.app import create_app
from inkdigits.serving.monitoring.logging import configure_logging, fields, resolve_format
from inkdigits.serving.monitoring.metrics import Metrics, forget_process, shared_folder
from inkdigits.serving.preflight import (
    ReaderLoader,
    check_address,
    check_model,
    check_tracing,
    open_store,
    tls_context,
)
from inkdigits.serving.reload import Reloader, RunFolder, stamp_of
from inkdigits.settings import Settings

try:
    from gunicorn.app.base import BaseApplication
    from gunicorn.http.errors import ParseException
except ImportError as error:
    raise BackendUnavailableError(
        f"inkdigits serve needs Gunicorn, which runs on Linux and macOS ({error}); "
        "on Windows use Docker or WSL"
    ) from error

if TYPE_CHECKING:
    from inkdigits.log.store import Store

READ_TIMEOUT_S: Final = 20
"""Seconds without a byte from a client, or to it, after which its connection is closed."""

KEEPALIVE_S: Final = 15
"""Seconds that an idle connection is kept, longer than the pools of ordinary clients keep it."""

HEARTBEAT_TIMEOUT_S: Final = 60
"""Seconds without a sign of life from a worker's main loop before it is replaced."""

_BOOT_ERROR: Final = 3
"""Exit code of a worker on which Gunicorn stops as a whole, instead of starting another one."""

logger = logging.getLogger(__name__)


def load_reader(settings: Settings) -> Reader:
    """Load the artifact that the settings name, on the CPU, or connect to the model service.

    >>> load_reader(Settings(model_url="http://model:5000")).model_version
    'unknown'

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

    >>> gunicorn_options(Settings(host="::1", port=8080))["bind"]
    '[::1]:8080'

    Returns:
        Gunicorn's settings by name.
    """
    options: dict[str, Any] = {
        "bind": f"{_in_url(settings.host)}:{settings.port}",
        "worker_class": "gthread",
        "workers": settings.worker_count,
        "threads": settings.threads,
        "worker_connections": settings.connections,
        "backlog": settings.backlog,
        # On a shared socket one worker takes most of a few kept-alive connections.
        "reuse_port": True,
        "timeout": HEARTBEAT_TIMEOUT_S,
        "graceful_timeout": settings.graceful_timeout,
        "keepalive": KEEPALIVE_S,
        "limit_request_fields": 64,
        "loglevel": "info" if settings.log_level == "debug" else "warning",
        # The application reads the headers of the proxies that it is told to trust.
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
        ConfigError: the address is in use, or not this machine's; or the certificate or the API
            keys cannot be used.
        InkdigitsError: the model does not load, or the prediction log cannot be used.
    """
    configure_logging(settings.log_format, settings.log_level)
    if settings.tls_cert is not None:
        settings = replace(settings, https="on")
    if settings.keeps_log:
        # Before there are workers, who then share its memory.
        import_module("inkdigits.serving.web.views")
    check_address(settings.host, settings.port)
    check_tracing(settings)
    with shared_folder() as folder:
        Server(settings, RunFolder(folder), make_reader).run()
    # run() ends by SystemExit in every other case.
    sys.exit(1)


class Server(BaseApplication):  # type: ignore[misc]
    """The service as Gunicorn runs it: its options, its hooks, and what a worker serves.

    Args:
        settings: what the operator has set.
        folder: shared by the processes of this service.
        make_reader: loads the reader.

    Raises:
        InkdigitsError: see ``serve``.
    """

    def __init__(self, settings: Settings, folder: RunFolder, make_reader: ReaderLoader) -> None:
        self._asked = settings
        self._folder = folder
        self._make_reader = make_reader
        self._keys = load_keys(settings)
        self._tls = tls_context(settings)
        self._source: Path | None = None
        self._store: Store | None = None
        if settings.model_url is None:
            self._source = settings.model_path or shipped_artifact()
            stamp = stamp_of(self._source) or "missing"
            folder.copy(self._source, stamp)
            folder.publish(stamp)
        self._model_version = check_model(self._settings, make_reader)
        super().__init__()

    @property
    def _settings(self) -> Settings:
        """The settings with the keys and the copy of the model that proved good."""
        keys = tuple((key.name, key.digest) for key in self._keys)
        checked = replace(self._asked, api_keys=keys, api_keys_file=None)
        return checked if self._source is None else replace(checked, model_path=self._folder.model)

    def load_config(self) -> None:
        """Hand Gunicorn its settings and hooks."""
        options = gunicorn_options(self._asked) | {
            "on_starting": _log_as_the_others_do,
            "when_ready": self._reload_on_sighup,
            "post_worker_init": self._start_worker,
            "worker_exit": self._end_worker,
            "child_exit": self._forget_worker,
        }
        if self._tls is not None:
            options["ssl_context"] = lambda _config, _default: self._tls
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Load the model and make the application, in a worker."""
        use_one_heap()
        # Before the model is loaded, so that one that is published meanwhile is noticed.
        self._reloader = Reloader(
            self._folder,
            self._source,
            is_watching=self._asked.watch == "on",
            load=self._load_new,
            use=self._use,
            refresh=self._refresh,
        )
        try:
            reader = self._make_reader(self._settings)
            self._metrics = Metrics(self._folder.path)
            self._store = open_store(self._settings)
            self._app = create_app(self._settings, reader, self._store, self._metrics)
        except InkdigitsError as error:
            logger.critical("a worker cannot start: %s", error)
            self._give_up()
        # Gunicorn reads chunks for the application, and finds malformed ones only then.
        self._app.register_error_handler(ParseException, _deny_chunks)
        return_freed_memory()
        return self._app

    def _give_up(self) -> NoReturn:
        # Before any worker was ready the service ends as a whole.
        if self._folder.claim("announced"):
            sys.exit(_BOOT_ERROR)
        # The other workers go on, and the next attempt may find what this one lacked.
        time.sleep(1)
        sys.exit(1)

    def _load_new(self, path: Path) -> Reader:
        reader = self._make_reader(replace(self._settings, model_path=path))
        Readiness(reader).require()
        return reader

    def _use(self, reader: Reader) -> None:
        self._app.extensions["inkdigits.reader"].current = reader
        self._metrics.show_model(reader.model_version)
        self._metrics.compare_with_reference(getattr(reader, "metadata", None))
        return_freed_memory()

    def _refresh(self) -> None:
        """Read keys and certificate again; if they cannot be used, the former ones stay."""
        try:
            keys, tls = load_keys(self._asked), tls_context(self._asked)
        except InkdigitsError as error:
            logger.error(  # noqa: TRY400
                "keys and certificate stay as they were", extra=fields(error=error)
            )
            return
        self._keys, self._tls = keys, tls
        if self.callable is not None:
            self._app.extensions["inkdigits.gate"].use(keys)
        logger.info("keys and certificate were read again")

    def _reload_on_sighup(self, _arbiter: Any) -> None:
        # Gunicorn would replace the workers, and lose what the kernel has accepted for them.
        def reload(_signal: int, _frame: FrameType | None) -> None:
            self._refresh()
            self._folder.ask_for_reload()

        signal.signal(signal.SIGHUP, reload)

    def _start_worker(self, worker: Any) -> None:
        # A terminal that closes, or "pkill -HUP", tells all processes; only the parent is meant.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for stop in (signal.SIGINT, signal.SIGQUIT):
            # Gunicorn's handler waits for a lock that the interrupted code may hold.
            signal.signal(stop, lambda _signal, _frame: sys.exit(0))
        for listener in worker.sockets:
            bound_silence(listener, READ_TIMEOUT_S)
        self._reloader.start()
        if self._folder.claim("announced"):
            _announce(self._asked, self._model_version)

    def _end_worker(self, _arbiter: Any, _worker: Any) -> None:
        if self._store is not None:
            self._store.close()

    def _forget_worker(self, _arbiter: Any, worker: Any) -> None:
        forget_process(self._folder.path, worker.pid)


def bound_silence(listener: socket.socket, seconds: int) -> None:
    """Let a read or write on any connection that the listener accepts fail after a standstill.

    Gunicorn's threaded worker sets no timeout while it reads a request or sends an answer. The
    options are inherited by accepted connections and hold for headers and bodies alike.

    >>> with socket.socket() as listener:
    ...     bound_silence(listener, 20)

    Args:
        listener: a listening socket.
        seconds: length of the silence.
    """
    limit = struct.pack("@ll", seconds, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _log_as_the_others_do(_arbiter: Any) -> None:
    """Send Gunicorn's own lines the way of all others."""
    own = logging.getLogger("gunicorn.error")
    own.handlers.clear()
    own.propagate = True
    # A client that falls silent is no error of the service.
    own.addFilter(lambda line: not (line.exc_info and line.exc_info[0] is BlockingIOError))


def _deny_chunks(_error: Exception) -> Response:
    return error_response(400, "bad_request", "The chunks of the body are malformed.")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _announce(settings: Settings, model_version: str) -> None:
    scheme = "http" if settings.tls_cert is None else "https"
    line = (
        f"Inkdigits {version('inkdigits')} (model {model_version}) on "
        f"{scheme}://{_in_url(settings.host)}:{settings.port} — Ctrl-C stops"
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
