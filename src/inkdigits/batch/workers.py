"""Processes that read chunks of pictures, each with its own model and one thread of arithmetic.

A process reads one chunk at a time, and the next few wait in the parent, so what is held doesn't
grow with the number of pictures. What a process reads it writes to the run's folder itself; the
parent only counts.

A decoder is C, and a hostile picture may end the process that decodes it. Its chunk is then read
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

from inkdigits.batch.checkpoint import ChunkDone, write_part
from inkdigits.batch.shards import Chunk, as_text
from inkdigits.batch.writers import COLUMNS, Columns
from inkdigits.errors import BatchError, ImageError, InkdigitsError
from inkdigits.ink.decode import Limits
from inkdigits.types import Picture

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction, Reader

# Through the network together. 16 to 64 are as fast as each other, and 128 is 3 to 5 % slower: its
# activations leave the processor's caches (docs/experiments/).
BATCH_PICTURES: Final = 32
# A batch ends earlier where its encoded pictures are this long, in bytes.
BATCH_BYTES: Final = 32 * 2**20

# A new interpreter for each: a copy of this one would hold its locks in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker process needs to know.

    Attributes:
        folder: where it writes.
        model_path: the artifact; None is the shipped one.
        limits: what pictures are refused by.
    """

    folder: Path
    model_path: Path | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class Task:
    """A chunk to read.

    Attributes:
        number: the chunk's place in the run.
        chunk: its pictures.
        one_by_one: tell of each picture before it is read.
        fatal: why pictures aren't read again, by their place in the chunk.
    """

    number: int
    chunk: Chunk
    one_by_one: bool = False
    fatal: dict[int, str] = field(default_factory=dict)


class Pool:
    """A number of worker processes, from ``with`` on until its end.

    Attributes:
        model_version: names the artifact that they all read with.

    Raises:
        InkdigitsError: that artifact can't be used.
        BatchError: a process ended without a word, or they loaded different artifacts.
    """

    def __init__(self, processes: int, work: Work) -> None:
        self._work = work
        self._workers: list[_Worker] = []
        self._processes = processes
        self.model_version = ""

    def __enter__(self) -> Pool:
        try:
            self._workers = [_Worker(self._work) for _ in range(self._processes)]
            for worker in self._workers:
                self._greet(worker)
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

    def read(self, tasks: Iterator[Task]) -> Iterator[ChunkDone]:
        """Have chunks read; yields as they are done, in whatever order.

        Args:
            tasks: asked for a few ahead, as processes become free.

        Raises:
            InkdigitsError: from a process: the run can't go on.
            BatchError: a process keeps ending, without a picture that does it.
        """
        ahead: deque[Task] = deque()
        while True:
            for worker in self._workers:
                if worker.task is None and (task := _next(ahead, tasks)) is not None:
                    worker.give(task)
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
                    ahead.appendleft(self._again(worker))
                    continue
                if isinstance(message, ChunkDone):
                    worker.task = None
                    yield message
                elif isinstance(message, int):
                    worker.at = message
                else:
                    raise message

    def _again(self, worker: _Worker) -> Task:
        """Replace a process that ended; its chunk, to be read with more care."""
        how, task, at = worker.end(), worker.task, worker.at
        assert task is not None  # noqa: S101 - it was busy
        if task.one_by_one:
            if at is None or at in task.fatal:
                raise BatchError(f"the process that read chunk {task.number} {how}, twice")
            task = replace(task, fatal=task.fatal | {at: f"the process that read it {how}"})
        new = _Worker(self._work)
        self._workers[self._workers.index(worker)] = new
        self._greet(new)
        return replace(task, one_by_one=True)

    def _greet(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise BatchError(f"a process that should read {worker.end()} at its start") from error
        if isinstance(message, InkdigitsError):
            raise message
        if self.model_version not in ("", message):
            raise BatchError(f"the model was replaced: {self.model_version}, then {message}")
        self.model_version = message

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.end()


class _Worker:
    """A process, the connection to it, and what it is at."""

    def __init__(self, work: Work) -> None:
        self.task: Task | None = None
        self.at: int | None = None
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=run_worker, args=(theirs, work), daemon=True)
        # Ctrl-C reaches all processes of a terminal, and the parent ends the others. It stays
        # blocked in them from their first instruction on; the tracker's start would unblock it.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def give(self, task: Task) -> None:
        """Have it read a chunk; it must be at none."""
        self.task, self.at = task, None
        # If it has ended, that is found when its answer is waited for.
        with contextlib.suppress(ConnectionError):
            self.connection.send(task)

    def end(self) -> str:
        """Wait for its end and say how it ended."""
        self.process.join()
        code = self.process.exitcode or 0
        self.connection.close()
        self.process.close()
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _next(ahead: deque[Task], tasks: Iterator[Task]) -> Task | None:
    return ahead.popleft() if ahead else next(tasks, None)


def run_worker(connection: Connection, work: Work) -> None:
    """The whole life of a worker process: load, then read chunks until the parent is gone.

    Sends the model's version first; then, for each task, a ChunkDone, and before each of its
    pictures that picture's place if it is read one by one. An InkdigitsError that isn't about a
    picture is sent too, and ends it.
    """
    from inkdigits.reader import load

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        reader = load(work.model_path, threads=1, limits=work.limits)
        connection.send(reader.model_version)
        while True:
            task: Task = connection.recv()
            columns = read_chunk(reader, task, connection)
            write_part(work.folder, task.number, task.chunk.key(), columns)
            connection.send(ChunkDone.of(task.number, columns))
    except InkdigitsError as error:
        connection.send(error)
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except OSError as error:
        connection.send(BatchError(f"a source can't be read any more: {error}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # At once, whatever the main thread is doing: a resumed run may already have begun.
        os._exit(1)


def read_chunk(reader: Reader, task: Task, connection: Connection | None = None) -> Columns:
    """The columns of a chunk's results, in its order.

    Args:
        reader: reads the pictures.
        task: says which.
        connection: where a task that is read one by one tells of each picture.
    """
    answers: list[Prediction | ImageError] = []
    batch: list[Picture] = []
    size = 0
    names = task.chunk.names()
    pictures = task.chunk.pictures()
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
    columns: Columns = {name: [None] * len(names) for name in COLUMNS}
    columns["source"] = names
    columns["model_version"] = [model_version] * len(names)
    for i, answer in enumerate(answers):
        if isinstance(answer, ImageError):
            columns["error"][i] = as_text(str(answer))
        else:
            for name in ("digit", "confidence", "decision", "reason", "novelty"):
                columns[name][i] = getattr(answer, name)
    return columns
