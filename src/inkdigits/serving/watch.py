"""What workers look after in the background: each for itself, or one of them for all.

For all it is the worker that holds a file lock. When it ends, however it ends, another one gets it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from inkdigits.errors import InkdigitsError
from inkdigits.log.locks import file_lock
from inkdigits.serving.monitoring.logging import fields

PERIOD_S: Final = 5.0
"""Seconds between two looks of one worker for all, and between two tries to get the lock."""

logger = logging.getLogger(__name__)


class Watcher:
    """Does jobs again and again in a thread; with a lock only while this process holds it.

    An error of a job is logged when it changes, and the job is done again the next time.
    """

    def __init__(
        self, jobs: Sequence[Callable[[], None]], period: float, lock: Path | None = None
    ) -> None:
        self._jobs, self._period, self._lock = jobs, period, lock
        self._problems: dict[Callable[[], None], str] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Start to watch. The thread ends with the process, whatever it is doing."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Stop to watch, after the present job."""
        self._stop.set()

    def look(self) -> None:
        """Do each job once."""
        for job in self._jobs:
            self._do(job)

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
            self._problems.pop(job, None)
        except (InkdigitsError, OSError) as error:
            if self._problems.get(job) != str(error):
                self._problems[job] = str(error)
                logger.warning("what is watched cannot be seen", extra=fields(error=error))

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._do(self._look_while_locked)  # a full disk has no room for the lock

    def _look_while_locked(self) -> None:
        with nullcontext(True) if self._lock is None else file_lock(self._lock, 0.0) as is_held:
            while is_held and not self._stop.is_set():
                self.look()
                self._stop.wait(self._period)
