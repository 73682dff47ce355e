"""Gunicorn's parent process, which takes a new model up only after having tried it.

On SIGHUP stock Gunicorn starts new workers and stops the old ones at once, whatever the new ones
find. Here the model is tried first, and kept where nobody else changes it; the old workers go on
until each new one is ready; and if any of it fails, they go on for good.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Final

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from inkdigits.errors import InkdigitsError, WorkersNotStartedError
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.preflight import ReaderLoader, take
from inkdigits.settings import Settings

BOOT_PATIENCE_S: Final = 120.0
"""Seconds that new workers may take until they are ready."""

logger = logging.getLogger(__name__)


class Served:
    """What the workers serve, checked and out of others' reach.

    Args:
        settings: what the operator has set.
        folder: the server's own.
        make_reader: loads the reader.

    Raises:
        InkdigitsError: see ``preflight.take``.
    """

    def __init__(self, settings: Settings, folder: Path, make_reader: ReaderLoader) -> None:
        self._asked = settings
        self._folder = folder
        self._make_reader = make_reader
        self._number = 0
        self._former: tuple[Settings, str] | None = None
        self.settings, self.model_version = self._take()

    def renew(self) -> None:
        """Take up what is there now.

        Raises:
            InkdigitsError: it can't be used; what was served before still is.
        """
        former = (self.settings, self.model_version)
        self.settings, self.model_version = self._take()
        self._former = former

    def settle(self) -> None:
        """Forget what was served before."""
        if self._former is not None:
            self._remove(self._former[0])
            self._former = None

    def go_back(self) -> None:
        """Serve what was served before."""
        if self._former is not None:
            self._remove(self.settings)
            self.settings, self.model_version = self._former
            self._former = None

    def _take(self) -> tuple[Settings, str]:
        self._number += 1
        copy = self._folder / f"model-{self._number}.onnx"
        try:
            return take(self._asked, copy, self._make_reader)
        except InkdigitsError:
            copy.unlink(missing_ok=True)
            raise

    def _remove(self, settings: Settings) -> None:
        if settings.model_path is not None:
            settings.model_path.unlink(missing_ok=True)


class Watch:
    """Tells when a file has been replaced, once it has stayed as it is for two looks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._last = self._look()

    def has_changed(self) -> bool:
        """Whether there is another file than the one that was there when it last said so."""
        now = self._look()
        # Whoever writes in place isn't done yet while it changes; one that is away may come back.
        is_settled = now is not None and now == self._last
        self._last = now
        if not is_settled or now == self._known:
            return False
        self._known = now
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  (once a second, for ever)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


class ReloadingArbiter(Arbiter):  # type: ignore[misc]
    """The parent of the workers.

    Its application has ``served``, ``watch`` (or None) and ``is_ready(worker)``.
    """

    _newest_old: int | None = None

    def handle_hup(self) -> None:
        """Take up the model, the keys and the certificate that are there now."""
        try:
            self.app.served.renew()
        except (InkdigitsError, OSError) as error:
            logger.error(  # noqa: TRY400  (the message says it all)
                "not taken up; the service goes on as before", extra=fields(error=error)
            )
            return
        super().handle_hup()

    def handle_ttin(self) -> None:
        """Refused: there is a listening socket for each worker."""
        logger.warning("the number of workers can't be changed; set INKDIGITS_WORKERS and restart")

    handle_ttou = handle_ttin

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Gunicorn's, and a SIGHUP of our own where the watched model has changed."""
        signals: list[int] = super().wait_for_signals(timeout)
        if self.app.watch is not None and self.app.watch.has_changed():
            signals.append(signal.SIGHUP)
        return signals

    def reload(self) -> None:
        """Replace the workers."""
        self._newest_old = self.worker_age
        try:
            super().reload()
        except WorkersNotStartedError as error:
            logger.error(  # noqa: TRY400
                "not taken up; the service goes on as before", extra=fields(error=error)
            )
        else:
            self.app.served.settle()
            logger.info("taken up", extra=fields(model_version=self.app.served.model_version))
        finally:
            self._newest_old = None

    def manage_workers(self) -> None:
        """Gunicorn's; while workers are being replaced, not before the new ones are ready."""
        if self._newest_old is not None:
            self._await_new(self._newest_old)
            self._newest_old = None
        super().manage_workers()

    def kill_worker(self, pid: int, sig: int) -> None:
        """Gunicorn's, and remember that the worker leaves its place to another."""
        if pid in self.WORKERS:
            self.WORKERS[pid].is_leaving = True
        super().kill_worker(pid, sig)

    def place(self, worker: Any) -> None:
        """Give a new worker the listening socket that the fewest others accept from."""
        others = [w.slot for w in self.WORKERS.values() if not getattr(w, "is_leaving", False)]
        worker.slot = min(range(len(self.LISTENERS)), key=others.count)

    def settle_in(self, worker: Any) -> None:
        """In the new worker: keep its own listening socket only."""
        for slot, listener in enumerate(self.LISTENERS):
            if slot != worker.slot:
                listener.close()
        worker.sockets = [self.LISTENERS[worker.slot]]

    def _await_new(self, newest_old: int) -> None:
        deadline = time.monotonic() + BOOT_PATIENCE_S
        while True:
            try:
                self.reap_workers()
            except HaltServer as error:
                reason = error.reason
            else:
                new = [w for w in self.WORKERS.values() if w.age > newest_old]
                if len(new) >= self.num_workers and all(map(self.app.is_ready, new)):
                    return
                if len(new) < self.num_workers:
                    self.spawn_worker()
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                reason = f"new workers weren't ready within {BOOT_PATIENCE_S:g} seconds"
            self._give_up(newest_old)
            raise WorkersNotStartedError(reason)

    def _give_up(self, newest_old: int) -> None:
        # Before the workers end: one that is to be replaced meanwhile must find the old model.
        self.app.served.go_back()
        while new := [pid for pid, w in self.WORKERS.items() if w.age > newest_old]:
            for pid in new:
                self.kill_worker(pid, signal.SIGKILL)
            time.sleep(0.05)
            try:
                self.reap_workers()
            except HaltServer:
                continue  # another one that couldn't boot, and is gone by that


def as_binds(listeners: list[socket.socket]) -> list[str]:
    """Listening sockets as Gunicorn takes them, which owns them from then on."""
    return [f"fd://{listener.detach()}" for listener in listeners]
