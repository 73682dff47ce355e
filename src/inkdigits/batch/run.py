"""A batch run: very many pictures into one file of readings, on all cores, in constant memory.

Sources are cut into shards (``sources``), worker processes read them (``workers``), the readings of
each shard are kept in the run's checkpoint, and the file is put together from them in the order of
the sources. A run that was interrupted resumes with the shards that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inkdigits.batch.checkpoint import FAILURES_NAMED, Checkpoint, ShardDone
from inkdigits.batch.sources import SHARD_BYTES, SHARD_PICTURES, Source, open_sources
from inkdigits.batch.workers import Task, WorkerPool, WorkerSettings
from inkdigits.batch.writers import format_of
from inkdigits.cores import available_cores
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits
from inkdigits.log.tables import check_available

# Changes whenever the parts of an earlier release cannot be used to resume.
_PARTS_VERSION = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        pictures: done so far, with those of the run that is resumed.
        failed: how many of them cannot be read.
        expected: all pictures, as far as is known by now; None if it is not known.
        rate: pictures per second, of this run.
        seconds_left: None where it is not known.
    """

    pictures: int
    failed: int
    expected: int | None
    rate: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a finished run.

    Attributes:
        pictures: rows in the file.
        failed: how many of them cannot be read.
        failures: (source, error) of the first of those.
        model_version: the artifact that read them.
        seconds: how long this run took, without an earlier one that it resumed.
    """

    pictures: int
    failed: int
    failures: tuple[tuple[str, str], ...]
    model_version: str
    seconds: float


def predict_to_file(
    paths: Sequence[Path],
    out: Path,
    *,
    model_path: Path | None = None,
    workers: int | None = None,
    resume: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Read all pictures of some sources into a file.

    Args:
        paths: see ``sources.open_sources``.
        out: ``.parquet``, ``.csv`` or ``.jsonl``; replaced when all is read. Until then the work
            lies beside it in a folder of the same name with ``.parts``.
        model_path: the artifact; None is the shipped one.
        workers: processes; None is one per core.
        resume: continue an unfinished run of the same sources, file and model.
        limits: larger pictures are rejected.
        progress: called after every shard.

    Raises:
        BatchError: the run cannot start or resume.
        DataError: a source is not what its name says.
        ArtifactError: the model cannot be used.
        BackendUnavailableError: a ``.parquet`` without pyarrow.

    >>> predict_to_file([Path("digits.npy")], Path("readings.txt"))
    Traceback (most recent call last):
    inkdigits.errors.BatchError: the name of readings.txt must end in .csv, .jsonl, .parquet
    """
    began = time.perf_counter()
    form = format_of(out)
    check_available(form)
    sources = open_sources(paths, limits)
    report = progress or (lambda _: None)
    if progress is not None:
        for source in sources:
            source.count()
    checkpoint = Checkpoint(out, resume=resume)
    try:
        settings = WorkerSettings(checkpoint.folder, model_path, limits)
        with WorkerPool(workers or available_cores(), settings) as pool:
            checkpoint.begin(_identity(pool.model_version, limits, sources))
            run = _Run(checkpoint, sources)
            for done in pool.read(run.tasks()):
                run.add(done)
                report(run.progress())
        checkpoint.finish(form, run.shards)
    finally:
        checkpoint.close()
    seconds = time.perf_counter() - began
    return Summary(run.pictures, run.failed, run.failures, pool.model_version, seconds)


def _identity(model_version: str, limits: Limits, sources: Sequence[Source]) -> dict[str, object]:
    """Return what must be the same for a run to be resumed."""
    return {
        "version": [_PARTS_VERSION, SHARD_PICTURES, SHARD_BYTES],
        "model": model_version,
        "limits": [limits.max_bytes, limits.max_pixels],
        "sources": [source.identity() for source in sources],
    }


class _Run:
    """Counts the shards that are done, and finds those that are missing."""

    def __init__(self, checkpoint: Checkpoint, sources: Sequence[Source]) -> None:
        self._checkpoint = checkpoint
        self._sources = sources
        self._began = time.perf_counter()
        self._resumed = 0
        self.shards = 0
        self.pictures = 0
        self.failed = 0
        self._failures: list[tuple[int, int, tuple[str, str]]] = []

    def tasks(self) -> Iterator[Task]:
        """Yield the shards that are missing, and count those that are done."""
        for source in self._sources:
            for shard in source.shards():
                number = self.shards
                self.shards += 1
                done = self._checkpoint.done(number, shard.key())
                if done is None:
                    yield Task(number, shard)
                else:
                    self._resumed += done.pictures
                    self.add(done)

    def add(self, done: ShardDone) -> None:
        """Count a shard."""
        self.pictures += done.pictures
        self.failed += done.failed
        # Shards come in any order; failures are named in the order of the run.
        self._failures += ((done.number, i, one) for i, one in enumerate(done.failures))
        self._failures = sorted(self._failures)[:FAILURES_NAMED]

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(source, error) of the first pictures that cannot be read."""
        return tuple(failure for _, _, failure in self._failures)

    def progress(self) -> Progress:
        """Return how far the run is."""
        numbers = [source.expected for source in self._sources]
        known = [number for number in numbers if number is not None]
        expected = max(sum(known), self.pictures) if len(known) == len(numbers) else None
        rate = (self.pictures - self._resumed) / (time.perf_counter() - self._began)
        left = (expected - self.pictures) / rate if expected is not None and rate > 0 else None
        return Progress(self.pictures, self.failed, expected, rate, left)
