"""Engines read shards in other processes: of this machine, or of a Ray cluster.

A process has its own model and one thread, and writes the parts that it reads. A decoder is C, and
a hostile picture may end it. The shards that were under way are then read again, one at a time. Of
one that ends a process once more each picture is read alone, and what still ends a process gets an
error in its row.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from inkdigits.batch.shards import Shard, read_shard
from inkdigits.batch.storage import open_new, told_as_batch_errors
from inkdigits.decision.hints import ReadOptions
from inkdigits.errors import BackendUnavailableError, BatchError, ImageError, InkdigitsError
from inkdigits.reader import load
from inkdigits.settings import available_cores

# Each worker is a new interpreter: a fork would copy locks in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")
_load = functools.cache(load)  # once per process
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
    def read(self, shard: Shard, name: str | None = None) -> tuple[int, int]:
        """Read a shard, and write its part if that is named; return (rows, failed rows)."""
        reader = _load(self.model_path, threads=1, risk=self.risk)
        if reader.model_version != self.model_version:
            raise BatchError(f"the model was replaced during the run by {reader.model_version}")
        columns = read_shard(reader, shard, self.hints)
        if name is not None:
            with open_new(self.folder / name) as file:
                file.write(msgspec.msgpack.encode(columns))
        errors = columns["error"]
        return len(errors), len(errors) - errors.count(None)


class Engine:
    """Processes that read shards."""

    workers: int
    died: tuple[type[Exception], ...]  # what futures raise whose process has ended
    close: Callable[[], None]  # ends the processes, whatever they are doing
    _submit: Callable[..., Future[Any]]  # has a process call a function with arguments

    def read_parts(self, job: Job, tasks: Iterator[tuple[Shard, str]]) -> Iterator[tuple[int, int]]:
        """Load the model, read named parts, and yield what ``Job.read`` returns for each."""
        _result(self._submit(job.read, Shard((), ())))
        pending: dict[Future[Any], tuple[Shard, str]] = {}
        while True:
            for task in islice(tasks, max(0, 2 * self.workers - len(pending))):
                pending[self._submit(job.read, *task)] = task
            if not pending:
                return
            done = wait(pending, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), self.died) for future in done):
                done = wait(pending).done  # Whatever ended it is then read alone.
            for future in done:
                task = pending.pop(future)
                is_dead = isinstance(future.exception(), self.died)
                yield self._read_again(job, *task) if is_dead else _result(future)

    def _read_again(self, job: Job, shard: Shard, name: str) -> tuple[int, int]:
        """Read a shard of which some pictures may end the process that reads them."""
        with suppress(*self.died):
            return _result(self._submit(job.read, shard, name))
        content = list(shard.content)
        for number, one in enumerate(shard.singles()):
            try:
                _result(self._submit(job.read, one))
            except self.died:
                content[number] = ImageError(_ENDED)
        return _result(self._submit(job.read, replace(shard, content=content), name))


def _result(future: Future[tuple[int, int]]) -> tuple[int, int]:
    try:
        return future.result()
    except InkdigitsError as error:
        # Ray wraps what a task raises, with the traceback in its message.
        raise getattr(error, "cause", None) or error from None


class LocalEngine(Engine):
    """Processes of this machine, by default one per core. What ends one of them ends them all."""

    died = (BrokenProcessPool,)

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or available_cores()
        self._theirs, self._ours = _CONTEXT.Pipe(duplex=False)
        start = (self.workers, _CONTEXT, _end_with, (self._theirs,))
        self._start = functools.partial(ProcessPoolExecutor, *start)
        self._pool = self._start()

    def _submit(self, *call: Any) -> Future[Any]:
        # Ctrl-C reaches all processes of a terminal, and the parent ends the others. It stays
        # blocked in those that start here, from their first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(*call)
        except BrokenProcessPool:
            self._pool = self._start()
            return self._pool.submit(*call)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End the processes."""
        self._ours.close()
        self._pool.shutdown(cancel_futures=True)
        self._theirs.close()


def _end_with(parent: Connection) -> None:
    """End this process as soon as the parent closes its end of a connection, or is gone."""
    # At once, whatever the main thread is doing: a resumed run may already have begun.
    threading.Thread(target=lambda: parent.poll(None) and os._exit(1), daemon=True).start()


class RayEngine(Engine):
    """Processes of a Ray cluster, one per CPU; all its nodes reach the sources and the result.

    ``address`` is as for ``ray.init``; None starts Ray on this machine. Ray repeats what a node or
    a process that ended was doing, once.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise BackendUnavailableError.without("ray", "--engine ray needs Ray") from error
        ray.init(address=address, log_to_driver=False, logging_level="warning")
        lost = ray.exceptions
        self.died = (lost.WorkerCrashedError, lost.OutOfMemoryError)
        self.died += (lost.NodeDiedError, lost.LocalRayletDiedError)
        self.close = ray.shutdown
        self._cluster: Any = ray.cluster_resources
        self._task: Any = ray.remote(num_cpus=1, max_retries=1)(lambda call, *given: call(*given))

    @property
    def workers(self) -> int:  # type: ignore[override]
        """The CPUs of the cluster, which may grow and shrink."""
        return max(1, int(self._cluster().get("CPU", 1)))

    def _submit(self, *call: Any) -> Future[Any]:
        return cast(Future[Any], self._task.remote(*call).future())
