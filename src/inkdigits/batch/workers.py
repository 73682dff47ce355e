"""Worker processes that read shards, each with its own model and one thread of arithmetic.

A worker reads one shard at a time, and the next few wait in the parent, so memory does not grow
with the number of pictures. A worker writes what it read to the run's checkpoint itself; the parent
only counts.

A decoder is C, and a hostile picture may end the process that decodes it. Its shard is then read
again one picture after another; the picture that ends a process again gets an error in its row.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from inkdigits.batch.checkpoint import ShardDone, write_part
from inkdigits.batch.shards import Shard, as_text
from inkdigits.batch.writers import SCHEMA
from inkdigits.errors import BatchError, ImageError, InkdigitsError
from inkdigits.ink.decode import Limits
from inkdigits.log.tables import Columns
from inkdigits.types import Picture

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction, Reader

# Pictures per pass of the network. 16 to 64 are as fast as each other, and 128 is 3 to 5 % slower:
# its activations leave the processor's caches (docs/experiments/).
BATCH_PICTURES: Final = 32
# A batch ends earlier where its encoded pictures have this many bytes.
BATCH_BYTES: Final = 32 * 2**20

# Each worker is a new interpreter: a fork would copy locks in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs to know.

    Attributes:
        folder: where it writes.
        model_path: the artifact; None is the shipped one.
        limits: larger pictures are rejected.
    """

    folder: Path
    model_path: Path | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to read.

    Attributes:
        number: the shard's place in the run, from 0.
        shard: its pictures.
        one_by_one: announce each picture before it is read.
        fatal: why pictures are not read again, by their place in the shard.
    """

    number: int
    shard: Shard
    one_by_one: bool = False
    fatal: dict[int, str] = field(default_factory=dict)


class WorkerPool:
    """A number of workers, which run inside a ``with`` block.

    Attributes:
        model_version: the artifact that all of them read with.

    Raises:
        InkdigitsError: that artifact cannot be used.
        BatchError: a worker ended while it started, or they loaded different artifacts.
    """

    def __init__(self, processes: int, settings: WorkerSettings) -> None:
        self._settings = settings
        self._workers: list[_Worker] = []
        self._processes = processes
        self.model_version = ""

    def __enter__(self) -> WorkerPool:
        try:
            self._workers = [_Worker(self._settings) for _ in range(self._processes)]
            for worker in self._workers:
                self._wait_until_ready(worker)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def read(self, tasks: Iterator[Task]) -> Iterator[ShardDone]:
        """Have shards read; yield them as they are done, in any order.

        Args:
            tasks: asked for a few ahead, as workers become free.

        Raises:
            InkdigitsError: from a worker: the run cannot continue.
            BatchError: a worker keeps ending, and no picture is the cause.
        """
        ahead: deque[Task] = deque()
        while True:
            for worker in self._workers:
                if worker.task is None and (task := _next(ahead, tasks)) is not None:
                    worker.start(task)
            while len(ahead) < self._processes and (task := next(tasks, None)) is not None:
                ahead.append(task)
            busy = {w.connection: w for w in self._workers if w.task is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                try:
                    message = worker.connection.recv()
                except (EOFError, ConnectionError):
                    ahead.appendleft(self._replace(worker))
                    continue
                if isinstance(message, ShardDone):
                    worker.task = None
                    yield message
                elif isinstance(message, int):
                    worker.picture = message
                else:
                    raise message

    def _replace(self, worker: _Worker) -> Task:
        """Replace a worker that ended, and return its shard, to be read one by one."""
        how, task, picture = worker.wait(), worker.task, worker.picture
        assert task is not None  # noqa: S101 - it was busy
        if task.one_by_one:
            if picture is None or picture in task.fatal:
                raise BatchError(f"the worker that read shard {task.number} {how}, twice")
            task = replace(task, fatal=task.fatal | {picture: f"the worker that read it {how}"})
        new = _Worker(self._settings)
        self._workers[self._workers.index(worker)] = new
        self._wait_until_ready(new)
        return replace(task, one_by_one=True)

    def _wait_until_ready(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise BatchError(f"a worker {worker.wait()} while it started") from error
        if isinstance(message, InkdigitsError):
            raise message
        if self.model_version not in ("", message):
            raise BatchError(
                f"the model was replaced during the run: {self.model_version}, then {message}"
            )
        self.model_version = message

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.wait()


class _Worker:
    """A process, the connection to it, its task, and the picture that it has announced."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.task: Task | None = None
        self.picture: int | None = None
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_run_worker, args=(theirs, settings), daemon=True)
        # Ctrl-C reaches all processes of a terminal, and the parent ends the others. It stays
        # blocked in them from their first instruction on; the tracker's start would unblock it.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def start(self, task: Task) -> None:
        """Have a shard read; the worker must be idle."""
        self.task, self.picture = task, None
        # A worker that has ended is found when its answer is waited for.
        with contextlib.suppress(ConnectionError):
            self.connection.send(task)

    def wait(self) -> str:
        """Wait for the end of the process, and return how it ended."""
        self.process.join()
        code = self.process.exitcode or 0
        self.connection.close()
        self.process.close()
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _next(ahead: deque[Task], tasks: Iterator[Task]) -> Task | None:
    return ahead.popleft() if ahead else next(tasks, None)


def _run_worker(connection: Connection, settings: WorkerSettings) -> None:
    """Load the model, then read shards until the parent has gone.

    Sends the model's version first, and a ShardDone for each task. A task that is read one by one
    announces each picture by its place in the shard. An InkdigitsError that is not about a picture
    is sent too, and ends the worker.
    """
    from inkdigits.reader import load

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        reader = load(settings.model_path, threads=1, limits=settings.limits)
        connection.send(reader.model_version)
        while True:
            task: Task = connection.recv()
            columns = read_shard(reader, task, connection)
            write_part(settings.folder, task.number, task.shard.key(), columns)
            connection.send(ShardDone.of(task.number, columns))
    except InkdigitsError as error:
        connection.send(error)
    except (EOFError, ConnectionError):
        return  # The parent has gone.
    except OSError as error:
        connection.send(BatchError(f"a source can no longer be read: {error}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # At once, whatever the main thread is doing: a resumed run may already have begun.
        os._exit(1)


def read_shard(reader: Reader, task: Task, connection: Connection | None = None) -> Columns:
    """Return the rows of a shard, in its order.

    Args:
        reader: reads the pictures.
        task: the shard, and how to read it.
        connection: where pictures that are read one by one are announced.

    >>> from inkdigits.batch.shards import FileShard
    >>> import inkdigits
    >>> shard = FileShard((("a.png", ImageError("damaged")),))
    >>> read_shard(inkdigits.load(), Task(0, shard))["error"]
    ['damaged']
    """
    answers: list[Prediction | ImageError] = []
    batch: list[Picture] = []
    size = 0
    names = task.shard.names()
    pictures = task.shard.pictures()
    for i in range(len(names)):
        if task.one_by_one and connection is not None:
            connection.send(i)
        picture: Picture | ImageError = next(pictures)
        if i in task.fatal:
            picture = ImageError(task.fatal[i])
        if isinstance(picture, ImageError):
            answers += [*_answers(reader, batch), picture]
            batch, size = [], 0
            continue
        batch.append(picture)
        size += len(picture) if isinstance(picture, bytes) else 0
        if task.one_by_one or len(batch) == BATCH_PICTURES or size >= BATCH_BYTES:
            answers += _answers(reader, batch)
            batch, size = [], 0
    answers += _answers(reader, batch)
    return _columns(names, answers, reader.model_version)


def _answers(reader: Reader, batch: Sequence[Picture]) -> list[Prediction | ImageError]:
    return reader.predict_batch(batch, on_error="return") if batch else []


def _columns(
    names: list[str], answers: Sequence[Prediction | ImageError], model_version: str
) -> Columns:
    columns: Columns = {
        name: [getattr(answer, name, None) for answer in answers] for name in SCHEMA
    }
    columns["source"] = names
    columns["model_version"] = [model_version] * len(names)
    columns["error"] = [
        as_text(str(answer)) if isinstance(answer, ImageError) else None for answer in answers
    ]
    return columns
