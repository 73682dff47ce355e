"""The checkpoint of a batch run: its work so far, in a folder beside the table that it will become.

``results.csv.parts`` holds a description of the run and one part per shard that has been read: its
table in the format of the result, after a checksum and the shard's counts. A run that is divided
over several commands has a note of each, with what it listed and read.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import IO, Final

from inkdigits.batch.shards import NUMBER_SCHEMA, SCHEMA
from inkdigits.batch.storage import as_path, filesystem, open_new
from inkdigits.errors import BatchError
from inkdigits.log.tables import Columns, TableFormat, check_available, join_tables, write_table
from inkdigits.types import Json

# How many pictures that cannot be read are named at the end.
FAILURES_NAMED: Final = 10

_FORMATS: Final[dict[str, TableFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
# Parts that are read at once: an object store answers one request in some 20 ms.
_READ_AT_ONCE: Final = 16
# Parts per file of a folder of Parquet files: about a million rows.
_PARTS_PER_FILE: Final = 2048


@dataclass(frozen=True, slots=True)
class ShardDone:
    """The counts of a shard that has been read."""

    number: int  # the shard's place in the run, from 0
    names: str  # the digest of its rows' sources
    pictures: int  # its rows
    failed: int  # how many of them cannot be read
    failures: Sequence[tuple[str, str]]  # (source, error) of the first of those
    outcomes: Mapping[str, int]  # how many of each decision, or reason of what was rejected


class Checkpoint:
    """The folder of a run under way; one process of this machine at a time has it.

    ``out`` is the path or URL of the table; a name that ends in ``/`` is a folder of Parquet files.
    ``resume`` continues what is there; None continues what may be there. ``shard`` says which of
    how many commands this is, from 0; None is the only one. An InkdigitsError says what is wrong
    with the name or the folder, or that pyarrow is not installed.
    """

    def __init__(
        self, out: str | Path, *, resume: bool | None, shard: tuple[int, int] | None = None
    ) -> None:
        self.out = as_path(str(out))
        self._is_folder = str(out).endswith("/")
        form = "parquet" if self._is_folder else _FORMATS.get(self.out.suffix.lower())
        if form is None:
            raise BatchError(
                f"the name of {out} must end in {', '.join(_FORMATS)}, or in / for a folder of "
                "Parquet files"
            )
        check_available(form)
        self.form: TableFormat = form
        self.folder = self.out.with_name(f"{self.out.name}.parts")
        self._run = self.folder / "run.json"
        self._shard = shard
        self._name = f"shard-{shard[0]}-of-{shard[1]}" if shard else "run"
        self._names = hashlib.sha256()
        self._description: Json = {}
        known = self._run.is_file()
        if resume and not known:
            raise BatchError(f"nothing to resume or merge: there is no {self.folder}")
        if known and resume is False:
            raise BatchError(
                f"{self.folder} holds an unfinished run; continue it with --resume, or delete it"
            )
        # Two runs into an object store write the same parts.
        self._lock = None if filesystem(self.folder) else self._locked()

    def _locked(self) -> IO[bytes]:
        try:
            self.folder.mkdir(exist_ok=True)
            lock = (self.folder / f"{self._name}.lock").open("wb")
        except OSError as error:
            raise BatchError(f"{self.folder} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise BatchError(f"another process is writing {self.out}; wait for its end") from error
        return lock

    def close(self) -> None:
        """Let another process have the folder, and delete it if no run was begun."""
        if self._lock is None:
            return
        if not self._run.is_file():
            Path(self._lock.name).unlink(missing_ok=True)
            with suppress(OSError):  # It is gone, or another command has it.
                self.folder.rmdir()
        self._lock.close()

    def begin(self, run: Json) -> None:
        """Note what the parts depend on; a BatchError if they depend on something else."""
        self._description = json.loads(json.dumps(run))
        if not self._run.is_file():
            _write(self._run, run)
        try:
            # It may be that of another command, which began at the same time.
            known = dict(json.loads(self._run.read_bytes()))
        except ValueError as error:
            raise BatchError(f"{self._run} is damaged; delete {self.folder}") from error
        changed = [name for name, value in self._description.items() if known.get(name) != value]
        if changed:
            first = changed[0]
            raise BatchError(
                f"cannot resume: the {' and the '.join(changed)} changed since {self.folder} was "
                f"begun ({known.get(first)!r}, now {run[first]!r}); delete it to start again"
            )

    def listed(self, number: int, names: Sequence[str], *, mine: bool) -> ShardDone | None:
        """Count a shard of the run; return its counts, or None if it is still to be read."""
        listed = _digest(names)
        self._names.update(listed.encode())
        done = _read_part(self.folder, number)[0] if mine else None
        if done is not None and done.names != listed:
            raise BatchError(
                f"cannot resume: the pictures around {names[0]} changed since {self.folder} was "
                "begun; delete it to start again"
            )
        return done

    def finish(self, counts: Json) -> None:
        """Put the parts together as the table, with a manifest beside it, and delete them.

        One of several commands leaves the manifest for ``merge``. A BatchError says that the parts
        are not of what was listed, each once.
        """
        manifest = {**self._description, "names": self._names.hexdigest(), **counts}
        if self._shard:
            _write(self.folder / f"{self._name}.json", {**manifest, "shard": self._shard})
        else:
            self._publish(manifest)

    def merge(self) -> Json:
        """Put together what several commands have read, and return the manifest.

        A BatchError says that not every picture was read exactly once.
        """
        divisions: dict[int, dict[int, Json]] = {}
        for path in self.folder.glob("shard-*.json"):
            note = json.loads(path.read_bytes())
            shard, of = note.pop("shard")
            divisions.setdefault(of, {})[shard] = note
        # Of commands that were started again with another number, the most complete ones count.
        of = max(divisions, key=lambda n: len(divisions[n]) / n, default=0)
        lacks = ", ".join(f"{i}/{of}" for i in range(of) if i not in divisions[of])
        if lacks or not of:
            raise BatchError(f"{self.folder} lacks {lacks or 'all shards'}; read them with --shard")
        notes = list(divisions[of].values())
        totals = {name: sum(note[name] for note in notes) for name in ("pictures", "failed")}
        manifest = {**notes[0], **totals}
        if any({**note, **totals} != manifest for note in notes):
            raise BatchError(
                f"the commands that read into {self.folder} had other pictures, models or options; "
                "delete it, and start all with the same"
            )
        self._publish(manifest)
        return manifest

    def _publish(self, manifest: Json) -> None:
        store = filesystem(self.folder)
        remove = shutil.rmtree if store is None else partial(store.rm, recursive=True)
        try:
            self._join(manifest)
            manifest = {"inkdigits": version("inkdigits"), **manifest}
            _write(self.out.with_name(f"{self.out.name}.json"), manifest)
            remove(str(self.folder))
        except OSError as error:
            reason = error.strerror or error
            raise BatchError(f"{self.out} cannot be written: {reason}") from error

    def _join(self, manifest: Json) -> None:
        schema = SCHEMA if manifest["hints"] is None else NUMBER_SCHEMA
        tables, files = self._tables(manifest), {self.out: manifest["shards"]}
        if self._is_folder:
            for old in self.out.glob("part-*.parquet"):
                old.unlink()
            count = -(-manifest["shards"] // _PARTS_PER_FILE)
            names = (f"part-{number:05}.parquet" for number in range(count))
            files = {self.out / name: _PARTS_PER_FILE for name in names}
        for path, parts in files.items():
            with open_new(path) as file:
                join_tables(self.form, file, schema, islice(tables, parts))

    def _tables(self, manifest: Json) -> Iterator[bytes]:
        """Yield the tables of all parts; they must be those of what was listed."""
        names, shards = hashlib.sha256(), manifest["shards"]
        read = partial(_read_part, self.folder)
        groups = (range(shards)[i : i + _READ_AT_ONCE] for i in range(0, shards, _READ_AT_ONCE))
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            parts = chain.from_iterable(pool.map(read, group) for group in groups)
            for number, (done, table) in enumerate(parts, 1):
                names.update(done.names.encode() if done else b"")
                if done is None or (number == shards and names.hexdigest() != manifest["names"]):
                    raise BatchError(
                        f"part {number - 1:08} in {self.folder} is missing, damaged, or not of the "
                        "pictures that were listed; run again with --resume. All workers must "
                        "write to the same folder"
                    )
                yield table


def write_part(folder: Path, form: TableFormat, number: int, columns: Columns) -> ShardDone:
    """Write what was read of a shard, and return its counts; a BatchError if that fails.

    >>> import tempfile
    >>> columns = {name: [None] for name in SCHEMA} | {"source": ["a.png"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_part(Path(folder), "csv", 3, columns).pictures
    1
    """
    sources, errors = columns["source"], columns["error"]
    failures = [pair for pair in zip(sources, errors, strict=True) if pair[1] is not None]
    decided = zip(columns["reason"], columns["decision"], errors, strict=True)
    outcomes = Counter(str(why or what) for why, what, error in decided if error is None)
    named = failures[:FAILURES_NAMED]
    done = ShardDone(number, _digest(sources), len(sources), len(failures), named, dict(outcomes))
    schema = SCHEMA if "digit" in columns else NUMBER_SCHEMA
    table = io.BytesIO()
    write_table(form, table, schema, [columns])
    content = json.dumps(asdict(done)).encode() + b"\n" + table.getvalue()
    try:
        _write(_path(folder, number), b"%08x\n" % zlib.crc32(content) + content)
    except OSError as error:
        raise BatchError(f"{folder} cannot be written: {error.strerror or error}") from error
    return done


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.part"


def _read_part(folder: Path, number: int) -> tuple[ShardDone | None, bytes]:
    """Return a part's counts and table; the counts are None where it is missing or cut off."""
    try:
        checksum, _, content = _path(folder, number).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None, b""
    counts, _, table = content.partition(b"\n")
    whole = checksum == b"%08x" % zlib.crc32(content)
    return (ShardDone(**json.loads(counts)) if whole else None), table


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def _write(path: Path, content: Json | bytes) -> None:
    with open_new(path) as file:
        file.write(content if isinstance(content, bytes) else json.dumps(content).encode())
