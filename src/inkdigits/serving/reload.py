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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inkdigits.decision.prediction import Reader
from inkdigits.errors import BackendUnavailableError, InkdigitsError
from inkdigits.log.locks import file_lock
from inkdigits.model.allocator import return_freed_memory
from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, write_atomically
from inkdigits.serving.api.health import Readiness
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.preflight import LOAD_TIMEOUT_S

MAX_TRIALS: Final = 2
"""Trials of one model that may end their process."""
_VERDICT: Final = b"over"

logger = logging.getLogger(__name__)


def stamp_of(path: Path) -> str:
    """Return what changes with an artifact's file, or with that in a folder; "" if there is none.

    It is made of the inode, the size and the time of change.

    >>> stamp_of(Path("missing.onnx"))
    ''
    """
    try:
        found = (path / ARTIFACT_NAME if path.is_dir() else path).stat()
    except OSError:
        return ""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class RunFolder:
    """The files that the processes of one service share while it runs.

    ``model`` is a link to the copy of the last model that proved good. The copy is named by the
    stamp of the file that it was copied from. ``asked`` changes with each request for a reload.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.onnx"
        self.asked = path / "reload"

    def ask_for_reload(self) -> None:
        """Have every worker look at its model and its keys. It is called by a signal handler."""
        with self.asked.open("ab") as file:
            file.write(b".")

    @property
    def stamp(self) -> str:
        """The stamp of the file that the served model was copied from; "" before the first."""
        return self.model.readlink().stem if self.model.is_symlink() else ""

    def copy(self, source: Path, stamp: str) -> Path:
        """Copy an artifact, whose seal is checked, under a name that nothing refers to yet."""
        copied = self.path / f"{stamp}.onnx"
        write_atomically(copied, read_artifact(source))
        return copied

    def publish(self, stamp: str) -> None:
        """Make the copy of that stamp the model that workers start with."""
        link = self.path / f".model.{os.getpid()}"
        link.symlink_to(f"{stamp}.onnx")
        link.replace(self.model)
        for copied in self.path.glob("*-*.onnx"):
            if copied.stem != stamp:
                copied.unlink(missing_ok=True)
        # A model that was served before may be promoted again later.
        for claimed in self.path.glob("tried-*"):
            claimed.unlink(missing_ok=True)

    def trial_of(self, stamp: str) -> Path:
        """Return the record of trials of a file: a byte for each that began, and a verdict."""
        return self.path / f"tried-{stamp}-{stamp_of(self.asked)}"

    @contextmanager
    def trial(self, record: Path) -> Iterator[bool | None]:
        """Hold a trial while a model is tried; its verdict is written at the end.

        Gives True if it is this process's, False if there is a verdict or the trial has ended
        ``MAX_TRIALS`` processes, and None while another process tries.
        """
        with file_lock(record, wait_s=0) as is_held:
            begun = record.read_bytes()
            if not is_held or _VERDICT in begun or len(begun) >= MAX_TRIALS:
                yield False if is_held else None
                return
            record.write_bytes(begun + b".")
            yield True
            record.write_bytes(_VERDICT)

    def claim(self, what: str) -> bool:
        """Return True to the first process that claims something, and False to all others."""
        try:
            (self.path / what).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def has_claimed(self, what: str) -> bool:
        """Return whether a process has claimed something."""
        return (self.path / what).exists()


@dataclass
class Reloader:
    """Looks for a new model and new keys from a thread of its own; one in each worker."""

    folder: RunFolder
    source: Path | None
    """The artifact that may be replaced; None if another service reads."""
    is_watching: bool
    load: Callable[[Path], Reader]
    use: Callable[[Reader], None]
    refresh: Callable[[], None]

    def __post_init__(self) -> None:
        self._asked, self._is_asked = stamp_of(self.folder.asked), False
        self._served = self._tried = self.folder.stamp
        self._last_look = ""

    def start(self) -> None:
        """Start to look. The thread ends with the process, whatever it is doing."""
        threading.Thread(target=self._run, name="reload", daemon=True).start()

    def look(self) -> None:
        """Look once: what has changed is used, or rejected with an error in the log."""
        asked = stamp_of(self.folder.asked)
        if asked != self._asked:
            # A model that was rejected is tried again.
            self._asked, self._is_asked, self._tried = asked, True, self._served
            self.refresh()
        if self.folder.stamp != self._served:
            # Another worker has proved it.
            self._served = self._tried = self.folder.stamp
            self._take(self.folder.model)
        if self.source is None:
            return
        stamp = stamp_of(self.source)
        # Whoever writes in place has not finished while the file changes.
        is_settled = stamp != "" and stamp == self._last_look
        self._last_look = stamp
        if is_settled and stamp == self._tried:
            self._is_asked = False
        elif is_settled:
            self._try(self.source, stamp)

    def _try(self, source: Path, stamp: str) -> None:
        record = self.folder.trial_of(stamp)
        # Whoever has begun a trial had been asked, perhaps before this process started.
        if not (self.is_watching or self._is_asked or record.exists()):
            return
        with self.folder.trial(record) as is_ours:
            if is_ours is None:
                return
            self._is_asked, self._tried = False, stamp
            if is_ours:
                self._take(source, stamp)

    def _run(self) -> None:
        while True:
            time.sleep(1)
            try:
                self.look()
            except OSError:
                # A full disk, for example; the present model stays.
                logger.exception("looking for a new model failed")

    def _take(self, path: Path, stamp: str = "") -> None:
        """Serve an artifact; with a stamp it is a new one, copied first and published then."""
        outcome: list[Reader | Exception] = []
        late = BackendUnavailableError(f"it did not load within {LOAD_TIMEOUT_S:g} seconds")

        def load() -> None:
            try:
                reader = self.load(self.folder.copy(path, stamp) if stamp else path)
                Readiness(reader).require()
                outcome.append(reader)
            except (InkdigitsError, OSError) as error:
                outcome.append(error)

        loading = threading.Thread(target=load, name="load", daemon=True)
        loading.start()
        loading.join(LOAD_TIMEOUT_S)
        (found,) = outcome or [late]
        if isinstance(found, Exception):
            kept = "the new model was rejected; the service keeps the present one"
            logger.error(kept, extra=fields(error=found))
            return
        if stamp:
            self.folder.publish(stamp)
            self._served = stamp
        self.use(found)
        return_freed_memory()
        logger.info("the new model is served", extra=fields(model_version=found.model_version))
