"""A batch run: very many pictures into one file of readings, on all cores, in constant memory.

Sources are cut into shards (``sources``), worker processes read them (``workers``), the readings of
each shard are kept in the run's checkpoint, and the file is put together from them in the order of
the sources. A run that was interrupted resumes with the shards that are missing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inkdigits.batch.checkpoint import FAILURES_NAMED, Checkpoint, ShardDone
from inkdigits.batch.shards import Shard
from inkdigits.batch.sources import SHARD_BYTES, SHARD_PICTURES, Source, open_sources
from inkdigits.batch.workers import Worker, WorkerPool
from inkdigits.errors import BatchError
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits
from inkdigits.log.tables import TableFormat, check_available
from inkdigits.settings import available_cores

# Changes whenever the parts of an earlier release cannot be used to resume.
_PARTS_VERSION: Final = 4
_FORMATS: Final[dict[str, TableFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    pictures: int  # done so far, with those of the run that is resumed
    failed: int  # how many of them cannot be read
    expected: int | None  # all pictures, as far as is known by now
    rate: float  # pictures per second of this run


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a finished run."""

    pictures: int  # rows in the file
    failed: int  # how many of them cannot be read
    failures: tuple[tuple[str, str], ...]  # (source, error) of the first of those
    outcomes: Mapping[str, int]  # how many of each decision, or reason of what was rejected
    model_version: str
    seconds: float  # without an earlier run that was resumed


def predict_to_file(
    paths: Sequence[Path],
    out: Path,
    *,
    model_path: Path | None = None,
    risk: float | None = None,
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
        risk: tolerated share of wrong readings among the accepted; None is the artifact's own.
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
    form = _FORMATS.get(out.suffix.lower())
    if form is None:
        raise BatchError(f"the name of {out} must end in {', '.join(_FORMATS)}")
    check_available(form)
    sources = open_sources(paths, limits)
    show = progress or (lambda _: None)
    with closing(Checkpoint(out, form, resume=resume)) as checkpoint:
        worker = Worker(checkpoint.folder, form, model_path, limits, risk)
        with WorkerPool(workers or available_cores(), worker) as pool:
            # A run is resumed only where all of these are the same.
            checkpoint.begin(
                {
                    "version": [_PARTS_VERSION, SHARD_PICTURES, SHARD_BYTES],
                    "model": pool.model_version,
                    "risk": risk,
                    "limits": [limits.max_bytes, limits.max_pixels],
                    "sources": [source.identity for source in sources],
                }
            )
            run = _Run(checkpoint, sources)
            for done in pool.read(run.tasks()):
                run.add(done)
                show(run.progress())
        checkpoint.finish(run.shards)
    return run.summary(pool.model_version, time.perf_counter() - began)


class _Run:
    """Counts the shards that are done, and finds those that are missing."""

    def __init__(self, checkpoint: Checkpoint, sources: Sequence[Source]) -> None:
        self._checkpoint = checkpoint
        self._sources = sources
        self._began = time.perf_counter()
        self._resumed = 0
        self._failures: list[tuple[int, int, tuple[str, str]]] = []
        self.shards = self.pictures = self.failed = 0
        self.outcomes: Counter[str] = Counter()

    def tasks(self) -> Iterator[tuple[int, Shard]]:
        """Yield the shards that are missing, and count those that are done."""
        for source in self._sources:
            for shard in source.shards():
                number = self.shards
                self.shards += 1
                done = self._checkpoint.done(number, shard.names)
                if done is None:
                    yield number, shard
                else:
                    self._resumed += done.pictures
                    self.add(done)

    def add(self, done: ShardDone) -> None:
        """Count a shard."""
        self.pictures += done.pictures
        self.failed += done.failed
        self.outcomes.update(done.outcomes)
        # Shards come in any order; failures are named in the order of the run.
        self._failures += ((done.number, i, one) for i, one in enumerate(done.failures))
        self._failures = sorted(self._failures)[:FAILURES_NAMED]

    def summary(self, model_version: str, seconds: float) -> Summary:
        """Return the result of the run."""
        first = tuple((source, error) for _, _, (source, error) in self._failures)
        outcomes = dict(self.outcomes)
        return Summary(self.pictures, self.failed, first, outcomes, model_version, seconds)

    def progress(self) -> Progress:
        """Return how far the run is."""
        known = [one.expected for one in self._sources if one.expected is not None]
        all_known = len(known) == len(self._sources)
        expected = max(sum(known), self.pictures) if all_known else None
        rate = (self.pictures - self._resumed) / (time.perf_counter() - self._began)
        return Progress(self.pictures, self.failed, expected, rate)
