"""Engines read shards in other processes: of this machine, or of a Ray cluster.

A worker has its own model and one thread, and writes what it read to the run's checkpoint itself.

A decoder is C, and a hostile picture may end the process that decodes it. The shards that were
under way are then read again, one at a time. One that ends a process once more is read in halves,
down to the picture, which gets an error in its row.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inkdigits.batch.shards import Shard, read_shard
from inkdigits.batch.storage import open_new, told_as_batch_errors
from inkdigits.decision.hints import ReadOptions
from inkdigits.errors import BackendUnavailableError, BatchError, ImageError, InkdigitsError
from inkdigits.log.tables import Columns

if TYPE_CHECKING:
    from inkdigits.reader import DigitReader

# Each worker is a new interpreter: a fork would copy locks in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")
_ENDED: Final = "the worker that read it ended: out of memory, or by a defect in a decoder"


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker does to each shard, and what it needs to know for that."""

    folder: Path  # where it writes
    model_version: str
    model_path: Path | None = None  # None is the shipped artifact
    risk: float | None = None  # None is the artifact's own
    hints: ReadOptions | None = None  # for numbers; None reads digits

    @told_as_batch_errors()
    def read(self, shard: Shard) -> Columns:
        """Return the rows of a shard."""
        reader = _reader(self.model_path, self.risk)
        if reader.model_version != self.model_version:
            raise BatchError(
                f"the model was replaced during the run: {self.model_version}, then "
                f"{reader.model_version}"
            )
        return read_shard(reader, shard, self.hints)

    def read_part(self, name: str, shard: Shard) -> tuple[int, int]:
        """Read a shard and write its part; return what ``write`` does."""
        return self.write(name, self.read(shard))

    @told_as_batch_errors()
    def write(self, name: str, columns: Columns) -> tuple[int, int]:
        """Write the part of a shard; return how many rows it has, and how many of them failed."""
        with open_new(self.folder / name) as file:
            file.write(msgspec.msgpack.encode(columns))
        errors = columns["error"]
        return len(errors), len(errors) - errors.count(None)


@functools.cache
def _reader(model_path: Path | None, risk: float | None) -> DigitReader:
    from inkdigits.reader import load

    return load(model_path, threads=1, risk=risk)


class LocalEngine:
    """Processes of this machine. What ends one of them ends them all, and they are replaced."""

    # What the futures of a worker raise that has ended.
    died: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._start()

    def _start(self) -> None:
        self._theirs, self._ours = _CONTEXT.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.workers, _CONTEXT, _end_with, (self._theirs,))

    def submit(self, *call: Any) -> Future[Any]:
        """Have a worker call a function with arguments."""
        # Ctrl-C reaches all processes of a terminal, and the parent ends the others. It stays
        # blocked in those that start here, from their first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(*call)
        except BrokenProcessPool:
            self.close()
            self._start()
            return self._pool.submit(*call)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
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


class RayEngine:
    """Processes of a Ray cluster, one per CPU; all its nodes reach the sources and the result.

    ``address`` is as for ``ray.init``; None starts Ray on this machine. Ray repeats what a node or
    a process that ended was doing, once.
    """

    def __init__(self, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise BackendUnavailableError.without("ray", "--engine ray needs Ray") from error
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except ConnectionError as error:
            raise BatchError(f"there is no Ray cluster at {address}: {error}") from error
        failed = ray.exceptions
        self.died = (
            *(failed.WorkerCrashedError, failed.OutOfMemoryError),
            *(failed.NodeDiedError, failed.LocalRayletDiedError),
        )
        self.close = ray.shutdown  # which ends this run's workers
        self._resources: Any = ray.cluster_resources
        self._call: Any = ray.remote(num_cpus=1, max_retries=1)(lambda call, *given: call(*given))

    @property
    def workers(self) -> int:
        """The CPUs of the cluster, which may grow and shrink."""
        return max(1, int(self._resources().get("CPU", 1)))

    def submit(self, *call: Any) -> Future[Any]:
        """Have a worker call a function with arguments."""
        future: Future[Any] = self._call.remote(*call).future()
        return future


Engine = LocalEngine | RayEngine


def read_parts(
    engine: Engine, job: Job, tasks: Iterator[tuple[str, Shard]]
) -> Iterator[tuple[int, int]]:
    """Have the named parts read; yield the rows of each as it is done, and how many failed.

    The model is loaded at once. An InkdigitsError says that it cannot be, or that the run cannot
    continue.

    >>> with contextlib.closing(LocalEngine(1)) as engine:
    ...     read_parts(engine, Job(Path(), "", Path("none.onnx")), iter([]))
    Traceback (most recent call last):
    inkdigits.errors.ArtifactNotFoundError: there is no artifact at none.onnx. Check the path in \
--model, MODEL_PATH or --run; the shipped model reads where none is given.
    """
    try:
        _result(engine.submit(job.read, Shard((), ())))
    except engine.died as error:
        raise BatchError("a worker ended while it loaded the model") from error
    return _as_done(engine, job, tasks)


def _as_done(
    engine: Engine, job: Job, tasks: Iterator[tuple[str, Shard]]
) -> Iterator[tuple[int, int]]:
    pending: dict[Future[Any], tuple[str, Shard]] = {}
    while True:
        for task in islice(tasks, max(0, 2 * engine.workers - len(pending))):
            pending[engine.submit(job.read_part, *task)] = task
        if not pending:
            return
        done = wait(pending, return_when=FIRST_COMPLETED).done
        if any(isinstance(future.exception(), engine.died) for future in done):
            done = wait(pending).done  # Whatever ended it is then read alone.
        for future in done:
            name, shard = pending.pop(future)
            try:
                yield _result(future)
            except engine.died:
                yield job.write(name, _read_again(engine, job, shard))


def _read_again(engine: Engine, job: Job, shard: Shard) -> Any:
    """Read a shard of which some pictures may end the process that reads them."""
    try:
        return _result(engine.submit(job.read, shard))
    except engine.died:
        if len(shard.names) == 1:
            failed = replace(shard, content=[ImageError(_ENDED)])
            return _result(engine.submit(job.read, failed))
    first, second = (_read_again(engine, job, half) for half in shard.halves())
    return {name: first[name] + second[name] for name in first}


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except InkdigitsError as error:
        # Ray wraps what a task raises, with the traceback in its message.
        raise getattr(error, "cause", None) or error from None
