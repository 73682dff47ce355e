"""What one process of a service looks after, whichever of its workers that is.

The worker that holds a file lock does the work. When it ends, however it ends, another one gets the
lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from inkdigits.errors import InkdigitsError
from inkdigits.log.locks import file_lock
from inkdigits.serving.monitoring.logging import fields

PERIOD_S: Final = 5.0
"""Seconds between two looks, and between two tries to get the lock."""

logger = logging.getLogger(__name__)


class Watcher:
    """Does jobs again and again in a thread, while this process holds the lock.

    An error of a job is logged when it changes, and the job is done again the next time.
    """

    def __init__(self, lock: Path, jobs: Sequence[Callable[[], None]]) -> None:
        self._lock = lock
        self._jobs = jobs
        self._problems: dict[Callable[[], None], str] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Start to watch. The thread ends with the process."""
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
        while not self._stop.wait(PERIOD_S):
            self._do(self._look_while_locked)  # a full disk has no room for the lock

    def _look_while_locked(self) -> None:
        with file_lock(self._lock, 0.0) as is_held:
            while is_held and not self._stop.is_set():
                self.look()
                self._stop.wait(PERIOD_S)
