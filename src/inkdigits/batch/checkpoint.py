"""The checkpoint of a batch run: its work so far, in a folder beside the table that it will become.

``results.csv.parts`` holds a description of the run, and one part per shard that has been read: its
rows as MessagePack. A part's name has the place of the shard in the run, and the digest of the run
and of the rows' sources, so a part that is there is the right one. A list has the names of all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from inkdigits.batch.shards import NUMBER_SCHEMA, SCHEMA
from inkdigits.batch.storage import as_path, contents, filesystem, open_new
from inkdigits.errors import BatchError
from inkdigits.log.tables import Columns, TableFormat, check_available, write_table
from inkdigits.types import Json

# How many pictures that cannot be read are named at the end.
FAILURES_NAMED: Final = 10

_FORMATS: Final[dict[str, TableFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
# Parts that are read at once: an object store answers one request in some 20 ms.
_READ_AT_ONCE: Final = 16
# Parts per file of a folder of Parquet files: about a million rows.
_PARTS_PER_FILE: Final = 2048


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


class Checkpoint:
    """The folder of a run under way.

    ``out`` is the path or URL of the table; a name that ends in ``/`` is a folder of Parquet files.
    ``resume`` continues what is there; None continues what may be there. An InkdigitsError says
    what is wrong with the name or the folder, or that pyarrow is not installed.
    """

    def __init__(self, out: str | Path, *, resume: bool | None) -> None:
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
        self._run: Json = {}
        self._listed: list[str] = []
        self._there: set[str] = set()
        begun = (self.folder / "run.json").is_file()
        if resume and not begun:
            raise BatchError(
                f"nothing to resume or merge: there is no {self.folder}. "
                "Start without --resume, or read with --shard first"
            )
        if begun and resume is False:
            raise BatchError(
                f"{self.folder} holds an unfinished run; continue it with --resume, or delete it"
            )

    def begin(self, run: Json) -> None:
        """Note what the parts depend on; a BatchError if they depend on something else."""
        self._run = json.loads(json.dumps(run))
        path = self.folder / "run.json"
        if not path.is_file():
            if filesystem(self.folder) is None:
                self.folder.mkdir(exist_ok=True)
            _write(path, run)
        known = _read(path)
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
        name = _name(len(self._listed), self._run, sources)
        self._listed.append(name)
        return name, name in self._there

    def finish(self, shard: tuple[int, int] | None = None) -> Totals:
        """Keep the list of all shards, and put the table together.

        One of several commands only counts its shards; ``publish`` is for when all have ended. A
        BatchError says that another command listed something else.
        """
        path, found = self.folder / "list.json", {"run": self._run, "parts": self._listed}
        if shard and path.is_file() and _read(path) != found:
            raise BatchError(
                f"the commands that read into {self.folder} had other pictures, models or options; "
                "delete it, and start all with the same"
            )
        _write(path, found)
        if shard is None:
            return self.publish()
        totals = Totals()
        for _ in totals.counted(self._parts(self._run, self._listed, *shard)):
            pass
        return totals

    def publish(self) -> Totals:
        """Put the parts together as the table, with a manifest beside it, and delete them.

        A BatchError says that not every listed picture was read exactly once.
        """
        path = self.folder / "list.json"
        if not path.is_file():
            raise BatchError(f"no command has read all its pictures into {self.folder} yet")
        run, names = _read(path).values()
        missing = sorted(set(names) - {part.name for part in self.folder.iterdir()})
        if missing:
            raise BatchError(
                f"{self.folder} lacks {len(missing)} of {len(names)} parts, such as {missing[0]}; "
                "repeat the commands that did not end. All must write to the same folder"
            )
        totals, files = Totals(), {self.out: len(names)}
        if self._is_folder:
            for old in self.out.glob("part-*.parquet"):
                old.unlink()
            numbers = range(-(-len(names) // _PARTS_PER_FILE))
            files = {self.out / f"part-{i:05}.parquet": _PARTS_PER_FILE for i in numbers}
        parts = totals.counted(self._parts(run, names))
        for table, count in files.items():
            with open_new(table) as file:
                schema = SCHEMA if run["hints"] is None else NUMBER_SCHEMA
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
                        f"{path} is damaged, or not of the pictures that were listed; delete it, "
                        "and repeat the command that read it"
                    )
                yield part


def write_part(path: Path, columns: Columns) -> tuple[int, int]:
    """Write the rows of a shard; return how many there are, and how many cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_part(Path(folder) / "a.part", {"source": ["a.png"], "error": ["damaged"]})
    (1, 1)
    """
    with open_new(path) as file:
        file.write(msgspec.msgpack.encode(columns))
    errors = columns["error"]
    return len(errors), len(errors) - errors.count(None)


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
