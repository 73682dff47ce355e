"""A new model and new keys in a running worker: noticed, tried in the background, used or rejected.

Each worker looks once a second. The first that notices a new model tries it: it loads the file,
checks its seal, reads a picture and only then serves it and publishes it to the others. Whatever
goes wrong, the worker keeps its model. A model that ends its process is tried once and not again.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from inkdigits.decision.prediction import Reader
from inkdigits.errors import BackendUnavailableError, InkdigitsError
from inkdigits.model.artifact import read_artifact, write_atomically
from inkdigits.serving.monitoring.logging import fields

PERIOD_S: Final = 1.0
"""Seconds between two looks."""

LOAD_TIMEOUT_S: Final = 120.0
"""Seconds that a model may take to load and to read its first picture."""

_MODEL: Final = "model.onnx"
_ASKED: Final = "reload"

logger = logging.getLogger(__name__)


def stamp_of(path: Path) -> str | None:
    """Return what changes with a file: its inode, size and time of change.

    >>> stamp_of(Path("missing.onnx")) is None
    True

    Returns:
        A text that may be part of a file's name; None while there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class RunFolder:
    """The files that the processes of one service share while it runs.

    ``model.onnx`` is a link to the copy of the last model that proved good. The copy's name has
    the stamp of the file that it was copied from. ``reload`` grows by one byte per SIGHUP.

    Args:
        path: a folder of the service's own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / _MODEL

    def ask_for_reload(self) -> None:
        """Have every worker look at its model and its keys. It is called by signal handlers."""
        with (self.path / _ASKED).open("ab") as file:
            file.write(b".")

    @property
    def reloads(self) -> int:
        """How many times somebody asked for a reload."""
        try:
            return (self.path / _ASKED).stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def stamp(self) -> str | None:
        """The stamp of the file that the served model was copied from; None before the first."""
        try:
            return self.model.readlink().name.removeprefix("model-").removesuffix(".onnx")
        except FileNotFoundError:
            return None

    def copy(self, source: Path | None, stamp: str) -> Path:
        """Copy an artifact, whose seal is checked, under a name that nothing refers to yet.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        copied = self.path / f"model-{stamp}.onnx"
        write_atomically(copied, read_artifact(source))
        return copied

    def publish(self, stamp: str) -> None:
        """Make the copy of that stamp the model that workers start with."""
        link = self.path / f".{_MODEL}.{os.getpid()}"
        link.symlink_to(f"model-{stamp}.onnx")
        link.replace(self.model)
        for other in self.path.glob("model-*.onnx"):
            if other.name != f"model-{stamp}.onnx":
                other.unlink(missing_ok=True)

    def claim(self, what: str) -> bool:
        """Return True to the first process that claims something, and False to all others."""
        try:
            (self.path / what).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Reloader:
    """Looks for a new model and new keys from a thread of its own; one in each worker.

    Args:
        folder: shared by the workers.
        source: the artifact that may be replaced; None if another service reads.
        is_watching: whether a replaced file is noticed without SIGHUP.
        load: makes a reader of an artifact, which has read a picture then.
        use: serves the reader from now on.
        refresh: reads keys and certificate again.
    """

    def __init__(
        self,
        folder: RunFolder,
        source: Path | None,
        *,
        is_watching: bool,
        load: Callable[[Path], Reader],
        use: Callable[[Reader], None],
        refresh: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._source = source
        self._is_watching = is_watching
        self._load = load
        self._use = use
        self._refresh = refresh
        self._reloads = folder.reloads
        self._is_asked = False
        self._served = self._tried = folder.stamp
        self._last_look: str | None = None

    def start(self) -> None:
        """Start to look. The thread ends with the process, whatever it is doing."""
        threading.Thread(target=self._run, name="reload", daemon=True).start()

    def look(self) -> None:
        """Look once: what has changed is used, or rejected with an error in the log."""
        reloads = self._folder.reloads
        if reloads != self._reloads:
            self._reloads = reloads
            self._is_asked = True
            # A model that was rejected is tried again.
            self._tried = self._served
            self._refresh()
        if self._source is None:
            return
        published = self._folder.stamp
        if published != self._served:
            # Another worker has proved it.
            self._served = self._tried = published
            self._take(None)
            return
        stamp = stamp_of(self._source)
        # Whoever writes in place has not finished while the file changes.
        is_settled = stamp is not None and stamp == self._last_look
        self._last_look = stamp
        if not is_settled or not (self._is_watching or self._is_asked):
            return
        self._is_asked = False
        if stamp != self._tried:
            self._tried = stamp
            if self._folder.claim(f"tried-{stamp}-{reloads}"):
                self._take(stamp)

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(PERIOD_S):
            try:
                self.look()
            except OSError:
                # A full disk, for example; the present model stays.
                logger.exception("looking for a new model failed")

    def _take(self, stamp: str | None) -> None:
        """Serve the source, which has this stamp, or without one what another has published."""
        outcome: queue.SimpleQueue[Reader | Exception] = queue.SimpleQueue()
        threading.Thread(
            target=self._load_into, args=(outcome, stamp), name="load", daemon=True
        ).start()
        try:
            found = outcome.get(timeout=LOAD_TIMEOUT_S)
        except queue.Empty:
            found = BackendUnavailableError(f"it did not load within {LOAD_TIMEOUT_S:g} seconds")
        if isinstance(found, Exception):
            logger.error(
                "the new model was rejected; the service keeps the present one",
                extra=fields(error=found),
            )
            return
        if stamp is not None:
            self._folder.publish(stamp)
            self._served = stamp
        self._use(found)
        logger.info("the new model is served", extra=fields(model_version=found.model_version))

    def _load_into(self, outcome: queue.SimpleQueue[Reader | Exception], stamp: str | None) -> None:
        found: Reader | Exception = BackendUnavailableError("loading it failed; see above")
        try:
            copied = self._folder.model
            if stamp is not None:
                copied = self._folder.copy(self._source, stamp)
            found = self._load(copied)
        except (InkdigitsError, OSError) as error:
            found = error
        finally:
            outcome.put(found)
