"""Stock Gunicorn around the application: how ``inkdigits serve`` and the images start.

Only public settings and hooks are used (docs.gunicorn.org/en/stable/settings.html). The model is
loaded in each worker, after the fork: a process that inherits ONNX Runtime from its parent waits
for ever for the parent's threads when it ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from threading import Thread
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from flask import Flask

from inkdigits.errors import BackendUnavailableError, InkdigitsError, InvalidRequestError
from inkdigits.model.allocator import return_freed_memory, use_one_heap
from inkdigits.model.artifact import artifact_path
from inkdigits.serving.api.keys import ApiKey, load_keys, load_reviewers
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.app import create_app
from inkdigits.serving.monitoring.logging import adopt, configure_logging, fields, resolve_format
from inkdigits.serving.monitoring.metrics import Metrics, forget_process, shared_folder
from inkdigits.serving.preflight import ReaderLoader, check, load_reader, open_store, tls_context
from inkdigits.serving.reload import Reloader, RunFolder, stamp_of
from inkdigits.serving.rollback import RollbackWatch, folder_of
from inkdigits.serving.shadow import Shadow, shadow_path
from inkdigits.serving.watch import PERIOD_S, Watcher
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
    from _typeshed.wsgi import InputStream, StartResponse, WSGIApplication, WSGIEnvironment

    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store

READ_TIMEOUT_S = 20  # without a byte from a client, or to it

logger = logging.getLogger(__name__)


def _gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Translate the settings into Gunicorn's, by name."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options: dict[str, Any] = {
        "bind": f"{host}:{settings.port}",
        "worker_class": "gthread",
        "workers": settings.worker_count,
        "threads": settings.threads,
        "worker_connections": settings.connections,
        "backlog": settings.backlog,
        # On a shared socket one worker takes most of a few kept-alive connections.
        "reuse_port": True,
        # Seconds without a sign of life from a worker's main loop.
        "timeout": 60,
        "graceful_timeout": settings.graceful_timeout,
        # Longer than the pools of ordinary clients keep an idle connection.
        "keepalive": 15,
        "limit_request_fields": 64,
        "loglevel": "info" if settings.log_level == "debug" else "warning",
        # The application reads the headers of the proxies that it is told to trust.
        "forwarded_allow_ips": "",
        "control_socket_disable": True,
    }
    if settings.tls_cert is not None and settings.tls_key is not None:
        options |= {"certfile": str(settings.tls_cert), "keyfile": str(settings.tls_key)}
    if os.access("/dev/shm", os.W_OK):  # noqa: S108  (for Gunicorn's unnamed heartbeat files)
        # On a disk a heartbeat can block for seconds, and the worker would be killed for it.
        options["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
    return options


def serve(
    settings: Settings,
    make_reader: ReaderLoader = load_reader,
    when_ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the requests in flight and exit with status 0.

    A worker calls ``when_ready`` once, with the service's address, in a thread of its own. An
    InkdigitsError says what cannot be used.

    >>> serve(Settings.from_env())  # doctest: +SKIP
    """
    configure_logging(settings.log_format, settings.log_level)
    if settings.tls_cert is not None:
        settings = replace(settings, https="on")
    if settings.keeps_log:
        # Before there are workers, who then share its memory.
        import_module("inkdigits.serving.web.views")
    with shared_folder() as folder:
        Server(settings, RunFolder(folder), make_reader, when_ready).run()


class Server(BaseApplication):  # type: ignore[misc]
    """The service as Gunicorn runs it: its options, its hooks, and what a worker serves."""

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder,
        make_reader: ReaderLoader,
        when_ready: Callable[[str], object],
    ) -> None:
        self._when_ready = when_ready
        self._asked = self._settings = settings
        self._folder, self._make_reader = folder, make_reader
        # Held for good by the first worker that is ready or fails.
        self._first = multiprocessing.Lock()
        self._source = None if settings.model_url else artifact_path(settings.model_path)
        self._second = None if settings.shadow is None else shadow_path(settings)
        self._read_secrets()
        if self._source is not None:
            stamp = stamp_of(self._source)
            folder.copy(self._source, stamp)
            folder.publish(stamp)
            self._settings = replace(self._settings, model_path=folder.model)
        self._model_version = check(self._settings, make_reader)
        super().__init__()

    def _read_secrets(self) -> tuple[tuple[ApiKey, ...], tuple[ApiKey, ...]]:
        """Read keys and certificate, which later workers start with; all of them or none."""
        keys, reviewers = load_keys(self._asked), load_reviewers(self._asked)
        self._tls = tls_context(self._asked)
        self._settings = replace(
            self._settings,
            api_keys=tuple((key.name, key.digest) for key in keys),
            api_keys_file=None,
            reviewers=tuple((key.name, key.digest) for key in reviewers),
            reviewers_file=None,
        )
        return keys, reviewers

    def load_config(self) -> None:
        """Hand Gunicorn its settings and hooks."""
        options = _gunicorn_options(self._asked) | {
            "on_starting": lambda _arbiter: adopt("gunicorn.error"),
            "when_ready": self._reload_on_sighup,
            # Before the model is loaded: until then connections are taken up too.
            "post_fork": lambda _arbiter, worker: _limit_silence(worker.sockets),
            "post_worker_init": self._start_worker,
            # Asked for each connection, if there is a certificate.
            "ssl_context": lambda _config, _default: self._tls,
            "child_exit": lambda _arbiter, worker: forget_process(self._folder.path, worker.pid),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Load the model and make the application, in a worker."""
        use_one_heap()
        # Before the model is loaded, so that one that is published meanwhile is noticed.
        reloader = Reloader(
            self._folder,
            self._source,
            is_watching=self._asked.watch == "on",
            load=lambda path: self._make_reader(replace(self._settings, model_path=path)),
            use=lambda reader: self._served.use(reader),
            refresh=self._refresh,
        )
        try:
            reader = self._make_reader(self._settings)
            metrics = Metrics(self._folder.path)
            store = open_store(self._settings)
            self._app = create_app(self._settings, reader, store, metrics)
        except (InkdigitsError, OSError) as error:
            logger.critical("a worker cannot start: %s", error)
            # 3 has Gunicorn stop as a whole. Once a worker was ready, another is started instead.
            time.sleep(1)
            sys.exit(3 if self._first.acquire(block=False) else 1)
        self._served: ServedReader = self._app.extensions["inkdigits.reader"]
        if self._second is not None:
            second = replace(self._asked, model_path=self._second, model_url=None)
            load = partial(self._make_reader, second)
            self._served.shadow = Shadow(load, self._asked.shadow_share, store, metrics)
        jobs, lock = tuple(self._jobs_of_one(store, metrics)), self._folder.path / "watch.lock"
        self._watchers = Watcher([reloader.look], 1), Watcher(jobs, PERIOD_S, lock)

        def leave(_arbiter: Any, _worker: Any) -> None:
            metrics.flush()
            if store is not None:
                store.close()

        self.cfg.set("worker_exit", leave)
        self._app.wsgi_app = _with_checked_chunks(self._app.wsgi_app)  # type: ignore[assignment, method-assign]
        return_freed_memory()
        return self._app

    def _jobs_of_one(self, store: Store | None, metrics: Metrics) -> Iterator[Callable[[], None]]:
        if store is not None:
            reviews, served = store.reviews, self._served
            yield lambda: metrics.show_audit(
                reviews.audit(served.model_version), served.stated_risk
            )
        if (folder := folder_of(self._source)) is not None:
            reload = self._folder.ask_for_reload
            yield RollbackWatch(folder, metrics.readings, reload, store).look

    def _refresh(self) -> None:
        """Read keys and certificate again; if they cannot be used, the former ones stay."""
        try:
            keys, reviewers = self._read_secrets()
        except InkdigitsError as error:
            logger.error("keys and certificate stay as they were", extra=fields(error=error))  # noqa: TRY400
            return
        if self.callable is not None:
            self._app.extensions["inkdigits.gate"].use(keys)
            self._app.extensions["inkdigits.operator"].use(reviewers)
        logger.info("keys and certificate were read again")

    def _reload_on_sighup(self, _arbiter: Any) -> None:
        # Gunicorn would replace the workers, and lose what the kernel has accepted for them.
        def reload(_signal: int, _frame: FrameType | None) -> None:
            self._refresh()
            try:
                self._folder.ask_for_reload()
            except OSError as error:  # an error from here would end the service
                logger.error("no new model is looked for", extra=fields(error=error))  # noqa: TRY400

        signal.signal(signal.SIGHUP, reload)

    def _start_worker(self, worker: Any) -> None:
        # A terminal that closes, or "pkill -HUP", tells all processes; only the parent is meant.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _stop_quickly(worker)
        for watcher in self._watchers:
            watcher.start()
        if self._first.acquire(block=False):
            url = _announce(self._asked, self._model_version)
            Thread(target=self._when_ready, args=(url,), daemon=True).start()


def _limit_silence(listeners: Iterable[Any]) -> None:
    # Gunicorn's threads set no timeout while they read a request or send an answer; connections
    # inherit this one from their listener as they come.
    silence = struct.pack("@ll", READ_TIMEOUT_S, 0)
    for listener in listeners:
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.setsockopt(socket.SOL_SOCKET, direction, silence)


def _stop_quickly(worker: Any) -> None:
    """Have SIGINT and SIGQUIT end a worker's loop, as SIGTERM does, but without time for requests.

    Gunicorn's handler exits from within the code that it interrupts. That code may hold a lock for
    which a thread of the pool waits, and the process would wait for that thread for ever.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.cfg.set("graceful_timeout", 0)
        signal.raise_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, stop)


def _with_checked_chunks(application: WSGIApplication) -> WSGIApplication:
    """Have malformed chunks told as such; Gunicorn finds them when the application reads them."""

    def checking(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body: InputStream = environ["wsgi.input"]

        def read(size: int = -1) -> bytes:
            try:
                return body.read(size)
            except ParseException as error:
                raise InvalidRequestError("The chunks of the body are malformed.") from error

        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input"] = SimpleNamespace(read=read)
        return application(environ, start_response)

    return checking


def _announce(settings: Settings, model_version: str) -> str:
    """Say where the service and its log are; return the address for this machine's browser."""
    if not (settings.is_local or settings.has_keys):
        logger.warning(
            "anybody can use %s because no API key is set (INKDIGITS_API_KEYS_FILE)", settings.host
        )
    url = f"http{'s' * (settings.tls_cert is not None)}://{_gunicorn_options(settings)['bind']}"
    days = settings.retention_days
    span = "until they are deleted" if days is None else f"for {days} days"
    nothing = "; --no-page keeps nothing" if settings.database_url is None else ""
    kept = f"Readings, their ink and their labels are kept in {settings.log_name} {span}{nothing}"
    lines = [f"Inkdigits {version('inkdigits')} (model {model_version}) on {url} — Ctrl-C stops"]
    is_text = resolve_format(settings.log_format, sys.stderr) == "text"
    for line in [*lines, kept] if settings.keeps_log else lines:
        sys.stderr.write(f"{line}\n") if is_text else logger.info(line)
    return re.sub(r"//(0\.0\.0\.0|\[::\]):", "//127.0.0.1:", url)
