"""A batch run: very many pictures into one table, on all cores or machines, in constant memory.

Sources are cut into shards (``sources``), workers read them (``engines``), the readings of each
shard are kept in the run's checkpoint, and the table is put together from them in the order of the
sources. A run that was interrupted resumes with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from inkdigits.batch.checkpoint import FAILURES_NAMED, Checkpoint, ShardDone
from inkdigits.batch.engines import Engine, Job, LocalEngine, RayEngine, Workers
from inkdigits.batch.shards import Shard
from inkdigits.batch.sources import SHARD_BYTES, SHARD_PICTURES, Source, open_sources
from inkdigits.batch.storage import told_as_batch_errors
from inkdigits.decision.hints import Hints, ReadOptions
from inkdigits.decision.prediction import Box
from inkdigits.errors import DataError
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits
from inkdigits.log.tables import read_rows
from inkdigits.settings import available_cores
from inkdigits.types import Json

# Changes whenever the parts of an earlier release cannot be used to resume.
_PARTS_VERSION: Final = 5
_BOX: Final = ("left", "top", "width", "height")


@dataclass(frozen=True, slots=True)
class Work:
    """Where a run is read, and which part of it."""

    engine: Literal["local", "ray"] | None = None  # None is local
    address: str | None = None  # of the Ray cluster; None starts Ray on this machine
    workers: int | None = None  # processes of this machine; None is one per core
    resume: bool = False  # continue an unfinished run of the same sources, table and model
    shard: tuple[int, int] | None = None
    """Which of how many commands this is, from 0; ``Checkpoint.merge`` joins what they read."""

    def start(self) -> Engine:
        """Start the workers."""
        if self.engine == "ray":
            return RayEngine(self.address)
        return LocalEngine(self.workers or available_cores())


def read_in_bulk(
    paths: Sequence[Path],
    out: str | Path,
    *,
    model_path: Path | None = None,
    risk: float | None = None,
    hints: ReadOptions | None = None,
    regions: Mapping[str, Sequence[Box]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    work: Work = Work(),
    progress: Callable[[Run], None] | None = None,
) -> Run:
    """Read all pictures of some sources into a table.

    The paths are those of ``open_sources``, and ``out`` is that of ``Checkpoint``. ``model_path``,
    ``risk`` and ``limits`` are those of ``inkdigits.load``. ``hints`` are for numbers; without any,
    each picture is one digit. ``regions`` say where the numbers are, see ``read_regions``.
    ``progress`` is called after every shard with the run so far.

    Raises:
        InkdigitsError: the run cannot start or resume, a source or the model cannot be used, a hint
            is invalid, or a library is not installed.

    >>> read_in_bulk([Path("digits.npy")], "readings.txt")
    Traceback (most recent call last):
    inkdigits.errors.BatchError: the name of readings.txt must end in .csv, .jsonl, .parquet, or \
in / for a folder of Parquet files
    """
    Hints.of(hints or {})
    show = progress or (lambda _: None)
    resume = None if work.shard else work.resume
    with told_as_batch_errors(), closing(Checkpoint(out, resume=resume, shard=work.shard)) as kept:
        sources = open_sources(paths, limits)
        job = Job(kept.folder, kept.form, model_path, limits, risk, hints)
        with closing(work.start()) as engine:
            workers = Workers(engine, job)
            kept.begin(_identity(workers.job, sources, regions))
            run = Run(workers.job.model_version, kept, sources, regions, work.shard)
            for done in workers.read(run.tasks()):
                run.add(done)
                show(run)
        kept.finish({"shards": run.shards, "pictures": run.pictures, "failed": run.failed})
    return run


def _identity(
    job: Job, sources: Sequence[Source], regions: Mapping[str, Sequence[Box]] | None
) -> Json:
    """Return what must be the same where a run is resumed."""
    return {
        "version": [_PARTS_VERSION, SHARD_PICTURES, SHARD_BYTES],
        "model": job.model_version,
        "risk": job.risk,
        "hints": job.hints,
        "regions": regions and hashlib.sha256(json.dumps(regions).encode()).hexdigest(),
        "limits": [job.limits.max_bytes, job.limits.max_pixels],
        "sources": [source.identity for source in sources],
    }


def read_regions(path: Path) -> dict[str, list[Box]]:
    r"""Return the regions in a table with the columns left, top, width and height, in pixels.

    A column ``source`` names the picture as the result does; without one, each picture has them
    all, under the name "". Other columns or values are a DataError.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("source,left,top,width,height\na.png,0,0,20,30\n")
    ...     file.flush()
    ...     read_regions(Path(file.name))
    {'a.png': [(0, 0, 20, 30)]}
    """
    found: dict[str, list[Box]] = {}
    try:
        for row in read_rows(path):
            left, top, width, height = (int(row[name]) for name in _BOX)
            found.setdefault(row.get("source") or "", []).append((left, top, width, height))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} must have the columns left, top, width, height and maybe source: {error}"
        ) from error
    return found


class Run:
    """How far a run is, and in the end its result.

    Attributes:
        pictures: rows so far, one per picture or per region of one.
        failed: how many of them cannot be read.
        outcomes: how many of each decision, or reason of what was rejected.
        unmatched: the pictures that regions are given for and that are not found yet.
    """

    def __init__(
        self,
        model_version: str,
        checkpoint: Checkpoint,
        sources: Sequence[Source],
        regions: Mapping[str, Sequence[Box]] | None = None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        self.model_version = model_version
        self.shards = self.pictures = self.failed = self._resumed = 0
        self.outcomes: Counter[str] = Counter()
        self._checkpoint = checkpoint
        self._sources = sources
        self._regions = regions
        self.unmatched = set(regions or ()) - {""}
        self._shard = shard or (0, 1)
        self._began = time.perf_counter()
        self._failures: list[tuple[int, int, tuple[str, str]]] = []

    def tasks(self) -> Iterator[tuple[int, Shard]]:
        """Yield the shards that are missing, and count those that are done."""
        mine, of = self._shard
        for source in self._sources:
            for shard in map(self._with_boxes, source.shards()):
                number, names = self.shards, shard.rows()[0]
                self.shards += 1
                done = self._checkpoint.listed(number, names, mine=number % of == mine)
                if done is not None:
                    self._resumed += done.pictures
                    self.add(done)
                elif number % of == mine:
                    yield number, shard

    def _with_boxes(self, shard: Shard) -> Shard:
        regions = self._regions
        if regions is None:
            return shard
        self.unmatched.difference_update(shard.names)
        boxes = [regions.get(name, regions.get("", ())) for name in shard.names]
        return replace(shard, boxes=boxes)

    def add(self, done: ShardDone) -> None:
        """Count a shard."""
        self.pictures += done.pictures
        self.failed += done.failed
        self.outcomes.update(done.outcomes)
        # Shards come in any order; failures are named in the order of the run.
        self._failures += ((done.number, i, one) for i, one in enumerate(done.failures))
        self._failures = sorted(self._failures)[:FAILURES_NAMED]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(source, error) of the first that cannot be read."""
        return [(source, error) for _, _, (source, error) in self._failures]

    @property
    def expected(self) -> int | None:
        """All pictures, as far as is known by now."""
        known = [one.expected for one in self._sources if one.expected is not None]
        return max(sum(known), self.pictures) if len(known) == len(self._sources) else None

    @property
    def seconds(self) -> float:
        """Since the workers are ready, without an earlier run that was resumed."""
        return time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Rows per second, without those of an earlier run."""
        return (self.pictures - self._resumed) / self.seconds
