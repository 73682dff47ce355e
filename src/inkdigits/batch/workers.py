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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from inkdigits.batch.checkpoint import ShardDone, write_part
from inkdigits.batch.shards import Shard, as_columns, read_shard
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
class WorkerSettings:
    """What a worker needs to know."""

    folder: Path  # where it writes
    form: TableFormat
    model_path: Path | None  # None is the shipped artifact
    limits: Limits


class WorkerPool:
    """A number of workers, which run inside a ``with`` block.

    Raises:
        InkdigitsError: the artifact cannot be used.
        BatchError: a worker ended while it loaded the artifact.
    """

    def __init__(self, processes: int, settings: WorkerSettings) -> None:
        self._processes = processes
        self._settings = settings
        self.model_version = ""  # the artifact that all workers read with

    def __enter__(self) -> WorkerPool:
        self._executor = _Executor(self._processes)
        try:
            self._load(self._processes)
        except BaseException:
            self._executor.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.end()

    def read(self, tasks: Iterator[tuple[int, Shard]]) -> Iterator[ShardDone]:
        """Have shards read; yield their counts as they are done, in any order.

        Raises:
            InkdigitsError: from a worker: the run cannot continue.
        """
        pending: dict[Future[ShardDone], tuple[int, Shard]] = {}
        while True:
            while len(pending) < 2 * self._processes and (task := next(tasks, None)) is not None:
                pending[self._submit(_read_part, *task)] = task
            if not pending:
                return
            lost = []
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                task = pending.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(task)
                else:
                    yield future.result()
            if lost:
                # Whatever ended one worker has ended them all.
                yield from self._read_again(lost, pending)
                pending = {}

    def _read_again(
        self, lost: list[tuple[int, Shard]], pending: dict[Future[ShardDone], tuple[int, Shard]]
    ) -> Iterator[ShardDone]:
        for future in wait(pending).done:
            if future.exception() is None:
                yield future.result()
            else:
                lost.append(pending[future])
        self._restart()
        for number, shard in lost:
            columns = self._halved(shard, 0, len(shard.names))
            yield _write(self._settings, number, shard, columns)

    def _halved(self, shard: Shard, start: int, stop: int) -> Columns:
        """Return the rows of some pictures, of which some may end the process that reads them."""
        try:
            return self._submit(_read, shard, start, stop).result()
        except BrokenProcessPool:
            self._restart()
        if stop - start == 1:
            return as_columns(shard.names[start:stop], [ImageError(_ENDED)], self.model_version)
        middle = (start + stop) // 2
        first, second = self._halved(shard, start, middle), self._halved(shard, middle, stop)
        return {name: first[name] + second[name] for name in first}

    def _restart(self) -> None:
        self._executor.end()
        self._executor = _Executor(self._processes)
        self._load(1)

    def _load(self, processes: int) -> None:
        """Have so many workers load the model, so that what fails later is not the model."""
        submit = self._executor.submit
        loading = [submit(_model_version, self._settings) for _ in range(processes)]
        try:
            versions = [future.result() for future in loading]
        except BrokenProcessPool as error:
            raise BatchError("a worker ended while it loaded the model") from error
        self.model_version = self.model_version or versions[0]

    def _submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        return self._executor.submit(function, self._settings, self.model_version, *arguments)


class _Executor:
    """A pool of processes that end at once when they are told to, or when the parent is gone."""

    def __init__(self, processes: int) -> None:
        self._theirs, self._ours = _CONTEXT.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(processes, _CONTEXT, _end_with, (self._theirs,))

    def submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Have a function called; the future of a pool that is broken says so."""
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

    def end(self) -> None:
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


@functools.cache
def _reader(model_path: Path | None, limits: Limits) -> DigitReader:
    from inkdigits.reader import load

    return load(model_path, threads=1, limits=limits)


def _model_version(settings: WorkerSettings) -> str:
    return _reader(settings.model_path, settings.limits).model_version


def _read(
    settings: WorkerSettings,
    model_version: str,
    shard: Shard,
    start: int = 0,
    stop: int | None = None,
) -> Columns:
    reader = _reader(settings.model_path, settings.limits)
    if reader.model_version != model_version:
        raise BatchError(
            f"the model was replaced during the run: {model_version}, then {reader.model_version}"
        )
    try:
        return read_shard(reader, shard, start, stop)
    except OSError as error:
        raise BatchError(f"a source can no longer be read: {error}") from error


def _read_part(
    settings: WorkerSettings, model_version: str, number: int, shard: Shard
) -> ShardDone:
    return _write(settings, number, shard, _read(settings, model_version, shard))


def _write(settings: WorkerSettings, number: int, shard: Shard, columns: Columns) -> ShardDone:
    return write_part(settings.folder, settings.form, number, shard.names, columns)
