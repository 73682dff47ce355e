"""A batch run: very many pictures into one table, on all cores or machines, in constant memory.

Sources are cut into shards, the workers of an engine read them into the run's checkpoint, and the
table is put together from that in the order of the sources.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from inkdigits.batch.checkpoint import Checkpoint, Totals
from inkdigits.batch.engines import Job, LocalEngine, RayEngine, Workers
from inkdigits.batch.shards import Shard
from inkdigits.batch.sources import SHARD_BYTES, SHARD_PICTURES, Source, open_sources
from inkdigits.batch.storage import told_as_batch_errors
from inkdigits.decision.hints import Hints, ReadOptions
from inkdigits.decision.prediction import Box
from inkdigits.settings import available_cores

# Changes whenever the parts of an earlier release cannot be used to resume.
_PARTS_VERSION: Final = 7


@dataclass(frozen=True, slots=True)
class Work:
    """Where a run is read, and which part of it."""

    engine: Literal["local", "ray"] | None = None  # None is local
    address: str | None = None  # of the Ray cluster; None starts Ray on this machine
    workers: int | None = None  # processes of this machine; None is one per core
    resume: bool = False  # continue an unfinished run of the same sources, table and model
    shard: tuple[int, int] | None = None
    """Which of how many commands this is, from 0; ``Checkpoint.publish`` joins what they read."""


def read_in_bulk(
    paths: Sequence[Path],
    out: str | Path,
    *,
    model_path: Path | None = None,
    risk: float | None = None,
    hints: ReadOptions | None = None,
    regions: Mapping[str, Sequence[Box]] | None = None,
    work: Work = Work(),
    progress: Callable[[Run], None] = lambda _: None,
) -> Run:
    """Read all pictures of some sources into a table.

    The paths are those of ``open_sources``, ``out`` is that of ``Checkpoint``, ``model_path`` and
    ``risk`` are those of ``inkdigits.load``. ``hints`` are for numbers; without any, each picture
    is one digit. ``regions`` are where the numbers are, by the picture's name as the table has it,
    "" for all others. ``progress`` is called after every shard with the run so far. An
    InkdigitsError says why the run cannot start or continue.

    >>> read_in_bulk([Path("digits.npy")], "readings.txt")
    Traceback (most recent call last):
    inkdigits.errors.BatchError: the name of readings.txt must end in .csv, .jsonl, .parquet, or \
in / for a folder of Parquet files
    """
    Hints.of(hints or {})
    with told_as_batch_errors():
        checkpoint = Checkpoint(out, resume=None if work.shard else work.resume)
        sources = open_sources(paths)
        is_ray, number = work.engine == "ray", work.workers or available_cores()
        with closing(RayEngine(work.address) if is_ray else LocalEngine(number)) as engine:
            workers = Workers(engine, Job(checkpoint.folder, model_path, risk, hints))
            run = Run(workers.job.model_version, sources, regions, work.shard or (0, 1))
            identity = {
                "version": [_PARTS_VERSION, SHARD_PICTURES, SHARD_BYTES],
                "model": run.model_version,
                "risk": risk,
                "hints": hints,
                "regions": regions and hashlib.sha256(json.dumps(regions).encode()).hexdigest(),
                "sources": [source.identity for source in sources],
            }
            checkpoint.begin(identity)
            for rows, failed in workers.read(run.tasks(checkpoint)):
                run.pictures += rows
                run.failed += failed
                progress(run)
        run.totals = checkpoint.finish(work.shard)
    return run


@dataclass(slots=True)
class Run:
    """How far a run is, and in the end its result."""

    model_version: str
    sources: Sequence[Source]
    regions: Mapping[str, Sequence[Box]] | None = None
    shard: tuple[int, int] = (0, 1)
    pictures: int = 0  # rows so far, one per picture or per region of one
    failed: int = 0  # how many of them cannot be read, without an earlier run's
    totals: Totals = field(default_factory=Totals)  # of the table, at the end
    unmatched: set[str] = field(default_factory=set)  # pictures of ``regions`` not found yet
    _resumed: int = 0
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.unmatched = set(self.regions or ()) - {""}

    def tasks(self, checkpoint: Checkpoint) -> Iterator[tuple[str, Shard]]:
        """Yield the shards that are missing and their parts' names; count what is there."""
        mine, of = self.shard
        shards = (shard for source in self.sources for shard in source.shards())
        for number, shard in enumerate(map(self._with_boxes, shards)):
            rows = shard.rows()[0]
            name, is_there = checkpoint.listed(rows)
            if number % of == mine and is_there:
                self.pictures += len(rows)
                self._resumed += len(rows)
            elif number % of == mine:
                yield name, shard

    def _with_boxes(self, shard: Shard) -> Shard:
        regions = self.regions
        if regions is None:
            return shard
        self.unmatched.difference_update(shard.names)
        boxes = [regions.get(name, regions.get("", ())) for name in shard.names]
        return replace(shard, boxes=boxes)

    @property
    def expected(self) -> int | None:
        """All pictures, as far as is known by now."""
        known = [one.expected for one in self.sources if one.expected is not None]
        return max(sum(known), self.pictures) if len(known) == len(self.sources) else None

    @property
    def seconds(self) -> float:
        """Since the workers are ready, without an earlier run that was resumed."""
        return time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Rows per second, without those of an earlier run."""
        return (self.pictures - self._resumed) / self.seconds
