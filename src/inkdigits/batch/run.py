"""A batch run: very many pictures into one table, on all cores or machines, in constant memory.

An engine reads each shard of the sources into a part, in a folder beside the table:
``results.csv.parts``. A part's name has the shard's place in the run, and the digest of the run and
of the rows' sources, so a part that is there is the right one. In the end the parts are put
together in the order of the sources.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from operator import methodcaller
from pathlib import Path
from typing import Final

import msgspec

from inkdigits.batch.engines import Engine, Job, LocalEngine
from inkdigits.batch.shards import NUMBER_SCHEMA, SCHEMA, Shard
from inkdigits.batch.sources import Source, shards_of
from inkdigits.batch.storage import AT_ONCE, as_path, open_new, told_as_batch_errors
from inkdigits.decision.hints import Hints, ReadOptions
from inkdigits.decision.prediction import Box
from inkdigits.errors import BatchError
from inkdigits.log.tables import Columns, format_of, write_table
from inkdigits.model.artifact import read_artifact, read_metadata
from inkdigits.types import Json

_PARTS_VERSION: Final = 8  # changes whenever a release cannot use the parts of an earlier one
_PARTS_PER_FILE: Final = 2048  # of a folder of Parquet files: about a million rows
_FAILURES_NAMED: Final = 10  # pictures that cannot be read, at the end


@told_as_batch_errors()
def read_in_bulk(
    sources: Sequence[Source],
    out: str | Path,
    *,
    model_path: Path | None = None,
    risk: float | None = None,
    hints: ReadOptions | None = None,
    regions: Mapping[str, Sequence[Box]] | None = None,
    engine: Callable[[], Engine] = LocalEngine,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: Callable[[Run], None] = lambda _: None,
) -> Run:
    """Read all pictures of some sources into a table, but what an earlier run has read.

    ``out`` and ``overwrite`` are those of ``Run``, ``model_path`` and ``risk`` those of
    ``inkdigits.load``. ``hints`` are for numbers; without any, each picture is one digit.
    ``regions`` are where the numbers are, by the picture's name in the table, "" for all others.
    ``shard`` is which of how many commands this is, from 0; ``Run.publish`` joins what they read.
    ``progress`` is called after every shard. An InkdigitsError says why the run cannot continue.

    >>> read_in_bulk([Source(Path("digits.npy"))], "readings.txt")
    Traceback (most recent call last):
    inkdigits.errors.DataError: the name of readings.txt must end in .csv, .jsonl, .parquet, or \
in / for a folder of Parquet files
    """
    Hints.of(hints or {})
    run = Run(out, overwrite=overwrite)
    run.model_version = read_metadata(read_artifact(model_path)).model_version
    counts = [source.expected or 0 for source in sources]
    run.expected = sum(counts) if all(counts) and not regions else None
    run.unmatched = set(regions or ()) - {""}
    identity = {
        "version": _PARTS_VERSION,
        "model": run.model_version,
        "risk": risk,
        "hints": hints,
        "regions": regions and hashlib.sha256(json.dumps(regions).encode()).hexdigest(),
        "sources": [source.identity for source in sources],
    }
    job = Job(run.folder, run.model_version, model_path, risk, hints)
    with closing(engine()) as workers:
        tasks = run.tasks(identity, shards_of(sources, regions), *shard or (0, 1))
        for rows, failed in workers.read_parts(job, tasks):
            run.rows += rows
            run.read += rows
            run.failed += failed
            progress(run)
    if shard is None:
        run.publish()
    return run


class Run:
    """A run: the folder of its parts, and how far it is.

    ``out`` is the path or URL of the table; a name that ends in ``/`` is a folder of Parquet files.
    Without ``overwrite`` no run begins where there is a table. An InkdigitsError says that, what is
    wrong with the name, or that pyarrow is not installed.
    """

    model_version = ""
    expected: int | None = None  # all pictures, where that is known
    read = 0  # rows, without those of an earlier run
    # Of the table, so far and in the end: one row per picture or per region of one.
    rows = 0
    failed = 0

    def __init__(self, out: str | Path, *, overwrite: bool = True) -> None:
        self.out = as_path(str(out))
        self._form, self._is_folder = format_of(str(out)), str(out).endswith("/")
        self.folder = self.out.with_name(f"{self.out.name}.parts")
        tables = self.out.glob("part-*.parquet") if self._is_folder else [self.out]
        if not overwrite and not self.folder.is_dir() and any(one.is_file() for one in tables):
            raise BatchError(f"{out} exists; add --overwrite to replace it, or name another table")
        # What the parts depend on, and the names of all in their order.
        self._list = self.folder / "list.json"
        self.unmatched: set[str] = set()  # pictures with regions that no source has
        self.failures: list[tuple[str, str]] = []  # (source, error) of the first in the end
        self.outcomes: Counter[str] = Counter()  # decisions, or reasons of what was rejected

    def tasks(
        self, run: Json, shards: Iterator[Shard], mine: int, of: int
    ) -> Iterator[tuple[Shard, str]]:
        """Yield the shards that are missing with their parts' names, and list all shards.

        Parts that depend on something else than ``run`` are not used.
        """
        names: list[str] = []
        there = {part.name for part in self.folder.iterdir()} if self.folder.is_dir() else set()
        for number, shard in enumerate(shards):
            self.unmatched.difference_update(shard.names)
            sources = shard.rows()[0]
            names.append(f"{number:08}-{_digest(run, sources)}.part")
            if number % of == mine and names[-1] in there:
                self.rows += len(sources)
            elif number % of == mine:
                yield shard, names[-1]
        _write(self._list, [run, names])

    def publish(self) -> None:
        """Put the parts together as the table; a BatchError if a picture was not read just once."""
        if not self._list.is_file():
            raise BatchError(f"there is nothing to merge in {self.folder}; read with --shard first")
        run, names = json.loads(self._list.read_bytes())
        missing = sorted(set(names) - {part.name for part in self.folder.iterdir()})
        if missing:
            raise BatchError(
                f"{self.folder} lacks {len(missing)} of {len(names)} parts, such as {missing[0]}; "
                "repeat the commands that did not finish, with the same sources, model and options"
            )
        for old in self.out.glob("part-*.parquet") if self._is_folder else ():
            old.unlink()
        self.rows = self.failed = 0
        schema = SCHEMA if run["hints"] is None else NUMBER_SCHEMA
        each = _PARTS_PER_FILE if self._is_folder else len(names)
        for number, start in enumerate(range(0, len(names), each)):
            table = self.out / f"part-{number:05}.parquet" if self._is_folder else self.out
            with open_new(table) as file:
                write_table(self._form, file, schema, self._parts(run, names[start : start + each]))
        counts = {"shards": len(names), "pictures": self.rows, "failed": self.failed}
        manifest = {"inkdigits": version("inkdigits"), **run, **counts}
        _write(self.out.with_name(f"{self.out.name}.json"), manifest)
        remove = shutil.rmtree if isinstance(self.folder, Path) else methodcaller("rmdir")
        remove(self.folder)

    def _parts(self, run: Json, names: Sequence[str]) -> Iterator[Columns]:
        """Yield and count the rows of parts, which must be those of what was listed."""
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                contents = pool.map(lambda name: (self.folder / name).read_bytes(), some)
            for name, content in zip(some, contents, strict=True):
                yield self._part(run, name, content)

    def _part(self, run: Json, name: str, content: bytes) -> Columns:
        try:
            part = msgspec.msgpack.decode(content, type=Columns)
        except msgspec.DecodeError:
            part = {"source": []}
        if _digest(run, part["source"]) not in name:
            raise BatchError(
                f"{self.folder / name} is damaged or belongs to other pictures; delete it, and "
                "repeat the command that wrote it"
            )
        errors = part["error"]
        failures = [pair for pair in zip(part["source"], errors, strict=True) if pair[1]]
        self.rows += len(errors)
        self.failed += len(failures)
        self.failures += failures[: _FAILURES_NAMED - len(self.failures)]
        decided = zip(part["reason"], part["decision"], errors, strict=True)
        self.outcomes.update(str(why or what) for why, what, error in decided if not error)
        return part


def _digest(run: Json, sources: Sequence[str]) -> str:
    content = json.dumps([run, *sources]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _write(path: Path, content: object) -> None:
    with open_new(path) as file:
        file.write(json.dumps(content).encode())
