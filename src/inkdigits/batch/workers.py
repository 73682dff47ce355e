"""Worker processes that read shards, each with its own model and one thread of arithmetic.

A worker writes what it read to the run's checkpoint itself; the parent only counts. Two shards per
worker are under way, so memory does not grow with the number of pictures.

A decoder is C, and a hostile picture may end the process that decodes it. The shards that were
under way are then read again, one at a time. A shard that ends a process once more is halved until
the picture is found; that gets an error in its row.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from inkdigits.batch.checkpoint import ShardDone, write_part
from inkdigits.batch.shards import Shard, read_shard
from inkdigits.errors import BatchError, ImageError
from inkdigits.ink.decode import Limits
from inkdigits.log.tables import Columns, TableFormat

if TYPE_CHECKING:
    from inkdigits.reader import DigitReader

# Each worker is a new interpreter: a fork would copy locks in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")
_ENDED: Final = "the worker that read it ended: out of memory, or by a defect in a decoder"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process does, and what it needs to know for that."""

    folder: Path  # where it writes
    form: TableFormat
    model_path: Path | None  # None is the shipped artifact
    limits: Limits
    risk: float | None = None  # None is the artifact's own
    model_version: str = ""  # the artifact that all workers read with, once it is known

    def load(self) -> str:
        """Load the model and return its version."""
        return _reader(self.model_path, self.limits, self.risk).model_version

    def read(self, shard: Shard, start: int = 0, stop: int | None = None) -> Columns:
        """Return the rows of a shard's pictures from ``start`` to before ``stop``."""
        reader = _reader(self.model_path, self.limits, self.risk)
        if reader.model_version != self.model_version:
            raise BatchError(
                f"the model was replaced during the run: {self.model_version}, then "
                f"{reader.model_version}"
            )
        try:
            return read_shard(reader, shard, start, stop)
        except OSError as error:
            raise BatchError(f"a source can no longer be read: {error}") from error

    def read_part(self, number: int, shard: Shard) -> ShardDone:
        """Read a whole shard and write its part."""
        return self.write(number, shard, self.read(shard))

    def write(self, number: int, shard: Shard, columns: Columns) -> ShardDone:
        """Write the part of a shard that has been read."""
        return write_part(self.folder, self.form, number, shard.names, columns)


@functools.cache
def _reader(model_path: Path | None, limits: Limits, risk: float | None) -> DigitReader:
    from inkdigits.reader import load

    return load(model_path, threads=1, limits=limits, risk=risk)


class WorkerPool:
    """A number of workers, which run inside a ``with`` block.

    Raises:
        InkdigitsError: the artifact cannot be used.
        BatchError: a worker ended while it loaded the artifact.
    """

    def __init__(self, processes: int, worker: Worker) -> None:
        self._processes = processes
        self._worker = worker

    @property
    def model_version(self) -> str:
        """The artifact that all workers read with."""
        return self._worker.model_version

    def __enter__(self) -> WorkerPool:
        self._start(self._processes)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, tasks: Iterator[tuple[int, Shard]]) -> Iterator[ShardDone]:
        """Have shards read; yield their counts as they are done, in any order.

        Args:
            tasks: the number of each shard in the run, and the shard.

        Raises:
            InkdigitsError: from a worker: the run cannot continue.
        """
        pending: dict[Future[ShardDone], tuple[int, Shard]] = {}
        while True:
            while len(pending) < 2 * self._processes and (task := next(tasks, None)) is not None:
                pending[self._submit(self._worker.read_part, *task)] = task
            if not pending:
                return
            done = wait(pending, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                # What ended one worker has ended them all.
                done = wait(pending).done
            finished = [(future, pending.pop(future)) for future in done]
            lost = []
            for future, task in finished:
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(task)
                else:
                    yield future.result()
            if lost:
                yield from self._read_again(lost)

    def _read_again(self, lost: list[tuple[int, Shard]]) -> Iterator[ShardDone]:
        self._restart()
        for number, shard in lost:
            columns = self._halved(shard, 0, len(shard.names))
            yield self._worker.write(number, shard, columns)

    def _halved(self, shard: Shard, start: int, stop: int) -> Columns:
        """Return the rows of some pictures, of which some may end the process that reads them."""
        try:
            return self._submit(self._worker.read, shard, start, stop).result()
        except BrokenProcessPool:
            self._restart()
        if stop - start == 1:
            fatal = Shard(shard.names[start:stop], [ImageError(_ENDED)])
            return self._submit(self._worker.read, fatal).result()
        middle = (start + stop) // 2
        first, second = self._halved(shard, start, middle), self._halved(shard, middle, stop)
        return {name: first[name] + second[name] for name in first}

    def _restart(self) -> None:
        self._end()
        self._start(1)

    def _start(self, at_once: int) -> None:
        """Start so many processes, the others as they are needed; have them load the model."""
        self._theirs, self._ours = _CONTEXT.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self._processes, _CONTEXT, _end_with, (self._theirs,))
        loading = [self._submit(self._worker.load) for _ in range(at_once)]
        try:
            versions = [future.result() for future in loading]
        except BaseException as error:
            self._end()
            if isinstance(error, BrokenProcessPool):
                raise BatchError("a worker ended while it loaded the model") from error
            raise
        self._worker = replace(self._worker, model_version=self.model_version or versions[0])

    def _submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        # Ctrl-C reaches all processes of a terminal, and the parent ends the others. It stays
        # blocked in those that start here, from their first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(function, *arguments)
        except BrokenProcessPool as error:
            broken: Future[Result] = Future()
            broken.set_exception(error)
            return broken
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _end(self) -> None:
        """End the processes, whatever they are doing."""
        self._ours.close()
        self._pool.shutdown(cancel_futures=True)
        self._theirs.close()


def _end_with(parent: Connection) -> None:
    """End this process as soon as the parent closes its end of a connection, or is gone."""

    def wait_for_end() -> None:
        with contextlib.suppress(EOFError, OSError):
            parent.recv_bytes()
        # At once, whatever the main thread is doing: a resumed run may already have begun.
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()
