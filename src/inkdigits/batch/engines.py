"""Engines read shards in other processes: of this machine, or of a Ray cluster.

A worker has its own model and one thread of arithmetic, and writes what it read to the run's
checkpoint itself; the parent only counts. Two shards per worker are under way, so memory does not
grow with the number of pictures.

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
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from inkdigits.batch.checkpoint import ShardDone, write_part
from inkdigits.batch.shards import Shard, read_shard
from inkdigits.batch.storage import told_as_batch_errors
from inkdigits.decision.hints import ReadOptions
from inkdigits.errors import BackendUnavailableError, BatchError, ImageError, InkdigitsError
from inkdigits.ink.decode import Limits
from inkdigits.log.tables import Columns, TableFormat

if TYPE_CHECKING:
    from inkdigits.reader import DigitReader

# Each worker is a new interpreter: a fork would copy locks in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")
_ENDED: Final = "the worker that read it ended: out of memory, or by a defect in a decoder"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker does to each shard, and what it needs to know for that."""

    folder: Path  # where it writes
    form: TableFormat
    model_path: Path | None  # None is the shipped artifact
    limits: Limits
    risk: float | None = None  # None is the artifact's own
    hints: ReadOptions | None = None  # for numbers; None reads digits
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
            with told_as_batch_errors():
                return read_shard(reader, shard, start, stop, self.hints)
        except OSError as error:
            raise BatchError(f"a source can no longer be read: {error}") from error

    def read_part(self, number: int, shard: Shard) -> ShardDone:
        """Read a whole shard and write its part."""
        return write_part(self.folder, self.form, number, self.read(shard))


@functools.cache
def _reader(model_path: Path | None, limits: Limits, risk: float | None) -> DigitReader:
    from inkdigits.reader import load

    return load(model_path, threads=1, limits=limits, risk=risk)


class LocalEngine:
    """Processes of this machine."""

    died: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._start()

    def submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Have a worker call a function."""
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

    def restart(self) -> None:
        """Replace the workers after one has ended, which has ended them all."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._ours.close()
        self._pool.shutdown(cancel_futures=True)
        self._theirs.close()

    def _start(self) -> None:
        self._theirs, self._ours = _CONTEXT.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.workers, _CONTEXT, _end_with, (self._theirs,))


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
        self.died = (failed.WorkerCrashedError, failed.NodeDiedError, failed.OutOfMemoryError)
        self._ray: Any = ray
        self._call = ray.remote(num_cpus=1, max_retries=1)(_call)

    @property
    def workers(self) -> int:
        """The CPUs of the cluster, which may grow and shrink."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Have a worker call a function."""
        future: Future[Result] = self._call.remote(function, *arguments).future()
        return future

    def restart(self) -> None:
        """Do nothing; Ray replaces its workers itself."""

    def close(self) -> None:
        """Leave the cluster, which ends this run's workers."""
        self._ray.shutdown()


def _call(function: Callable[..., Result], *arguments: object) -> Result:
    return function(*arguments)


Engine: TypeAlias = LocalEngine | RayEngine
"""Where workers are. After a worker has ended, its future raises one of ``died``."""


class Workers:
    """The workers of an engine, with one job.

    Raises:
        InkdigitsError: the artifact cannot be used, or a worker ended while it loaded it.
    """

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine = engine
        loading = [engine.submit(job.load) for _ in range(engine.workers)]
        try:
            versions = [_result(one) for one in loading]
        except engine.died as error:
            raise BatchError("a worker ended while it loaded the model") from error
        self.job = replace(job, model_version=versions[0])

    def read(self, tasks: Iterator[tuple[int, Shard]]) -> Iterator[ShardDone]:
        """Have the numbered shards read; yield their counts as they are done, in any order.

        An InkdigitsError from a worker says that the run cannot continue.
        """
        engine, job = self._engine, self.job
        pending: dict[Future[ShardDone], tuple[int, Shard]] = {}
        while True:
            most = 2 * engine.workers
            while len(pending) < most and (task := next(tasks, None)) is not None:
                pending[engine.submit(job.read_part, *task)] = task
            if not pending:
                return
            done = wait(pending, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), engine.died) for future in done):
                # What ended one worker of this machine has ended them all.
                done = wait(pending).done
            finished = [(future, pending.pop(future)) for future in done]
            lost = [task for one, task in finished if isinstance(one.exception(), engine.died)]
            yield from (_result(one) for one, task in finished if task not in lost)
            if lost:
                engine.restart()
            for number, shard in lost:
                columns = self._halved(shard, 0, len(shard.names))
                yield write_part(job.folder, job.form, number, columns)

    def _halved(self, shard: Shard, start: int, stop: int) -> Columns:
        """Return the rows of some pictures, of which some may end the process that reads them."""
        engine, read = self._engine, self.job.read
        try:
            return _result(engine.submit(read, shard, start, stop))
        except engine.died:
            engine.restart()
        if stop - start == 1:
            boxes = None if shard.boxes is None else shard.boxes[start:stop]
            fatal = Shard(shard.names[start:stop], [ImageError(_ENDED)], boxes)
            return _result(engine.submit(read, fatal))
        middle = (start + stop) // 2
        first, second = self._halved(shard, start, middle), self._halved(shard, middle, stop)
        return {name: first[name] + second[name] for name in first}


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except InkdigitsError as error:
        # Ray wraps what a task raises, with the traceback in its message.
        raise getattr(error, "cause", None) or error from None
