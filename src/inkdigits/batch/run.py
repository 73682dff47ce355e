"""Very many pictures into one file of readings, on all cores, in memory that doesn't grow.

Sources are cut into chunks (``sources``), processes read them (``pool``), each chunk's readings are
kept in the run's folder (``unfinished``) and put together at the end in the order of the sources
(``results``). A run that was interrupted goes on with the chunks that aren't there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inkdigits.batch.checkpoint import FAILURES_KEPT, ChunkDone, Unfinished
from inkdigits.batch.sources import CHUNK_BYTES, CHUNK_PICTURES, Source, open_sources
from inkdigits.batch.workers import Pool, Task, Work
from inkdigits.batch.writers import check_available, form_of
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits
from inkdigits.settings import available_cores

# Changes whenever the parts of an earlier release can't be gone on with.
_PARTS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        pictures: done so far, with those of the run that is resumed.
        failed: how many of them can't be read.
        expected: all pictures, as far as is known by now; None if it isn't.
        rate: pictures a second, of this run.
        seconds_left: None where it isn't known.
    """

    pictures: int
    failed: int
    expected: int | None
    rate: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished run came to.

    Attributes:
        pictures: rows in the file.
        failed: how many of them can't be read.
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
        out: ``.parquet``, ``.csv`` or ``.jsonl``; replaced if it is there, when all is read.
            Until then the work lies beside it in a folder named like it with ``.parts``.
        model_path: the artifact; None is the shipped one.
        workers: processes; None is one a core.
        resume: go on with an unfinished run of the same sources, file and model.
        limits: sizes of pictures that are refused.
        progress: called after every chunk.

    Raises:
        BatchError: the run can't start or go on.
        DataError: a source isn't what its name says.
        ArtifactError: the model can't be used.
        BackendUnavailableError: a ``.parquet`` without pyarrow.
    """
    began = time.perf_counter()
    form = form_of(out)
    check_available(form)
    sources = open_sources(paths, limits)
    if progress is not None:
        for source in sources:
            source.count()
    unfinished = Unfinished(out, resume=resume)
    try:
        with Pool(
            workers or available_cores(), Work(unfinished.folder, model_path, limits)
        ) as pool:
            unfinished.begin(
                {
                    "version": [_PARTS_VERSION, CHUNK_PICTURES, CHUNK_BYTES],
                    "model": pool.model_version,
                    "limits": [limits.max_bytes, limits.max_pixels],
                    "sources": [source.identity() for source in sources],
                }
            )
            run = _Run(unfinished, sources)
            for done in pool.read(run.tasks()):
                run.add(done)
                if progress is not None:
                    progress(run.progress())
        unfinished.finish(form, run.chunks)
    finally:
        unfinished.close()
    return Summary(
        pictures=run.pictures,
        failed=run.failed,
        failures=run.failures,
        model_version=pool.model_version,
        seconds=time.perf_counter() - began,
    )


class _Run:
    """Counts what is done, and finds out what is to be."""

    def __init__(self, unfinished: Unfinished, sources: Sequence[Source]) -> None:
        self._unfinished = unfinished
        self._sources = sources
        self._began = time.perf_counter()
        self._resumed = 0
        self.chunks = 0
        self.pictures = 0
        self.failed = 0
        self._failures: list[tuple[int, int, tuple[str, str]]] = []

    def tasks(self) -> Iterator[Task]:
        """The chunks that aren't there yet; those that are, are counted."""
        for source in self._sources:
            for chunk in source.chunks():
                number = self.chunks
                self.chunks += 1
                done = self._unfinished.done(number, chunk.key())
                if done is None:
                    yield Task(number, chunk)
                else:
                    self._resumed += done.pictures
                    self.add(done)

    def add(self, done: ChunkDone) -> None:
        """Count a chunk."""
        self.pictures += done.pictures
        self.failed += done.failed
        # By their place in the run: chunks come as they are done.
        self._failures += ((done.number, i, one) for i, one in enumerate(done.failures))
        self._failures = sorted(self._failures)[:FAILURES_KEPT]

    @property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """(source, error) of the first pictures that can't be read."""
        return tuple(failure for _, _, failure in self._failures)

    def progress(self) -> Progress:
        """How far it is."""
        numbers = [source.expected for source in self._sources]
        known = [number for number in numbers if number is not None]
        expected = max(sum(known), self.pictures) if len(known) == len(numbers) else None
        rate = (self.pictures - self._resumed) / (time.perf_counter() - self._began)
        left = (expected - self.pictures) / rate if expected is not None and rate > 0 else None
        return Progress(self.pictures, self.failed, expected, rate, left)
