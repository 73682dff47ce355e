"""A new model and new keys in a running worker.

The first worker that notices a new model loads it in the background, checks its seal, reads a
picture and only then serves it and publishes it to the others. Whatever goes wrong, it keeps its
model. A trial whose process ends is repeated by another one, once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inkdigits.decision.prediction import Reader
from inkdigits.errors import ConfigError, InkdigitsError
from inkdigits.log.locks import file_lock
from inkdigits.model.allocator import return_freed_memory
from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, write_atomically
from inkdigits.serving.api.load_shedding import warm_up
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.preflight import LOAD_TIMEOUT_S

MAX_TRIALS: Final = 2
"""Trials of one model that may end their process."""

logger = logging.getLogger(__name__)


def stamp_of(path: Path) -> str:
    """Return inode, size and time of change of an artifact, or of that in a folder; "" if none.

    >>> stamp_of(Path("missing.onnx"))
    ''
    """
    try:
        found = (path / ARTIFACT_NAME if path.is_dir() else path).stat()
    except OSError:
        return ""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class RunFolder:
    """The files that the processes of one service share while it runs."""

    def __init__(self, path: Path) -> None:
        self.path, self._asked = path, path / "reload"
        self._asked.touch()
        # A link to the copy of the last model that proved good, named by its source's stamp.
        self.model = path / "model.onnx"

    def ask_for_reload(self) -> None:
        """Have every worker look at its model and its keys. It is called by a signal handler."""
        now = time.time_ns()
        os.utime(self._asked, ns=(now, now))  # which needs no room on the disk

    @property
    def asked(self) -> str:
        """What changes with each request for a reload."""
        return stamp_of(self._asked)

    @property
    def stamp(self) -> str:
        """The stamp of the file that the served model was copied from; "" before the first."""
        return self.model.readlink().stem if self.model.is_symlink() else ""

    def copy(self, source: Path, stamp: str) -> Path:
        """Copy an artifact, whose seal is checked, under a name that nothing refers to yet."""
        copied, content = self.path / f"{stamp}.onnx", read_artifact(source)
        try:
            write_atomically(copied, content)
        except OSError as error:
            raise ConfigError(
                f"the model cannot be copied to {self.path}: {error.strerror}; free some space or "
                "name another folder in TMPDIR"
            ) from error
        return copied

    def publish(self, stamp: str) -> None:
        """Make the copy of that stamp the model that workers start with."""
        link = self.path / f".model.{os.getpid()}"
        link.symlink_to(f"{stamp}.onnx")
        link.replace(self.model)
        # A model that was served before may be promoted again later, and is tried again then.
        for old in (*self.path.glob("*-*.onnx"), *self.path.glob("tried-*")):
            if old.stem != stamp:
                old.unlink(missing_ok=True)

    def trials_of(self, stamp: str) -> Path:
        """Return the file with a byte per trial that began, and more once there is an outcome."""
        return self.path / f"tried-{stamp}-{self.asked}"


@dataclass
class Reloader:
    """Looks for a new model and new keys; one in each worker."""

    folder: RunFolder
    source: Path | None
    """The artifact that may be replaced; None if another service reads."""
    is_watching: bool
    load: Callable[[Path], Reader]
    use: Callable[[Reader], None]
    refresh: Callable[[], None]

    def __post_init__(self) -> None:
        self._asked, self._is_asked = self.folder.asked, False
        self._served, self._last_look = self.folder.stamp, ""

    def look(self) -> None:
        """Look once: what has changed is used, or rejected with an error in the log."""
        if self.folder.asked != self._asked:
            self._asked, self._is_asked = self.folder.asked, True
            self.refresh()
        with file_lock(self.folder.path / "trial.lock", wait_s=0) as is_held:
            if self.folder.stamp != self._served:
                # Another worker has proved it.
                self._served = self.folder.stamp
                self._take(self.folder.model)
            elif is_held and self.source is not None:
                self._try(self.source)

    def _try(self, source: Path) -> None:
        """Try the source if it is new, and not being written; the lock is held meanwhile."""
        stamp = stamp_of(source)
        is_settled, self._last_look = stamp == self._last_look != "", stamp
        trials = self.folder.trials_of(stamp)
        begun = trials.stat().st_size if trials.exists() else 0
        if is_settled and (stamp == self._served or begun >= MAX_TRIALS):
            self._is_asked = False
        # Whoever has begun a trial had been asked, perhaps before this process started.
        elif is_settled and (self.is_watching or self._is_asked or begun):
            with trials.open("ab", buffering=0) as file:
                file.write(b".")
                self._take(source, stamp)
                file.write(b"." * MAX_TRIALS)

    def _take(self, path: Path, stamp: str = "") -> None:
        """Serve an artifact; with a stamp it is a new one, copied first and published then."""
        loaded: Future[Reader] = Future()

        def load() -> None:
            try:
                reader = self.load(self.folder.copy(path, stamp) if stamp else path)
                warm_up(reader)
                loaded.set_result(reader)
            except BaseException as error:  # noqa: BLE001
                loaded.set_exception(error)

        threading.Thread(target=load, name="load", daemon=True).start()
        late = TimeoutError(f"it did not load within {LOAD_TIMEOUT_S:g} seconds")
        error = loaded.exception() if wait([loaded], LOAD_TIMEOUT_S).done else late
        if error is not None:
            is_told = isinstance(error, InkdigitsError | OSError)
            said = "the new model was rejected; the service keeps the present one"
            reason = str(error) if is_told else f"{type(error).__name__}: {error}"
            logger.error(said, extra=fields(error=reason))
            return
        found = loaded.result()
        if stamp:
            self.folder.publish(stamp)
            self._served = stamp
        self.use(found)
        return_freed_memory()
        logger.info("the new model is served", extra=fields(model_version=found.model_version))
