"""The checkpoint of a batch run: its work so far, in a folder beside the file that it will become.

``results.csv.parts`` holds one file per shard that has been read, and a description of the run.
Each part is written under another name, renamed, and carries a checksum, so a part that a crash or
a power failure cut off is read again. The result is put together when all parts are there, under
another name, and renamed; so it is whole or not there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from inkdigits.batch.writers import SCHEMA
from inkdigits.errors import BatchError
from inkdigits.log.tables import Columns, TableFormat, write_table
from inkdigits.model.artifact import write_atomically

FAILURES_NAMED: Final = 10
"""How many pictures that cannot be read are named at the end."""

_RUN: Final = "run.json"


@dataclass(frozen=True, slots=True)
class ShardDone:
    """The counts of a shard that has been read.

    Attributes:
        number: the shard's place in the run, from 0.
        pictures: how many it has.
        failed: how many of them cannot be read.
        failures: (source, error) of the first of those.
    """

    number: int
    pictures: int
    failed: int
    failures: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, number: int, columns: Columns) -> ShardDone:
        """Count a shard's columns."""
        failures = [
            (source, error)
            for source, error in zip(columns["source"], columns["error"], strict=True)
            if error is not None
        ]
        return cls(number, len(columns["source"]), len(failures), tuple(failures[:FAILURES_NAMED]))


class Checkpoint:
    """The folder of a run under way; one process at a time has it.

    Args:
        out: the file that the run will become.
        resume: continue what is there; otherwise nothing may be there.

    Raises:
        BatchError: there is an unfinished run and ``resume`` is not asked for, or the reverse; or
            another process has the folder; or it cannot be written.
    """

    def __init__(self, out: Path, *, resume: bool) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        known = (self.folder / _RUN).is_file()
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

    def begin(self, run: dict[str, Any]) -> None:
        """Note what the run is of, or compare it with what was noted.

        Args:
            run: everything that the parts depend on, as JSON.

        Raises:
            BatchError: the unfinished run is of something else; the message names what.
        """
        path = self.folder / _RUN
        if not path.is_file():
            write_atomically(path, json.dumps(run).encode())
            return
        try:
            known = json.loads(path.read_bytes())
        except ValueError as error:
            raise BatchError(f"cannot resume: {path} is damaged; delete {self.folder}") from error
        changed = [name for name in run if known.get(name) != run[name]]
        if changed:
            first = changed[0]
            raise BatchError(
                f"cannot resume: the {' and the '.join(changed)} changed since {self.folder} was "
                f"begun ({known.get(first)!r}, now {run[first]!r}); delete it to start again"
            )

    def done(self, number: int, key: str) -> ShardDone | None:
        """Return the counts of a shard, or None if it is still to be read.

        Raises:
            BatchError: another shard was read under that number, so the source has changed.
        """
        content = _checked(_part(self.folder, number))
        if content is None:
            return None
        part = json.loads(content)
        if part["key"] != key:
            raise BatchError(
                f"cannot resume: the pictures around {part['columns']['source'][0]} changed since "
                f"{self.folder} was begun; delete it to start again"
            )
        return ShardDone.of(number, part["columns"])

    def finish(self, form: TableFormat, parts: int) -> None:
        """Put the parts together as the result, and delete them.

        Raises:
            BatchError: a part is missing or damaged, or the result cannot be written.
        """
        whole = self.folder / "whole"
        try:
            with whole.open("wb") as file:
                write_table(form, file, SCHEMA, self._columns(parts))
                file.flush()
                os.fsync(file.fileno())
            whole.replace(self.out)
            shutil.rmtree(self.folder)
        except OSError as error:
            raise BatchError(f"{self.out} cannot be written: {error.strerror}") from error

    def _columns(self, parts: int) -> Iterator[Columns]:
        for number in range(parts):
            path = _part(self.folder, number)
            content = _checked(path)
            if content is None:
                raise BatchError(f"another program changed {path}; run again with --resume")
            columns: Columns = json.loads(content)["columns"]
            yield columns


def write_part(folder: Path, number: int, key: str, columns: Columns) -> None:
    """Write what was read of a shard.

    Raises:
        BatchError: it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_part(Path(folder), 3, "key", {"source": ["a.png"]})
    ...     print(*os.listdir(folder))
    00000003.json
    """
    content = json.dumps({"key": key, "columns": columns}).encode()
    try:
        write_atomically(_part(folder, number), b"%08x\n" % zlib.crc32(content) + content)
    except OSError as error:
        raise BatchError(f"{folder} cannot be written: {error.strerror}") from error


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.json"


def _checked(path: Path) -> bytes | None:
    """Return a part's content, or None where it is missing or its checksum does not fit."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return content if checksum == b"%08x" % zlib.crc32(content) else None
