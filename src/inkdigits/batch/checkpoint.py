"""The checkpoint of a batch run: its work so far, in a folder beside the file that it will become.

``results.csv.parts`` holds one part per shard that has been read, and a description of the run.
A part is the shard's table in the format of the result, after a checksum and the shard's counts.
Parts and the result are written under another name and renamed, so each is whole or not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from inkdigits.batch.shards import SCHEMA
from inkdigits.errors import BatchError
from inkdigits.log.tables import Columns, TableFormat, join_tables, write_table
from inkdigits.model.artifact import write_atomically
from inkdigits.types import Json

# How many pictures that cannot be read are named at the end.
FAILURES_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class ShardDone:
    """The counts of a shard that has been read."""

    number: int  # the shard's place in the run, from 0
    names: str  # the digest of its pictures' names
    pictures: int
    failed: int  # how many of them cannot be read
    failures: Sequence[tuple[str, str]]  # (source, error) of the first of those
    outcomes: Mapping[str, int]  # how many of each decision, or reason of what was rejected


class Checkpoint:
    """The folder of a run under way; one process at a time has it.

    ``out`` is the file that the run will become, in the format ``form``. ``resume`` continues what
    is there; otherwise nothing may be there.

    Raises:
        BatchError: there is an unfinished run and ``resume`` is not asked for, or the reverse; or
            another process has the folder; or it cannot be written.
    """

    def __init__(self, out: Path, form: TableFormat, *, resume: bool) -> None:
        self.out = out
        self.form = form
        self.folder = out.with_name(f"{out.name}.parts")
        self._run = self.folder / "run.json"
        known = self._run.is_file()
        if resume and not known:
            raise BatchError(f"nothing to resume: there is no {self.folder}; leave out --resume")
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock: IO[bytes] = (self.folder / "lock").open("wb")
        except OSError as error:
            raise BatchError(f"{self.folder} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise BatchError(f"another process is writing {out}; wait for its end") from error
        if known and not resume:
            self._lock.close()
            raise BatchError(
                f"{self.folder} holds an unfinished run; continue it with --resume, or delete it"
            )

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def begin(self, run: Json) -> None:
        """Note what the parts depend on, or compare it with what was noted.

        Raises:
            BatchError: the unfinished run is of something else, which the message names; or its
                description is damaged.
        """
        if not self._run.is_file():
            write_atomically(self._run, json.dumps(run).encode())
            return
        try:
            known = dict(json.loads(self._run.read_bytes()))
        except ValueError as error:
            raise BatchError(f"{self._run} is damaged; delete {self.folder}") from error
        changed = [name for name in run if known.get(name) != run[name]]
        if changed:
            first = changed[0]
            raise BatchError(
                f"cannot resume: the {' and the '.join(changed)} changed since {self.folder} was "
                f"begun ({known.get(first)!r}, now {run[first]!r}); delete it to start again"
            )

    def done(self, number: int, names: Sequence[str]) -> ShardDone | None:
        """Return the counts of a shard, or None if it is still to be read.

        Raises:
            BatchError: other pictures were read under that number, so the source has changed.
        """
        done, _ = _read_part(self.folder, number)
        if done is not None and done.names != _digest(names):
            raise BatchError(
                f"cannot resume: the pictures around {names[0]} changed since {self.folder} was "
                "begun; delete it to start again"
            )
        return done

    def finish(self, parts: int) -> None:
        """Put the parts together as the result, and delete them.

        Raises:
            BatchError: a part is missing or damaged, or the result cannot be written.
        """
        whole = self.folder / "whole"
        try:
            with whole.open("wb") as file:
                join_tables(self.form, file, SCHEMA, self._tables(parts))
                file.flush()
                os.fsync(file.fileno())
            whole.replace(self.out)
            shutil.rmtree(self.folder)
        except OSError as error:
            raise BatchError(f"{self.out} cannot be written: {error.strerror}") from error

    def _tables(self, parts: int) -> Iterator[bytes]:
        for number in range(parts):
            done, table = _read_part(self.folder, number)
            if done is None:
                path = _path(self.folder, number)
                raise BatchError(f"another program changed {path}; run again with --resume")
            yield table


def write_part(
    folder: Path, form: TableFormat, number: int, names: Sequence[str], columns: Columns
) -> ShardDone:
    """Write what was read of a shard, and return its counts.

    Raises:
        BatchError: it cannot be written.

    >>> import tempfile
    >>> columns = {name: [None] for name in SCHEMA} | {"source": ["a.png"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_part(Path(folder), "csv", 3, ["a.png"], columns).pictures
    1
    """
    sources, errors = columns["source"], columns["error"]
    failures = [pair for pair in zip(sources, errors, strict=True) if pair[1] is not None]
    named = failures[:FAILURES_NAMED]
    decided = zip(columns["reason"], columns["decision"], errors, strict=True)
    outcomes = Counter(str(why or what) for why, what, error in decided if error is None)
    done = ShardDone(number, _digest(names), len(sources), len(failures), named, dict(outcomes))
    table = io.BytesIO()
    write_table(form, table, SCHEMA, [columns])
    content = json.dumps(asdict(done)).encode() + b"\n" + table.getvalue()
    try:
        write_atomically(_path(folder, number), b"%08x\n" % zlib.crc32(content) + content)
    except OSError as error:
        raise BatchError(f"{folder} cannot be written: {error.strerror}") from error
    return done


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.part"


def _read_part(folder: Path, number: int) -> tuple[ShardDone | None, bytes]:
    """Return a part's counts and table; the counts are None where it is missing or cut off."""
    path = _path(folder, number)
    checksum, _, content = (path.read_bytes() if path.is_file() else b"").partition(b"\n")
    counts, _, table = content.partition(b"\n")
    whole = checksum == b"%08x" % zlib.crc32(content)
    return (ShardDone(**json.loads(counts)) if whole else None), table


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()
