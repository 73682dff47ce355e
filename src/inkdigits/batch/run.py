"""A batch run: very many pictures into one table, on all cores or machines, in constant memory.

Sources are cut into shards, and the workers of an engine read them into parts, in a folder beside
the table: ``results.csv.parts``. A part's name has the shard's place in the run, and the digest of
the run and of the rows' sources, so a part that is there is the right one. In the end the parts are
put together in the order of the sources.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from inkdigits.batch.engines import Job, LocalEngine, RayEngine, read_parts
from inkdigits.batch.shards import NUMBER_SCHEMA, SCHEMA, Shard
from inkdigits.batch.sources import SHARD_BYTES, SHARD_PICTURES, Source, open_sources
from inkdigits.batch.storage import as_path, contents, filesystem, open_new, told_as_batch_errors
from inkdigits.decision.hints import Hints, ReadOptions
from inkdigits.decision.prediction import Box
from inkdigits.errors import BatchError
from inkdigits.log.tables import Columns, TableFormat, check_available, write_table
from inkdigits.model.artifact import read_artifact, read_metadata
from inkdigits.settings import available_cores
from inkdigits.types import Json

# How many pictures that cannot be read are named at the end.
FAILURES_NAMED: Final = 10

# Changes whenever the parts of an earlier release cannot be used to resume.
_PARTS_VERSION: Final = 7
_FORMATS: Final[dict[str, TableFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
# Parts that are read at once: an object store answers one request in some 20 ms.
_READ_AT_ONCE: Final = 16
# Parts per file of a folder of Parquet files: about a million rows.
_PARTS_PER_FILE: Final = 2048


@dataclass(frozen=True, slots=True)
class Work:
    """Where a run is read, and which part of it."""

    engine: Literal["local", "ray"] | None = None  # None is local
    address: str | None = None  # of the Ray cluster; None starts Ray on this machine
    workers: int | None = None  # processes of this machine; None is one per core
    resume: bool = False  # continue an unfinished run of the same sources, table and model
    overwrite: bool = False  # replace a table that exists
    shard: tuple[int, int] | None = None
    """Which of how many commands this is, from 0; ``Checkpoint.publish`` joins what they read."""


@told_as_batch_errors()
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
    resume = None if work.shard else work.resume
    checkpoint = Checkpoint(out, resume=resume, overwrite=work.overwrite)
    model_version = read_metadata(read_artifact(model_path)).model_version
    run = Run(model_version, open_sources(paths), regions, work.shard or (0, 1))
    identity = {
        "version": [_PARTS_VERSION, SHARD_PICTURES, SHARD_BYTES],
        "model": model_version,
        "risk": risk,
        "hints": hints,
        "regions": regions and hashlib.sha256(json.dumps(regions).encode()).hexdigest(),
        "sources": [source.identity for source in run.sources],
    }
    is_ray, workers = work.engine == "ray", work.workers or available_cores()
    job = Job(checkpoint.folder, model_version, model_path, risk, hints)
    with closing(RayEngine(work.address) if is_ray else LocalEngine(workers)) as engine:
        parts = read_parts(engine, job, run.tasks(checkpoint))
        checkpoint.begin(identity)
        for rows, failed in parts:
            run.pictures += rows
            run.failed += failed
            progress(run)
    run.totals = checkpoint.finish(work.shard)
    return run


@dataclass(slots=True)
class Totals:
    """What is in a table."""

    pictures: int = 0  # rows, one per picture or per region of one
    failed: int = 0  # how many of them cannot be read
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(source, error) of the first of those."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many of each decision, or reason of what was rejected."""

    def counted(self, parts: Iterable[Columns]) -> Iterator[Columns]:
        """Yield the parts of a table, and count their rows."""
        for part in parts:
            errors = part["error"]
            failures = [pair for pair in zip(part["source"], errors, strict=True) if pair[1]]
            decided = zip(part["reason"], part["decision"], errors, strict=True)
            self.pictures += len(errors)
            self.failed += len(failures)
            self.failures += failures[: FAILURES_NAMED - len(self.failures)]
            self.outcomes.update(str(why or what) for why, what, error in decided if not error)
            yield part


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

    def tasks(self, checkpoint: Checkpoint) -> Iterator[tuple[str, Shard]]:
        """Yield the shards that are missing and their parts' names; count what is there."""
        mine, of = self.shard
        regions = self.regions or {}
        self.unmatched = set(regions) - {""}
        shards = chain.from_iterable(source.shards() for source in self.sources)
        for number, found in enumerate(shards):
            shard = found
            if self.regions is not None:
                self.unmatched.difference_update(shard.names)
                boxes = [regions.get(name, regions.get("", ())) for name in shard.names]
                shard = replace(shard, boxes=boxes)
            rows = shard.rows()[0]
            name, is_there = checkpoint.listed(rows)
            if number % of == mine and is_there:
                self.pictures += len(rows)
                self._resumed += len(rows)
            elif number % of == mine:
                yield name, shard

    @property
    def expected(self) -> int | None:
        """All pictures, as far as is known by now."""
        known = [one.expected for one in self.sources if one.expected is not None]
        return max(sum(known), self.pictures) if len(known) == len(self.sources) else None

    @property
    def seconds(self) -> float:
        """Since the run began, without an earlier one that was resumed."""
        return time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Rows per second, without those of an earlier run."""
        return (self.pictures - self._resumed) / self.seconds


class Checkpoint:
    """The folder of a run's parts.

    ``out`` is the path or URL of the table; a name that ends in ``/`` is a folder of Parquet files.
    ``resume`` continues what is there; None continues what may be there. ``overwrite`` lets a run
    begin that replaces a table. An InkdigitsError says what is wrong with the name or the folder,
    or that pyarrow is not installed.
    """

    def __init__(self, out: str | Path, *, resume: bool | None, overwrite: bool = False) -> None:
        self.out = as_path(str(out))
        self._is_folder = str(out).endswith("/")
        form = "parquet" if self._is_folder else _FORMATS.get(self.out.suffix.lower())
        if form is None:
            raise BatchError(
                f"the name of {out} must end in {', '.join(_FORMATS)}, or in / for a folder of "
                "Parquet files"
            )
        check_available(form)
        self._form: TableFormat = form
        self.folder = self.out.with_name(f"{self.out.name}.parts")
        # What the parts depend on, and the names of all parts in their order.
        self._run_file, self._list_file = self.folder / "run.json", self.folder / "list.json"
        self._run: Json = {}
        self._names: list[str] = []
        begun = self._run_file.is_file()
        if resume and not begun:
            raise BatchError(
                f"there is nothing to resume or merge in {self.folder}; start without --resume, "
                "or read with --shard first"
            )
        if begun and resume is False:
            raise BatchError(
                f"{self.folder} holds an unfinished run; continue it with --resume, or delete it"
            )
        tables = self.out.glob("part-*.parquet") if self._is_folder else [self.out]
        if not begun and not overwrite and any(table.is_file() for table in tables):
            raise BatchError(f"{out} exists; add --overwrite to replace it, or name another table")

    def begin(self, run: Json) -> None:
        """Note what the parts depend on; a BatchError if they depend on something else."""
        self._run = json.loads(json.dumps(run))
        if not self._run_file.is_file():
            if not filesystem(self.folder):
                self.folder.mkdir(exist_ok=True)
            _write(self._run_file, run)
        known = _read(self._run_file)
        changed = [name for name, value in self._run.items() if known.get(name) != value]
        if changed:
            first = changed[0]
            raise BatchError(
                f"cannot resume: the {' and the '.join(changed)} changed since {self.folder} was "
                f"begun ({known.get(first)!r}, now {run[first]!r}); delete it to start again"
            )
        self._there = {part.name for part in self.folder.iterdir()}

    def listed(self, sources: Sequence[str]) -> tuple[str, bool]:
        """List a shard by its rows' sources; return its part's name, and whether that is there."""
        name = _name(len(self._names), self._run, sources)
        self._names.append(name)
        return name, name in self._there

    def finish(self, shard: tuple[int, int] | None = None) -> Totals:
        """Keep the list of all shards, and put the table together.

        One of several commands only counts its shards; ``publish`` is for when all have ended. A
        BatchError says that another command listed something else.
        """
        found = {"run": self._run, "parts": self._names}
        if shard and self._list_file.is_file() and _read(self._list_file) != found:
            raise BatchError(
                f"the commands that read into {self.folder} used different pictures, models or "
                "options; delete it, and start all commands with the same ones"
            )
        _write(self._list_file, found)
        if shard is None:
            return self.publish()
        totals = Totals()
        for _ in totals.counted(self._parts(self._run, self._names, *shard)):
            pass
        return totals

    def publish(self) -> Totals:
        """Put the parts together as the table, with a manifest beside it, and delete them.

        A BatchError says that not every listed picture was read exactly once.
        """
        if not self._list_file.is_file():
            raise BatchError(f"no command has finished reading into {self.folder} yet")
        run, names = _read(self._list_file).values()
        missing = sorted(set(names) - {part.name for part in self.folder.iterdir()})
        if missing:
            raise BatchError(
                f"{self.folder} lacks {len(missing)} of {len(names)} parts, such as {missing[0]}; "
                "repeat the commands that did not finish, with the same folder"
            )
        totals, files = Totals(), {self.out: len(names)}
        if self._is_folder:
            for old in self.out.glob("part-*.parquet"):
                old.unlink()
            numbers = range(-(-len(names) // _PARTS_PER_FILE))
            files = {self.out / f"part-{i:05}.parquet": _PARTS_PER_FILE for i in numbers}
        parts = totals.counted(self._parts(run, names))
        schema = SCHEMA if run["hints"] is None else NUMBER_SCHEMA
        for table, count in files.items():
            with open_new(table) as file:
                write_table(self._form, file, schema, islice(parts, count))
        counts = {"shards": len(names), "pictures": totals.pictures, "failed": totals.failed}
        manifest = {"inkdigits": version("inkdigits"), **run, **counts}
        _write(self.out.with_name(f"{self.out.name}.json"), manifest)
        store = filesystem(self.folder)
        remove = partial(store.rm, recursive=True) if store else shutil.rmtree
        remove(str(self.folder))
        return totals

    def _parts(
        self, run: Json, names: Sequence[str], first: int = 0, step: int = 1
    ) -> Iterator[Columns]:
        """Yield the rows of parts in their order, which must be those of what was listed."""
        chosen = range(first, len(names), step)
        for start in range(0, len(chosen), _READ_AT_ONCE):
            some = chosen[start : start + _READ_AT_ONCE]
            paths = [self.folder / names[number] for number in some]
            for number, path, content in zip(some, paths, contents(paths), strict=True):
                try:
                    part: Columns = msgspec.msgpack.decode(content)
                    is_right = _name(number, run, part["source"]) == path.name
                except (msgspec.DecodeError, TypeError, KeyError):
                    is_right = False
                if not is_right:
                    raise BatchError(
                        f"{path} is damaged or belongs to other pictures; delete it, and repeat "
                        "the command that wrote it"
                    )
                yield part


def _name(number: int, run: Json, sources: Sequence[str]) -> str:
    content = json.dumps([run, *sources]).encode()
    return f"{number:08}-{hashlib.blake2b(content, digest_size=16).hexdigest()}.part"


def _write(path: Path, content: Json) -> None:
    with open_new(path) as file:
        file.write(json.dumps(content).encode())


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise BatchError(f"{path} is damaged; delete {path.parent}") from error
